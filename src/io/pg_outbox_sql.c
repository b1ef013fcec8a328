/* See pg_outbox_sql.h. */
#include "io/pg_outbox_sql.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { OID_BYTEA = 17 };

#define COLUMNS "id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values"
/* A row's version: the transaction that wrote it. It stays when the row is locked, frozen, or moved by VACUUM FULL; it is another one when
 * somebody updated the row, or it is another row under the same id. Where there is no such thing (a view, a foreign table) all
 * rows have the same: then nothing but the id tells rows apart. */
#define VERSION "@" /* in the table itself; in a join, of which the table is called t; above it: */
#define VERSION_OF_T "~"
#define FOUND COLUMNS ", xmin"
#define ROW COLUMNS ", " VERSION

/* One row, whatever the table holds: the rights, and NULLs that carry the columns' types. */
static const char probe_form[] =
    "SELECT o.id, o.kafka_topic, o.kafka_key, o.kafka_value, o.kafka_header_keys, o.kafka_header_values, "
    "o.leader_id, pg_catalog.has_column_privilege($1, 'leader_id', 'UPDATE'), "
    "pg_catalog.has_table_privilege($1, 'DELETE'), "
    "pg_catalog.current_setting('transaction_read_only') = 'on', "
    "(SELECT c.relkind NOT IN ('r', 'p') OR EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_attribute AS a "
    "ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid "
    "AND i.indpred IS NULL AND a.attname = 'id') FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass($1)), "
    "(SELECT c.relkind IN ('r', 'p') AND pg_catalog.has_column_privilege(c.oid, 'xmin', 'SELECT') FROM pg_catalog.pg_class AS c "
    "WHERE c.oid = pg_catalog.to_regclass($1)) "
    "FROM (SELECT 1) AS one LEFT JOIN (SELECT " COLUMNS ", leader_id FROM %s LIMIT 0) AS o ON true";

/* What a row weighs in a reply. octet_length reads no value that is stored apart. Arrays and JSON have nothing like it: what they
 * take in the table is it as long as they are not compressed; servers before 14 cannot tell whether they are. */
#define OR_0(bytes) "coalesce(" bytes ", 0)"
#define TEXT_BYTES(column) "pg_catalog.octet_length(" column ")"
#define OTHER_BYTES(column) \
    "CASE WHEN pg_catalog.pg_column_compression(" column ") IS NULL THEN pg_catalog.pg_column_size(" column ") ELSE " \
    TEXT_BYTES(column "::text") " END"
#define BYTES(value, array) \
    "0::int8 + " OR_0(TEXT_BYTES("kafka_topic")) " + " OR_0(TEXT_BYTES("kafka_key")) " + " OR_0(value) " + " \
    OR_0(array("kafka_header_keys")) " + " OR_0(array("kafka_header_values"))
#define TEXT_FORM_BYTES(column) TEXT_BYTES(column "::text")
static const char *const bytes_forms[2][2] = { /* [since 14][the value is JSON] */
    {BYTES(TEXT_BYTES("kafka_value"), TEXT_FORM_BYTES), BYTES(TEXT_FORM_BYTES("kafka_value"), TEXT_FORM_BYTES)},
    {BYTES(TEXT_BYTES("kafka_value"), OTHER_BYTES), BYTES(OTHER_BYTES("kafka_value"), OTHER_BYTES)},
};
/* Of the rows before this one. */
#define BYTES_BEFORE "sum(bytes) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - bytes AS before"

/* found: one row, two arrays. The ids are looked up one by one: with IN (...) the planner may join instead and read the whole table on
 * every mark. The bytes of all are added up, which is cheap; only if they are too many, up to each row. coalesce(...) is "no or another
 * leader" in a form that the planner does not understand: with statistics from a time when all rows carried our id it would expect a row or
 * two, and sort the table. */
#define FIT "(SELECT count(*) FROM (SELECT sum(b) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING) - b AS before " \
    "FROM pg_catalog.unnest(bytes) WITH ORDINALITY AS b (b, n)) AS sized WHERE before < $4)"
#define MARK_FOUND(rows) \
    "WITH found AS (SELECT CASE WHEN total < $4 THEN ids ELSE ids[1:" FIT "] END AS ids, versions FROM (SELECT pg_catalog.array_agg(id::int8) AS ids, " \
    "pg_catalog.array_agg(xmin) AS versions, pg_catalog.array_agg(bytes) AS bytes, pg_catalog.sum(bytes) AS total " \
    "FROM (" rows " ORDER BY id LIMIT $3) AS few) AS all_of_them) " \
    "UPDATE %s SET leader_id = $1 WHERE id = ANY ((SELECT ids FROM found)::int8[]) RETURNING " ROW
