/* harvestd pump: writes records into the outbox table as an application would, and with --verify hears what comes of them. One
 * thread: the connections to the database and the consumer are on one loop. Phases: writing; waiting for what is missing;
 * lingering for what should not come; closing. */
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "app/cmd_pump_consumer.h"
#include "app/cmd_pump_record.h"
#include "app/cmd_pump_report.h"
#include "app/cmd_pump_writer.h"
#include "app/commands.h"
#include "app/signals.h"
#include "base/memory.h"
#include "io/ident.h"

enum phase { WRITING, WAITING, LINGERING, CLOSING };
enum { SIGNALS = 2 };

struct pump {
    struct hv_pump_work work;
    enum phase phase;
    hv_time since; /* of the phase */
    uint64_t records; /* to be written */
    uint64_t begun;   /* of them: given to a writer */
    struct hv_pump_writer **writers;
    uint32_t writer_count, next_writer, open_writers;
    struct hv_pump_consumer *consumer; /* NULL: nothing is verified */
    struct hv_pump_heard heard;        /* by it, once it is closed */
    hv_time started, first, written;   /* first: when the first transaction began; written: when the last had ended */
    hv_time next_due;         /* --rate: of the next transaction */
    hv_time wake;             /* earliest reason for the next turn */
    hv_time stopped;          /* when no transaction was to be begun any more; 0: they are */
    hv_time stuck;            /* since when --verify-memory is used up; 0: it is not */
    bool interrupted, timed_out;
    struct hv_pump_progress progress;
    struct hv_error failure;
    struct hv_signals signals;
};

static const int signal_numbers[SIGNALS] = {SIGINT, SIGTERM};

static const struct hv_pump_options *options_of(const struct pump *p) {
    return &p->work.options->pump;
}

static void wake_at(struct pump *p, hv_time when) {
    p->wake = hv_time_min(p->wake, when);
}

/* ---- the end ---- */

static void on_writer_closed(void *user) {
    struct pump *p = user;
    p->open_writers--;
    hv_loop_wake(p->work.loop);
}

static void close_writers(struct pump *p) {
    for (uint32_t i = 0; i < p->writer_count; i++) {
        hv_pump_writer_close(p->writers[i], on_writer_closed, p);
    }
    p->writer_count = 0;
}

static void enter(struct pump *p, enum phase phase) {
    assert(phase > p->phase);
    p->since = hv_loop_clock();
    if (p->phase == WRITING) {
        p->written = p->since;
        close_writers(p);
    }
    p->phase = phase;
    if (phase == CLOSING) {
        unsigned caught = p->signals.open;
        hv_signals_close(&p->signals);
        for (unsigned i = 0; i < caught; i++) {
            signal(signal_numbers[i], SIG_IGN); /* what is left is short, and then comes the summary */
        }
    }
    hv_loop_wake(p->work.loop);
}

/* ---- writing ---- */

static void stop_writing(struct pump *p) {
    if (p->stopped == 0) {
        p->stopped = hv_loop_clock();
    }
}

/* Has the bookkeeping room for more? If it has none for as long as anything could be waited for, writing ends. */
static bool has_room(struct pump *p, hv_time now) {
    if (p->consumer == NULL || hv_ledger_bytes(p->work.ledger) <= options_of(p)->verify_memory) {
        p->stuck = 0;
        return true;
    }
    if (p->stuck == 0) {
        p->stuck = now;
    }
    hv_time until = hv_time_max(p->stuck, hv_pump_consumer_heard(p->consumer)->news) + options_of(p)->verify_timeout;
    if (now >= until) {
        p->timed_out = true;
        stop_writing(p);
    }
    wake_at(p, until);
    return false;
}

/* When this writer may begin its next transaction. */
static hv_time due(const struct pump *p, const struct hv_pump_writer *writer) {
    hv_time ended = hv_pump_writer_ended(writer);
    if (options_of(p)->interval > 0 && ended > 0) {
        return ended + options_of(p)->interval;
    }
    return p->next_due;
}

