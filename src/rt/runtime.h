/* One harvest at work: the core, and the adapters that carry out what it wants, on a caller's libuv loop. */
#ifndef HV_RT_RUNTIME_H
#define HV_RT_RUNTIME_H

#include <uv.h>

#include "base/error.h"
#include "base/log.h"
#include "core/harvest.h"
#include "rt/settings.h"

struct hv_runtime;

struct hv_runtime_handler {
    /* Each HV_ACT_NOTIFY, after it went to the log, in the middle of a turn. Returns whether the application is done with it; if
     * not, HV_NOTICE_REVOKED waits for hv_runtime_handed_over. May be NULL. */
    bool (*notice)(void *user, const struct hv_action *action);
    /* Comes once, when every handle is closed and the object is gone. Status 0: everything in flight was settled; 1: time ran
     * out, so some rows will be published again. */
    void (*stopped)(void *user, int status);
};

/* Makes a harvest on `loop` and starts connecting; nothing blocks. `settings` (finished without complaint), `logger` and `handler`
 * must outlive it. Everything belongs to the loop's thread. Returns 0 and *ret, or -1 with err (a setting that a library refuses,
 * no memory): then `stopped` comes as well, when what was made is closed, at the earliest before this returns. */
int hv_runtime_open(uv_loop_t *loop, const struct hv_settings *settings, struct hv_logger *logger,
                    const struct hv_runtime_handler *handler, void *user, struct hv_runtime **ret, struct hv_error *err);

/* Stops claiming, drains what is in flight within drain_timeout, purges what was acknowledged, leaves the group. Idempotent. */
void hv_runtime_stop(struct hv_runtime *runtime);

/* ... without waiting for what is in flight. */
void hv_runtime_hurry(struct hv_runtime *runtime);

/* What keeps records from going may have been mended: all keys that wait are tried now. */
void hv_runtime_retry(struct hv_runtime *runtime);

/* The application is done with HV_NOTICE_REVOKED. */
void hv_runtime_handed_over(struct hv_runtime *runtime);

/* Does it lead, by the clock as it is now? */
bool hv_runtime_leads(const struct hv_runtime *runtime);

/* A time of the core as microseconds since the Unix epoch, by the wall clock as it was at the start. */
int64_t hv_runtime_wall_clock(const struct hv_runtime *runtime, hv_time time);

/* Calls visit with the payload (struct hv_record) of each record in flight. */
void hv_runtime_each_in_flight(const struct hv_runtime *runtime, void (*visit)(void *user, void *payload), void *user);

/* As hv_harvest_next_blocked and hv_harvest_next_closed: what waits, and for what. Times are the core's. */
bool hv_runtime_next_blocked(const struct hv_runtime *runtime, uint32_t *at, struct hv_blocked *ret);
bool hv_runtime_next_closed(const struct hv_runtime *runtime, uint32_t *at, struct hv_closed *ret);

/* The core's clock as it is now. */
hv_time hv_runtime_clock(const struct hv_runtime *runtime);

/* What operators sort by, a word or two: "too large". `code` is that of struct hv_blocked. */
const char *hv_runtime_failure_class(int code);

void hv_runtime_look(const struct hv_runtime *runtime, struct hv_harvest_figures *ret);

#endif