#define WAS "((SELECT versions FROM found))[pg_catalog.width_bucket(id::int8, (SELECT ids FROM found))]" /* its version before */
#define MARK_ROWS(rows) MARK_FOUND(rows) ", false, false, " WAS
#define UNMARKED "SELECT id, " VERSION ", %s AS bytes FROM %s WHERE coalesce(leader_id <> $1, true) AND "
static const char mark_above_form[] = MARK_ROWS(UNMARKED "id >= $2");
static const char mark_new_form[] = MARK_FOUND(UNMARKED "id >= $2"); /* nobody asks for the version that a row had before */

/* One statement, and so one snapshot: a row above, or in a later gap, may have its predecessor in an earlier one. The limit over all
 * bounds the reply: many gaps may be filled at one time. */
#define IN_EACH_GAP(lo, hi) "SELECT o.* FROM ROWS FROM (pg_catalog.unnest(" lo "), pg_catalog.unnest(" hi ")) AS g (lo, hi) CROSS JOIN LATERAL "
static const char mark_gaps_form[] =
    MARK_ROWS("SELECT * FROM ((" UNMARKED "id >= $2 ORDER BY id LIMIT $3) UNION ALL "
         IN_EACH_GAP("$5", "$6") "(" UNMARKED "id >= g.lo AND id <= g.hi ORDER BY id LIMIT $3) AS o) AS rows");

/* With keys that are hidden ($7). What of theirs is in a gap need not be told; above the gaps it has to be seen, or it would look like a gap,
 * and be walked again by each claim: such a row comes bare, and is not marked. */
#define HIDDEN "coalesce(%s IN (SELECT pg_catalog.unnest($7)), false)" /* the key, byte by byte; looked up in a hash table, see NOT_LEFT_OUT */
static const char mark_hiding_form[] =
    "WITH found AS (SELECT id, xmin, kafka_key, hidden FROM (SELECT id, xmin, kafka_key, hidden, " BYTES_BEFORE " FROM (SELECT * FROM ("
    "(SELECT id, " VERSION_OF_T ", kafka_key, CASE WHEN hidden THEN 0 ELSE %s END AS bytes, hidden FROM %s AS t CROSS JOIN LATERAL (SELECT " HIDDEN
    " AS hidden) AS h WHERE coalesce(leader_id <> $1, true) AND id >= $2 ORDER BY id LIMIT $3) UNION ALL "
    IN_EACH_GAP("$5", "$6") "(SELECT id, " VERSION ", kafka_key, %s AS bytes, false AS hidden FROM %s WHERE coalesce(leader_id <> $1, true) "
    "AND id >= g.lo AND id <= g.hi AND NOT " HIDDEN " ORDER BY id LIMIT $3) AS o) AS rows ORDER BY id LIMIT $3) AS few) AS sized "
    "WHERE before < $4 ORDER BY id), "
    "marked AS (UPDATE %s SET leader_id = $1 WHERE id = ANY (ARRAY(SELECT id FROM found WHERE NOT hidden)) RETURNING " ROW ", "
    "(ARRAY(SELECT xmin FROM found))[pg_catalog.width_bucket(id::int8, ARRAY(SELECT id::int8 FROM found))] AS was) "
    "SELECT " FOUND ", false, false, was FROM marked UNION ALL SELECT id, NULL, kafka_key, NULL, NULL, NULL, xmin, false, true, xmin "
    "FROM found WHERE hidden";

/* Only the primary can tell this; a standby, to which a proxy may send what only reads, raises an error. It is asked once a statement. */
#define ON_PRIMARY "(SELECT pg_catalog.pg_current_wal_lsn() IS NOT NULL)"
#define ABOVE "SELECT " ROW " FROM %s WHERE id >= $1 AND " ON_PRIMARY " ORDER BY id LIMIT $2"
/* With = ANY the server looks into a hash table only if it plans anew for each array. */
#define NOT_LEFT_OUT "id NOT IN (SELECT pg_catalog.unnest($6)) "
#define IN_GAPS(and) \
    "(" ABOVE ") UNION ALL " \
    IN_EACH_GAP("$4", "$5") "(SELECT " ROW " FROM %s WHERE id >= g.lo AND id <= g.hi " and "ORDER BY id LIMIT $2) AS o"

/* Around these rows: how a reply is bounded in bytes. Mostly by an equal share ($3) for each row: the larger ones come without what makes
 * them large, and without a topic. Then the reply is not used, and the scan is repeated with the sum of bytes up to each row, which makes
 * it half as dear again for the server; its last column tells whether the row is the last one because of $3. */
