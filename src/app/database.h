/* A connection for commands that end by themselves and may wait. The daemon's own are made by io/pg_conn.h. */
#ifndef HV_APP_DATABASE_H
#define HV_APP_DATABASE_H

#include <libpq-fe.h>

#include "io/pg_failure.h"
#include "rt/settings.h"

/* Connects to data_source within connect_timeout, client_encoding UTF8. Waits. Returns the connection, which the caller
 * gives to PQfinish, or NULL with *failure, whose text names host, port and database. */
PGconn *hv_database_connect(const struct hv_settings *settings, const char *application_name,
                            struct hv_pg_failure *failure);

#endif
