/* libharvest: publishes the rows of a Postgres outbox table to Kafka, from inside your program.
 *
 * A harvest is one member of a leader group: it connects to the database and to Kafka with connections of its own, takes part in the
 * election of the group's leader, and while it leads it sends what is committed to the table and deletes what Kafka acknowledged. It is
 * exactly what the daemon harvestd runs; README.md tells what is guaranteed.
 *
 *     struct harvest_error err;
 *     struct harvest *h = harvest_new();
 *     if (h == NULL || harvest_set(h, "harvest", "data_source", "host=localhost dbname=shop", &err) != 0 ||
 *         harvest_run(h, &err) != 0) {
 *         ... err.text
 *     }
 *     harvest_free(h);
 *
 * Life:     harvest_new ─► CREATED ─ harvest_start or harvest_run ─► RUNNING ─ harvest_stop ─► STOPPING ─► STOPPED ─► harvest_free
 *
 * Driving it. One thread does all the work, the one that drives the harvest. There are three ways:
 *   1. harvest_run: blocks until the harvest has stopped.
 *   2. harvest_start with a libuv loop of yours, which you run.
 *   3. harvest_start without one, and from any other event loop: wait until harvest_fd is readable or harvest_timeout is over, then
 *      call harvest_process, which does not block.
 *
 * Threads. Every function belongs to the thread that drives the harvest, except those marked "any thread". Harvests are independent of
 * each other: a program may have several, on one thread or on several. librdkafka runs threads of its own for each harvest, with all
 * signals blocked; libuv's thread pool, which the program shares, looks up host names and lets go of Kafka clients.
 *
 * What it leaves alone: signal dispositions and masks (but see harvest_use_signal), standard input, output and error, the default loop of libuv, the locale, the
 * environment, exit(). A process that forks may not use a harvest in the child. When memory is exhausted, or an invariant on which order
 * depends is found broken, the process is aborted: neither can be gone on from without risking the order of records.
 *
 * Texts are UTF-8 and end in NUL. Functions copy the texts that they are given. Sizes are bytes. */
#ifndef HARVEST_H
#define HARVEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harvest_error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct harvest;
struct uv_loop_s; /* uv_loop_t */

/* ---- Making one -------------------------------------------------------------------------------------------------------------------- */

/* A harvest with the default settings. Returns NULL with errno when the system has no file descriptor left. The caller owns it and ends its
 * life with harvest_free. Any thread. */
HARVEST_API struct harvest *harvest_new(void);

/* Sets one setting. Only in state CREATED; a later value replaces an earlier one.
 *   section  "harvest", "limits", "log", "kafka", "kafka.producer" or "kafka.consumer"
 *   name     of a setting as in `harvestd --help-config`; in the kafka sections any property of librdkafka
 *   value    as in the INI file: durations such as "100ms", sizes such as "8MiB"
 * Returns 0, or -1 with err (unknown name, with the nearest known one; not of its form; out of range; the harvest was started): then
 * nothing was changed. */
HARVEST_API int harvest_set(struct harvest *h, const char *section, const char *name, const char *value,
                            struct harvest_error *err);

/* Takes over the settings of an INI file as harvestd reads them, over what was set before. Only in state CREATED. Reads the file at once,
 * which may block. Returns 0, or -1 with err, in which each trouble is a line `file:line: what`: then the harvest cannot be
 * started any more, only freed. */
HARVEST_API int harvest_load(struct harvest *h, const char *path, struct harvest_error *err);

/* ---- Being told -------------------------------------------------------------------------------------------------------------------- */

enum harvest_event_type {
    /* It leads from now on: leader_id. The application may start what only one process at a time should do. */
    HARVEST_ACQUIRED,
    /* It goes on leading under a new leader_id, since it has to mark rows anew (reason). For information. */
    HARVEST_REFRESHED,
    /* It leads no more, in order: all that was in flight is settled. The application winds up what it started; nobody else will
     * lead before it is done (see harvest_answer). */
    HARVEST_REVOKED,
    /* It leads no more, and another may lead already (reason): the application has to stop at once. Nobody waits for it. Comes after
     * HARVEST_REVOKED, too, when that was answered with HARVEST_LATER and the group did not wait. */
    HARVEST_FENCED,
    /* Throughput: meter. Comes after deliveries only, no more often than min_metrics_interval. */
    HARVEST_METER_READ,
};

