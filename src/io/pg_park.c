/* See pg_park.h. The columns are looked up and named one by one: tables may have more of them than ours, and those that were added later
 * stand at other places in the two. */
#include "io/pg_park.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "core/record.h"
#include "io/pg_table.h"

/* Postgres' object identifiers of types; they never change. */
enum { OID_INT8 = 20, OID_INT4 = 23, OID_TEXT = 25, OID_XID = 28, OID_INT4_ARRAY = 1007, OID_TEXT_ARRAY = 1009, OID_XID_ARRAY = 1011,
       OID_INT8_ARRAY = 1016 };

/* ---- names ---- */

#define NAME_BYTES_MAX 63

/* The last part of a quoted name as it is in the catalogue. Returns where it begins in `quoted`. */
static const char *last_part(const char *quoted, char part[NAME_BYTES_MAX + 1]) {
    const char *start = quoted;
    size_t n = 0;
    for (const char *p = quoted; *p != 0; p++) {
        if (p[0] == '"' && p[1] == '"') {
            p++; /* one quote of the name */
        } else if (p[0] == '"' && p[1] == '.') {
            start = p + 2;
            n = 0;
            p += 2; /* the next part's quote */
            continue;
        } else if (p[0] == '"') {
            continue;
        }
        assert(n < NAME_BYTES_MAX);
        part[n++] = *p;
    }
    part[n] = 0;
    return start;
}