static void begin(struct pump *p, struct hv_pump_writer *writer, hv_time now) {
    uint64_t left = p->records - p->begun, count = options_of(p)->transaction < left ? options_of(p)->transaction : left;
    if (p->first == 0) {
        p->first = p->next_due = now; /* connecting took its time: not to be made up for */
    }
    p->begun += hv_pump_writer_begin(writer, count);
    if (options_of(p)->rate > 0) {
        /* What could not be written in time is made up for, but not more than a second's worth. */
        p->next_due = hv_time_max(p->next_due, now - HV_SECONDS(1)) + (hv_time)(count * 1000000 / options_of(p)->rate);
    }
}

static void begin_what_is_due(struct pump *p, hv_time now) {
    for (uint32_t i = 0; i < p->writer_count && p->begun < p->records && p->stopped == 0; i++) {
        struct hv_pump_writer *writer = p->writers[(p->next_writer + i) % p->writer_count];
        if (!hv_pump_writer_is_ready(writer) || !has_room(p, now)) {
            continue;
        }
        if (due(p, writer) > now) {
            wake_at(p, due(p, writer));
        } else {
            begin(p, writer, now);
        }
    }
    p->next_writer++;
}

static void look_for_failures(struct pump *p) {
    for (uint32_t i = 0; i < p->writer_count; i++) {
        const char *failure = hv_pump_writer_failure(p->writers[i]);
        if (failure != NULL) {
            stop_writing(p);
            if (p->failure.text[0] == '\0') {
                hv_error_set(&p->failure, "%s", failure);
            }
        }
    }
}

static bool any_busy(const struct pump *p) {
    for (uint32_t i = 0; i < p->writer_count; i++) {
        if (hv_pump_writer_is_busy(p->writers[i])) {
            return true;
        }
    }
    return false;
}

/* Of --duration; connecting does not count. */
static hv_time end_of_writing(const struct pump *p) {
    return options_of(p)->duration > 0 && p->first > 0 ? p->first + options_of(p)->duration : HV_NEVER;
}

static void write_on(struct pump *p, hv_time now) {
    look_for_failures(p);
    if (now >= end_of_writing(p) || p->begun == p->records) {
        stop_writing(p);
    }
    begin_what_is_due(p, now);
    if (p->stopped == 0) {
        wake_at(p, end_of_writing(p));
        return;
    }
    /* A transaction that waits for its connection is not waited for without end. */
    hv_time limit = p->stopped + p->work.settings->statement_timeout;
    wake_at(p, limit);
    if (!any_busy(p) || now >= limit) {
        enter(p, p->consumer != NULL && hv_ledger_counts(p->work.ledger)->committed > 0 ? WAITING : CLOSING);
    }
}

/* ---- verifying ---- */

static void wait_on(struct pump *p, hv_time now) {
    hv_time until = hv_time_max(p->since, hv_pump_consumer_heard(p->consumer)->news) + options_of(p)->verify_timeout;
    if (hv_ledger_counts(p->work.ledger)->missing == 0) {
        enter(p, LINGERING);
    } else if (now >= until) {
        p->timed_out = true;
        enter(p, CLOSING);
    }
    wake_at(p, until);
}

static void linger_on(struct pump *p, hv_time now) {
    hv_time until = p->since + options_of(p)->verify_linger;
    wake_at(p, until);
    if (now >= until) {
        enter(p, CLOSING);
    }
}

/* ---- the turn ---- */

static void tell_progress(struct pump *p, hv_time now) {
    hv_time next = p->progress.at + options_of(p)->progress;
    if (now >= next) {
        hv_pump_progress_text(&p->progress, &p->work, p->started, now, stderr);
        next = now + options_of(p)->progress;
    }
    wake_at(p, next);
}

static void turn(void *user) {
    struct pump *p = user;
    hv_time now = hv_loop_clock();
    p->wake = HV_NEVER;
    switch (p->phase) {
    case WRITING:
        write_on(p, now);
        break;
    case WAITING:
        wait_on(p, now);
        break;
    case LINGERING:
        linger_on(p, now);
        break;
    case CLOSING:
        if (p->open_writers == 0) {
            if (p->consumer != NULL) {
                p->heard = *hv_pump_consumer_heard(p->consumer);
            }
            hv_pump_consumer_close(p->consumer);
            hv_loop_close(p->work.loop, NULL);
        }
        return;
    }
    tell_progress(p, now);
    hv_loop_set_deadline(p->work.loop, p->wake);
}

