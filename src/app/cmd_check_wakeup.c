/* See cmd_check_wakeup.h. Nothing here is an error: without notifications harvestd finds rows as well, only later. */
#include "app/cmd_check_wakeup.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "app/database.h"
#include "base/text.h"
#include "io/loop.h"
#include "io/pg_table.h"

#define PATIENCE HV_SECONDS(2)

/* A trigger's arguments end with a zero byte each. What other triggers may do cannot be seen. */
static const char trigger_sql[] =
    "SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = pg_catalog.to_regclass($1) AND tgenabled IN ('O', 'A') AND tgtype & 4 <> 0 "
    "AND tgargs = pg_catalog.convert_to($2, pg_catalog.getdatabaseencoding()) || '\\x00'::bytea";

static bool has_trigger(PGconn *conn, const char *table, const char *channel) {
    const char *const values[] = {table, channel};
    PGresult *r = PQexecParams(conn, trigger_sql, 2, NULL, values, NULL, NULL, 0);
    bool found = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) > 0;
    PQclear(r);
    return found;
}

static bool run(PGconn *conn, const char *verb, const char *channel) {
    char sql[100];
    snprintf(sql, sizeof sql, "%s %s", verb, channel);
    PGresult *r = PQexec(conn, sql);
    bool fine = PQresultStatus(r) == PGRES_COMMAND_OK;
    PQclear(r);
    return fine;
}

static bool take_notification(PGconn *conn) {
    PGnotify *notification = PQnotifies(conn);
    PQfreemem(notification);
    return notification != NULL;
}

static bool wait_notification(PGconn *conn) {
    hv_time until = hv_loop_clock() + PATIENCE;
    while (!take_notification(conn)) {
        struct pollfd fd = {.fd = PQsocket(conn), .events = POLLIN};
        hv_time left = until - hv_loop_clock();
        if (left <= 0 || poll(&fd, 1, (int)(left / 1000) + 1) == 0 || PQconsumeInput(conn) == 0) {
            return false;
        }
    }
    return true;
}

/* On a channel of our own: nobody else is disturbed. */
static bool notifications_arrive(const struct hv_check *check, PGconn *conn) {
    struct hv_pg_failure failure;
    char channel[64];
    PGconn *other = hv_database_connect(check->settings, "harvestd check", &failure);
    if (other == NULL) {
        return false;
    }
    snprintf(channel, sizeof channel, "harvestd_check_%ld", (long)getpid());
    bool arrives = run(conn, "LISTEN", channel) && run(other, "NOTIFY", channel) && wait_notification(conn);
    run(conn, "UNLISTEN", channel);
    run(other, "UNLISTEN", channel); /* a pooler may have lent it the session that listens */
    PQfinish(other);
    return arrives;
}

void hv_check_wakeup(struct hv_check *check, PGconn *conn, const char *table) {
    char channel[HV_TABLE_CHANNEL_SIZE], wait[32];
    struct hv_error err;
    if (check->settings->wakeup != HV_WAKE_BY_LISTEN || hv_table_channel(check->settings->outbox_table, channel, &err) != 0) {
        return;
    }
    hv_show_duration(check->settings->idle_backoff_max, wait, sizeof wait);
    bool trigger = has_trigger(conn, table, channel), arrives = notifications_arrive(check, conn);
    if (!trigger) {
        hv_check_note(check,
                      "wakeup: the table has no trigger that notifies %s, so records may wait for idle_backoff_max, %s; `harvestd schema "
                      "--notify` prints it",
                      channel, wait);
    }
    if (!arrives) {
        hv_check_note(check,
                      "wakeup: notifications do not arrive, so records may wait for idle_backoff_max, %s; behind a pooler they do only in "
                      "session mode: connect past it, or set wakeup = poll",
                      wait);
    }
    if (trigger && arrives) {
        hv_check_ok(check, "wakeup: inserts are told of, on channel %s", channel);
    }
}
