/* See pg_conn.h.
 *
 *   WAITING ──► RESOLVING ──► CONNECTING ──► SETUP ──► IDLE ◄──► BUSY
 *      ▲            │              │           │         │         │
 *      └── FAILED ◄─┴──────────────┴───────────┴─────────┴─────────┘      (CLOSING from anywhere)
 *
 *   WAITING     for the backoff (timer)
 *   RESOLVING   for look-ups on libuv's pool (their callback; timer: half of connect_timeout, then what was
 *               found has to do)
 *   CONNECTING  for the socket, as PQconnectPoll says (watch; timer: connect_timeout)
 *   SETUP       for the answer to our own first statement (watch; same timer)
 *   IDLE        for nothing, but takes notifications, and notices that the server goes away (watch)
 *   BUSY        for the whole answer to a statement (watch; timer: statement_timeout)
 *   FAILED      for the next iteration, in which `down` is told: no handler is called from within the API
 *
 * The watch is a handle of its own each time it is made, because libpq may close its socket and open another,
 * often with the same number, in nearly every call: the watch is off during those calls. A session's socket stays the same until it is
 * closed, with which the session is over: the watch stays on, and goes right after the call that closed the socket. */
#include "io/pg_conn.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backoff.h"
#include "io/pg_conninfo.h"
#include "io/pg_failure.h"
#include "io/pg_prepared.h"
#include "io/pg_resolve.h"
#include "io/pg_session.h"

#define TLS_TICK_MS 50      /* how long a byte may stay hidden in the TLS layer */
#define CONSUME_ROUNDS 4    /* reads per wake-up while a reply is incomplete */
#define POLL_ERRORS_MAX 10  /* in a row, without libpq finding anything wrong */

enum state { WAITING, RESOLVING, CONNECTING, SETUP, IDLE, BUSY, FAILED, CLOSING };

struct watch {
    uv_poll_t poll;
    struct hv_pg *pg; /* NULL when it was given up */
    int events;       /* 0: stopped */
};

struct hv_pg {
    uv_loop_t *uv;
    const struct hv_pg_handler *handler;
    void *user;
    void (*closed)(void *user);
    char *conninfo, *application_name;
    hv_time connect_timeout, statement_timeout;
    struct hv_backoff backoff;
    struct hv_random dice;
    enum state state;
    int parts; /* handles and look-ups that refer to us */
    uv_timer_t timer;
    uint64_t deadline_ms; /* of the attempt or the statement, on the loop's clock */
    struct watch *watch;
    PQconninfoOption *options;
    struct hv_pg_resolve *resolve;
    PGconn *conn;
    PGresult *answer; /* what the statement yielded so far: an error once there was one */
    bool fruitful;    /* a statement of this session succeeded */
    struct hv_pg_prepared prepared;
    int poll_errors;
    char host[256];
    char hung[128]; /* "address port" that did not answer in the last attempt */
    struct hv_pg_failure failure;
    char notice_sqlstate[6]; /* of the last notice that ends the session */
    struct hv_error notice;
};

static void on_timer(uv_timer_t *timer);
static void start_attempt(struct hv_pg *pg);

static uint64_t ms_up(hv_time us) {
    return us <= 0 ? 0 : (uint64_t)(us - 1) / 1000 + 1;
}

static void set_timer(struct hv_pg *pg, uint64_t ms) {
    uv_timer_start(&pg->timer, on_timer, ms, 0);
}

static void set_deadline(struct hv_pg *pg, hv_time limit) {
    pg->deadline_ms = uv_now(pg->uv) + ms_up(limit);
    set_timer(pg, ms_up(limit));
}

/* ---- parts and closing ---- */

static void part_gone(void *user) {
    struct hv_pg *pg = user;
    assert(pg->parts > 0);
    if (--pg->parts > 0) {
        return;
    }
    assert(pg->state == CLOSING);
    void (*closed)(void *user) = pg->closed;
    user = pg->user;
    free(pg->conninfo);
    free(pg->application_name);
    hv_pg_prepared_fini(&pg->prepared);
    free(pg);
    if (closed != NULL) {
        closed(user);
    }
}

static void on_timer_closed(uv_handle_t *handle) {
    part_gone(handle->data);
}

/* ---- the watch ---- */

