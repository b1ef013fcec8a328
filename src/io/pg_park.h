/* The table of parked records, <outbox>_parked: its name, its shape, and the statement that moves rows there. */
#ifndef HV_IO_PG_PARK_H
#define HV_IO_PG_PARK_H

#include <libpq-fe.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/time.h"
#include "io/pg_conn.h"

/* A row to be parked, and why. */
struct hv_parked {
    int64_t id;
    const char *failure_class; /* one word or two, such as "too large"; NULL: "" */
    const char *error;         /* what was said last; NULL: "". What is not printable ASCII is replaced, and it is cut: see HV_PARK_ERROR_MAX */
    uint32_t attempts;         /* how often it was tried */
    hv_time failing_for;       /* how long ago it failed first */
    uint32_t version;          /* only this one of the row is parked; 0: any */
};

#define HV_PARK_ERROR_MAX 1000

/* The suffixes of what there is beside an outbox. */
#define HV_PARK_TABLE "_parked"
#define HV_PARK_INDEX "_parked_open"
#define HV_PARK_FUNCTION "_parked_note"
#define HV_PARK_TRIGGER "harvestd_parked" /* on the outbox */

/* SQL: the trigger's identity, NULL for none that works; `table`: an SQL text. One that was dropped and made again is another one, which
 * does not know what happened between. */
#define HV_PARK_TRIGGER_OF(table) \
    "(SELECT oid FROM pg_catalog.pg_trigger WHERE tgrelid = pg_catalog.to_regclass(" table ") AND tgname = '" HV_PARK_TRIGGER "' " \
    "AND tgenabled IN ('O', 'A'))"

/* The name of the outbox (quoted, as hv_table_quote gives it) with a suffix, quoted, in the same schema. Names that would be longer than
 * Postgres' 63 bytes are cut and get a hash, so that two long ones stay two. size >= HV_TABLE_QUOTED_MAX. */
void hv_park_name(const char *quoted_table, const char *suffix, char *out, size_t size);

/* Parameters: outbox and table of parked records, both quoted, text. One row; hv_park_read_shape knows what is in it. */
extern const char hv_park_shape_sql[];

/* Judges the answer (in binary or in text); `versions`: rows of the outbox have them, see struct hv_table_types. Returns 0 and the
 * statement that parks, which the caller frees, or -1 with what is wrong and the SQL that mends it. */
int hv_park_read_shape(const PGresult *result, const char *table, const char *parked, bool versions, char **ret_sql,
                       struct hv_error *err);

/* The statement's parameters, binary. */
enum { HV_PARK_PARAMS = 7 };
extern const Oid hv_park_param_types[HV_PARK_PARAMS];
struct hv_park_params {
    void *values[HV_PARK_PARAMS];
    int lengths[HV_PARK_PARAMS];
};

/* Copies the rows; `table`: the outbox, quoted. Returns 0, or -1 (nothing is kept) without memory. */
int hv_park_params_make(const struct hv_parked *rows, size_t count, const char *table, struct hv_park_params *ret);
void hv_park_params_free(struct hv_park_params *params); /* also when they were never made (all zero) */

#endif
