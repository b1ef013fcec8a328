/* libharvest's stasher: writes records to the outbox, from which harvestd (or libharvest) publishes them.
 *
 * A record belongs into the transaction of the change that it tells of. So it is written on the application's own
 * libpq connection, and only while a transaction is open there: it is sent if and only if that transaction commits.
 * Commit and rollback stay with the application; nothing here begins, ends or retries anything.
 *
 *     struct harvest_stash *stash;
 *     struct harvest_error err;
 *     if (harvest_stash_new("outbox", &stash, &err) != 0) { fputs(err.text, stderr); ... }      once
 *     PQclear(PQexec(conn, "BEGIN"));
 *     ... the application's own changes ...
 *     struct harvest_stash_record record = {
 *         .topic = "orders", .key = harvest_stash_text("customer-17"), .value = harvest_stash_text("paid")};
 *     if (harvest_stash_write(stash, conn, &record, &err) != 0) { ... ROLLBACK }
 *     PQclear(PQexec(conn, "COMMIT"));
 *
 * Three ways to write:
 *   one-off       harvest_stash_write. Through every pooler that lets transactions pass.
 *   prepared      harvest_stash_prepare, then harvest_stash_write_prepared any number of times: the server parses
 *                 and plans once.
 *   nonblocking   harvest_stash_send and harvest_stash_send_prepared only hand a statement to libpq. The caller
 *                 flushes, waits, takes the results, and has each judged by harvest_stash_judge.
 *
 * What arrives: the bytes that were given, whatever they are. Columns of type TEXT or VARCHAR hold only text, without zero
 * bytes, in the database's encoding; for other bytes kafka_value has to be BYTEA. create_time becomes now(). Text is
 * UTF-8; a connection with another client_encoding would convert it, so there only ASCII is taken. JSONB stores what it
 * likes of white space and order. A NULL value is a tombstone, an empty one an empty value.
 *
 * Where a record is found wanting before it is sent (see HARVEST_STASH_BAD_RECORD), the transaction is untouched and can
 * go on. What a column may hold is known once the stash looked the table up: the blocking calls do so, the nonblocking
 * ones only use what is known. What they cannot know, the server refuses, and with that the transaction has failed.
 *
 * Needs INSERT on the table and USAGE of its sequence; nothing else.
 *
 * Threads: a stash and a connection are used by one thread at a time; different ones at once by as many as you like. The
 * calls run on the caller's thread. Nothing here touches signals, standard error or any other state of the process. */
#ifndef HARVEST_STASH_H
#define HARVEST_STASH_H

#include <stddef.h>
#include <string.h>

#include "harvest_error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As in libpq-fe.h, which is not needed here. */
typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;

/* What the functions return. */
#define HARVEST_STASH_OK 0
/* The record cannot be written as it is. Nothing was sent; the transaction is as it was. */
#define HARVEST_STASH_BAD_RECORD (-1)
/* The connection, the table or the memory is not fit. No record was sent; the transaction is as it was. */
#define HARVEST_STASH_NOT_SENT (-2)
/* The server refused, or the connection is lost: the transaction has failed; roll back. */
#define HARVEST_STASH_FAILED (-3)

/* Bytes of the caller's. NULL and empty are different: {NULL, 0} is SQL's NULL. */
struct harvest_stash_bytes {
    const void *data;
    size_t length; /* in bytes */
};

/* The bytes of a NUL-terminated string, without the NUL; {NULL, 0} for NULL. */
static inline struct harvest_stash_bytes harvest_stash_text(const char *text) {
    struct harvest_stash_bytes bytes = {text, text == NULL ? 0 : strlen(text)};
    return bytes;
}

struct harvest_stash_header {
    const char *name;                 /* NUL-terminated UTF-8, not NULL */
    struct harvest_stash_bytes value; /* may be empty; not NULL, which an outbox cannot carry */
};

/* One record. All that it points to is the caller's and is needed only during the call. At most 1 GiB in all (Kafka's own
 * limit is 1 MiB unless it was raised). */
struct harvest_stash_record {
    const char *topic;                /* 1 to 249 of a-z A-Z 0-9 . _ - and not "." or ".." */
    struct harvest_stash_bytes key;   /* may be empty; not NULL. It decides the partition, and what is kept in order */
    struct harvest_stash_bytes value; /* NULL: a tombstone */
    const struct harvest_stash_header *headers; /* in this order, names may repeat; NULL for none */
    size_t header_count;
};

/* The outbox to write to. */
struct harvest_stash;