/* Ends writing or, when that has ended, waiting; a second one ends both. */
static void on_signal(uv_signal_t *handle, int number) {
    struct pump *p = handle->data;
    (void)number;
    if (p->phase == WRITING && !p->interrupted) {
        stop_writing(p);
        hv_loop_wake(p->work.loop);
    } else if (p->phase != CLOSING) {
        enter(p, CLOSING);
    }
    p->interrupted = true;
}

/* ---- the beginning ---- */

static int open_writers(struct pump *p, struct hv_error *err) {
    p->writers = hv_calloc(options_of(p)->connections, sizeof p->writers[0]);
    for (; p->writer_count < options_of(p)->connections; p->writer_count++, p->open_writers++) {
        if (hv_pump_writer_open(&p->work, p->writer_count, &p->writers[p->writer_count], err) != 0) {
            return -1;
        }
    }
    return 0;
}

static void prepare_work(struct pump *p, const struct hv_settings *settings, const struct hv_options *options) {
    uint8_t id[16];
    uint64_t letters = HV_PUMP_LETTERS + options->pump.value_size;
    hv_ident_new(id);
    memcpy(&p->work.run, id + 8, sizeof p->work.run);
    p->work.settings = settings;
    p->work.options = options;
    p->work.random.state = p->work.run;
    p->work.ledger = hv_ledger_new((uint32_t)options->pump.keys, options->pump.verify);
    p->work.letters = hv_calloc(letters, 1);
    hv_pump_letters(&p->work.random, p->work.letters, letters);
    p->records = options->pump.records > 0 ? options->pump.records : options->pump.duration > 0 ? UINT64_MAX : 10000;
}

/* All of it, on the loop. What went wrong is in p->failure. */
static void run_pump(struct pump *p) {
    struct hv_error *err = &p->failure;
    if (options_of(p)->verify && hv_pump_consumer_open(&p->work, &p->consumer, err) != 0) {
        return;
    }
    if (hv_loop_open(NULL, turn, p, &p->work.loop, err) != 0) {
        return;
    }
    p->started = p->since = p->progress.at = p->next_due = hv_loop_clock();
    uv_loop_t *uv = hv_loop_uv(p->work.loop);
    if (hv_signals_open(&p->signals, uv, signal_numbers, SIGNALS, on_signal, p, err) != 0 ||
        (p->consumer != NULL && hv_pump_consumer_start(p->consumer, err) != 0) ||
        open_writers(p, err) != 0) {
        enter(p, CLOSING);
    }
    hv_loop_wake(p->work.loop);
    struct hv_error why;
    if (hv_loop_run(p->work.loop, &why) != 0 && err->text[0] == '\0') {
        *err = why;
    }
}

static int report(const struct pump *p) {
    const struct hv_pump_report r = {
        .work = &p->work,
        .heard = options_of(p)->verify ? &p->heard : NULL,
        .writing = p->first == 0 ? 0 : p->written - p->first,
        .interrupted = p->interrupted,
        .timed_out = p->timed_out,
        .failure = p->failure.text[0] == '\0' ? NULL : p->failure.text,
    };
    if (r.failure != NULL) {
        fprintf(stderr, "harvestd: %s\n", r.failure);
    }
    if (options_of(p)->json) {
        hv_pump_report_json(&r, stdout);
    } else {
        hv_pump_report_text(&r, stdout);
    }
    return hv_pump_report_is_good(&r) ? 0 : 1;
}

int hv_cmd_pump(const struct hv_settings *settings, const struct hv_options *options) {
    struct pump p = {.phase = WRITING};
    signal(SIGPIPE, SIG_IGN);
    prepare_work(&p, settings, options);
    run_pump(&p);
    int code = report(&p);
    hv_ledger_free(p.work.ledger);
    free(p.work.letters);
    free(p.writers);
    return code;
}
