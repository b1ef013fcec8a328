/* harvestd check, the database: connection, table, columns, rights, index, sequence, trigger. Blocks. */
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cmd_check.h"
#include "app/cmd_check_wakeup.h"
#include "app/database.h"
#include "base/memory.h"
#include "base/text.h"
#include "io/pg_failure.h"
#include "io/pg_outbox.h"
#include "io/pg_park.h"
#include "io/pg_rights.h"
#include "io/pg_table.h"

struct session {
    struct hv_check *check;
    PGconn *conn;
    char table[600]; /* quoted for SQL */
    bool entitled;   /* and all else that is needed */
};

/* ---- Connection ---- */

static bool connect_database(struct session *s) {
    struct hv_pg_failure failure;
    s->conn = hv_database_connect(s->check->settings, "harvestd check", &failure);
    if (s->conn == NULL) {
        hv_check_bad(s->check, hv_pg_advice(failure.trouble), "database: %s", failure.error.text);
        return false;
    }
    char host[300];
    hv_pg_endpoint_text(host, sizeof host, s->conn);
    hv_check_ok(s->check, "database: connected to %s, database %s as %s, Postgres %s", host, PQdb(s->conn),
                PQuser(s->conn), PQparameterStatus(s->conn, "server_version"));
    return true;
}

/* Runs a statement with text parameters and results. NULL after it told that the statement failed. */
static PGresult *ask(struct session *s, const char *point, const char *sql, int count,
                     const char *const *values) {
    PGresult *result = PQexecParams(s->conn, sql, count, NULL, values, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        return result;
    }
    struct hv_pg_failure failure = {0};
    hv_pg_failure_from_result(&failure, result);
    hv_check_bad(s->check, hv_pg_advice(failure.trouble), "%s: %s", point, failure.error.text);
    PQclear(result);
    return NULL;
}

static bool is_true(const PGresult *result, int row, int column) {
    return PQgetvalue(result, row, column)[0] == 't';
}

/* ---- The table ---- */

static const char columns_sql[] =
    "SELECT a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_catalog.pg_attribute a WHERE "
    "a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";

static int find_row(const PGresult *result, const char *name) {
    for (int row = 0; row < PQntuples(result); row++) {
        if (strcmp(PQgetvalue(result, row, 0), name) == 0) {
            return row;
        }
    }
    return -1;
}

static void check_column(struct session *s, const PGresult *found, int column) {
    const char *expected;
    bool fine;
    const char *name = hv_table_column(column, 0, &expected, &fine);
    int row = find_row(found, name);
    if (row < 0) {
        hv_check_bad(s->check, hv_pg_advice(HV_PG_NO_COLUMN), "table: column %s is missing; it is to be %s",
                     name, expected);
        return;
    }
    hv_table_column(column, (Oid)strtoul(PQgetvalue(found, row, 1), NULL, 10), &expected, &fine);
    if (!fine) {
        hv_check_bad(s->check, hv_pg_advice(HV_PG_WRONG_TYPE), "table: column %s has type %s; it is to be %s",
                     name, PQgetvalue(found, row, 2), expected);
    }
    bool not_null = is_true(found, row, 3);
    if (column == HV_COL_LEADER_ID && not_null) {
        hv_check_bad(s->check, "ALTER TABLE ... ALTER leader_id DROP NOT NULL",
                     "table: column leader_id is NOT NULL; rows that nobody marked have NULL there");
    }
    if ((column == HV_COL_TOPIC || column == HV_COL_KEY) && !not_null) {
        hv_check_note(s->check,
                      "table: column %s may be NULL; a row with NULL there is not sent and blocks its shard",
                      name);
    }
}