#define IF_FITS(column) "CASE WHEN fits THEN " column " END"
static const char shares_form[] =
    "SELECT id, " IF_FITS("kafka_topic") ", " IF_FITS("kafka_key") ", " IF_FITS("kafka_value") ", " IF_FITS("kafka_header_keys") ", "
    IF_FITS("kafka_header_values") ", xmin FROM (SELECT " FOUND ", %s <= $3 AS fits FROM (%s) AS found ORDER BY id LIMIT $2) AS few ORDER BY id";
/* OFFSET 0: bytes are added up once. */
#define SUM_FORM(more) \
    "SELECT " FOUND ", before + bytes >= $3" more " FROM (SELECT " FOUND more ", bytes, " BYTES_BEFORE " FROM (SELECT " FOUND more \
    ", %s AS bytes FROM (%s) AS found OFFSET 0) AS sized ORDER BY id LIMIT $2) AS few WHERE before < $3 ORDER BY id"
static const char sum_form[] = SUM_FORM("");

/* With hidden keys, as above. */
#define UNLESS_HIDDEN(column) "CASE WHEN hidden THEN NULL ELSE " column " END AS " column
#define HIDING \
    "(SELECT id, " UNLESS_HIDDEN("kafka_topic") ", kafka_key, " UNLESS_HIDDEN("kafka_value") ", " UNLESS_HIDDEN("kafka_header_keys") ", " \
    UNLESS_HIDDEN("kafka_header_values") ", " VERSION_OF_T ", hidden FROM %s AS t CROSS JOIN LATERAL (SELECT " HIDDEN " AS hidden) AS h " \
    "WHERE id >= $1 AND " ON_PRIMARY " ORDER BY id LIMIT $2) UNION ALL " \
    IN_EACH_GAP("$4", "$5") "(SELECT " ROW ", false AS hidden " \
    "FROM %s WHERE id >= g.lo AND id <= g.hi AND " NOT_LEFT_OUT "AND NOT " HIDDEN " ORDER BY id LIMIT $2) AS o"
static const char sum_hiding_form[] = SUM_FORM(", hidden");

static const char list_form[] = "SELECT id, kafka_key FROM %s WHERE id >= $1 AND id <= $2 AND " ON_PRIMARY " ORDER BY id DESC LIMIT $3";

#define THESE "SELECT " ROW " FROM %s WHERE id = ANY ($1) AND " ON_PRIMARY

/* Neighbours mostly have one version: $3 holds the ids at which another one begins, ascending, $2 these versions. width_bucket finds a row's
 * place among them: a join would do that, too, but costs several times as much, and the planner could turn it round. */
#define OF_VERSION "($2)[pg_catalog.width_bucket(id::int8, $3)] = xmin"
/* For this statement alone, whatever pooler there is in between: who waits for a row that is locked for long waits for all others, too. */
#define LOCK_LIMIT "(SELECT pg_catalog.set_config('lock_timeout', '200ms', true)) IS NOT NULL"
#define PURGE_ANY "DELETE FROM %s WHERE id = ANY ($1)"
#define PURGE_ALL PURGE_ANY " AND " OF_VERSION " AND " LOCK_LIMIT
#define PURGE_BUT_LOCKED \
    "DELETE FROM %s WHERE id = ANY (ARRAY(SELECT id FROM %s WHERE id = ANY ($1) AND " OF_VERSION " FOR UPDATE SKIP LOCKED)) AND " LOCK_LIMIT

/* By name each time: a table that was dropped and made again has another oid. Who writes to a partition
 * directly locks nothing else; who draws an id before he writes locks the sequence; who writes to what lies under a
 * view is not seen at all: there a writer is always named; so on a standby, to which a proxy may send what only reads. Prepared transactions have no pid. The
 * backend that is left out is the one that carries this very statement: also behind a pooler nobody else's transaction
 * can be on it. */
const char hv_outbox_writers_sql[] =
    "WITH RECURSIVE parts AS (SELECT pg_catalog.to_regclass($1)::oid AS part UNION "
    "SELECT inhrelid FROM pg_catalog.pg_inherits, parts WHERE inhparent = part), "
    "locked AS (SELECT part FROM parts UNION SELECT d.refobjid FROM parts JOIN pg_catalog.pg_attrdef AS a ON a.adrelid = part "
    "JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = a.oid "
    "AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> part "
    "UNION SELECT d.objid FROM parts JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::regclass "
    "AND d.refobjid = part AND d.classid = d.refclassid AND d.deptype = 'i') "
    "SELECT DISTINCT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'relation' "
    "AND relation IN (SELECT part FROM locked) "
    "AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
    "AND granted "
    "AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
    "AND pid IS DISTINCT FROM pg_catalog.pg_backend_pid() "
    "UNION ALL SELECT 'unknown' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1) "
    "AND (relkind NOT IN ('r', 'p') OR pg_catalog.pg_is_in_recovery()) "
    "UNION ALL SELECT 'since ' || pg_catalog.pg_postmaster_start_time() || coalesce(pg_catalog.pg_stat_get_bgwriter_stat_reset_time()::text, '')";

