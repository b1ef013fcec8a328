/* Connection strings: what libpq makes of one (service file and environment included), and the parameters
 * of an attempt. */
#ifndef HV_IO_PG_CONNINFO_H
#define HV_IO_PG_CONNINFO_H

#include <libpq-fe.h>

#include "base/error.h"

/* What libpq would use for `conninfo`, defaults included; nothing is connected or resolved. NULL with err
 * when it cannot be used. The caller gives it to PQconninfoFree. */
PQconninfoOption *hv_pg_conninfo_read(const char *conninfo, struct hv_error *err);

/* The value of one option; NULL when it is unset or empty. Lives as long as `options`. */
const char *hv_pg_conninfo_get(const PQconninfoOption *options, const char *keyword);

/* Lists of equal length for libpq; empty strings: leave it to conninfo. */
struct hv_pg_lists {
    const char *hosts, *addresses, *ports;
};

/* Starts a connection (PQconnectStartParams) to what conninfo says, with our lists of hosts in place of
 * its own and our settings where `options` (as read from conninfo) leaves them unset. NULL without memory. */
PGconn *hv_pg_conninfo_start(const char *conninfo, const PQconninfoOption *options,
                             const struct hv_pg_lists *lists, const char *application_name);

#endif
