/* A limit for the bench: what Postgres does when rows are only marked and deleted, on two connections as in the daemon, blocking
 * calls on two threads, nothing decoded but the ids, nothing sent.
 *
 *   mark_delete_alone CONNINFO TABLE BATCH
 *
 * TABLE is used as it is. Ends when nothing is left to mark and all is deleted. Prints: records=… seconds=… cpu_us=… rss_kb=… */
#include <endian.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define BATCH_MAX 20000
#define WAITING_MAX 4 /* batches between the two threads: bounded as the daemon's window is */

#define OID_UUID 2950
#define OID_INT8 20
#define OID_INT8_ARRAY 1016

struct batch {
    int32_t head[5]; /* binary array: dimensions, flags, element oid, length, lower bound */
    struct {
        uint8_t bytes[12]; /* length, value: not aligned */
    } items[BATCH_MAX];
    int count;
    int64_t highest;
};

static struct batch batches[WAITING_MAX];
static int filled, taken; /* counts of batches; guarded by lock */
static int ended;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const char *conninfo, *table;

static void die(const char *what, const char *why) {
    fprintf(stderr, "mark_delete_alone: %s: %s\n", what, why);
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static PGconn *open_connection(void) {
    PGconn *c = PQconnectdb(conninfo);
    if (PQstatus(c) != CONNECTION_OK) {
        die("connect", PQerrorMessage(c));
    }
    return c;
}

/* The same statement as the daemon's (pg_outbox.c); rows of the binary reply go to the batch. */
static void mark(PGconn *c, const char *sql, int64_t from_id, int limit, struct batch *batch) {
    static const uint8_t leader[16] = "mark+delete only";
    const uint64_t from = htobe64((uint64_t)from_id), limit_bytes = htobe64((uint64_t)limit);
    const Oid types[] = {OID_UUID, OID_INT8, OID_INT8};
    const char *values[] = {(const char *)leader, (const char *)&from, (const char *)&limit_bytes};
    const int lengths[] = {16, 8, 8}, formats[] = {1, 1, 1};
    PGresult *r = PQexecParams(c, sql, 3, types, values, lengths, formats, 1);
    if (PQresultStatus(r) != PGRES_TUPLES_OK) {
        die("mark", PQerrorMessage(c));
    }
    batch->count = PQntuples(r);
    batch->highest = 0;
    const uint32_t eight = htobe32(8);
    for (int i = 0; i < batch->count; i++) {
        uint64_t id;
        memcpy(&id, PQgetvalue(r, i, 0), 8);
        memcpy(batch->items[i].bytes, &eight, 4);
        memcpy(batch->items[i].bytes + 4, &id, 8);
        if ((int64_t)be64toh(id) > batch->highest) {
            batch->highest = (int64_t)be64toh(id);
        }
    }
    const int32_t head[] = {1, 0, OID_INT8, batch->count, 1};
    for (int i = 0; i < 5; i++) {
        batch->head[i] = (int32_t)htobe32((uint32_t)head[i]);
    }
    PQclear(r);
}

static void delete(PGconn *c, const char *sql, const struct batch *batch) {
    const Oid types[] = {OID_INT8_ARRAY};
    const char *values[] = {(const char *)batch->head};
    const int lengths[] = {(int)sizeof batch->head + 12 * batch->count}, formats[] = {1};
    PGresult *r = PQexecParams(c, sql, 1, types, values, lengths, formats, 1);
    if (PQresultStatus(r) != PGRES_COMMAND_OK) {
        die("delete", PQerrorMessage(c));
    }
    PQclear(r);
}

static void *delete_batches(void *records) {
    char sql[512];
    snprintf(sql, sizeof sql, "DELETE FROM %s WHERE id = ANY ($1)", table);
    PGconn *c = open_connection();
    for (;;) {
        pthread_mutex_lock(&lock);
        while (filled == taken && !ended) {
            pthread_cond_wait(&changed, &lock);
        }
        const int done = filled == taken;
        pthread_mutex_unlock(&lock);
        if (done) {
            break;
        }
        struct batch *batch = &batches[taken % WAITING_MAX];
        delete(c, sql, batch);
        *(long *)records += batch->count;
        pthread_mutex_lock(&lock);
        taken++;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
    }
    PQfinish(c);
    return NULL;
}

static void mark_batches(int limit) {
    char sql[1024];
    snprintf(sql, sizeof sql,
             "UPDATE %s SET leader_id = $1 WHERE id = ANY (ARRAY(SELECT id FROM %s WHERE id >= $2 "
             "AND (leader_id IS NULL OR leader_id <> $1) ORDER BY id LIMIT $3)) "
             "RETURNING id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values",
             table, table);
    PGconn *c = open_connection();
    for (int64_t from = 0;;) {
        pthread_mutex_lock(&lock);
        while (filled - taken == WAITING_MAX) {
            pthread_cond_wait(&changed, &lock);
        }
        pthread_mutex_unlock(&lock);
        struct batch *batch = &batches[filled % WAITING_MAX];
        mark(c, sql, from, limit, batch);
        pthread_mutex_lock(&lock);
        filled += batch->count > 0;
        ended = batch->count == 0;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
        if (ended) {
            break;
        }
        from = batch->highest + 1;
    }
    PQfinish(c);
}

int main(int argc, char **argv) {
    const int limit = argc == 4 ? atoi(argv[3]) : 0;
    if (limit < 1 || limit > BATCH_MAX) {
        die("usage", "mark_delete_alone CONNINFO TABLE BATCH");
    }
    conninfo = argv[1];
    table = argv[2];
    double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    long records = 0;
    pthread_t deleter;
    if (pthread_create(&deleter, NULL, delete_batches, &records) != 0) {
        die("thread", "cannot be started");
    }
    mark_batches(limit);
    pthread_join(deleter, NULL);
    double seconds = now(CLOCK_MONOTONIC) - start;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("records=%ld seconds=%.4f cpu_us=%.3f rss_kb=%ld\n", records, seconds, cpu * 1e6 / (double)records,
           usage.ru_maxrss);
    return 0;
}
