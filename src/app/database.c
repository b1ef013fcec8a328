/* See database.h. */
#include "app/database.h"

#include <poll.h>
#include <stdbool.h>

#include "base/memory.h"
#include "base/text.h"
#include "io/loop.h"
#include "io/pg_dsn.h"

/* Through all states of the attempt, within connect_timeout. */
static bool connected(PGconn *conn, hv_time timeout) {
    hv_time until = hv_loop_clock() + timeout;
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    while (PQstatus(conn) != CONNECTION_BAD && state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        struct pollfd fd = {.fd = PQsocket(conn),
                            .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        hv_time left = until - hv_loop_clock();
        if (left <= 0 || poll(&fd, 1, (int)(left / 1000) + 1) == 0) {
            return false;
        }
        state = PQconnectPoll(conn);
    }
    return true;
}

PGconn *hv_database_connect(const struct hv_settings *settings, const char *application_name,
                            struct hv_pg_failure *failure) {
    static const char *const keywords[] = {"dbname", "fallback_application_name", "client_encoding", NULL};
    const char *const values[] = {settings->data_source, application_name, "UTF8", NULL};
    char where[300], timeout[32];
    struct hv_pg_failure why = {.trouble = HV_PG_UNREACHABLE};
    hv_pg_dsn_redact(settings->data_source, where, sizeof where);
    PGconn *conn = hv_must(PQconnectStartParams(keywords, values, 1));
    PQsetErrorVerbosity(conn, PQERRORS_VERBOSE); /* the way to the SQLSTATE, see hv_pg_failure_from_attempt */
    bool in_time = connected(conn, settings->connect_timeout);
    if (in_time && PQstatus(conn) == CONNECTION_OK) {
        PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
        return conn;
    }
    if (in_time) {
        hv_pg_failure_from_attempt(&why, conn);
        *failure = why;
        hv_error_set(&failure->error, "no connection to %s: %s", where, why.error.text);
    } else {
        *failure = why;
        hv_error_set(&failure->error, "no connection to %s within connect_timeout, %s", where,
                     hv_show_duration(settings->connect_timeout, timeout, sizeof timeout));
    }
    PQfinish(conn);
    return NULL;
}