static void on_watch_closed(uv_handle_t *handle) {
    struct watch *watch = (struct watch *)handle;
    struct hv_pg *pg = handle->data;
    free(watch);
    part_gone(pg);
}

static void watch_drop(struct hv_pg *pg) {
    struct watch *watch = pg->watch;
    if (watch == NULL) {
        return;
    }
    pg->watch = NULL;
    watch->pg = NULL;
    uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static int watch_start(struct hv_pg *pg, int events) {
    if (pg->watch == NULL) {
        struct watch *watch = calloc(1, sizeof *watch);
        if (watch == NULL) {
            return UV_ENOMEM;
        }
        int rc = uv_poll_init(pg->uv, &watch->poll, PQsocket(pg->conn));
        if (rc < 0) {
            free(watch);
            return rc;
        }
        watch->poll.data = pg;
        watch->pg = pg;
        pg->watch = watch;
        pg->parts++;
    }
    if (pg->watch->events == events) {
        return 0;
    }
    pg->watch->events = events;
    return uv_poll_start(&pg->watch->poll, events, on_poll);
}

/* ---- failing ---- */

static void end_session(struct hv_pg *pg) {
    watch_drop(pg);
    PQclear(pg->answer);
    pg->answer = NULL;
    PQfinish(pg->conn);
    pg->conn = NULL;
    if (pg->resolve != NULL) {
        hv_pg_resolve_free(pg->resolve, part_gone);
        pg->resolve = NULL;
    }
    PQconninfoFree(pg->options);
    pg->options = NULL;
}

/* Ends the session or attempt; pg->failure.{trouble,error,sqlstate} say why and are told in the next
 * iteration. */
static void fail(struct hv_pg *pg) {
    assert(pg->state != FAILED && pg->state != CLOSING && pg->state != WAITING);
    memcpy(pg->failure.host, pg->host, sizeof pg->host);
    end_session(pg);
    pg->state = FAILED;
    set_timer(pg, 0);
}

static void clear_failure(struct hv_pg *pg, enum hv_pg_trouble trouble, bool outcome_unknown) {
    pg->failure = (struct hv_pg_failure){.trouble = trouble, .outcome_unknown = outcome_unknown};
}

/* A statement was sent and its answer was not complete. */
static bool has_statement_out(const struct hv_pg *pg) {
    return pg->state == BUSY && !hv_pg_prepared_is_preparing(&pg->prepared);
}

static void report_failure(struct hv_pg *pg) {
    pg->state = WAITING;
    set_timer(pg, ms_up(hv_backoff_next(&pg->backoff, &pg->dice)));
    struct hv_pg_failure failure = pg->failure;
    pg->handler->down(pg->user, &failure);
}

/* The session's socket is gone or useless. What the server said last, as an answer or a notice, is the
 * reason. */
static void fail_lost(struct hv_pg *pg, const char *message) {
    if (message[0] == 0) {
        message = "the server broke the protocol";
    }
    clear_failure(pg, HV_PG_LOST, has_statement_out(pg));
    if (pg->answer != NULL && PQresultStatus(pg->answer) == PGRES_FATAL_ERROR &&
        PQresultErrorField(pg->answer, PG_DIAG_SQLSTATE) != NULL) {
        hv_pg_failure_from_result(&pg->failure, pg->answer);
    } else if (pg->notice_sqlstate[0] != 0) {
        memcpy(pg->failure.sqlstate, pg->notice_sqlstate, sizeof pg->failure.sqlstate);
        pg->failure.error = pg->notice;
    } else {
        hv_pg_first_line(&pg->failure.error, message);
    }
    pg->failure.trouble = hv_pg_is_from_pooler(pg->failure.sqlstate) ? HV_PG_POOLER : HV_PG_LOST;
    fail(pg);
}

/* ---- statements ---- */

static void on_notice(void *user, const PGresult *notice) {
    struct hv_pg *pg = user;
    if (!hv_pg_result_is_fatal(notice)) {
        return;
    }
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0) {
        struct hv_pg_failure said = {.trouble = HV_PG_LOST};
        hv_pg_failure_from_result(&said, notice);
        memcpy(pg->notice_sqlstate, said.sqlstate, sizeof said.sqlstate);
        pg->notice = said.error;
    }
}