void hv_park_name(const char *quoted_table, const char *suffix, char *out, size_t size) {
    char part[NAME_BYTES_MAX + 1], name[NAME_BYTES_MAX + 1], hash[16] = "";
    const char *start = last_part(quoted_table, part);
    size_t length = strlen(part), room = NAME_BYTES_MAX - strlen(suffix);
    if (length > room) {
        snprintf(hash, sizeof hash, "_%08" PRIx32, hv_fnv1a(part, length));
        length = room - strlen(hash);
        while ((part[length] & 0xC0) == 0x80) { /* not within a character */
            length--;
        }
    }
    snprintf(name, sizeof name, "%.*s%s%s", (int)length, part, hash, suffix);
    struct hv_text text;
    hv_text_init(&text, out, size);
    hv_text_add(&text, quoted_table, (size_t)(start - quoted_table));
    hv_text_puts(&text, "\"");
    for (const char *p = name; *p != 0; p++) {
        hv_text_add(&text, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
    }
    hv_text_puts(&text, "\"");
    assert(!text.cut);
}

/* ---- the table's shape ---- */

enum { SHAPE_THERE, SHAPE_COLUMNS, SHAPE_VALUES, SHAPE_MEND, SHAPE_KEY, SHAPE_GRANT, SHAPE_COLS };

#define COLUMNS_OF(parameter) \
    "(SELECT a.attname, a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type FROM pg_catalog.pg_attribute AS a " \
    "WHERE a.attrelid = pg_catalog.to_regclass(" parameter ") AND a.attnum > 0 AND NOT a.attisdropped)"

/* A column of ours that is missing means a table that was not made by `harvestd schema --park`, or by an older one. */
const char hv_park_shape_sql[] =
    "WITH o AS " COLUMNS_OF("$1") ", p AS " COLUMNS_OF("$2") ", "
    "ours (attname, type) AS (VALUES ('class'::name, 'text'), ('error', 'text'), ('attempts', 'integer'), "
    "('failed_at', 'timestamp with time zone'), ('parked_at', 'timestamp with time zone'), ('place', 'bigint'), ('passed_by', 'bigint'), ('noted_by', 'oid')), "
    "needed AS (SELECT attname, type, attnum FROM o UNION ALL SELECT attname, type, 9999 FROM ours) "
    "SELECT pg_catalog.to_regclass($2) IS NOT NULL, "
    "(SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) FROM o), "
    "(SELECT pg_catalog.string_agg('gone.' || pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) FROM o), "
    "(SELECT pg_catalog.string_agg(CASE WHEN p.attname IS NULL THEN pg_catalog.format('ADD COLUMN %I %s', n.attname, n.type) "
    "ELSE pg_catalog.format('ALTER COLUMN %I TYPE %s', n.attname, n.type) END, ', ' ORDER BY n.attnum, n.attname) "
    "FROM needed AS n LEFT JOIN p ON p.attname = n.attname WHERE p.type IS DISTINCT FROM n.type), "
    "EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
    "WHERE i.indrelid = pg_catalog.to_regclass($2) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 "
    "AND a.attname = 'id'), "
    "(SELECT pg_catalog.format('GRANT %s ON %s TO %I', pg_catalog.concat_ws(', ', CASE WHEN NOT pg_catalog.has_table_privilege(c.oid, 'INSERT') "
    "THEN 'INSERT' END, CASE WHEN NOT pg_catalog.has_column_privilege(c.oid, 'id', 'SELECT') THEN 'SELECT (id)' END), $2, current_user) "
    "FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass($2) AND NOT (pg_catalog.has_table_privilege(c.oid, 'INSERT') "
    "AND pg_catalog.has_column_privilege(c.oid, 'id', 'SELECT')))";

/* id = ANY as in a purge, so that rows are looked up by their ids whatever the planner thinks of joins. The rows that are gone already are
 * not in `gone`; all or nothing happens to the others. Of an id that is parked already under other content, neither may be lost:
 * that is refused (a unique violation). noted_by: the trigger that notes what passes them, if there is one. */
static const char park_form[] =
    "WITH why AS (SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), "
    "pg_catalog.unnest($5)) AS w (id, class, error, attempts, age)), "
    "gone AS (DELETE FROM %s WHERE id = ANY ($1)%s RETURNING %s) "
    "INSERT INTO %s (%s, class, error, attempts, failed_at, parked_at, place, noted_by) "
    "SELECT %s, why.class, why.error, why.attempts, pg_catalog.now() - why.age * interval '1 microsecond', pg_catalog.now(), gone.id, "
    HV_PARK_TRIGGER_OF("$7") " FROM gone JOIN why ON why.id = gone.id RETURNING id";

/* As in a purge: what is moved is the version that was refused, and nobody waits long for a lock. */
static const char of_version[] =
    " AND ($6)[pg_catalog.width_bucket(id::int8, $1)] IN ('0', xmin) AND (SELECT pg_catalog.set_config('lock_timeout', '200ms', true)) IS NOT NULL";

static bool is_true(const PGresult *result, int column) {
    const char *value = PQgetvalue(result, 0, column);
    return PQfformat(result, column) == 1 ? value[0] != 0 : value[0] == 't';
}

int hv_park_read_shape(const PGresult *result, const char *table, const char *parked, bool versions, char **ret_sql, struct hv_error *err) {
    if (PQntuples(result) != 1 || PQnfields(result) != SHAPE_COLS) {
        return hv_error_set(err, "the lookup of table %s has an unexpected answer", parked);
    }
    if (!is_true(result, SHAPE_THERE)) {
        return hv_error_set(err, "there is no table %s for parked records, at least none that search_path finds; run what harvestd schema "
                                 "--park prints", parked);
    }
    if (!PQgetisnull(result, 0, SHAPE_MEND)) {
        return hv_error_set(err, "table %s has not all columns of the outbox and of parked records, or other types; if harvestd schema --park "
                                 "made it, run: ALTER TABLE %s %.300s", parked, parked, PQgetvalue(result, 0, SHAPE_MEND));
    }
    if (!is_true(result, SHAPE_KEY)) {
        return hv_error_set(err, "id is not unique in table %s; run: ALTER TABLE %s ADD PRIMARY KEY (id)", parked, parked);
    }
    if (!PQgetisnull(result, 0, SHAPE_GRANT)) {
        return hv_error_set(err, "no right to park records in table %s; run: %s (harvestd schema --park --grants ROLE)", parked,
                            PQgetvalue(result, 0, SHAPE_GRANT));
    }
    const char *columns = PQgetvalue(result, 0, SHAPE_COLUMNS), *values = PQgetvalue(result, 0, SHAPE_VALUES);
    size_t size = sizeof park_form + sizeof of_version + strlen(table) + strlen(parked) + 2 * strlen(columns) + strlen(values);
    *ret_sql = malloc(size);
    if (*ret_sql == NULL) {
        return hv_error_set(err, "out of memory for a statement");
    }
    snprintf(*ret_sql, size, park_form, table, versions ? of_version : "", columns, parked, columns, values);
    return 0;
}

/* ---- parameters ---- */

const Oid hv_park_param_types[HV_PARK_PARAMS] = {OID_INT8_ARRAY, OID_TEXT_ARRAY, OID_TEXT_ARRAY, OID_INT4_ARRAY,
                                                  OID_INT8_ARRAY, OID_XID_ARRAY, OID_TEXT};

static uint8_t *put_number(uint8_t *at, uint64_t number, size_t width) {
    at = hv_put_be32(at, (uint32_t)width);
    return width == 8 ? hv_put_be64(at, number) : hv_put_be32(at, (uint32_t)number);
}

/* Only what every database encoding takes: a text that is refused would keep the row from being parked. */
static uint8_t *put_text(uint8_t *at, const char *text) {
    size_t length = text == NULL ? 0 : strnlen(text, HV_PARK_ERROR_MAX);
    at = hv_put_be32(at, (uint32_t)length);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        *at++ = c == '\n' || c == '\t' ? ' ' : c < 0x20 || c >= 0x7f ? '?' : c;
    }
    return at;
}

