/* What the actions of `harvestd park` share: the connection, and the tables. They block. */
#ifndef HV_APP_CMD_PARK_H
#define HV_APP_CMD_PARK_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/options.h"
#include "io/pg_table.h"

struct hv_parking {
    const struct hv_options *options;
    PGconn *conn;
    char outbox[HV_TABLE_QUOTED_MAX], parked[HV_TABLE_QUOTED_MAX]; /* quoted for SQL */
    char *draw, *columns; /* for replay: the expression that draws an id, and the columns of both tables but id and leader_id; or NULL */
    bool key_is_bytea, value_is_bytea, headers_are_bytea;
};

/* Runs a statement, in which {O} stands for the outbox, {P} for the parked records, {D} for draw and {C} for columns; parameters as text. With `binary` results are: text as it
 * is, bytea byte for byte. NULL after it told that it failed. */
PGresult *hv_parking_ask(struct hv_parking *parking, const char *sql, int count, const char *const *values, bool binary);
/* The same for what has no result. Returns 0, or -1 after it told. */
int hv_parking_run(struct hv_parking *parking, const char *sql);

/* The ids that were chosen, in the order of their places; `most`: how many at most, 0 for all. The caller frees. -1 after it told. Tells
 * which ids were named and are not there, and sets *ret_missing. */
int hv_parking_ids(struct hv_parking *parking, uint64_t most, int64_t **ret, size_t *ret_count, bool *ret_missing);

/* The actions; each returns the exit code. */
int hv_parking_list(struct hv_parking *parking, bool all);
int hv_parking_show(struct hv_parking *parking);
int hv_parking_replay(struct hv_parking *parking);

#endif