/* Sends what libpq still holds and watches for what comes next. */
static void flush_and_watch(struct hv_pg *pg) {
    /* After a failed write there may still be the server's last word to read: reading finds out. */
    int events = UV_READABLE | (PQflush(pg->conn) == 1 ? UV_WRITABLE : 0);
    int rc = PQstatus(pg->conn) == CONNECTION_BAD ? UV_ECONNRESET : watch_start(pg, events);
    if (rc < 0) {
        const char *message = PQerrorMessage(pg->conn);
        fail_lost(pg, message[0] != 0 ? message : uv_strerror(rc));
    }
}

static void tell_up(struct hv_pg *pg) {
    pg->state = IDLE;
    pg->hung[0] = 0;
    uv_timer_stop(&pg->timer);
    flush_and_watch(pg);
    if (pg->state == IDLE) {
        pg->handler->up(pg->user, pg->host);
    }
}

/* An error that leaves the session standing, unless it tells that the session is no good. */
static void on_refused(struct hv_pg *pg) {
    clear_failure(pg, HV_PG_STATEMENT, false);
    hv_pg_failure_from_result(&pg->failure, pg->answer);
    if (strcmp(pg->failure.sqlstate, "25006") == 0) {
        fail(pg); /* a standby, after a switch-over: another host of the list may be the primary now */
        return;
    }
    PQclear(pg->answer);
    pg->answer = NULL;
    pg->state = IDLE;
    struct hv_pg_failure failure = pg->failure;
    memcpy(failure.host, pg->host, sizeof pg->host);
    pg->handler->refused(pg->user, &failure);
}

/* Was this an answer on the way to that of the statement itself? What was sent then is flushed by the caller. */
static bool go_on(struct hv_pg *pg) {
    bool was_off = pg->prepared.off;
    enum hv_pg_next next = hv_pg_prepared_next(&pg->prepared, pg->conn, pg->answer);
    if (pg->prepared.off && !was_off && pg->handler->unprepared != NULL) {
        pg->handler->unprepared(pg->user);
    }
    if (next == HV_PG_ANSWERED) {
        return false;
    }
    PQclear(pg->answer);
    pg->answer = NULL;
    if (next == HV_PG_NOT_SENT) {
        fail_lost(pg, PQerrorMessage(pg->conn));
    }
    return true;
}

/* The server is ready for the next statement: only now is it sure that this one was committed. */
static void on_answered(struct hv_pg *pg) {
    ExecStatusType status = PQresultStatus(pg->answer);
    if (status == PGRES_FATAL_ERROR && (hv_pg_result_is_fatal(pg->answer) ||
                                        PQstatus(pg->conn) == CONNECTION_BAD)) {
        fail_lost(pg, PQerrorMessage(pg->conn));
        return;
    }
    if (pg->state == SETUP) {
        hv_pg_prepared_begin(&pg->prepared, hv_pg_session_is_ours(pg->answer));
        PQclear(pg->answer);
        pg->answer = NULL;
        tell_up(pg);
        return;
    }
    if (go_on(pg)) {
        return;
    }
    uv_timer_stop(&pg->timer);
    if (status == PGRES_FATAL_ERROR) {
        on_refused(pg);
        return;
    }
    PGresult *answer = pg->answer;
    pg->answer = NULL;
    pg->state = IDLE;
    pg->fruitful = true;
    pg->handler->result(pg->user, answer);
    PQclear(answer);
}

enum progress { UNFINISHED, COMPLETE, BROKEN };

/* Takes the results that are there. Anything but rows, a tag or an error is not what was asked for: COPY
 * modes, which a server that is none may begin, would yield results for ever. */
static enum progress take_results(struct hv_pg *pg) {
    while (!PQisBusy(pg->conn)) {
        PGresult *result = PQgetResult(pg->conn); /* does not wait: not busy */
        if (result == NULL) {
            return pg->answer != NULL ? COMPLETE : BROKEN;
        }
        ExecStatusType status = PQresultStatus(result);
        if (pg->answer == NULL || PQresultStatus(pg->answer) != PGRES_FATAL_ERROR) {
            PQclear(pg->answer);
            pg->answer = result;
        } else {
            PQclear(result);
        }
        if ((status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_FATAL_ERROR) ||
            PQstatus(pg->conn) == CONNECTION_BAD) {
            return BROKEN;
        }
    }
    return UNFINISHED;
}