/* What a timestamp takes, as above. */
static hv_time bounded(hv_time age) {
    const hv_time most = HV_SECONDS(1000000000); /* thirty years */
    return age < 0 ? 0 : age > most ? most : age;
}

static uint8_t *put_member(uint8_t *at, int param, const struct hv_parked *row) {
    switch (param) {
    case 0:
        return put_number(at, (uint64_t)row->id, 8);
    case 1:
        return put_text(at, row->failure_class);
    case 2:
        return put_text(at, row->error);
    case 3:
        return put_number(at, row->attempts <= INT32_MAX ? row->attempts : INT32_MAX, 4);
    case 5:
        return put_number(at, row->version, 4);
    default:
        return put_number(at, (uint64_t)bounded(row->failing_for), 8);
    }
}

static int by_id(const void *a, const void *b) {
    const struct hv_parked *x = *(const struct hv_parked *const *)a, *y = *(const struct hv_parked *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

/* By id, as the statement needs it. The caller frees; NULL without memory. */
static const struct hv_parked **sorted(const struct hv_parked *rows, size_t count) {
    const struct hv_parked **list = malloc(count * sizeof *list);
    for (size_t i = 0; list != NULL && i < count; i++) {
        list[i] = &rows[i];
    }
    if (list != NULL) {
        qsort(list, count, sizeof *list, by_id);
    }
    return list;
}

int hv_park_params_make(const struct hv_parked *rows, size_t count, const char *table, struct hv_park_params *ret) {
    enum { ARRAYS = HV_PARK_PARAMS - 1 };
    static const Oid elements[ARRAYS] = {OID_INT8, OID_TEXT, OID_TEXT, OID_INT4, OID_INT8, OID_XID};
    static const size_t most[ARRAYS] = {12, 4 + HV_PARK_ERROR_MAX, 4 + HV_PARK_ERROR_MAX, 8, 12, 8};
    memset(ret, 0, sizeof *ret);
    assert(count > 0 && count < INT32_MAX / (8 + HV_PARK_ERROR_MAX));
    const struct hv_parked **ascending = sorted(rows, count);
    for (int p = 0; p < ARRAYS; p++) {
        ret->values[p] = ascending == NULL ? NULL : malloc(HV_ARRAY_HEAD + most[p] * count);
        if (ret->values[p] == NULL) {
            free(ascending);
            hv_park_params_free(ret);
            return -1;
        }
        uint8_t *at = hv_put_array_head(ret->values[p], elements[p], (uint32_t)count);
        for (size_t i = 0; i < count; i++) {
            at = put_member(at, p, ascending[i]);
        }
        ret->lengths[p] = (int)(at - (uint8_t *)ret->values[p]);
    }
    free(ascending);
    ret->values[ARRAYS] = strdup(table);
    if (ret->values[ARRAYS] == NULL) {
        hv_park_params_free(ret);
        return -1;
    }
    ret->lengths[ARRAYS] = (int)strlen(table);
    return 0;
}

void hv_park_params_free(struct hv_park_params *params) {
    for (int p = 0; p < HV_PARK_PARAMS; p++) {
        free(params->values[p]);
    }
    memset(params, 0, sizeof *params);
}
