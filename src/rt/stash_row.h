/* The stasher's row: what the columns of an outbox can hold, and a record as the parameters of its INSERT. Makes no
 * call that waits. */
#ifndef HV_RT_STASH_ROW_H
#define HV_RT_STASH_ROW_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "harvest_stash.h"

/* The columns that a record goes to; also the order of the statement's parameters. */
enum { HV_STASH_TOPIC, HV_STASH_KEY, HV_STASH_VALUE, HV_STASH_HEADER_KEYS, HV_STASH_HEADER_VALUES, HV_STASH_PARAMS };

/* What is known of the table. */
struct hv_stash_columns {
    bool known;
    struct hv_stash_column {
        Oid type;          /* a domain's is that below it */
        int32_t chars_max; /* VARCHAR(n): n; -1: no limit */
    } of[HV_STASH_PARAMS];
};

/* What a connection does to text on its way into a text column. */
struct hv_stash_encoding {
    bool converts;  /* anything but ASCII would become other bytes */
    bool must_be_utf8;
    const char *name; /* client_encoding, for messages; may be NULL */
};

struct hv_stash_params {
    Oid types[HV_STASH_PARAMS];
    const char *values[HV_STASH_PARAMS];
    int lengths[HV_STASH_PARAMS];
    int formats[HV_STASH_PARAMS];
    void *memory; /* owned: the arrays of headers, a value of JSONB */
};

/* The statement for which these parameters are, and the lookup of the columns with the quoted table name as $1. */
void hv_stash_sql(const char *quoted_table, char *out, size_t size);
extern const char hv_stash_columns_sql[];

/* Reads the lookup's answer (text format). Returns 0, or -1 with what is wrong with the table. */
int hv_stash_read_columns(const PGresult *result, const char *table, struct hv_stash_columns *ret,
                          struct hv_error *err);

/* The parameters' types as they are to be declared; 0 leaves one to the server, which takes the column's own. */
void hv_stash_param_types(const struct hv_stash_columns *columns, Oid types[HV_STASH_PARAMS]);

/* Checks the record and lays out its parameters, which point into it. Returns HARVEST_STASH_OK (then the caller gives
 * ret to hv_stash_params_free), HARVEST_STASH_BAD_RECORD or HARVEST_STASH_NOT_SENT with err. */
int hv_stash_params_make(const struct harvest_stash_record *record, const struct hv_stash_columns *columns,
                         const struct hv_stash_encoding *encoding, struct hv_stash_params *ret, struct hv_error *err);
void hv_stash_params_free(struct hv_stash_params *params);

#endif