/* libpq keeps notifications until they are taken, so they are taken whether anybody wants them or not. Parses what was read, but after
 * take_results that is nothing which belongs to an answer. */
static bool take_notifications(struct hv_pg *pg) {
    bool any = false;
    PGnotify *notification;
    while ((notification = PQnotifies(pg->conn)) != NULL) {
        PQfreemem(notification);
        any = true;
    }
    return any;
}

/* Reads what has come, several times: decrypted bytes that wait in the TLS layer do not make the socket
 * readable. */
static void read_session(struct hv_pg *pg) {
    enum progress progress = UNFINISHED;
    for (int round = 0; round < CONSUME_ROUNDS && progress == UNFINISHED; round++) {
        bool read = PQconsumeInput(pg->conn) != 0;
        if (pg->state == IDLE) {
            PQisBusy(pg->conn); /* takes notices */
            round = PQsslInUse(pg->conn) ? round : CONSUME_ROUNDS;
        } else {
            progress = take_results(pg);
        }
        if (!read || PQstatus(pg->conn) == CONNECTION_BAD) {
            progress = BROKEN;
        }
    }
    PGconn *conn = pg->conn;
    if (take_notifications(pg) && pg->handler->notified != NULL) {
        pg->handler->notified(pg->user);
        if (pg->conn != conn) { /* closed or dropped */
            return;
        }
    }
    if (progress == COMPLETE) {
        on_answered(pg);
    } else if (progress == BROKEN) {
        fail_lost(pg, PQerrorMessage(pg->conn));
    }
}

static bool has_session(const struct hv_pg *pg) {
    return pg->state == SETUP || pg->state == IDLE || pg->state == BUSY;
}

static void on_session_event(struct hv_pg *pg) {
    PGconn *conn = pg->conn;
    read_session(pg);
    if (has_session(pg) && pg->conn == conn) { /* the handler may have closed us */
        flush_and_watch(pg);
    }
}

static void on_statement_timer(struct hv_pg *pg) {
    if (pg->state == BUSY && PQsslInUse(pg->conn)) {
        on_session_event(pg);
        if (pg->state != BUSY) {
            return;
        }
    }
    uint64_t now = uv_now(pg->uv);
    if (now < pg->deadline_ms) {
        uint64_t left = pg->deadline_ms - now;
        set_timer(pg, PQsslInUse(pg->conn) && left > TLS_TICK_MS ? TLS_TICK_MS : left);
        return;
    }
    clear_failure(pg, HV_PG_TIMEOUT, has_statement_out(pg));
    hv_error_set(&pg->failure.error, "no answer to a statement within %" PRId64 " ms",
                 pg->statement_timeout / 1000);
    fail(pg);
}

static void on_connected(struct hv_pg *pg) {
    bool encoding_is_ours = hv_pg_conninfo_get(pg->options, "client_encoding") == NULL;
    hv_pg_endpoint_text(pg->host, sizeof pg->host, pg->conn);
    PQsetErrorVerbosity(pg->conn, PQERRORS_DEFAULT);
    pg->state = SETUP;
    pg->fruitful = false;
    if (PQsetnonblocking(pg->conn, 1) != 0 || hv_pg_session_send(pg->conn, pg->statement_timeout, encoding_is_ours) == 0) {
        fail_lost(pg, PQerrorMessage(pg->conn));
        return;
    }
    flush_and_watch(pg);
}

/* ---- connecting ---- */

static void fail_attempt(struct hv_pg *pg) {
    clear_failure(pg, HV_PG_UNREACHABLE, false);
    hv_pg_endpoint_text(pg->host, sizeof pg->host, pg->conn);
    hv_pg_failure_from_attempt(&pg->failure, pg->conn);
    pg->hung[0] = 0;
    fail(pg);
}

static void watch_attempt(struct hv_pg *pg, int events) {
    int rc = watch_start(pg, events);
    if (rc < 0) {
        clear_failure(pg, HV_PG_UNREACHABLE, false);
        hv_error_set(&pg->failure.error, "cannot watch the connection's socket: %s", uv_strerror(rc));
        fail(pg);
    }
}

