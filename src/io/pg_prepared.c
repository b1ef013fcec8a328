/* See pg_prepared.h. */
#include "io/pg_prepared.h"

#include <assert.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define TIMES_MAX 8                /* a statement is prepared anew in a session: the server keeps the old ones */
#define BYTES_KEPT ((size_t)1 << 16) /* of parameters, between statements */

static const int binary[HV_PG_PARAMS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1};

void hv_pg_prepared_begin(struct hv_pg_prepared *prepared, bool is_ours) {
    prepared->usable = is_ours && !prepared->off;
    prepared->count = 0;
    prepared->step = HV_PG_UNNAMED;
    prepared->latest = NULL;
}

static void free_bytes(struct hv_pg_params *params) {
    free(params->bytes);
    params->bytes = NULL;
    params->room = 0;
}

void hv_pg_prepared_fini(struct hv_pg_prepared *prepared) {
    free_bytes(&prepared->params);
}

/* ---- parameters ---- */

static bool make_room(struct hv_pg_params *params, size_t total) {
    if (total <= params->room) {
        return true;
    }
    free_bytes(params);
    params->bytes = malloc(total);
    params->room = params->bytes != NULL ? total : 0;
    return params->bytes != NULL;
}

static bool copy_params(struct hv_pg_params *params, int count, const Oid *types, const char *const *values, const int *lengths) {
    size_t total = 1, at = 0; /* an empty value is none that is missing */
    for (int i = 0; i < count; i++) {
        total += values[i] != NULL ? (size_t)lengths[i] : 0;
    }
    if (!make_room(params, total)) {
        return false;
    }
    params->count = count;
    for (int i = 0; i < count; i++) {
        size_t length = values[i] != NULL ? (size_t)lengths[i] : 0;
        params->types[i] = types[i];
        params->lengths[i] = (int)length;
        params->values[i] = values[i] != NULL ? params->bytes + at : NULL;
        if (length > 0) {
            memcpy(params->bytes + at, values[i], length);
        }
        at += length;
    }
    return true;
}

/* ---- steps ---- */

/* The name says what is in it: should we ever be lent another server connection of ours, the same name stands for the same statement. */
static void name_statement(struct hv_pg_statement *statement, const struct hv_pg_params *params) {
    uint64_t hash = hv_hash64(HV_HASH64_START, statement->sql, strlen(statement->sql));
    hash = hv_hash64(hash, (const char *)params->types, (size_t)params->count * sizeof params->types[0]);
    snprintf(statement->name, sizeof statement->name, "harvestd_%016" PRIx64 "_%u", hash, statement->times);
}

static struct hv_pg_statement *find(struct hv_pg_prepared *prepared, const char *sql) {
    for (size_t i = 0; i < prepared->count; i++) {
        if (prepared->list[i].sql == sql) {
            return &prepared->list[i];
        }
    }
    if (prepared->count == HV_PG_PREPARED_MAX) {
        return NULL;
    }
    struct hv_pg_statement *added = &prepared->list[prepared->count++];
    *added = (struct hv_pg_statement){.sql = sql};
    return added;
}

static int send_step(struct hv_pg_prepared *prepared, PGconn *conn, enum hv_pg_step step) {
    const struct hv_pg_params *params = &prepared->params;
    struct hv_pg_statement *statement = prepared->latest;
    prepared->step = step;
    switch (step) {
    case HV_PG_PREPARING:
        name_statement(statement, params);
        statement->times++;
        return PQsendPrepare(conn, statement->name, statement->sql, params->count, params->types);
    case HV_PG_EXECUTING:
        return PQsendQueryPrepared(conn, statement->name, params->count, params->values, params->lengths, binary, 1);
    case HV_PG_UNNAMED:
        break;
    }
    return PQsendQueryParams(conn, statement->sql, params->count, params->types, params->values, params->lengths, binary, 1);
}

int hv_pg_prepared_send(struct hv_pg_prepared *prepared, PGconn *conn, const char *sql, int count, const Oid *types, const char *const *values,
                        const int *lengths) {
    assert(count <= HV_PG_PARAMS_MAX);
    struct hv_pg_statement *statement = prepared->usable ? find(prepared, sql) : NULL;
    if (statement == NULL || (!statement->there && statement->times >= TIMES_MAX) ||
        !copy_params(&prepared->params, count, types, values, lengths)) {
        prepared->step = HV_PG_UNNAMED;
        return PQsendQueryParams(conn, sql, count, types, values, lengths, binary, 1);
    }
    prepared->latest = statement;
    return send_step(prepared, conn, statement->there ? HV_PG_EXECUTING : HV_PG_PREPARING);
}

void hv_pg_prepared_other(struct hv_pg_prepared *prepared) {
    prepared->step = HV_PG_UNNAMED;
}

/* Is this what becomes of a statement only because it is prepared? That no statement of this name is there, or one is already, tells of
 * somebody in between. The third comes when the table was changed (also from a proxy that cannot prepare). */
static bool fails_for_its_name(struct hv_pg_prepared *prepared, const PGresult *answer) {
    const char *sqlstate = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
    if (PQresultStatus(answer) != PGRES_FATAL_ERROR || sqlstate == NULL) {
        return false;
    }
    if (strcmp(sqlstate, "26000") == 0 || strcmp(sqlstate, "42P05") == 0) {
        prepared->off = true;
        prepared->usable = false;
        return true;
    }
    if (strcmp(sqlstate, "0A000") == 0) { /* cached plan must not change result type */
        prepared->latest->there = false;
        return true;
    }
    return false;
}

enum hv_pg_next hv_pg_prepared_next(struct hv_pg_prepared *prepared, PGconn *conn, const PGresult *answer) {
    enum hv_pg_step next = HV_PG_UNNAMED;
    if (prepared->step == HV_PG_UNNAMED) {
        return HV_PG_ANSWERED;
    }
    if (!fails_for_its_name(prepared, answer)) {
        bool preparing = prepared->step == HV_PG_PREPARING;
        if (!preparing || PQresultStatus(answer) != PGRES_COMMAND_OK) {
            prepared->latest->times -= preparing; /* it was not: the name is free, and it is tried again */
            prepared->step = HV_PG_UNNAMED;
            if (prepared->params.room > BYTES_KEPT) {
                free_bytes(&prepared->params);
            }
            return HV_PG_ANSWERED;
        }
        prepared->latest->there = true;
        next = HV_PG_EXECUTING;
    }
    return send_step(prepared, conn, next) != 0 ? HV_PG_GOES_ON : HV_PG_NOT_SENT;
}

bool hv_pg_prepared_is_preparing(const struct hv_pg_prepared *prepared) {
    return prepared->step == HV_PG_PREPARING;
}
