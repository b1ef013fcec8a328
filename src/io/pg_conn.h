/* One nonblocking connection to Postgres that keeps itself up: resolves names on the loop, connects under
 * its own time-out, reconnects with jittered backoff, runs one statement at a time under a deadline. Knows
 * nothing of the outbox. */
#ifndef HV_IO_PG_CONN_H
#define HV_IO_PG_CONN_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/time.h"
#include "io/loop.h"

struct hv_pg;

enum hv_pg_trouble {
    HV_PG_UNREACHABLE,    /* refused, no route, name not found, time-out while connecting */
    HV_PG_AUTHENTICATION, /* wrong password, no such role, pg_hba refuses (28xxx) */
    HV_PG_SERVER_CERTIFICATE, /* the server's is expired, or of no authority that we trust */
    HV_PG_SERVER_NAME,        /* the server's is for another host */
    HV_PG_OUR_CERTIFICATE,    /* a file of ours is missing or cannot be used, or the server refuses our certificate */
    HV_PG_NO_DATABASE,    /* 3D000 */
    /* starting up, shutting down, too many connections, read-only standby (57P0x, 53300, 25006) */
    HV_PG_NOT_READY,
    HV_PG_NO_TABLE,       /* 42P01, 3F000 */
    HV_PG_NO_COLUMN,      /* 42703 */
    HV_PG_WRONG_TYPE,     /* a column of a type that cannot be used */
    HV_PG_NO_RIGHTS,      /* 42501 */
    HV_PG_PARKED_TABLE,   /* the table of parked records is missing or has not the shape that it should have */
    HV_PG_LOCKED,         /* a row, for longer than lock_timeout (55P03) */
    HV_PG_TIMEOUT,        /* a statement took too long: ended by the server (57014, by `refused`) or by us (by `down`) */
    HV_PG_LOST,           /* an established connection ended */
    HV_PG_POOLER,         /* a pooler in between refused or ended the connection (08P01) */
    HV_PG_STATEMENT,      /* any other error that the server answered to a statement */
    HV_PG_CONFIG,         /* data_source cannot be parsed or names what is not supported */
};

struct hv_pg_failure {
    enum hv_pg_trouble trouble;
    /* a statement had been sent and its reply was not complete: it may have committed */
    bool outcome_unknown;
    char sqlstate[6];     /* "" when the server said none */
    char host[256];       /* host:port that was tried or connected last, for the log; "" unknown */
    struct hv_error error; /* first line of the server's or libpq's message; never the password */
};

const char *hv_pg_advice(enum hv_pg_trouble trouble); /* what an operator should do, one clause */

struct hv_pg_options {
    /* libpq key=value string or URI, also with several hosts or a service; copied */
    const char *conninfo;
    const char *application_name; /* used unless conninfo sets one; copied */
    /* over one whole attempt: resolving, all hosts, authentication. Of several hosts, the one that used it up
     * comes last in the next attempt */
    hv_time connect_timeout;
    /* over one statement, reply included; then the session is dropped. The server is asked to end the
     * statement itself after 3/4 of it, unless a pooler is in between */
    hv_time statement_timeout;
    /* between attempts; back to min when a session is used again after a success */
    hv_time backoff_min, backoff_max;
    uint64_t seed;                /* of the jitter */
};

/* All are called on the loop's thread, never from within a call into this API. A handler may call the API
 * itself, also hv_pg_close(). */
struct hv_pg_handler {
    /* A session is up and idle. */
    void (*up)(void *user, const char *host);
    /* An attempt failed, or the session ended. Another attempt follows by itself. */
    void (*down)(void *user, const struct hv_pg_failure *failure);
    /* The statement sent last was answered completely, its commit included. `result` is valid during the
     * call and is PGRES_COMMAND_OK or PGRES_TUPLES_OK; the connection is idle again. A reply that was cut
     * never comes here. */
    void (*result)(void *user, PGresult *result);
    /* The server refused the statement: it did nothing (outcome_unknown is false). The session goes on and
     * is idle. */
    void (*refused)(void *user, const struct hv_pg_failure *failure);
    /* Other sessions notified this one, of whatever it listens to (also behind a pooler, which may have lent us a session that
     * listens to something else); any number of times since the last call. Comes in any state of a session. May be NULL. */
    void (*notified)(void *user);
    /* Statements are not prepared any more, see hv_pg_send_often: what was prepared was gone, or others had prepared it. At most once. Comes
     * while a statement is out: takes it down, and calls nothing. May be NULL. */
    void (*unprepared)(void *user);
};

/* Starts connecting in the loop's next iteration. Returns 0 and *ret, or -1 with err (conninfo that libpq
 * cannot parse, no memory). `handler` must outlive the connection. */
int hv_pg_open(struct hv_loop *loop, const struct hv_pg_options *options,
               const struct hv_pg_handler *handler, void *user, struct hv_pg **ret, struct hv_error *err);

/* Ends everything without waiting; no handler is called afterwards; `closed(user)` (may be NULL) follows
 * from the loop when the object is gone. That waits for a look-up that libuv's pool is just busy with. */
void hv_pg_close(struct hv_pg *pg, void (*closed)(void *user));

/* "host:port" of the session, or of the endpoint that was tried last; "" unknown. */
const char *hv_pg_host(const struct hv_pg *pg);
/* As in 150004; only while a session is established. */
int hv_pg_server_version(const struct hv_pg *pg);

bool hv_pg_is_up(const struct hv_pg *pg);   /* a session is established */
bool hv_pg_is_idle(const struct hv_pg *pg); /* ... and no statement is out */

/* Sends one statement with binary results (PQsendQueryParams: unnamed). Only when idle (asserted). Parameters as in PQsendQueryParams,
 * copied before return. Never blocks. Success or failure is told by the handler, always exactly one of result, refused, down. */
void hv_pg_send(struct hv_pg *pg, const char *sql, int count, const Oid *types, const char *const *values,
                const int *lengths, const int *formats);

/* The same for a statement that comes often, with binary parameters: it is prepared, where nothing speaks against it (pg_prepared.h). Its
 * text stays where it is, and as it is, for the time of a session. */
void hv_pg_send_often(struct hv_pg *pg, const char *sql, int count, const Oid *types, const char *const *values,
                      const int *lengths);

/* Drops the session at once and connects anew (reported by `down` with `reason` and outcome_unknown as it
 * is). Nothing happens when none is up: a `down` is under way then. */
void hv_pg_drop(struct hv_pg *pg, enum hv_pg_trouble trouble, const char *reason);

#endif
