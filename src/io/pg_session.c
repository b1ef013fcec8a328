/* See pg_session.h. */
#include "io/pg_session.h"

#include <inttypes.h>
#include <stdio.h>

/* What needs a session, in one round trip. The server is asked to end a statement itself a little before we would drop the session: that
 * keeps the session and the statement's outcome known, and leaves no backend behind that waits for a lock. JIT is off: it compiles for a
 * third of a second what reads a thousand rows, for estimates of claims in many gaps are high. Rows are to be found by id, in order: with
 * statistics from a time when the table was large, or empty, the planner reads all of it. So plans are the same whatever the parameters
 * are, and a statement that is prepared (see pg_prepared.h) is planned once; without being told, the planner would do that each time,
 * because it takes a limit that it does not know for a tenth of the table. For the same reason it might start parallel workers.
 * None of that through a pooler, which would hand such settings on to other clients: there the process id that we were told is not the one
 * that answers. In a database without an encoding, bytes are to pass as they are. */
#define OURS "pg_catalog.pg_backend_pid() = $1"
#define SET(name, value) "pg_catalog.set_config('" name "', '" value "', false)"
static const char setup_sql[] =
    "SELECT " OURS " AS ours, CASE WHEN " OURS " AND (SELECT setting::int8 FROM pg_catalog.pg_settings "
    "WHERE name = 'statement_timeout') NOT BETWEEN 1 AND $2 "
    "THEN pg_catalog.set_config('statement_timeout', $2::text, false) END, "
    "CASE WHEN " OURS " AND pg_catalog.current_setting('jit', true) = 'on' THEN " SET("jit", "off") " END, "
    "CASE WHEN " OURS " AND pg_catalog.current_setting('plan_cache_mode', true) = 'auto' THEN "
    SET("plan_cache_mode", "force_generic_plan") " END, "
    "CASE WHEN " OURS " THEN " SET("enable_bitmapscan", "off") " || " SET("enable_seqscan", "off") " || "
    SET("max_parallel_workers_per_gather", "0") " END, "
    "CASE WHEN $3 AND pg_catalog.current_setting('server_encoding') = 'SQL_ASCII' THEN " SET("client_encoding", "SQL_ASCII") " END";

int hv_pg_session_send(PGconn *conn, hv_time statement_timeout, bool encoding_is_ours) {
    static const Oid types[] = {23, 20, 16}; /* int4, int8, bool */
    char pid[16], limit[24];
    snprintf(pid, sizeof pid, "%d", PQbackendPID(conn));
    snprintf(limit, sizeof limit, "%" PRId64, hv_time_max(statement_timeout * 3 / 4 / 1000, 1));
    const char *values[] = {pid, limit, encoding_is_ours ? "true" : "false"};
    return PQsendQueryParams(conn, setup_sql, 3, types, values, NULL, NULL, 0);
}

bool hv_pg_session_is_ours(const PGresult *answer) {
    int column = PQresultStatus(answer) == PGRES_TUPLES_OK && PQntuples(answer) == 1 ? PQfnumber(answer, "ours") : -1;
    return column >= 0 && PQgetvalue(answer, 0, column)[0] == 't';
}
