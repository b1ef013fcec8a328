/* See pg_rights.h. */
#include "io/pg_rights.h"

#include "base/text.h"

/* to_regclass would fail in a schema that may not be used, and an unqualified name would not be found there: so schemas are looked through
 * as search_path names them. */
const char hv_rights_sql[] =
    "WITH name AS (SELECT pg_catalog.parse_ident($1) AS part), "
    "path AS (SELECT pg_catalog.array_agg(CASE pg_catalog.btrim(e, ' \"') WHEN '$user' THEN current_user::text "
    "ELSE pg_catalog.btrim(e, ' \"') END) AS schemas "
    "FROM pg_catalog.unnest(pg_catalog.string_to_array(pg_catalog.current_setting('search_path'), ',')) AS e), "
    "found AS (SELECT c.oid, n.oid AS schema, n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name "
    "FROM name, path, pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace "
    "WHERE c.relname = part[pg_catalog.cardinality(part)] AND c.relkind IN ('r', 'p', 'v', 'f') "
    "AND n.nspname = ANY (CASE pg_catalog.cardinality(part) WHEN 2 THEN part[1:1] ELSE schemas END) "
    "ORDER BY pg_catalog.array_position(schemas, n.nspname::text) LIMIT 1), "
    "columns AS (SELECT found.*, a.attname, a.attnum, pg_catalog.has_column_privilege(found.oid, a.attnum, 'SELECT') AS readable "
    "FROM found JOIN pg_catalog.pg_attribute AS a ON a.attrelid = found.oid AND a.attname = ANY (ARRAY['id', 'kafka_topic', "
    "'kafka_key', 'kafka_value', 'kafka_header_keys', 'kafka_header_values', 'leader_id'])), "
    "missing AS (SELECT 1 AS n, 'USAGE' AS what, pg_catalog.format('SCHEMA %I', nspname) AS object FROM found "
    "WHERE NOT pg_catalog.has_schema_privilege(schema, 'USAGE') "
    "UNION ALL SELECT 2, CASE WHEN pg_catalog.bool_or(readable) THEN pg_catalog.format('SELECT (%s)', "
    "pg_catalog.string_agg(attname, ', ' ORDER BY attnum) FILTER (WHERE NOT readable)) ELSE 'SELECT' END, full_name "
    "FROM columns GROUP BY full_name HAVING NOT pg_catalog.bool_and(readable) "
    "UNION ALL SELECT 3, 'UPDATE (leader_id)', full_name FROM columns "
    "WHERE attname = 'leader_id' AND NOT pg_catalog.has_column_privilege(oid, attnum, 'UPDATE') "
    "UNION ALL SELECT 4, 'DELETE', full_name FROM found WHERE NOT pg_catalog.has_table_privilege(oid, 'DELETE')) "
    "SELECT pg_catalog.format('%s on %s', what, object), pg_catalog.format('GRANT %s ON %s TO %I', what, object, current_user) "
    "FROM missing ORDER BY n";

int hv_rights_explain(const PGresult *result, struct hv_error *err) {
    int count = PQresultStatus(result) == PGRES_TUPLES_OK && PQnfields(result) == 2 ? PQntuples(result) : 0;
    if (count == 0) {
        return 0;
    }
    struct hv_text text;
    hv_text_init(&text, err->text, sizeof err->text);
    hv_text_printf(&text, "right%s missing: ", count == 1 ? "" : "s");
    for (int row = 0; row < count; row++) {
        hv_text_printf(&text, "%s%s", row == 0 ? "" : ", ", PQgetvalue(result, row, 0));
    }
    hv_text_printf(&text, "; run:");
    for (int row = 0; row < count; row++) {
        hv_text_printf(&text, " %s;", PQgetvalue(result, row, 1));
    }
    return count;
}
