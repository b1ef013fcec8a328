/* A limit for the bench: what Postgres does when rows are only claimed and deleted, on two connections as in the daemon, blocking
 * calls on two threads, nothing decoded but the ids, nothing sent.
 *
 *   database_alone mark|cursor CONNINFO TABLE BATCH
 *
 * TABLE is used as it is. Ends when nothing is left to claim and all is deleted. Prints the line of bench.h. */
#include <endian.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bench.h"
#include "common/ids.h"

#define WAITING_MAX 4 /* batches between the two threads: bounded as the daemon's window is */

#define OID_UUID 2950
#define OID_INT8 20

#define ROW "id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values"

static struct bench_ids batches[WAITING_MAX];
static int filled, taken; /* counts of batches; guarded by lock */
static bool ended;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const char *conninfo, *table;

/* The daemon's statements (pg_outbox.c) without what bounds the bytes of a reply. $1 is the leader id, which a scan does not use. */
static const char mark_form[] = "UPDATE %s SET leader_id = $1 WHERE id = ANY (ARRAY(SELECT id FROM %s WHERE id >= $2 "
                                "AND coalesce(leader_id <> $1, true) ORDER BY id LIMIT $3)) RETURNING " ROW;
static const char scan_form[] = "SELECT " ROW " FROM %s WHERE id >= $2 AND (SELECT pg_current_wal_lsn() IS NOT NULL) "
                                "ORDER BY id LIMIT $3";

/* The rows of one statement. Returns the highest id. */
static int64_t claim(PGconn *c, const char *sql, int64_t from_id, int limit, struct bench_ids *batch) {
    static const uint8_t leader[16] = "database  alone";
    const uint64_t from = htobe64((uint64_t)from_id), limit_bytes = htobe64((uint64_t)limit);
    const Oid types[] = {OID_UUID, OID_INT8, OID_INT8};
    const char *values[] = {(const char *)leader, (const char *)&from, (const char *)&limit_bytes};
    const int lengths[] = {16, 8, 8}, formats[] = {1, 1, 1};
    PGresult *r = PQexecParams(c, sql, 3, types, values, lengths, formats, 1);
    if (PQresultStatus(r) != PGRES_TUPLES_OK) {
        bench_die("claim", PQerrorMessage(c));
    }
    int64_t highest = from_id;
    batch->count = 0;
    for (int i = 0; i < PQntuples(r); i++) {
        int64_t id = bench_id(r, i);
        bench_ids_add(batch, id);
        highest = id > highest ? id : highest;
    }
    PQclear(r);
    return highest;
}

static void *delete_batches(void *records) {
    PGconn *c = bench_connect(conninfo);
    for (;;) {
        pthread_mutex_lock(&lock);
        while (filled == taken && !ended) {
            pthread_cond_wait(&changed, &lock);
        }
        const bool done = filled == taken;
        pthread_mutex_unlock(&lock);
        if (done) {
            break;
        }
        struct bench_ids *batch = &batches[taken % WAITING_MAX];
        bench_ids_send_delete(c, table, batch);
        PQclear(bench_reply(c, PGRES_COMMAND_OK));
        *(long *)records += batch->count;
        pthread_mutex_lock(&lock);
        taken++;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
    }
    PQfinish(c);
    return NULL;
}

static void claim_batches(bool by_cursor, int limit) {
    char sql[1024];
    if (by_cursor) {
        snprintf(sql, sizeof sql, scan_form, table);
    } else {
        snprintf(sql, sizeof sql, mark_form, table, table);
    }
    PGconn *c = bench_connect(conninfo);
    for (int64_t from = 0; !ended;) {
        pthread_mutex_lock(&lock);
        while (filled - taken == WAITING_MAX) {
            pthread_cond_wait(&changed, &lock);
        }
        pthread_mutex_unlock(&lock);
        struct bench_ids *batch = &batches[filled % WAITING_MAX];
        from = claim(c, sql, from, limit, batch) + 1;
        pthread_mutex_lock(&lock);
        filled += batch->count > 0;
        ended = batch->count == 0;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
    }
    PQfinish(c);
}

int main(int argc, char **argv) {
    const int limit = argc == 5 ? atoi(argv[4]) : 0;
    const bool by_cursor = argc > 1 && strcmp(argv[1], "cursor") == 0;
    if (limit < 1 || limit > BENCH_IDS_MAX || (!by_cursor && strcmp(argv[1], "mark") != 0)) {
        bench_die("usage", "database_alone mark|cursor CONNINFO TABLE BATCH");
    }
    conninfo = argv[2];
    table = argv[3];
    struct bench_clock clock;
    bench_start(&clock);
    long records = 0;
    pthread_t deleter;
    if (pthread_create(&deleter, NULL, delete_batches, &records) != 0) {
        bench_die("thread", "cannot be started");
    }
    claim_batches(by_cursor, limit);
    pthread_join(deleter, NULL);
    bench_end(&clock, records);
    return 0;
}
