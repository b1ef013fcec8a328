/* See stash_row.h. All parameters go in Postgres' binary format: no quoting, no escapes, the bytes as they are. Their types
 * are left to the server, which takes the columns' own, with two exceptions. Binary arrays carry the type of their
 * elements, so those of headers are declared: text[], which is assigned to varchar[] as well, or bytea[] where the
 * column is known to be that. And JSONB has a version in front of its text, so it, too, is declared. */
#include "rt/stash_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "core/record.h"
#include "io/pg_table.h"

/* Object identifiers of Postgres' own types; they never change. */
enum { BYTEA = 17, TEXT = 25, BYTEA_ARRAY = 1001, TEXT_ARRAY = 1009, VARCHAR_ARRAY = 1015, BPCHAR = 1042,
       VARCHAR = 1043, JSONB = 3802 };

#define BYTES_MAX 0x3fff0000u /* Postgres takes 1 GiB less a little */

static const struct {
    const char *column, *what;
    int outbox; /* HV_COL_... */
} params[HV_STASH_PARAMS] = {
    [HV_STASH_TOPIC] = {"kafka_topic", "the topic", HV_COL_TOPIC},
    [HV_STASH_KEY] = {"kafka_key", "the key", HV_COL_KEY},
    [HV_STASH_VALUE] = {"kafka_value", "the value", HV_COL_VALUE},
    [HV_STASH_HEADER_KEYS] = {"kafka_header_keys", "a header's name", HV_COL_HEADER_KEYS},
    [HV_STASH_HEADER_VALUES] = {"kafka_header_values", "a header's value", HV_COL_HEADER_VALUES},
};

/* ---- the table ---- */

void hv_stash_sql(const char *quoted_table, char *out, size_t size) {
    snprintf(out, size,
             "INSERT INTO %s (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, "
             "kafka_header_values) VALUES (pg_catalog.now(), $1, $2, $3, $4, $5)",
             quoted_table);
}

/* A row for the table itself, so that no table and no columns can be told apart. A limit is 4 above what it allows. */
const char hv_stash_columns_sql[] =
    "SELECT a.attname, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE a.atttypid END, "
    "CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END, "
    "pg_catalog.format_type(a.atttypid, a.atttypmod) FROM (SELECT pg_catalog.to_regclass($1)::oid AS oid) AS c "
    "LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
    "LEFT JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid WHERE c.oid IS NOT NULL";

static int find_row(const PGresult *result, const char *column) {
    for (int row = 0; row < PQntuples(result); row++) {
        if (strcmp(PQgetvalue(result, row, 0), column) == 0) {
            return row;
        }
    }
    return -1;
}

static int missing_column(const char *table, const char *column, struct hv_error *err) {
    return hv_error_set(err, "table %s has no column %s: add it (harvestd schema prints the table)", table, column);
}

int hv_stash_read_columns(const PGresult *result, const char *table, struct hv_stash_columns *ret,
                          struct hv_error *err) {
    struct hv_stash_columns found = {.known = true};
    if (PQnfields(result) != 4) {
        return hv_error_set(err, "the lookup of table %s has an unexpected answer", table);
    }
    if (PQntuples(result) == 0) {
        return hv_error_set(err,
                            "there is no table %s, at least none that search_path finds: check the name, or create "
                            "it (harvestd schema prints how)",
                            table);
    }
    if (find_row(result, "create_time") < 0) {
        return missing_column(table, "create_time", err);
    }
    for (int i = 0; i < HV_STASH_PARAMS; i++) {
        const char *expected;
        bool fine;
        int row = find_row(result, params[i].column);
        if (row < 0) {
            return missing_column(table, params[i].column, err);
        }
        Oid type = (Oid)strtoul(PQgetvalue(result, row, 1), NULL, 10);
        int32_t modifier = (int32_t)strtol(PQgetvalue(result, row, 2), NULL, 10);
        hv_table_column(params[i].outbox, type, &expected, &fine);
        if (!fine) {
            return hv_error_set(err, "column %s of table %s has type %s, expected %s", params[i].column, table,
                                PQgetvalue(result, row, 3), expected);
        }
        bool limited = (type == VARCHAR || type == BPCHAR || type == VARCHAR_ARRAY) && modifier >= 4;
        found.of[i] = (struct hv_stash_column){type, limited ? modifier - 4 : -1};
    }
    *ret = found;
    return 0;
}

/* ---- checks ---- */

/* Returns where the text stops to be UTF-8, or `length`, and counts the characters up to there. */
static size_t measure_utf8(const char *text, size_t length, size_t *chars) {
    size_t at = 0, step = 1;
    for (*chars = 0; at < length && step > 0; *chars += step > 0) {
        step = (unsigned char)text[at] < 0x80 ? 1 : hv_utf8_length(text + at, length - at, NULL);
        at += step;
    }
    return at;
}