/* Is there a table, and has it the columns? */
static bool check_columns(struct session *s) {
    const char *table = s->check->settings->outbox_table;
    const char *const parameters[] = {s->table};
    unsigned bad = s->check->bad;
    PGresult *found = ask(s, "table", columns_sql, 1, parameters);
    if (found == NULL) {
        return false;
    }
    bool exists = PQntuples(found) > 0;
    if (!exists) {
        hv_check_bad(s->check, hv_pg_advice(HV_PG_NO_TABLE), "table: there is no %s that this user can see",
                     table);
    }
    for (int column = 0; exists && column <= HV_COL_LEADER_ID; column++) {
        check_column(s, found, column);
    }
    if (exists && s->check->bad == bad) {
        hv_check_ok(s->check, "table: %s has all columns, of types that work", table);
    }
    PQclear(found);
    return exists;
}

/* Which rights are missing, with the GRANT of each. False when the table cannot be looked at at all. */
static bool check_rights(struct session *s) {
    const char *const parameters[] = {s->table};
    PGresult *r = ask(s, "rights", hv_rights_sql, 1, parameters);
    if (r == NULL) {
        return true;
    }
    for (int row = 0; row < PQntuples(r); row++) {
        hv_check_bad(s->check, PQgetvalue(r, row, 1), "rights: no %s", PQgetvalue(r, row, 0));
    }
    s->entitled = PQntuples(r) == 0;
    bool usable = PQntuples(r) == 0 || strncmp(PQgetvalue(r, 0, 0), "USAGE", 5) != 0;
    PQclear(r);
    return usable;
}

static const char kind_sql[] =
    "SELECT pg_catalog.row_security_active(c.oid), c.relkind IN ('r', 'p'), pg_catalog.pg_is_in_recovery(), "
    "pg_catalog.current_setting('default_transaction_read_only') "
    "FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";

static void check_kind(struct session *s) {
    const char *const parameters[] = {s->table};
    PGresult *r = ask(s, "table", kind_sql, 1, parameters);
    if (r == NULL || PQntuples(r) != 1) {
        PQclear(r);
        return;
    }
    if (s->entitled) {
        hv_check_ok(s->check, "rights: SELECT, UPDATE (leader_id), DELETE");
    }
    if (is_true(r, 0, 0)) {
        hv_check_note(
            s->check,
            "rights: row-level security is in force for this user; rows that it hides are not sent");
    }
    if (!is_true(r, 0, 1)) {
        hv_check_bad(s->check, "name a table in outbox_table",
                     "table: it is a view or the like, not a table");
    }
    if (is_true(r, 0, 2) || strcmp(PQgetvalue(r, 0, 3), "on") == 0) {
        hv_check_bad(s->check, "connect to the primary, see target_session_attrs=read-write of data_source",
                     "database: it is read-only");
    }
    PQclear(r);
}

/* An index that begins with id; one that makes id alone unique. */
static const char index_sql[] =
    "SELECT count(*) > 0, coalesce(bool_or(i.indisunique AND i.indnkeyatts = 1), false) FROM "
    "pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = "
    "i.indkey[0] WHERE i.indrelid = pg_catalog.to_regclass($1) AND a.attname = 'id' AND i.indisvalid AND "
    "i.indpred IS NULL";

static void check_index(struct session *s) {
    const char *const parameters[] = {s->table};
    PGresult *r = ask(s, "index", index_sql, 1, parameters);
    if (r == NULL) {
        return;
    }
    if (!is_true(r, 0, 0)) {
        hv_check_bad(s->check, "make id the primary key: ALTER TABLE ... ADD PRIMARY KEY (id)",
                     "index: there is none on id, so each mark and each purge reads the whole table");
    } else if (!is_true(r, 0, 1)) {
        hv_check_note(s->check,
                      "index: id is indexed but not unique; rows of the same id are deleted together");
    } else {
        hv_check_ok(s->check, "index: id is indexed and unique");
    }
    PQclear(r);
}