/* Makes a stash for one table of one database, on as many connections to it as wanted. No connection is made.
 *   table  NUL-terminated, as in harvestd's outbox_table: table or schema.table, each folded to lower case unless it stands
 *          in "double quotes". Without a schema the connection's search_path decides, anew at each statement; the tables that
 *          it leads to have to have columns of the same types.
 *   ret    set on success; the caller gives it to harvest_stash_free.
 * Returns HARVEST_STASH_OK or HARVEST_STASH_NOT_SENT with err (not a table's name, no memory). */
HARVEST_API int harvest_stash_new(const char *table, struct harvest_stash **ret, struct harvest_error *err);

/* Frees a stash; NULL is fine. What was prepared lives on in its session and can be used by another stash. */
HARVEST_API void harvest_stash_free(struct harvest_stash *stash);

/* Writes one record and waits for the server: one round trip, and one more in the first call with this stash, to look up
 * what the table's columns can hold.
 *   conn  is in a transaction block, with no command in progress (no results left to take, no COPY), not in pipeline mode.
 *         Whether it is set to nonblocking does not matter.
 * Returns HARVEST_STASH_OK: written, sent once the transaction commits; or another of the above with err. */
HARVEST_API int harvest_stash_write(struct harvest_stash *stash, PGconn *conn,
                                    const struct harvest_stash_record *record, struct harvest_error *err);

/* Prepares the statement in conn's session, unless that was done before, and looks up the table's columns. Waits for the
 * server: two or three round trips. conn as above, but a transaction need not be open.
 *
 * A prepared statement is the session's, not the transaction's (and outlives rollback): once for each connection is enough,
 * and calling this at the start of each transaction does no harm. Its name is harvest_stash_ and a number made from
 * the table's name, so stashes of different tables do not meet on one connection, and those of one table share.
 *
 * Poolers: in session mode as on a direct connection. In transaction mode the next transaction may run in another session:
 * prepare in each transaction, or use the one-off form. Poolers that keep track of prepared statements by themselves
 * (PgBouncer from 1.21 on with max_prepared_statements) want it prepared once for each connection, not more often.
 * After DISCARD ALL or DEALLOCATE ALL prepare again.
 *
 * Returns HARVEST_STASH_OK, or HARVEST_STASH_NOT_SENT or HARVEST_STASH_FAILED with err. */
HARVEST_API int harvest_stash_prepare(struct harvest_stash *stash, PGconn *conn, struct harvest_error *err);

/* As harvest_stash_write, with what was prepared in this session by this stash or one of the same table. If it was not, the
 * server refuses, and with that the transaction has failed. */
HARVEST_API int harvest_stash_write_prepared(struct harvest_stash *stash, PGconn *conn,
                                             const struct harvest_stash_record *record, struct harvest_error *err);

/* ---- for those who must not wait ----
 *
 * These hand a statement to libpq and return; on a connection that is set to nonblocking they never wait. As after
 * PQsendQueryParams, the caller calls PQflush until all is sent, waits for the socket, takes every result with
 * PQgetResult until it gives NULL, has the one result judged, and clears it.
 *
 * In pipeline mode records can be sent one behind the other. There it is known only as far as results were taken whether a
 * transaction is open: while some are outstanding, a BEGIN that is on its way is trusted to be there. */

/* Looks up what the table's columns can hold, so that the calls below check a record as thoroughly as the blocking
 * ones, and can write to columns of type JSONB and BYTEA[]. Not needed for others. Waits: one round trip; conn as for
 * harvest_stash_prepare. Returns as that. */
HARVEST_API int harvest_stash_learn(struct harvest_stash *stash, PGconn *conn, struct harvest_error *err);

/* Sends one record. conn as for harvest_stash_write, pipeline mode included. Returns HARVEST_STASH_OK: handed over, its
 * result is to be taken; or another of the above with err: there is no result to take. */
HARVEST_API int harvest_stash_send(struct harvest_stash *stash, PGconn *conn,
                                   const struct harvest_stash_record *record, struct harvest_error *err);

/* Sends the request to prepare; its result, too, is for harvest_stash_judge. Once for each session: a second time the
 * server refuses, unlike with harvest_stash_prepare. A transaction need not be open. Returns as harvest_stash_send. */
HARVEST_API int harvest_stash_send_prepare(struct harvest_stash *stash, PGconn *conn, struct harvest_error *err);

/* As harvest_stash_send, with what was prepared in this session (or, in pipeline mode, before it in the pipeline). */
HARVEST_API int harvest_stash_send_prepared(struct harvest_stash *stash, PGconn *conn,
                                            const struct harvest_stash_record *record, struct harvest_error *err);

/* Tells what the result of one of the three above means. Never waits; the result stays the caller's.
 * Returns HARVEST_STASH_OK: written (or prepared); or HARVEST_STASH_FAILED with err. */
HARVEST_API int harvest_stash_judge(struct harvest_stash *stash, const PGresult *result, struct harvest_error *err);

#ifdef __cplusplus
}
#endif

#endif
