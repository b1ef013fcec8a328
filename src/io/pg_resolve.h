/* The hosts of a connection string and their addresses, looked up on libuv's pool: libpq itself would
 * block the loop in the resolver. An entry of the result is one address, so that libpq tries all addresses
 * of a name, as it would by itself. */
#ifndef HV_IO_PG_RESOLVE_H
#define HV_IO_PG_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/error.h"
#include "io/pg_conninfo.h"

/* hosts of a string, and addresses all in all; further addresses are left out */
#define HV_PG_ENDPOINTS_MAX 64

struct hv_pg_resolve;

/* Starts looking up what `options` names (host, hostaddr, port). `done(user)` is called from the loop when
 * the last look-up has ended; not at all when none was needed (hv_pg_resolve_is_done at once). Returns 0,
 * or -1 with err. */
int hv_pg_resolve_start(uv_loop_t *uv, const PQconninfoOption *options, void (*done)(void *user), void *user,
                        struct hv_pg_resolve **ret, struct hv_error *err);
bool hv_pg_resolve_is_done(const struct hv_pg_resolve *resolve);

/* What was found by now. Returns 0 and the lists, valid until the next call, or -1 with err when no host
 * has an address. `hung`: "address port" of an endpoint that did not answer the last time, or "": the list
 * then begins with the one after it and ends with it. */
int hv_pg_resolve_lists(struct hv_pg_resolve *resolve, const char *hung, struct hv_pg_lists *ret,
                        struct hv_error *err);

/* The host names, for messages. Lives as long as the object. */
const char *hv_pg_resolve_hosts(const struct hv_pg_resolve *resolve);

/* Gives it up: `done` is not called any more. `freed(user)` is called when the object is gone: at once, or
 * from the loop when a look-up could not be cancelled. */
void hv_pg_resolve_free(struct hv_pg_resolve *resolve, void (*freed)(void *user));

#endif
