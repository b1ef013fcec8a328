/* The shortest relay one could write, for the bench to be measured against: from a table to Kafka as fast as the libraries go, and no
 * safety at all. It knows one topic, misses what commits late, sends twice what a crash leaves, has no leader, and ends at any error.
 *
 *   raw CONNINFO TABLE TOPIC BATCH IN_FLIGHT [PROPERTY=VALUE...]
 *
 * One thread. The first connection reads `id > last` in batches, the next one while the last one is being produced; the second deletes
 * what was acknowledged. Ends when nothing is left to read and all is deleted. Prints the line of bench.h. */
#include <arpa/inet.h>
#include <endian.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bench.h"
#include "common/client.h"
#include "common/ids.h"

#define OID_INT8 20
#define DELETE_MAX 2000 /* as the daemon's purge_query_records */
#define ACKED_MAX (1 << 17)

static rd_kafka_queue_t *queue;
static rd_kafka_t *client;
static rd_kafka_topic_t *topic;
static PGconn *reader, *deleter;
static const char *table;
static size_t in_flight, in_flight_max;
static int64_t acked[ACKED_MAX]; /* a ring */
static size_t acked_first, acked_count;
static bool deleting;
static long records;

static void send_read(int64_t last, int batch) {
    char sql[512];
    snprintf(sql, sizeof sql, "SELECT id, kafka_key, kafka_value, kafka_header_keys, kafka_header_values FROM %s WHERE id > $1 "
                              "ORDER BY id LIMIT %d", table, batch);
    const Oid types[] = {OID_INT8};
    const uint64_t from = htobe64((uint64_t)last);
    const char *values[] = {(const char *)&from};
    const int lengths[] = {8}, formats[] = {1};
    if (PQsendQueryParams(reader, sql, 1, types, values, lengths, formats, 1) != 1) {
        bench_die("read", PQerrorMessage(reader));
    }
    PQflush(reader);
}

static void on_delivered(void *id) {
    acked[(acked_first + acked_count++) % ACKED_MAX] = (int64_t)(intptr_t)id;
    in_flight--;
}

/* Deletes what is acknowledged, if nothing is being deleted; `wait`: until it is. */
static void delete_acked(bool wait) {
    static struct bench_ids ids;
    if (deleting) {
        if (!wait && (PQconsumeInput(deleter) != 1 || PQisBusy(deleter))) {
            return;
        }
        PQclear(bench_reply(deleter, PGRES_COMMAND_OK));
        records += ids.count;
        deleting = false;
    }
    if (acked_count < (wait ? 1 : DELETE_MAX / 2)) {
        return;
    }
    for (ids.count = 0; acked_count > 0 && ids.count < DELETE_MAX; acked_count--) {
        bench_ids_add(&ids, acked[acked_first]);
        acked_first = (acked_first + 1) % ACKED_MAX;
    }
    bench_ids_send_delete(deleter, table, &ids);
    PQflush(deleter);
    deleting = true;
}

static uint32_t word(const char *p) {
    uint32_t w;
    memcpy(&w, p, 4);
    return ntohl(w);
}

/* Two binary text[] of the same length. */
static rd_kafka_headers_t *headers(const char *names, const char *values) {
    uint32_t count = word(names) == 0 ? 0 : word(names + 12);
    rd_kafka_headers_t *list = rd_kafka_headers_new(count);
    for (names += 20, values += 20; count > 0; count--) {
        uint32_t name = word(names), value = word(values);
        rd_kafka_header_add(list, names + 4, name, values + 4, value);
        names += 4 + name;
        values += 4 + value;
    }
    return list;
}

static void produce(const PGresult *r, int row) {
    while (in_flight >= in_flight_max) {
        bench_reports(queue, 100, on_delivered);
        delete_acked(false);
    }
    rd_kafka_resp_err_t err = rd_kafka_producev(
        client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(PQgetvalue(r, row, 1), (size_t)PQgetlength(r, row, 1)),
        RD_KAFKA_V_VALUE(PQgetvalue(r, row, 2), (size_t)PQgetlength(r, row, 2)),
        RD_KAFKA_V_HEADERS(headers(PQgetvalue(r, row, 3), PQgetvalue(r, row, 4))),
        RD_KAFKA_V_OPAQUE((void *)(intptr_t)bench_id(r, row)), RD_KAFKA_V_END);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        bench_die("produce", rd_kafka_err2str(err));
    }
    in_flight++;
}

static void relay(int batch) {
    send_read(0, batch);
    for (int rows = 1; rows > 0;) {
        PGresult *r = bench_reply(reader, PGRES_TUPLES_OK);
        rows = PQntuples(r);
        if (rows > 0) {
            send_read(bench_id(r, rows - 1), batch);
        }
        for (int i = 0; i < rows; i++) {
            produce(r, i);
        }
        PQclear(r);
        while (bench_reports(queue, 0, on_delivered) > 0) {
        }
        delete_acked(false);
    }
    while (in_flight > 0 || acked_count > 0 || deleting) {
        bench_reports(queue, in_flight > 0 ? 10 : 0, on_delivered);
        delete_acked(in_flight == 0);
    }
}

int main(int argc, char **argv) {
    const int batch = argc > 5 ? atoi(argv[4]) : 0;
    in_flight_max = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
    if (batch < 1 || in_flight_max < 1 || in_flight_max > ACKED_MAX / 2) {
        bench_die("usage", "raw CONNINFO TABLE TOPIC BATCH IN_FLIGHT [PROPERTY=VALUE...]");
    }
    table = argv[2];
    client = bench_client(argv + 6, &queue);
    topic = bench_topic(client, argv[3]);
    reader = bench_connect(argv[1]);
    deleter = bench_connect(argv[1]);

    struct bench_clock clock;
    bench_start(&clock);
    relay(batch);
    bench_end(&clock, records);
    PQfinish(reader);
    PQfinish(deleter);
    rd_kafka_topic_destroy(topic);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
    return 0;
}