/* Records acknowledged by Kafka. */
struct harvest_meter {
    const char *name;     /* of the harvest, as set */
    int64_t start;        /* when counting began: microseconds since the Unix epoch */
    uint64_t total_count; /* records since */
    double total_rate;    /* records a second since */
    uint64_t lap_count;   /* records since the reading before */
    double lap_rate;      /* records a second since the reading before */
};

/* Lent to the handler for the call, with all that it points to. Members that an event does not name are NULL. */
struct harvest_event {
    enum harvest_event_type type;
    const char *leader_id;             /* a UUID as 36 characters, as in the column leader_id */
    const char *reason;
    const struct harvest_meter *meter;
};

enum harvest_answer {
    HARVEST_DONE,  /* the usual answer */
    HARVEST_LATER, /* to HARVEST_REVOKED: the application will call harvest_done. Other events do not wait: taken as HARVEST_DONE */
};

/* Called from within harvest_run, harvest_process or the run of your loop. It must not block: nothing is sent, no heartbeat goes out
 * meanwhile. It may call every function of this header for `h` but harvest_run, harvest_await, harvest_process and harvest_free. */
typedef enum harvest_answer harvest_event_handler(void *user, struct harvest *h, const struct harvest_event *event);

/* Registers the handler; NULL: none. Only one; at best before the start, so that nothing is missed. `user` is passed on as it is. */
HARVEST_API void harvest_on_event(struct harvest *h, harvest_event_handler *handler, void *user);

/* Ends the waiting after HARVEST_LATER; without effect when nothing waits. If it does not come, the hand-over goes on after 9/10 of the
 * time that the group can wait (its poll interval: three times heartbeat_timeout, at least 5 minutes), and after harvest_hurry at
 * once. Any thread, and signal handlers. */
HARVEST_API void harvest_done(struct harvest *h);

/* In the order of severity. */
enum harvest_log_level { HARVEST_LOG_ERROR, HARVEST_LOG_WARN, HARVEST_LOG_INFO, HARVEST_LOG_DEBUG };

/* Takes one log line, lent for the call: `component=... msg="..." ...` (or JSON, see [log] format), without time, level and line break,
 * which are the application's. Must not block; may call nothing of this header. Called where event handlers are. */
typedef void harvest_log_sink(void *user, enum harvest_log_level level, const char *text);

/* Registers where log lines go, those of [log] level and above; NULL (as at the beginning): nowhere. */
HARVEST_API void harvest_on_log(struct harvest *h, harvest_log_sink *sink, void *user);

/* Called once, when the harvest is STOPPED and lets go of its loop. `h` may be freed in it unless harvest_run, harvest_await or
 * harvest_process is what called it. */
typedef void harvest_stopped_handler(void *user, struct harvest *h);
HARVEST_API void harvest_on_stopped(struct harvest *h, harvest_stopped_handler *handler, void *user);

/* ---- Driving it -------------------------------------------------------------------------------------------------------------------- */

/* Starts, on `loop` (a uv_loop_t that the caller owns, runs, and keeps until the harvest is STOPPED) or, with NULL, on a loop of its
 * own, to be driven by harvest_await or harvest_process. Nothing blocks: servers are reached for later, and one that cannot be reached
 * is tried again for as long as the harvest runs. Returns 0, or -1 with err (settings that contradict each other, a property that
 * librdkafka refuses; it was started, or stopped, before): then its state is STOPPED, and on a loop of the caller's the handles that were
 * made already are closed by the loop's next iterations; it may be freed before that, too. The stopped handler is not called. */
HARVEST_API int harvest_start(struct harvest *h, struct uv_loop_s *loop, struct harvest_error *err);

/* With a loop of its own: works until the harvest is STOPPED, for `limit` milliseconds at most (-1: for ever). Blocks. Returns 0 when
 * it has stopped and all that was in flight is settled; 1 when time is up; -1 with err when it has stopped, but not all could be settled
 * (records may be sent again), or on a loop of the caller's.
 * Stopping is bounded by drain_timeout + 15 s as far as it depends on the harvest; a `limit` guards against libraries that do not come to
 * an end: leave such a harvest as it is and end the process. */
HARVEST_API int harvest_await(struct harvest *h, int limit, struct harvest_error *err);

/* harvest_start on a loop of its own and harvest_await without limit. Returns 0, or -1 with err as these do. */
HARVEST_API int harvest_run(struct harvest *h, struct harvest_error *err);

/* With a loop of its own, from harvest_start until harvest_free: a descriptor that is readable when there is something to do (an epoll
 * descriptor: watch it level-triggered, do nothing else with it). Otherwise -1. */
