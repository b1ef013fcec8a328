/* A data source (libpq's key=value string or URI): is it well-formed, and how to show it without its
 * secrets. */
#ifndef HV_IO_PG_DSN_H
#define HV_IO_PG_DSN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Can libpq read it? Returns 0, or -1 with err, which quotes nothing of the text: a piece that libpq
 * stumbles over is often a piece of a password. */
int hv_pg_dsn_check(const char *data_source, struct hv_error *err);

/* Host, port, user, database and sslmode as far as they are set, for logs: "host=a port=5432 user=u
 * dbname=d". Cut at size. Returns out. size >= 64. */
const char *hv_pg_dsn_redact(const char *data_source, char *out, size_t size);

/* Does it hold a password (or that of a client's key)? False for one that libpq cannot read. */
bool hv_pg_dsn_has_password(const char *data_source);

/* The same with this password instead of its own. The caller frees it; NULL without memory. */
char *hv_pg_dsn_with_password(const char *data_source, const char *password);

#endif