static int check_conversion(int param, struct harvest_stash_bytes bytes, const struct hv_stash_encoding *encoding,
                            struct hv_error *err) {
    bool ascii = true;
    for (size_t i = 0; encoding->converts && i < bytes.length; i++) {
        ascii = ascii && ((const unsigned char *)bytes.data)[i] < 0x80;
    }
    if (ascii) {
        return HARVEST_STASH_OK;
    }
    hv_error_set(err,
                 "%s is not plain ASCII, and client_encoding of the connection is %s, so that other bytes would be "
                 "stored: PQsetClientEncoding(conn, \"UTF8\") first",
                 params[param].what, encoding->name == NULL ? "unknown" : encoding->name);
    return HARVEST_STASH_NOT_SENT;
}

static int check_text(int param, struct harvest_stash_bytes bytes, const struct hv_stash_columns *columns,
                      const struct hv_stash_encoding *encoding, struct hv_error *err) {
    const char *what = params[param].what, *column = params[param].column;
    const char *text = bytes.data, *nul = memchr(text, 0, bytes.length);
    size_t chars, valid = measure_utf8(text, bytes.length, &chars);
    int32_t limit = columns->known ? columns->of[param].chars_max : -1;
    if (nul != NULL) {
        hv_error_set(err, "%s holds a zero byte (at byte %zu), which column %s cannot hold: only one of type BYTEA can",
                     what, (size_t)(nul - text), column);
    } else if (encoding->must_be_utf8 && valid < bytes.length) {
        hv_error_set(err, "%s is no valid UTF-8 (at byte %zu), which column %s cannot hold: only one of type BYTEA can",
                     what, valid, column);
    } else if (limit >= 0 && valid == bytes.length && chars > (size_t)limit) {
        hv_error_set(err, "%s has %zu characters, and column %s holds %d: make it shorter, or the column wider", what,
                     chars, column, limit);
    } else {
        return check_conversion(param, bytes, encoding, err);
    }
    return HARVEST_STASH_BAD_RECORD;
}

/* What a column takes whose type is unknown is for the server to say; only a conversion it would not notice. */
static int check_bytes(int param, struct harvest_stash_bytes bytes, const struct hv_stash_columns *columns,
                       const struct hv_stash_encoding *encoding, struct hv_error *err) {
    if (columns->known && (columns->of[param].type == BYTEA || columns->of[param].type == BYTEA_ARRAY)) {
        return HARVEST_STASH_OK;
    }
    if (columns->known || param == HV_STASH_HEADER_KEYS || param == HV_STASH_HEADER_VALUES) {
        return check_text(param, bytes, columns, encoding, err);
    }
    return check_conversion(param, bytes, encoding, err);
}

static int check_headers(const struct harvest_stash_record *record, const struct hv_stash_columns *columns,
                         const struct hv_stash_encoding *encoding, struct hv_error *err) {
    if (record->header_count > 0 && record->headers == NULL) {
        hv_error_set(err, "header_count is %zu, but headers is NULL", record->header_count);
        return HARVEST_STASH_BAD_RECORD;
    }
    for (size_t i = 0; i < record->header_count; i++) {
        const struct harvest_stash_header *header = &record->headers[i];
        if (header->name == NULL) {
            hv_error_set(err, "header %zu has no name (NULL)", i);
            return HARVEST_STASH_BAD_RECORD;
        }
        if (header->value.data == NULL) {
            hv_error_set(err, "header %zu has no value (NULL), which an outbox cannot carry: an empty one will do", i);
            return HARVEST_STASH_BAD_RECORD;
        }
        int rc = check_bytes(HV_STASH_HEADER_KEYS, harvest_stash_text(header->name), columns, encoding, err);
        rc = rc != 0 ? rc : check_bytes(HV_STASH_HEADER_VALUES, header->value, columns, encoding, err);
        if (rc != 0) {
            return rc;
        }
    }
    return HARVEST_STASH_OK;
}

static int check_size(const struct harvest_stash_record *record, struct hv_error *err) {
    size_t parts[2] = {record->key.length, record->value.length}, total = 0;
    for (size_t i = 0; i < 2; i++) {
        total += parts[i] < BYTES_MAX ? parts[i] : BYTES_MAX;
    }
    for (size_t i = 0; i < record->header_count && total < BYTES_MAX; i++) {
        size_t value = record->headers[i].value.length;
        total += 8 + strlen(record->headers[i].name) + (value < BYTES_MAX ? value : BYTES_MAX);
    }
    if (total >= BYTES_MAX) {
        hv_error_set(err, "the record has 1 GiB or more, which neither Postgres nor Kafka takes");
        return HARVEST_STASH_BAD_RECORD;
    }
    return HARVEST_STASH_OK;
}