HARVEST_API int harvest_fd(const struct harvest *h);

/* How many milliseconds from now harvest_process is to be called at the latest, even if nothing happens: 0: at once, -1: not at all. It
 * changes with each call of harvest_process and of harvest_start. */
HARVEST_API int harvest_timeout(const struct harvest *h);

/* With a loop of its own: does what there is to do and returns, without waiting for anything. */
HARVEST_API void harvest_process(struct harvest *h);

/* Stops in order: takes no more rows, waits for what is in flight (drain_timeout), deletes what was acknowledged, tells HARVEST_REVOKED if it
 * led, leaves the group. Returns at once; the harvest is STOPPED later. Idempotent; before the start: it cannot be started any more.
 * Any thread, and signal handlers. */
HARVEST_API void harvest_stop(struct harvest *h);

/* As harvest_stop, without waiting for what is in flight: it may be sent again by another. Any thread, and signal handlers. */
HARVEST_API void harvest_hurry(struct harvest *h);

/* Frees it. Only in state CREATED or STOPPED, and with none of its functions running or about to run on another thread. NULL is fine. */
HARVEST_API void harvest_free(struct harvest *h);

/* Gives the library a signal that the program has no other use for, such as SIGRTMIN, for all harvests that are started from now on. A
 * process that was paused (SIGSTOP, a frozen container) may have lost its lease when it goes on; librdkafka's threads may then send what
 * they hold before the harvest can look. With a signal, a timer of the kernel's stops them first. Sets the signal's handler, and blocks it
 * in the calling thread: to be called once, before the program starts threads, which inherit that. */
HARVEST_API void harvest_use_signal(int number);

/* ---- Asking ------------------------------------------------------------------------------------------------------------------------ */

enum harvest_state { HARVEST_CREATED, HARVEST_RUNNING, HARVEST_STOPPING, HARVEST_STOPPED };

/* Any thread. */
HARVEST_API enum harvest_state harvest_state(const struct harvest *h);

/* Does it lead at this moment, by the clock: told HARVEST_ACQUIRED, and its lease not over? */
HARVEST_API bool harvest_is_leader(const struct harvest *h);

/* The leader id (a UUID as 36 characters) while it leads, otherwise NULL. Lent until the next event. */
HARVEST_API const char *harvest_leader_id(const struct harvest *h);

/* Records that were handed to Kafka and are not reported yet. */
HARVEST_API size_t harvest_in_flight(const struct harvest *h);

/* Calls visit once for each of them, in no particular order, with its id (of the table) and its key (bytes, not NUL-terminated, lent).
 * A key may come several times. The visitor calls nothing of this header. */
typedef void harvest_key_visitor(void *user, int64_t id, const char *key, size_t key_size);
HARVEST_API void harvest_in_flight_keys(const struct harvest *h, harvest_key_visitor *visit, void *user);

/* A key of which nothing is sent, since Kafka refuses a record of it; that record; and why. Lent for the call, with all that it points to; texts
 * are NULL when they are not known. */
struct harvest_blocked_key {
    const char *key; /* bytes, not NUL-terminated; NULL: not known, or this stands for several keys, since too many are in trouble */
    size_t key_size;
    int64_t id; /* of the record, in the table; later records of its key wait behind it */
    const char *topic;
    const char *failure_class; /* to sort by: "too large", "unknown topic", "invalid row"... */
    const char *reason;
    int64_t since;     /* when it was refused first: microseconds since the Unix epoch */
    uint32_t attempts; /* how often it was refused in a row */
    int64_t next_try;  /* microseconds since the Unix epoch, in the past: now; INT64_MAX: when its topic takes records again */
};

/* Calls visit once for each of them, in no particular order; there are some thousands at most. None, unless it leads. The visitor calls nothing of
 * this header. */
typedef void harvest_blocked_visitor(void *user, const struct harvest_blocked_key *blocked);
HARVEST_API void harvest_blocked_keys(const struct harvest *h, harvest_blocked_visitor *visit, void *user);

/* The error that ended it or kept it from starting, as in err of harvest_start or harvest_await; NULL if there is none. The harvest's. */
HARVEST_API const char *harvest_error(const struct harvest *h);

/* "MAJOR.MINOR.PATCH" of the library that runs. Static. Any thread. */
HARVEST_API const char *harvest_version(void);

#ifdef __cplusplus
}
#endif

#endif
