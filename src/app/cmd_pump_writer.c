/* See cmd_pump_writer.h. A transaction is one INSERT that commits by itself, or BEGIN, INSERT and ROLLBACK. */
#include "app/cmd_pump_writer.h"

#include <assert.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cmd_pump_batch.h"
#include "base/memory.h"
#include "io/pg_conn.h"
#include "io/pg_outbox.h"

enum { OID_BYTEA = 17, SQL_MAX = 1600 };

enum step { STEP_NONE, STEP_PROBE, STEP_BEGIN, STEP_INSERT, STEP_ROLLBACK };

struct hv_pump_writer {
    struct hv_pump_work *work;
    uint32_t index;
    struct hv_pg *pg;
    enum step step;  /* of the statement that is out */
    bool was_up;
    bool probed;     /* sql is made */
    bool pending;    /* the batch holds a transaction that has not ended */
    bool told_down;
    hv_time ended;
    struct hv_error failure;
    struct hv_pump_batch batch;
    char sql[SQL_MAX];
    void (*closed)(void *user);
    void *closed_user;
};

static void send_plain(struct hv_pump_writer *w, enum step step, const char *sql) {
    w->step = step;
    hv_pg_send(w->pg, sql, 0, NULL, NULL, NULL, NULL);
}

static void send_insert(struct hv_pump_writer *w) {
    const char *values[HV_BATCH_ARRAYS];
    for (int i = 0; i < HV_BATCH_ARRAYS; i++) {
        values[i] = w->batch.arrays[i].bytes;
    }
    w->step = STEP_INSERT;
    hv_pg_send(w->pg, w->sql, HV_BATCH_ARRAYS, NULL, values, NULL, NULL);
}

/* From the first statement of the batch that is pending. */
static void start_batch(struct hv_pump_writer *w) {
    if (w->batch.doomed) {
        send_plain(w, STEP_BEGIN, "BEGIN");
    } else {
        send_insert(w);
    }
}

enum outcome { COMMITTED, ROLLED_BACK, NOT_KNOWN };

static void end_batch(struct hv_pump_writer *w, enum outcome outcome) {
    struct hv_pump_work *work = w->work;
    hv_time now = hv_loop_clock();
    for (uint64_t i = 0; i < w->batch.count; i++) {
        const struct hv_pump_item *item = &w->batch.items[i];
        if (outcome == COMMITTED) {
            hv_ledger_committed(work->ledger, item->key, item->seq, now);
        } else if (outcome == NOT_KNOWN) {
            hv_ledger_unknown(work->ledger, item->key, item->seq);
        } else {
            hv_ledger_not_committed(work->ledger, item->key, item->seq);
        }
    }
    work->transactions += outcome == COMMITTED;
    work->rolled_back_transactions += outcome == ROLLED_BACK;
    work->rolled_back_records += outcome == ROLLED_BACK ? w->batch.count : 0;
    w->pending = false;
    w->ended = now;
}

static void fail(struct hv_pump_writer *w, const struct hv_pg_failure *failure) {
    if (w->failure.text[0] == '\0') {
        hv_error_set(&w->failure, "%s; %s", failure->error.text, hv_pg_advice(failure->trouble));
    }
}

/* ---- what the connection tells ---- */

static void probe(struct hv_pump_writer *w) {
    char table[600], sql[800];
    struct hv_error err;
    if (hv_outbox_quote_table(w->work->settings->outbox_table, table, sizeof table, &err) != 0) {
        w->failure = err;
        return;
    }
    snprintf(sql, sizeof sql, "SELECT kafka_value FROM %s LIMIT 0", table);
    send_plain(w, STEP_PROBE, sql);
}

static void on_up(void *user, const char *host) {
    struct hv_pump_writer *w = user;
    w->was_up = true;
    if (w->told_down) {
        fprintf(stderr, "connection %u: connected to %s again\n", w->index + 1, host);
    }
    w->told_down = false;
    if (!w->probed) {
        probe(w);
    } else if (w->pending) {
        start_batch(w);
    }
    hv_loop_wake(w->work->loop);
}

