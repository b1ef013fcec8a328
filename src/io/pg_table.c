/* See pg_table.h. */
#include "io/pg_table.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"

/* Object identifiers of Postgres' own types; they never change. */
enum {
    BOOL = 16,
    BYTEA = 17,
    NAME = 19,
    INT8 = 20,
    INT2 = 21,
    INT4 = 23,
    TEXT = 25,
    JSON = 114,
    XML = 142,
    FLOAT4 = 700,
    FLOAT8 = 701,
    BYTEA_ARRAY = 1001,
    TEXT_ARRAY = 1009,
    VARCHAR_ARRAY = 1015,
    BPCHAR = 1042,
    VARCHAR = 1043,
    DATE = 1082,
    TIMESTAMP = 1114,
    TIMESTAMPTZ = 1184,
    NUMERIC = 1700,
    UUID = 2950,
    JSONB = 3802,
};

static const struct column {
    const char *name, *expected;
    Oid types[8]; /* 0 ends */
} columns[] = {
    [HV_COL_ID] = {"id", "bigint, integer or smallint", {INT8, INT4, INT2}},
    [HV_COL_TOPIC] = {"kafka_topic", "text or varchar", {TEXT, VARCHAR, BPCHAR, NAME}},
    [HV_COL_KEY] = {"kafka_key", "text, varchar or bytea", {TEXT, VARCHAR, BPCHAR, NAME, BYTEA}},
    [HV_COL_VALUE] = {"kafka_value", "text, varchar, bytea, json or jsonb", {TEXT, VARCHAR, BPCHAR, NAME,
                                                                             BYTEA, JSON, JSONB}},
    [HV_COL_HEADER_KEYS] = {"kafka_header_keys", "text[] or varchar[]", {TEXT_ARRAY, VARCHAR_ARRAY}},
    [HV_COL_HEADER_VALUES] = {"kafka_header_values", "text[], varchar[] or bytea[]", {TEXT_ARRAY,
                                                                                      VARCHAR_ARRAY,
                                                                                          BYTEA_ARRAY}},
    [HV_COL_LEADER_ID] = {"leader_id", "uuid", {UUID}},
};

static const char *type_name(Oid type, char *buffer, size_t size) {
    static const struct {
        Oid type;
        const char *name;
    } names[] = {
        {BOOL, "boolean"}, {BYTEA, "bytea"}, {NAME, "name"}, {INT8, "bigint"}, {INT2, "smallint"},
        {INT4, "integer"}, {TEXT, "text"}, {JSON, "json"}, {XML, "xml"}, {FLOAT4, "real"},
        {FLOAT8, "double precision"}, {BYTEA_ARRAY, "bytea[]"}, {TEXT_ARRAY, "text[]"},
        {VARCHAR_ARRAY, "varchar[]"}, {BPCHAR, "char"}, {VARCHAR, "varchar"}, {DATE, "date"},
        {TIMESTAMP, "timestamp"}, {TIMESTAMPTZ, "timestamptz"}, {NUMERIC, "numeric"}, {UUID, "uuid"},
        {JSONB, "jsonb"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].type == type) {
            return names[i].name;
        }
    }
    snprintf(buffer, size, "with oid %u", type);
    return buffer;
}

static bool type_is_fine(const struct column *column, Oid type) {
    for (size_t i = 0; i < sizeof column->types / sizeof column->types[0] && column->types[i] != 0; i++) {
        if (column->types[i] == type) {
            return true;
        }
    }
    return false;
}

const char *hv_table_column(int column, Oid type, const char **ret_expected, bool *ret_fine) {
    *ret_expected = columns[column].expected;
    *ret_fine = type_is_fine(&columns[column], type);
    return columns[column].name;
}

static bool is_true(const PGresult *result, int column) {
    return PQgetlength(result, 0, column) == 1 && PQgetvalue(result, 0, column)[0] != 0;
}

