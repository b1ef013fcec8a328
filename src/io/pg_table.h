/* The outbox table's shape: its name in SQL, what types its columns may have, and how a row of a binary
 * result reads. */
#ifndef HV_IO_PG_TABLE_H
#define HV_IO_PG_TABLE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "core/record.h"
#include "io/pg_conn.h"

#define HV_TABLE_QUOTED_MAX 300

/* The columns that results have, in this order; a probe's result has leader_id, two rights, whether the
 * database is read-only, whether id is unique, and whether rows have versions behind them. */
enum { HV_COL_ID, HV_COL_TOPIC, HV_COL_KEY, HV_COL_VALUE, HV_COL_HEADER_KEYS, HV_COL_HEADER_VALUES,
      HV_COL_LEADER_ID };
#define HV_COLS_OF_ROW 6
/* ... and those of rows have behind them, some or all: */
enum { HV_COL_VERSION = HV_COLS_OF_ROW, HV_COL_CUT, HV_COL_BARE, HV_COL_WAS };

struct hv_table_types {
    Oid of[HV_COLS_OF_ROW];
    bool versions; /* rows of different content, or others with the same id, can be told from each other */
};

/* See hv_outbox_quote_table. */
int hv_table_quote(const char *table, char *out, size_t size, struct hv_error *err);

/* The channel on which `harvestd schema --notify` has the table's inserts told: one name for one table, however it is quoted; at most
 * 63 bytes. Returns 0, or -1 with err. */
#define HV_TABLE_CHANNEL_SIZE 64
int hv_table_channel(const char *table, char out[HV_TABLE_CHANNEL_SIZE], struct hv_error *err);

/* The schema that `table` names, quoted and with a dot behind it, or "": for what is to be made beside the table. size >=
 * HV_TABLE_QUOTED_MAX. Returns 0, or -1 with err. */
int hv_table_schema(const char *table, char *out, size_t size, struct hv_error *err);

/* Writes what stands for `name` in SQL: in double quotes, those in it doubled. Returns its length; out has room for two bytes each, and
 * three. */
size_t hv_table_quote_name(char *out, const char *name);

/* The column at HV_COL_...: returns its name; *ret_expected says what its type may be, *ret_fine whether
 * this one is. */
const char *hv_table_column(int column, Oid type, const char **ret_expected, bool *ret_fine);

/* Judges the answer to the probe. Returns 0 and the columns' types, or -1 with what is wrong. */
int hv_table_check(const PGresult *probe, const char *table, struct hv_table_types *ret_types,
                   enum hv_pg_trouble *ret_trouble, struct hv_error *err);

/* Does this result have the columns of a row, in the types that were probed? */
bool hv_table_types_match(const PGresult *result, const struct hv_table_types *types);

bool hv_table_value_is_json(const struct hv_table_types *types);

/* Points into the result. */
void hv_table_read_row(const PGresult *result, int row, const struct hv_table_types *types,
                       struct hv_row *ret);
/* A version, in column HV_COL_VERSION or HV_COL_WAS; 0 if there is no such column. */
uint32_t hv_table_read_version(const PGresult *result, int row, int column);
int64_t hv_table_read_id(const PGresult *result, int row); /* of column 0: int2, int4 or int8 */

#endif
