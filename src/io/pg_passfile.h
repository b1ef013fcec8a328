/* The file in which libpq looks for passwords (passfile, PGPASSFILE, ~/.pgpass). */
#ifndef HV_IO_PG_PASSFILE_H
#define HV_IO_PG_PASSFILE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Would libpq, connecting by `conninfo`, look into a password file only to ignore it because others may read it? It says so on
 * standard error, with every attempt. Then `instead` gets a value for `passfile` with which it finds none in silence. */
bool hv_pg_passfile_is_ignored(const char *conninfo, char *instead, size_t size);

/* After an attempt with such a value that failed for want of a password: adds to `err` why the file was ignored. */
void hv_pg_passfile_explain(const PGconn *conn, struct hv_error *err);

#endif
