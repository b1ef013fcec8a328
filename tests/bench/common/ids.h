/* A batch of ids as Postgres takes them (a binary int8[]), and the statement that deletes them. */
#ifndef BENCH_COMMON_IDS_H
#define BENCH_COMMON_IDS_H

#include <libpq-fe.h>
#include <stdint.h>

#define BENCH_IDS_MAX 20000

struct bench_ids {
    int count;
    struct {
        uint32_t words[5]; /* dimensions, flags, type of elements, length, lower bound */
        struct {
            uint8_t bytes[12]; /* length, value: not aligned */
        } items[BENCH_IDS_MAX];
    } array;
};

PGconn *bench_connect(const char *conninfo);

void bench_ids_add(struct bench_ids *ids, int64_t id);

/* The id of a binary row whose first column it is. */
int64_t bench_id(const PGresult *rows, int row);

/* Sends DELETE FROM table WHERE id = ANY (ids), whose reply is to be taken by the caller. */
void bench_ids_send_delete(PGconn *c, const char *table, struct bench_ids *ids);

/* Takes the reply to one statement; dies unless it is `wanted`. The caller clears it. */
PGresult *bench_reply(PGconn *c, ExecStatusType wanted);

#endif