static void on_attempt_event(struct hv_pg *pg) {
    watch_drop(pg);
    switch (PQconnectPoll(pg->conn)) {
    case PGRES_POLLING_READING:
        watch_attempt(pg, UV_READABLE);
        break;
    case PGRES_POLLING_WRITING:
        watch_attempt(pg, UV_WRITABLE);
        break;
    case PGRES_POLLING_OK:
        on_connected(pg);
        break;
    default:
        fail_attempt(pg);
    }
}

static void connect_now(struct hv_pg *pg) {
    struct hv_pg_lists lists;
    clear_failure(pg, HV_PG_UNREACHABLE, false);
    if (hv_pg_resolve_lists(pg->resolve, pg->hung, &lists, &pg->failure.error) < 0) {
        snprintf(pg->host, sizeof pg->host, "%.255s", hv_pg_resolve_hosts(pg->resolve));
        fail(pg);
        return;
    }
    pg->conn = hv_pg_conninfo_start(pg->conninfo, pg->options, &lists, pg->application_name);
    hv_pg_resolve_free(pg->resolve, part_gone);
    pg->resolve = NULL;
    pg->state = CONNECTING;
    if (pg->conn == NULL) {
        hv_error_set(&pg->failure.error, "out of memory");
        fail(pg);
        return;
    }
    /* Not the verbosity of the start: what fails there at once are sockets and options, never a server's
     * error. */
    PQsetErrorVerbosity(pg->conn, PQERRORS_VERBOSE);
    PQsetNoticeReceiver(pg->conn, on_notice, pg);
    pg->notice_sqlstate[0] = 0;
    if (PQstatus(pg->conn) == CONNECTION_BAD) {
        fail_attempt(pg);
        return;
    }
    uint64_t now = uv_now(pg->uv);
    set_timer(pg, pg->deadline_ms > now ? pg->deadline_ms - now : 0);
    watch_attempt(pg, UV_WRITABLE);
}

static void on_resolved(void *user) {
    struct hv_pg *pg = user;
    assert(pg->state == RESOLVING);
    connect_now(pg);
}

static void start_attempt(struct hv_pg *pg) {
    pg->state = RESOLVING;
    pg->host[0] = 0;
    pg->poll_errors = 0;
    clear_failure(pg, HV_PG_CONFIG, false);
    pg->options = hv_pg_conninfo_read(pg->conninfo, &pg->failure.error);
    if (pg->options == NULL ||
        hv_pg_resolve_start(pg->uv, pg->options, on_resolved, pg, &pg->resolve, &pg->failure.error) < 0) {
        fail(pg);
        return;
    }
    pg->parts++;
    set_deadline(pg, pg->connect_timeout);
    if (hv_pg_resolve_is_done(pg->resolve)) {
        connect_now(pg);
    } else {
        set_timer(pg, ms_up(pg->connect_timeout / 2));
    }
}

static void on_connect_timer(struct hv_pg *pg) {
    const char *what = pg->state == SETUP ? "the server accepted the connection and then did not answer"
                                          : "the server did not answer";
    snprintf(pg->hung, sizeof pg->hung, "%s %s", PQhostaddr(pg->conn), PQport(pg->conn));
    hv_pg_endpoint_text(pg->host, sizeof pg->host, pg->conn);
    clear_failure(pg, HV_PG_UNREACHABLE, false);
    hv_error_set(&pg->failure.error, "%s within %" PRId64 " ms", what, pg->connect_timeout / 1000);
    fail(pg);
}

/* ---- callbacks of libuv ---- */

static void on_poll(uv_poll_t *poll, int status, int events) {
    struct watch *watch = (struct watch *)poll;
    struct hv_pg *pg = watch->pg;
    (void)events; /* reading and flushing are both tried */
    if (pg == NULL) {
        return;
    }
    /* An error of the socket: libpq knows more about it, and may have another host to try. */
    pg->poll_errors = status < 0 ? pg->poll_errors + 1 : 0;
    if (status < 0) {
        watch->events = 0;
    }
    if (pg->poll_errors > POLL_ERRORS_MAX) {
        clear_failure(pg, HV_PG_LOST, has_statement_out(pg));
        hv_error_set(&pg->failure.error, "the connection's socket: %s", uv_strerror(status));
        fail(pg);
    } else if (pg->state == CONNECTING) {
        on_attempt_event(pg);
    } else {
        assert(has_session(pg));
        on_session_event(pg);
    }
}