static int check_record(const struct harvest_stash_record *record, const struct hv_stash_columns *columns,
                        const struct hv_stash_encoding *encoding, struct hv_error *err) {
    if (record == NULL || record->topic == NULL || !hv_topic_is_legal(record->topic, strlen(record->topic))) {
        hv_error_set(err, "the topic is %s: it has to be 1 to 249 of a-z A-Z 0-9 . _ - and not '.' or '..'",
                     record == NULL || record->topic == NULL ? "missing (NULL)" : "no legal name");
        return HARVEST_STASH_BAD_RECORD;
    }
    if (record->key.data == NULL) {
        hv_error_set(err, "the key is missing (NULL): an outbox needs one, be it empty");
        return HARVEST_STASH_BAD_RECORD;
    }
    if (record->value.data == NULL && record->value.length > 0) {
        hv_error_set(err, "the value is NULL, but its length is %zu: a tombstone has none", record->value.length);
        return HARVEST_STASH_BAD_RECORD;
    }
    struct harvest_stash_bytes topic = harvest_stash_text(record->topic);
    int rc = check_headers(record, columns, encoding, err);
    rc = rc != 0 ? rc : check_size(record, err);
    rc = rc != 0 ? rc : check_bytes(HV_STASH_TOPIC, topic, columns, encoding, err);
    rc = rc != 0 ? rc : check_bytes(HV_STASH_KEY, record->key, columns, encoding, err);
    if (rc == 0 && record->value.data != NULL) {
        rc = check_bytes(HV_STASH_VALUE, record->value, columns, encoding, err);
    }
    return rc;
}

/* ---- layout ---- */

static uint8_t *put_element(uint8_t *at, const void *data, size_t length) {
    at = hv_put_be32(at, (uint32_t)length);
    memcpy(at, data, length);
    return at + length;
}

void hv_stash_param_types(const struct hv_stash_columns *columns, Oid types[HV_STASH_PARAMS]) {
    const struct hv_stash_column *of = columns->of;
    memset(types, 0, HV_STASH_PARAMS * sizeof types[0]);
    types[HV_STASH_VALUE] = columns->known && of[HV_STASH_VALUE].type == JSONB ? JSONB : 0;
    types[HV_STASH_HEADER_KEYS] = TEXT_ARRAY;
    types[HV_STASH_HEADER_VALUES] =
        columns->known && of[HV_STASH_HEADER_VALUES].type == BYTEA_ARRAY ? BYTEA_ARRAY : TEXT_ARRAY;
}

static void set_param(struct hv_stash_params *out, int param, const void *data, size_t length) {
    out->values[param] = data;
    out->lengths[param] = (int)length;
    out->formats[param] = 1;
}

static uint8_t *put_headers(uint8_t *at, const struct harvest_stash_record *record, struct hv_stash_params *out) {
    uint8_t *start = at;
    at = hv_put_array_head(at, TEXT, (uint32_t)record->header_count);
    for (size_t i = 0; i < record->header_count; i++) {
        at = put_element(at, record->headers[i].name, strlen(record->headers[i].name));
    }
    set_param(out, HV_STASH_HEADER_KEYS, start, (size_t)(at - start));
    start = at;
    at = hv_put_array_head(at, out->types[HV_STASH_HEADER_VALUES] == BYTEA_ARRAY ? BYTEA : TEXT,
                           (uint32_t)record->header_count);
    for (size_t i = 0; i < record->header_count; i++) {
        at = put_element(at, record->headers[i].value.data, record->headers[i].value.length);
    }
    set_param(out, HV_STASH_HEADER_VALUES, start, (size_t)(at - start));
    return at;
}

static size_t memory_needed(const struct harvest_stash_record *record, bool jsonb) {
    size_t size = 2 * HV_ARRAY_HEAD + (jsonb ? 1 + record->value.length : 0);
    for (size_t i = 0; i < record->header_count; i++) {
        size += 8 + strlen(record->headers[i].name) + record->headers[i].value.length;
    }
    return size;
}

int hv_stash_params_make(const struct harvest_stash_record *record, const struct hv_stash_columns *columns,
                         const struct hv_stash_encoding *encoding, struct hv_stash_params *ret, struct hv_error *err) {
    int rc = check_record(record, columns, encoding, err);
    if (rc != HARVEST_STASH_OK) {
        return rc;
    }
    memset(ret, 0, sizeof *ret);
    hv_stash_param_types(columns, ret->types);
    bool jsonb = ret->types[HV_STASH_VALUE] == JSONB && record->value.data != NULL;
    uint8_t *at = malloc(memory_needed(record, jsonb));
    if (at == NULL) {
        hv_error_set(err, "out of memory");
        return HARVEST_STASH_NOT_SENT;
    }
    ret->memory = at;
    set_param(ret, HV_STASH_TOPIC, record->topic, strlen(record->topic));
    set_param(ret, HV_STASH_KEY, record->key.data, record->key.length);
    set_param(ret, HV_STASH_VALUE, record->value.data, record->value.length);
    at = put_headers(at, record, ret);
    if (jsonb) {
        at[0] = 1; /* the version of its binary form */
        memcpy(at + 1, record->value.data, record->value.length);
        set_param(ret, HV_STASH_VALUE, at, 1 + record->value.length);
    }
    return HARVEST_STASH_OK;
}

void hv_stash_params_free(struct hv_stash_params *params_made) {
    free(params_made->memory);
    params_made->memory = NULL;
}
