/* harvestd park list and show: what is parked, as a table or as JSON. Texts come from applications, so nothing of them goes to a terminal that
 * could steer it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cells.h"
#include "app/cmd_json.h"
#include "app/cmd_park.h"
#include "app/cmd_park_select.h"
#include "base/memory.h"
#include "base/text.h"

#define LIST_DEFAULT 100
#define ERROR_SHOWN 256

/* ---- texts and bytes ---- */

struct bytes {
    const char *data; /* NULL: SQL NULL */
    size_t length;
};

static struct bytes cell_of(const PGresult *result, int row, int column) {
    if (PQgetisnull(result, row, column)) {
        return (struct bytes){NULL, 0};
    }
    return (struct bytes){PQgetvalue(result, row, column), (size_t)PQgetlength(result, row, column)};
}

static const char *shown(struct bytes bytes, size_t most, char *out) {
    return hv_cell_text(bytes.data, bytes.length, most, out, HV_CELL_MAX);
}

static bool is_text(struct bytes bytes) {
    for (size_t at = 0; at < bytes.length;) {
        uint32_t code = 0;
        size_t n = hv_utf8_length(bytes.data + at, bytes.length - at, &code);
        if (n == 0 || (hv_cell_steers(code) && code != '\n' && code != '\t')) {
            return false;
        }
        at += n;
    }
    return true;
}

/* ---- JSON ---- */

/* The members are those of the lines that `harvestd stash` reads. */
static void put_bytes(json_t *object, const char *name, struct bytes bytes) {
    hv_json_put_bytes(object, name, bytes.data, bytes.length);
}

static void put_number(json_t *object, const char *name, struct bytes bytes) {
    json_object_set_new(object, name, bytes.data == NULL ? json_null() : json_integer(strtoll(bytes.data, NULL, 10)));
}

static void print_json(json_t *object) {
    char *text = hv_must(json_dumps(object, JSON_COMPACT));
    puts(text);
    free(text);
    json_decref(object);
}

/* ---- columns ---- */

enum { C_ID, C_PARKED_AT, C_FAILED_AT, C_TOPIC, C_KEY, C_CLASS, C_ATTEMPTS, C_BYTES, C_PASSED_BY, C_ERROR, C_LISTED,
       C_CREATE_TIME = C_LISTED, C_VALUE, C_SHOWN };

static const char *const names[C_SHOWN] = {"id", "parked_at", "failed_at", "topic", "key", "class", "attempts", "bytes", "passed_by", "error",
                                           "create_time", "value"};

#define TIME(column) "pg_catalog.to_char(" column " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"

/* Numbers and times as text; bytes for what may hold any. */
static void write_columns(const struct hv_parking *parking, bool with_value, char *out, size_t size) {
    const char *key = parking->key_is_bytea ? "p.kafka_key" : "pg_catalog.convert_to(p.kafka_key::text, 'UTF8')";
    const char *value = parking->value_is_bytea ? "p.kafka_value" : "pg_catalog.convert_to(p.kafka_value::text, 'UTF8')";
    snprintf(out, size, "p.id::text, " TIME("p.parked_at") ", " TIME("p.failed_at") ", p.kafka_topic::text, %s, p.class, p.attempts::text, "
             "pg_catalog.octet_length(p.kafka_value%s)::text, p.passed_by::text, p.error%s%s", key, parking->value_is_bytea ? "" : "::text",
             with_value ? ", pg_catalog.to_jsonb(p) ->> 'create_time', " : "", with_value ? value : "");
}

static json_t *json_of(const PGresult *result, int row, int count) {
    json_t *object = json_object();
    for (int c = 0; c < count; c++) {
        bool number = c == C_ID || c == C_ATTEMPTS || c == C_BYTES || c == C_PASSED_BY;
        if (number) {
            put_number(object, names[c], cell_of(result, row, c));
        } else {
            put_bytes(object, names[c], cell_of(result, row, c));
        }
    }
    return object;
}

/* ---- list ---- */

static const int listed[] = {C_ID, C_PARKED_AT, C_TOPIC, C_KEY, C_CLASS, C_ATTEMPTS, C_BYTES, C_PASSED_BY, C_ERROR};

static const char *list_cell(const void *user, long row, int at, char *out) {
    int column = listed[at];
    if (row < 0) {
        return names[column];
    }
    struct bytes bytes = cell_of(user, (int)row, column);
    if (bytes.data == NULL) {
        return column == C_PASSED_BY ? "-" : "NULL";
    }
    return shown(bytes, column == C_ERROR ? ERROR_SHOWN : 40, out);
}