static void on_result(void *user, PGresult *result) {
    struct hv_pump_writer *w = user;
    enum step step = w->step;
    w->step = STEP_NONE;
    switch (step) {
    case STEP_PROBE:
        w->probed = hv_pump_batch_sql(w->work->settings->outbox_table, PQftype(result, 0) == OID_BYTEA, w->sql, sizeof w->sql,
                                      &w->failure) == 0;
        break;
    case STEP_BEGIN:
        send_insert(w);
        return;
    case STEP_INSERT:
        if (w->batch.doomed) {
            send_plain(w, STEP_ROLLBACK, "ROLLBACK");
            return;
        }
        end_batch(w, COMMITTED);
        break;
    case STEP_ROLLBACK:
        end_batch(w, ROLLED_BACK);
        break;
    case STEP_NONE:
        assert(0);
    }
    hv_loop_wake(w->work->loop);
}

/* What passes by itself: tried again in a new session, after the connection's backoff. */
static bool is_temporary(const struct hv_pg_failure *failure) {
    return failure->trouble == HV_PG_NOT_READY || failure->trouble == HV_PG_TIMEOUT ||
           strncmp(failure->sqlstate, "40", 2) == 0; /* deadlock, serialization */
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    struct hv_pump_writer *w = user;
    w->step = STEP_NONE;
    if (is_temporary(failure)) {
        fprintf(stderr, "connection %u: statement refused: %s; trying again\n", w->index + 1, failure->error.text);
        hv_pg_drop(w->pg, failure->trouble, "a statement is tried again");
    } else {
        fail(w, failure);
    }
    hv_loop_wake(w->work->loop);
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    struct hv_pump_writer *w = user;
    enum step step = w->step;
    w->step = STEP_NONE;
    if (w->pending && w->batch.doomed) {
        end_batch(w, ROLLED_BACK);
    } else if (w->pending && step == STEP_INSERT && failure->outcome_unknown) {
        end_batch(w, NOT_KNOWN);
    }
    if (!w->was_up) {
        fail(w, failure);
    } else if (!w->told_down) {
        fprintf(stderr, "connection %u: not connected: %s; trying again\n", w->index + 1, failure->error.text);
        w->told_down = true;
    }
    hv_loop_wake(w->work->loop);
}

/* ---- what the pump asks ---- */

int hv_pump_writer_open(struct hv_pump_work *work, uint32_t index, struct hv_pump_writer **ret, struct hv_error *err) {
    static const struct hv_pg_handler handler = {.up = on_up, .down = on_down, .result = on_result, .refused = on_refused};
    const struct hv_settings *s = work->settings;
    const struct hv_pg_options options = {
        .conninfo = s->data_source,
        .application_name = "harvestd pump",
        .connect_timeout = s->connect_timeout,
        .statement_timeout = s->statement_timeout,
        .backoff_min = s->io_error_backoff,
        .backoff_max = s->io_error_backoff_max,
        .seed = hv_random_next(&work->random),
    };
    struct hv_pump_writer *w = hv_calloc(1, sizeof *w);
    w->work = work;
    w->index = index;
    if (hv_pg_open(work->loop, &options, &handler, w, &w->pg, err) != 0) {
        free(w);
        return -1;
    }
    *ret = w;
    return 0;
}

bool hv_pump_writer_is_ready(const struct hv_pump_writer *w) {
    return w->probed && !w->pending && w->failure.text[0] == '\0' && w->step == STEP_NONE && hv_pg_is_idle(w->pg);
}

bool hv_pump_writer_is_busy(const struct hv_pump_writer *w) {
    return w->pending && w->failure.text[0] == '\0';
}

const char *hv_pump_writer_failure(const struct hv_pump_writer *w) {
    return w->failure.text[0] == '\0' ? NULL : w->failure.text;
}

hv_time hv_pump_writer_ended(const struct hv_pump_writer *w) {
    return w->ended;
}

uint64_t hv_pump_writer_begin(struct hv_pump_writer *w, uint64_t count) {
    assert(hv_pump_writer_is_ready(w));
    hv_pump_batch_fill(&w->batch, w->work, w->index, count);
    w->pending = true;
    start_batch(w);
    return w->batch.doomed ? 0 : count;
}

static void on_closed(void *user) {
    struct hv_pump_writer *w = user;
    void (*closed)(void *user) = w->closed;
    void *closed_user = w->closed_user;
    hv_pump_batch_free(&w->batch);
    free(w);
    closed(closed_user);
}

void hv_pump_writer_close(struct hv_pump_writer *w, void (*closed)(void *user), void *user) {
    if (w->pending) { /* only an INSERT that is out may commit after all */
        end_batch(w, w->step == STEP_INSERT && !w->batch.doomed ? NOT_KNOWN : ROLLED_BACK);
    }
    w->closed = closed;
    w->closed_user = user;
    hv_pg_close(w->pg, on_closed);
}
