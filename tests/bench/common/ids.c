/* See ids.h. */
#include "ids.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"

#define OID_INT8 20
#define OID_INT8_ARRAY 1016

PGconn *bench_connect(const char *conninfo) {
    PGconn *c = PQconnectdb(conninfo);
    if (PQstatus(c) != CONNECTION_OK) {
        bench_die("connect", PQerrorMessage(c));
    }
    return c;
}

void bench_ids_add(struct bench_ids *ids, int64_t id) {
    const uint32_t eight = htobe32(8);
    const uint64_t value = htobe64((uint64_t)id);
    memcpy(ids->array.items[ids->count].bytes, &eight, 4);
    memcpy(ids->array.items[ids->count].bytes + 4, &value, 8);
    ids->count++;
}

int64_t bench_id(const PGresult *rows, int row) {
    uint64_t id;
    memcpy(&id, PQgetvalue(rows, row, 0), 8);
    return (int64_t)be64toh(id);
}

void bench_ids_send_delete(PGconn *c, const char *table, struct bench_ids *ids) {
    const uint32_t words[] = {1, 0, OID_INT8, (uint32_t)ids->count, 1};
    for (int i = 0; i < 5; i++) {
        ids->array.words[i] = htobe32(words[i]);
    }
    char sql[512];
    snprintf(sql, sizeof sql, "DELETE FROM %s WHERE id = ANY ($1)", table);
    const Oid types[] = {OID_INT8_ARRAY};
    const char *values[] = {(const char *)&ids->array};
    const int lengths[] = {(int)sizeof ids->array.words + 12 * ids->count}, formats[] = {1};
    if (PQsendQueryParams(c, sql, 1, types, values, lengths, formats, 1) != 1) {
        bench_die("delete", PQerrorMessage(c));
    }
}

PGresult *bench_reply(PGconn *c, ExecStatusType wanted) {
    PGresult *reply = PQgetResult(c);
    if (PQresultStatus(reply) != wanted) {
        bench_die("statement", PQerrorMessage(c));
    }
    PQclear(PQgetResult(c)); /* the NULL behind it */
    return reply;
}
