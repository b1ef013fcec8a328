/* What a session with Postgres begins with: one statement of our own, before any other. */
#ifndef HV_IO_PG_SESSION_H
#define HV_IO_PG_SESSION_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "base/time.h"

/* As PQsendQueryParams. encoding_is_ours: the user named none. */
int hv_pg_session_send(PGconn *conn, hv_time statement_timeout, bool encoding_is_ours);

/* Its answer: does the session belong to us alone, with no pooler in between? An error is a server that does not know our little extras:
 * then it is not known, which is no. */
bool hv_pg_session_is_ours(const PGresult *answer);

#endif