int hv_parking_list(struct hv_parking *parking, bool all) {
    char columns[1000], sql[4000];
    struct hv_park_selection selection;
    const struct hv_park_options *o = &parking->options->park;
    uint64_t limit = o->limit > 0 ? o->limit : all ? 0 : LIST_DEFAULT;
    write_columns(parking, false, columns, sizeof columns);
    snprintf(sql, sizeof sql, "SELECT %s FROM {P} AS p WHERE %s ORDER BY p.id LIMIT $9", columns, hv_park_condition(parking->key_is_bytea));
    hv_park_select(parking->options, limit > 0 ? limit + 1 : 0, &selection); /* one more: are there more? */
    PGresult *result = hv_parking_ask(parking, sql, HV_PARK_SELECTION, (const char *const *)selection.values, true);
    hv_park_selection_free(&selection);
    if (result == NULL) {
        return 1;
    }
    int found = PQntuples(result);
    bool more = limit > 0 && (uint64_t)found > limit;
    int rows = more ? (int)limit : found;
    if (o->json) {
        for (int row = 0; row < rows; row++) {
            print_json(json_of(result, row, C_LISTED));
        }
    } else if (rows > 0) {
        hv_cells_print(stdout, list_cell, result, rows, sizeof listed / sizeof listed[0]);
    } else {
        puts("no such records");
    }
    if (more && !all) {
        fflush(stdout);
        fprintf(stderr, "harvestd: there are more: --after %s (or --limit)\n", PQgetvalue(result, rows - 1, C_ID));
    }
    PQclear(result);
    return 0;
}

/* ---- show ---- */

static PGresult *headers_of(struct hv_parking *parking, const char *id) {
    char sql[600];
    const char *const values[] = {id};
    snprintf(sql, sizeof sql, "SELECT pg_catalog.convert_to(h.name, 'UTF8'), %s FROM {P} AS p CROSS JOIN LATERAL ROWS FROM "
             "(pg_catalog.unnest(p.kafka_header_keys), pg_catalog.unnest(p.kafka_header_values)) WITH ORDINALITY AS h (name, value, n) "
             "WHERE p.id = $1::int8 ORDER BY h.n", parking->headers_are_bytea ? "h.value" : "pg_catalog.convert_to(h.value, 'UTF8')");
    return hv_parking_ask(parking, sql, 1, values, true);
}

static void show_json(const PGresult *result, const PGresult *headers) {
    json_t *object = json_of(result, 0, C_SHOWN), *list = json_array();
    for (int row = 0; row < PQntuples(headers); row++) {
        json_t *pair = json_array();
        for (int c = 0; c < 2; c++) {
            struct bytes bytes = cell_of(headers, row, c);
            json_t *text = bytes.data == NULL ? json_null() : json_stringn(bytes.data, bytes.length);
            if (text == NULL) { /* no text: an object tells it from one */
                text = json_object();
                put_bytes(text, "value", bytes);
            }
            json_array_append_new(pair, text);
        }
        json_array_append_new(list, pair);
    }
    json_object_set_new(object, "headers", list);
    print_json(object);
}

static void show_text(const PGresult *result, const PGresult *headers) {
    char cell[HV_CELL_MAX], other[HV_CELL_MAX];
    for (int c = 0; c < C_VALUE; c++) {
        struct bytes bytes = cell_of(result, 0, c);
        printf("%-12s %s\n", names[c], bytes.data == NULL ? c == C_PASSED_BY ? "-" : "NULL" : shown(bytes, 1000, cell));
    }
    for (int row = 0; row < PQntuples(headers); row++) {
        struct bytes name = cell_of(headers, row, 0), value = cell_of(headers, row, 1);
        printf("%-12s %s = %s\n", "header", name.data == NULL ? "NULL" : shown(name, 1000, cell),
               value.data == NULL ? "NULL" : shown(value, 1000, other));
    }
    struct bytes value = cell_of(result, 0, C_VALUE);
    if (value.data == NULL) {
        printf("%-12s NULL: a tombstone\n", "value");
    } else if (is_text(value)) {
        printf("%-12s as text:\n", "value");
        fwrite(value.data, 1, value.length, stdout);
        putchar('\n');
    } else {
        char *encoded = hv_json_base64(value.data, value.length);
        printf("%-12s no text; in base64:\n%s\n", "value", encoded);
        free(encoded);
    }
}

int hv_parking_show(struct hv_parking *parking) {
    char columns[1000], sql[2000];
    write_columns(parking, true, columns, sizeof columns);
    snprintf(sql, sizeof sql, "SELECT %s FROM {P} AS p WHERE p.id = $1::int8", columns);
    struct hv_park_ranges ranges; /* of one id, as was checked */
    char id[24];
    hv_park_parse_ids(&parking->options->park_ids, &ranges, NULL);
    snprintf(id, sizeof id, "%" PRId64, ranges.lo[0]);
    hv_park_ranges_free(&ranges);
    PGresult *result = hv_parking_ask(parking, sql, 1, (const char *const[]){id}, true);
    if (result == NULL) {
        return 1;
    }
    int code = 0;
    struct bytes value = PQntuples(result) > 0 ? cell_of(result, 0, C_VALUE) : (struct bytes){NULL, 0};
    PGresult *headers = NULL;
    if (PQntuples(result) == 0) {
        fprintf(stderr, "harvestd: no parked record has the id %s\n", id);
        code = 1;
    } else if (parking->options->park.raw && value.data == NULL) {
        fputs("harvestd: the value is NULL, a tombstone\n", stderr);
    } else if (parking->options->park.raw) {
        fwrite(value.data, 1, value.length, stdout);
    } else if ((headers = headers_of(parking, id)) == NULL) {
        code = 1;
    } else if (parking->options->park.json) {
        show_json(result, headers);
    } else {
        show_text(result, headers);
    }
    PQclear(headers);
    PQclear(result);
    return code;
}