static void check_sequence(struct session *s) {
    static const char sql[] = "SELECT q.seqrelid::regclass, q.seqcache FROM pg_catalog.pg_sequence q WHERE "
                              "q.seqrelid = pg_catalog.pg_get_serial_sequence($1, 'id')::regclass";
    const char *const parameters[] = {s->table};
    PGresult *r = PQexecParams(s->conn, sql, 1, NULL, parameters, NULL, NULL, 0);
    if (PQresultStatus(r) != PGRES_TUPLES_OK || PQntuples(r) == 0) {
        hv_check_note(
            s->check,
            "sequence: id has none of its own; draw ids at the insert, in the order of commits for a key");
    } else if (strcmp(PQgetvalue(r, 0, 1), "1") != 0) {
        hv_check_note(s->check,
                      "sequence: %s hands out %s ids at a time, so ids do not rise in the order of inserts; "
                      "ALTER SEQUENCE %s CACHE 1, if the order of a key's records matters",
                      PQgetvalue(r, 0, 0), PQgetvalue(r, 0, 1), PQgetvalue(r, 0, 0));
    } else {
        hv_check_ok(s->check, "sequence: ids are drawn one by one");
    }
    PQclear(r);
}

/* Not every outbox has one; what is there has to work when it is needed. */
static void check_parked(struct session *s) {
    char parked[HV_TABLE_QUOTED_MAX], *sql = NULL;
    struct hv_error err;
    hv_park_name(s->table, HV_PARK_TABLE, parked, sizeof parked);
    const char *const parameters[] = {s->table, parked};
    PGresult *r = ask(s, "parked records", hv_park_shape_sql, 2, parameters);
    if (r != NULL && PQntuples(r) == 1 && is_true(r, 0, 0)) {
        if (hv_park_read_shape(r, s->table, parked, true, &sql, &err) == 0) {
            hv_check_ok(s->check, "parked records: table %s has all columns, and may be written to", parked);
        } else {
            hv_check_bad(s->check, hv_pg_advice(HV_PG_PARKED_TABLE), "parked records: %s", err.text);
        }
    }
    free(sql);
    PQclear(r);
}

/* The topics of the oldest rows, for the broker's part of the check. */
static void find_topics(struct session *s) {
    char sql[1000];
    snprintf(sql, sizeof sql,
             "SELECT DISTINCT kafka_topic::text FROM (SELECT kafka_topic FROM %s ORDER BY id LIMIT 10000) o "
             "WHERE kafka_topic IS NOT NULL ORDER BY 1 LIMIT %d",
             s->table, HV_CHECK_TOPICS_MAX);
    PGresult *r = PQexecParams(s->conn, sql, 0, NULL, NULL, NULL, NULL, 0);
    if (PQresultStatus(r) == PGRES_TUPLES_OK) { /* otherwise the reason was told: a column or a right */
        for (int row = 0; row < PQntuples(r); row++) {
            s->check->topics[s->check->topic_count++] = hv_must(strdup(PQgetvalue(r, row, 0)));
        }
    }
    PQclear(r);
}

/* Not through a pooler, which would hand the setting on to other clients; see pg_conn.c. */
static void bound_statements(struct session *s) {
    static const char sql[] = "SELECT CASE WHEN pg_catalog.pg_backend_pid() = $1::int4 THEN "
                              "pg_catalog.set_config('statement_timeout', $2, false) END";
    char pid[16], limit[24];
    snprintf(pid, sizeof pid, "%d", PQbackendPID(s->conn));
    snprintf(limit, sizeof limit, "%" PRId64, s->check->settings->statement_timeout / 1000);
    const char *const values[] = {pid, limit};
    PGresult *r = PQexecParams(s->conn, sql, 2, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(r) == PGRES_TUPLES_OK && PQgetisnull(r, 0, 0)) {
        hv_check_note(s->check, "database: a pooler is in between; it has to keep its pool from running dry, see the README");
    }
    PQclear(r);
}

void hv_check_database(struct hv_check *check) {
    struct session s = {.check = check};
    struct hv_error err;
    if (hv_outbox_quote_table(check->settings->outbox_table, s.table, sizeof s.table, &err) != 0) {
        hv_check_bad(check, "correct outbox_table", "table: %s", err.text);
    } else if (connect_database(&s)) {
        bound_statements(&s);
        if (check_rights(&s) && check_columns(&s)) {
            check_kind(&s);
            check_index(&s);
            check_sequence(&s);
            hv_check_wakeup(check, s.conn, s.table);
            check_parked(&s);
            find_topics(&s);
        }
    }
    PQfinish(s.conn);
}
