/* What an error of Postgres or libpq means: its kind, its first line, its SQLSTATE. */
#ifndef HV_IO_PG_FAILURE_H
#define HV_IO_PG_FAILURE_H

#include <stdbool.h>

#include "io/pg_conn.h"

/* Did PgBouncer or its like say it? */
bool hv_pg_is_from_pooler(const char *sqlstate);

/* From an error result: error, sqlstate and trouble. */
void hv_pg_failure_from_result(struct hv_pg_failure *failure, const PGresult *result);

/* From a connection attempt that failed, whose error verbosity was PQERRORS_VERBOSE. libpq has no call for
 * the SQLSTATE of such an error; in the verbose form of its message it can be found in any language. */
void hv_pg_failure_from_attempt(struct hv_pg_failure *failure, const PGconn *conn);

/* Would the server end the session after this error? */
bool hv_pg_result_is_fatal(const PGresult *result);

/* Copies the first line of message; "no reason given" when it is empty. */
void hv_pg_first_line(struct hv_error *err, const char *message);

/* "host:port" of the last or present endpoint, or a socket's path. */
void hv_pg_endpoint_text(char *out, size_t size, const PGconn *conn);

#endif