int hv_table_check(const PGresult *probe, const char *table, struct hv_table_types *ret_types,
                   enum hv_pg_trouble *ret_trouble, struct hv_error *err) {
    *ret_trouble = HV_PG_WRONG_TYPE;
    if (PQnfields(probe) != HV_COLS_OF_ROW + 6 || PQntuples(probe) != 1) {
        return hv_error_set(err, "the probe of table %s has an unexpected answer", table);
    }
    for (int i = 0; i <= HV_COL_LEADER_ID; i++) {
        char buffer[32];
        if (!type_is_fine(&columns[i], PQftype(probe, i))) {
            return hv_error_set(err, "column %s of table %s has type %s, expected %s", columns[i].name, table,
                                type_name(PQftype(probe, i), buffer, sizeof buffer), columns[i].expected);
        }
    }
    *ret_trouble = HV_PG_NO_RIGHTS;
    if (!is_true(probe, HV_COLS_OF_ROW + 1)) {
        return hv_error_set(err, "no right to UPDATE column leader_id of table %s", table);
    }
    if (!is_true(probe, HV_COLS_OF_ROW + 2)) {
        return hv_error_set(err, "no right to DELETE from table %s", table);
    }
    if (is_true(probe, HV_COLS_OF_ROW + 3)) {
        *ret_trouble = HV_PG_NOT_READY;
        return hv_error_set(err, "the database is read-only (a standby, or default_transaction_read_only)");
    }
    if (!is_true(probe, HV_COLS_OF_ROW + 4)) {
        /* Rows are known, and deleted, by their id: of two with the same one, one would be lost. */
        return hv_error_set(err, "no unique index of table %s begins with id: make id its primary key", table);
    }
    for (int i = 0; i < HV_COLS_OF_ROW; i++) {
        ret_types->of[i] = PQftype(probe, i);
    }
    ret_types->versions = is_true(probe, HV_COLS_OF_ROW + 5);
    return 0;
}

bool hv_table_types_match(const PGresult *result, const struct hv_table_types *types) {
    if (PQnfields(result) < HV_COLS_OF_ROW) { /* what follows them is not of the table */
        return false;
    }
    for (int i = 0; i < HV_COLS_OF_ROW; i++) {
        if (PQftype(result, i) != types->of[i] || PQfformat(result, i) != 1) {
            return false;
        }
    }
    return true;
}

bool hv_table_value_is_json(const struct hv_table_types *types) {
    return types->of[HV_COL_VALUE] == JSON || types->of[HV_COL_VALUE] == JSONB;
}

int64_t hv_table_read_id(const PGresult *result, int row) {
    const uint8_t *p = (const uint8_t *)PQgetvalue(result, row, HV_COL_ID);
    int length = PQgetlength(result, row, HV_COL_ID);
    if (length == 8) {
        return (int64_t)hv_get_be64(p);
    }
    /* Sign-extended from its first byte. */
    uint64_t id = length > 0 && p[0] >= 0x80 ? UINT64_MAX : 0;
    for (int i = 0; i < length && i < 8; i++) {
        id = id << 8 | p[i];
    }
    return (int64_t)id;
}

uint32_t hv_table_read_version(const PGresult *result, int row, int column) {
    bool there = column < PQnfields(result) && PQgetlength(result, row, column) == 4;
    return there ? hv_get_be32((const uint8_t *)PQgetvalue(result, row, column)) : 0;
}

static inline struct hv_column read_column(const PGresult *result, int row, int column, Oid type) {
    struct hv_column c = {(const uint8_t *)PQgetvalue(result, row, column), PQgetlength(result, row, column)};
    if (c.length == 0 && PQgetisnull(result, row, column)) {
        return (struct hv_column){NULL, -1};
    }
    if (type == JSONB && c.length > 0 && c.data[0] == 1) {
        c.data++; /* the version of its binary form; its text follows */
        c.length--;
    }
    return c;
}

void hv_table_read_row(const PGresult *result, int row, const struct hv_table_types *types,
                       struct hv_row *ret) {
    ret->id = hv_table_read_id(result, row);
    ret->topic = read_column(result, row, HV_COL_TOPIC, types->of[HV_COL_TOPIC]);
    ret->key = read_column(result, row, HV_COL_KEY, types->of[HV_COL_KEY]);
    ret->value = read_column(result, row, HV_COL_VALUE, types->of[HV_COL_VALUE]);
    ret->header_keys = read_column(result, row, HV_COL_HEADER_KEYS, types->of[HV_COL_HEADER_KEYS]);
    ret->header_values = read_column(result, row, HV_COL_HEADER_VALUES, types->of[HV_COL_HEADER_VALUES]);
}

/* ---- names ---- */

#define NAME_BYTES_MAX 63