static void on_timer(uv_timer_t *timer) {
    struct hv_pg *pg = timer->data;
    switch (pg->state) {
    case WAITING:
        start_attempt(pg);
        break;
    case RESOLVING:
        connect_now(pg);
        break;
    case CONNECTING:
    case SETUP:
        on_connect_timer(pg);
        break;
    case BUSY:
        on_statement_timer(pg);
        break;
    case FAILED:
        report_failure(pg);
        break;
    case IDLE:
    case CLOSING:
        break;
    }
}

/* ---- the interface ---- */

int hv_pg_open(struct hv_loop *loop, const struct hv_pg_options *options,
               const struct hv_pg_handler *handler, void *user, struct hv_pg **ret, struct hv_error *err) {
    PQconninfoOption *read = hv_pg_conninfo_read(options->conninfo, err);
    if (read == NULL) {
        return -1;
    }
    PQconninfoFree(read);
    struct hv_pg *pg = calloc(1, sizeof *pg);
    if (pg == NULL) {
        return hv_error_set(err, "out of memory");
    }
    pg->conninfo = strdup(options->conninfo);
    pg->application_name = strdup(options->application_name);
    if (pg->conninfo == NULL || pg->application_name == NULL) {
        free(pg->conninfo);
        free(pg->application_name);
        free(pg);
        return hv_error_set(err, "out of memory");
    }
    pg->uv = hv_loop_uv(loop);
    pg->handler = handler;
    pg->user = user;
    pg->connect_timeout = options->connect_timeout;
    pg->statement_timeout = options->statement_timeout;
    hv_backoff_init(&pg->backoff, options->backoff_min, options->backoff_max);
    pg->dice.state = options->seed;
    uv_timer_init(pg->uv, &pg->timer);
    pg->timer.data = pg;
    pg->parts = 1;
    pg->state = WAITING;
    set_timer(pg, 0);
    *ret = pg;
    return 0;
}

void hv_pg_close(struct hv_pg *pg, void (*closed)(void *user)) {
    assert(pg->state != CLOSING);
    pg->state = CLOSING;
    pg->closed = closed;
    end_session(pg);
    uv_close((uv_handle_t *)&pg->timer, on_timer_closed);
}

const char *hv_pg_host(const struct hv_pg *pg) {
    return pg->host;
}

int hv_pg_server_version(const struct hv_pg *pg) {
    return PQserverVersion(pg->conn);
}

bool hv_pg_is_up(const struct hv_pg *pg) {
    return pg->state == IDLE || pg->state == BUSY;
}

bool hv_pg_is_idle(const struct hv_pg *pg) {
    return pg->state == IDLE;
}

static void begin_statement(struct hv_pg *pg) {
    assert(pg->state == IDLE);
    if (pg->fruitful) {
        hv_backoff_reset(&pg->backoff); /* a session that is used again after a success is a good one */
    }
    pg->state = BUSY;
    set_deadline(pg, pg->statement_timeout);
    if (PQsslInUse(pg->conn)) {
        set_timer(pg, hv_time_min((hv_time)ms_up(pg->statement_timeout), TLS_TICK_MS));
    }
}

static void end_sending(struct hv_pg *pg, int sent) {
    if (sent == 0) {
        fail_lost(pg, PQerrorMessage(pg->conn));
    } else {
        flush_and_watch(pg);
    }
}

void hv_pg_send(struct hv_pg *pg, const char *sql, int count, const Oid *types, const char *const *values,
                const int *lengths, const int *formats) {
    begin_statement(pg);
    hv_pg_prepared_other(&pg->prepared);
    end_sending(pg, PQsendQueryParams(pg->conn, sql, count, types, values, lengths, formats, 1));
}

void hv_pg_send_often(struct hv_pg *pg, const char *sql, int count, const Oid *types, const char *const *values,
                      const int *lengths) {
    begin_statement(pg);
    end_sending(pg, hv_pg_prepared_send(&pg->prepared, pg->conn, sql, count, types, values, lengths));
}

void hv_pg_drop(struct hv_pg *pg, enum hv_pg_trouble trouble, const char *reason) {
    if (!hv_pg_is_up(pg)) {
        return;
    }
    clear_failure(pg, trouble, has_statement_out(pg));
    hv_error_set(&pg->failure.error, "%s", reason);
    fail(pg);
}