/* ---- written for a table ---- */

bool hv_outbox_keys_are_bytes(const struct hv_table_types *types) {
    return types->of[HV_COL_KEY] == OID_BYTEA;
}

/* The form, with what VERSION stands for. */
static void fill_in_version(char form[HV_OUTBOX_SQL_MAX], const char *text, bool versions) {
    const char *version = versions ? "xmin" : "'0'::pg_catalog.xid AS xmin";
    char *at = form;
    for (; *text != 0; text++) {
        assert(at + strlen(version) + 3 < form + HV_OUTBOX_SQL_MAX);
        if (*text == VERSION[0] || *text == VERSION_OF_T[0]) {
            at = stpcpy(stpcpy(at, versions && *text == VERSION_OF_T[0] ? "t." : ""), version);
        } else {
            *at++ = *text;
        }
    }
    *at = 0;
}

__attribute__((format(printf, 4, 5))) static void write_sql(char *out, size_t size, bool versions, const char *text, ...) {
    char form[HV_OUTBOX_SQL_MAX];
    fill_in_version(form, text, versions);
    va_list args;
    va_start(args, text);
    int length = vsnprintf(out, size, form, args);
    va_end(args);
    assert(length > 0 && (size_t)length < size);
}

static void write_scan(struct hv_outbox_sql *sql, int form, bool versions, const char *rows, const char *bytes) {
    write_sql(sql->scan[HV_BY_SHARES][form], HV_OUTBOX_SQL_MAX, versions, shares_form, bytes, rows);
    write_sql(sql->scan[HV_BY_SUM][form], HV_OUTBOX_SQL_MAX, versions, sum_form, bytes, rows);
}

void hv_outbox_sql_claims(struct hv_outbox_sql *sql, const char *table, const struct hv_table_types *types, int server_version) {
    bool versions = types->versions;
    const char *bytes = bytes_forms[server_version >= 140000][hv_table_value_is_json(types)];
    write_sql(sql->mark[HV_MARK_ABOVE], HV_OUTBOX_SQL_MAX, versions, mark_above_form, bytes, table, table);
    write_sql(sql->mark[HV_MARK_NEW], HV_OUTBOX_SQL_MAX, versions, mark_new_form, bytes, table, table);
    write_sql(sql->mark[HV_MARK_GAPS], HV_OUTBOX_SQL_MAX, versions, mark_gaps_form, bytes, table, bytes, table, table);
    const char *key = hv_outbox_keys_are_bytes(types) ? "kafka_key" : "kafka_key::text COLLATE pg_catalog.\"C\"";
    write_sql(sql->mark[HV_MARK_HIDING], HV_OUTBOX_SQL_MAX, versions, mark_hiding_form, bytes, table, key, bytes, table, key, table);
    char rows[2560];
    write_sql(rows, sizeof rows, versions, ABOVE, table);
    write_scan(sql, HV_SCAN_ABOVE, versions, rows, bytes);
    write_sql(rows, sizeof rows, versions, IN_GAPS(""), table, table);
    write_scan(sql, HV_SCAN_GAPS, versions, rows, bytes);
    write_sql(rows, sizeof rows, versions, IN_GAPS("AND " NOT_LEFT_OUT), table, table);
    write_scan(sql, HV_SCAN_GAPS_WITHOUT, versions, rows, bytes);
    write_sql(rows, sizeof rows, versions, HIDING, table, key, table, key);
    write_sql(sql->scan[HV_BY_SUM][HV_SCAN_HIDING], HV_OUTBOX_SQL_MAX, versions, sum_hiding_form, bytes, rows);
    write_sql(rows, sizeof rows, versions, THESE, table);
    write_sql(sql->fetch, HV_OUTBOX_SQL_MAX, versions, sum_form, bytes, rows);
}

void hv_outbox_sql_begin(struct hv_outbox_sql *sql, const char *table) {
    write_sql(sql->probe, HV_OUTBOX_SQL_MAX, true, probe_form, table);
    write_sql(sql->list, HV_OUTBOX_SQL_MAX, true, list_form, table);
    write_sql(sql->purge[HV_PURGE_ANY], HV_OUTBOX_SQL_MAX, true, PURGE_ANY, table);
    write_sql(sql->purge[HV_PURGE_ALL], HV_OUTBOX_SQL_MAX, true, PURGE_ALL, table);
    write_sql(sql->purge[HV_PURGE_BUT_LOCKED], HV_OUTBOX_SQL_MAX, true, PURGE_BUT_LOCKED, table, table);
}