static bool plain_char(unsigned char c, bool first) {
    return isalpha(c) || c == '_' || c >= 0x80 || (!first && (isdigit(c) || c == '$'));
}

/* Reads one part of a name into `part` (as it is stored in the catalogue). Returns what follows it, or
 * NULL with err. */
static const char *read_part(const char *text, char part[NAME_BYTES_MAX + 1], struct hv_error *err) {
    size_t n = 0;
    bool quoted = *text == '"';
    const char *p = text + quoted;
    for (; *p != 0; p++) {
        if (quoted && *p == '"' && *++p != '"') {
            quoted = false;
            break;
        }
        if (text[0] != '"' && *p == '.') {
            break;
        }
        if (text[0] != '"' && !plain_char((unsigned char)*p, n == 0)) {
            hv_error_set(err, "the table name holds \"%c\": put such a name in double quotes", *p);
            return NULL;
        }
        if (n == NAME_BYTES_MAX) {
            hv_error_set(err, "the table name is longer than %d bytes", NAME_BYTES_MAX);
            return NULL;
        }
        part[n++] = (char)(text[0] == '"' || (unsigned char)*p >= 0x80 ? *p : tolower((unsigned char)*p));
    }
    part[n] = 0;
    if (quoted || n == 0) {
        hv_error_set(err, quoted ? "the table name lacks its closing double quote"
                                 : "the table name or a part of it is empty");
        return NULL;
    }
    return p;
}

size_t hv_table_quote_name(char *out, const char *part) {
    char *at = out;
    *at++ = '"';
    for (; *part != 0; part++) {
        if (*part == '"') {
            *at++ = '"';
        }
        *at++ = *part;
    }
    *at++ = '"';
    *at = 0;
    return (size_t)(at - out);
}

/* The one or two parts of a name, as they are stored in the catalogue. Returns how many, or -1 with err. */
static int read_parts(const char *table, char parts[2][NAME_BYTES_MAX + 1], struct hv_error *err) {
    int count = 0;
    for (const char *p = table;;) {
        if (count == 2) {
            return hv_error_set(err, "the table name has more than two parts; only schema.table is known");
        }
        p = read_part(p, parts[count++], err);
        if (p == NULL) {
            return -1;
        }
        if (*p == 0) {
            return count;
        }
        if (*p++ != '.') {
            return hv_error_set(err, "the table name goes on after its closing double quote");
        }
    }
}

int hv_table_quote(const char *table, char *out, size_t size, struct hv_error *err) {
    char parts[2][NAME_BYTES_MAX + 1];
    if (size < HV_TABLE_QUOTED_MAX) {
        return hv_error_set(err, "no room for the table name");
    }
    int count = read_parts(table, parts, err);
    if (count < 0) {
        return -1;
    }
    size_t n = hv_table_quote_name(out, parts[0]);
    if (count == 2) {
        out[n++] = '.';
        hv_table_quote_name(out + n, parts[1]);
    }
    return 0;
}

int hv_table_schema(const char *table, char *out, size_t size, struct hv_error *err) {
    char parts[2][NAME_BYTES_MAX + 1];
    int count = read_parts(table, parts, err);
    if (count < 0 || size < HV_TABLE_QUOTED_MAX) {
        return -1;
    }
    size_t length = count == 2 ? hv_table_quote_name(out, parts[0]) : 0;
    snprintf(out + length, size - length, "%s", count == 2 ? "." : "");
    return 0;
}

int hv_table_channel(const char *table, char out[HV_TABLE_CHANNEL_SIZE], struct hv_error *err) {
    char parts[2][NAME_BYTES_MAX + 1], name[2 * NAME_BYTES_MAX + 2];
    int count = read_parts(table, parts, err);
    if (count < 0) {
        return -1;
    }
    int length = snprintf(name, sizeof name, "%s%s%s", parts[0], count == 2 ? "." : "", count == 2 ? parts[1] : "");
    if (snprintf(out, HV_TABLE_CHANNEL_SIZE, "harvestd_%s", name) >= HV_TABLE_CHANNEL_SIZE) {
        /* Cut off, it could end within a character. */
        snprintf(out, HV_TABLE_CHANNEL_SIZE, "harvestd_%016" PRIx64, hv_hash64(HV_HASH64_START, name, (size_t)length));
    }
    return 0;
}
