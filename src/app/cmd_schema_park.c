/* See cmd_schema_park.h. */
#include "app/cmd_schema_park.h"

#include <stdbool.h>
#include <string.h>

#include "io/pg_park.h"
#include "io/pg_table.h"

/* ---- names ---- */

static bool is_plain(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bool letter = (text[i] >= 'a' && text[i] <= 'z') || text[i] == '_', digit = text[i] >= '0' && text[i] <= '9';
        if (!letter && !(digit && i > 0)) {
            return false;
        }
    }
    return true;
}

/* Without the quotes where they are not needed: a name with our suffix is no reserved word, and a schema's goes as it was written. */
static void pretty(const char *table, const char *quoted, const char *suffix, char *out, size_t size) {
    char name[HV_TABLE_QUOTED_MAX];
    hv_park_name(quoted, suffix, name, sizeof name);
    const char *dot = strstr(name, "\".\""), *last = dot == NULL ? name : dot + 2;
    size_t schema = dot == NULL ? 0 : (size_t)(dot - name) - 1, length = strlen(last) - 2;
    bool bare_schema = dot != NULL && table[0] != '"' && is_plain(name + 1, schema), bare = is_plain(last + 1, length);
    snprintf(out, size, "%.*s%s%.*s", dot == NULL ? 0 : (int)(bare_schema ? schema : schema + 2), name + bare_schema, dot == NULL ? "" : ".",
             (int)(bare ? length : length + 2), last + bare);
}

/* The part behind the schema: of an index, which is made where its table is. */
static const char *without_schema(const char *name) {
    const char *quoted = strstr(name, "\".");
    const char *dot = quoted != NULL ? quoted + 1 : name[0] == '"' ? NULL : strchr(name, '.');
    return dot == NULL ? name : dot + 1;
}

/* ---- templates ---- */

struct names {
    const char *table, *role;
    char parked[HV_TABLE_QUOTED_MAX], index[HV_TABLE_QUOTED_MAX], function[HV_TABLE_QUOTED_MAX];
};

void hv_schema_print_literal(FILE *out, const char *text) {
    fputc('\'', out);
    for (; *text != '\0'; text++) {
        fprintf(out, *text == '\'' ? "''" : "%c", *text);
    }
    fputc('\'', out);
}

/* @NAME@ stands for a name, @'NAME'@ for a string with it. */
static void print_template(FILE *out, const char *template, const struct names *names) {
    const struct {
        const char *word, *text;
    } words[] = {
        {"@OUTBOX@", names->table}, {"@PARKED@", names->parked}, {"@INDEX@", without_schema(names->index)},
        {"@FUNCTION@", names->function}, {"@ROLE@", names->role},
        {"@'OUTBOX'@", names->table}, {"@'PARKED'@", names->parked}, {"@'ROLE'@", names->role},
    };
    for (const char *at = template; *at != '\0';) {
        size_t i = 0, count = sizeof words / sizeof words[0];
        while (i < count && strncmp(at, words[i].word, strlen(words[i].word)) != 0) {
            i++;
        }
        if (i == count) {
            fputc(*at++, out);
            continue;
        }
        if (words[i].word[1] == '\'') {
            hv_schema_print_literal(out, words[i].text);
        } else {
            fputs(words[i].text, out);
        }
        at += strlen(words[i].word);
    }
}

static struct names names_of(const char *table, const char *quoted, const char *role) {
    struct names names = {.table = table, .role = role};
    pretty(table, quoted, HV_PARK_TABLE, names.parked, sizeof names.parked);
    pretty(table, quoted, HV_PARK_INDEX, names.index, sizeof names.index);
    pretty(table, quoted, HV_PARK_FUNCTION, names.function, sizeof names.function);
    return names;
}

/* ---- the table ---- */

static const char table_template[] =
    "-- Records that Kafka refuses and that are moved aside; see harvestd park.\n"
    "CREATE TABLE IF NOT EXISTS @PARKED@ (\n"
    "    LIKE @OUTBOX@,  -- the row as it was\n"
    "    PRIMARY KEY (id),\n"
    "    class     TEXT NOT NULL,                      -- of the failure\n"
    "    error     TEXT NOT NULL,                      -- what was said last\n"
    "    attempts  INTEGER NOT NULL,                   -- how often it was tried\n"
    "    failed_at TIMESTAMP WITH TIME ZONE NOT NULL,  -- first\n"
    "    parked_at TIMESTAMP WITH TIME ZONE NOT NULL,\n"
    "    place     BIGINT NOT NULL,                    -- in the order of its key: its id, unless an earlier record was replayed since\n"
    "    passed_by BIGINT,                             -- a later record of its key that left the outbox since; NULL: none\n"
    "    noted_by  OID                                 -- the trigger that notes that; NULL: none did when this was parked\n"
    ");\n"
    "CREATE INDEX IF NOT EXISTS @INDEX@ ON @PARKED@ (substr(kafka_key, 1, 64), place) WHERE passed_by IS NULL;\n";

/* Each statement that deletes from the outbox, harvestd's purge above all, notes which parked records it passed. That must not slow down the
 * statement, whatever the planner's statistics are, nor make it wait for long when somebody holds a row: hence the settings. Rows that were
 * parked by the very statement passed nothing. */
static const char note_template[] =
    "\n"
    "-- Notes in passed_by which parked records can no longer be in order. Without it nobody knows, and a replay needs --allow-reorder.\n"
    "DO $park$\n"
    "DECLARE\n"
    "    parked text := (SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace\n"
    "                    WHERE pg_class.oid = @'PARKED'@::regclass);\n"
    "BEGIN\n"
    "    EXECUTE replace(replace($create$\n"
    "        CREATE OR REPLACE FUNCTION @FUNCTION@() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
    "        SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'\n"
    "        SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $note$\n"
    "        BEGIN\n"
    "            IF to_regclass(<literal>) IS NULL THEN\n"
    "                RETURN NULL;\n"
    "            END IF;\n"
    "            IF EXISTS (SELECT FROM <name> WHERE passed_by IS NULL) THEN\n"
    "                UPDATE <name> AS p SET passed_by = passed.by_id FROM (\n"
    "                    SELECT hit.id, latest.id AS by_id FROM (\n"
    "                        SELECT kafka_key, max(id) AS id FROM gone\n"
    "                        WHERE NOT EXISTS (SELECT FROM <name> AS q WHERE q.id = gone.id) GROUP BY kafka_key) AS latest\n"
    "                    CROSS JOIN LATERAL (\n"
    "                        SELECT q.id FROM <name> AS q WHERE q.passed_by IS NULL AND q.place < latest.id\n"
    "                        AND substr(q.kafka_key, 1, 64) = substr(latest.kafka_key, 1, 64) AND q.kafka_key = latest.kafka_key\n"
    "                        OFFSET 0) AS hit\n"
    "                ) AS passed WHERE p.id = passed.id;\n"
    "            END IF;\n"
    "            RETURN NULL;\n"
    "        END $note$ $create$, '<literal>', quote_literal(parked)), '<name>', parked);\n"
    "    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = @'OUTBOX'@::regclass AND tgname = '" HV_PARK_TRIGGER "') THEN\n"
    "        CREATE TRIGGER " HV_PARK_TRIGGER " AFTER DELETE ON @OUTBOX@ REFERENCING OLD TABLE AS gone\n"
    "            FOR EACH STATEMENT EXECUTE FUNCTION @FUNCTION@();\n"
    "    END IF;\n"
    "END $park$;\n";

void hv_schema_print_park(FILE *out, const char *table, const char *quoted) {
    const struct names names = names_of(table, quoted, "");
    print_template(out, table_template, &names);
    print_template(out, note_template, &names);
}

/* ---- rights ---- */

void hv_schema_print_park_grants(FILE *out, const char *table, const char *quoted, const char *role) {
    const struct names names = names_of(table, quoted, role);
    print_template(out, "GRANT SELECT (id), INSERT ON @PARKED@ TO @ROLE@;\n", &names);
}

/* DELETE on the outbox is for the lock that a replay takes; UPDATE of the parked is for places, and to mend what is in them. */
static const char operator_template[] =
    "DO $grants$ BEGIN\n"
    "    EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %s', current_database(), @'ROLE'@);\n"
    "    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %s',\n"
    "        (SELECT relnamespace::regnamespace FROM pg_catalog.pg_class WHERE oid = @'OUTBOX'@::regclass), @'ROLE'@);\n"
    "    IF pg_catalog.pg_get_serial_sequence(@'OUTBOX'@, 'id') IS NOT NULL THEN\n"
    "        EXECUTE pg_catalog.format('GRANT USAGE ON SEQUENCE %s TO %s',\n"
    "            pg_catalog.pg_get_serial_sequence(@'OUTBOX'@, 'id'), @'ROLE'@);\n"
    "    END IF;\n"
    "END $grants$;\n"
    "GRANT SELECT, UPDATE, DELETE ON @PARKED@ TO @ROLE@;\n"
    "GRANT SELECT (id, kafka_key), INSERT, DELETE ON @OUTBOX@ TO @ROLE@;\n";

void hv_schema_print_operator_grants(FILE *out, const char *table, const char *quoted, const char *role) {
    const struct names names = names_of(table, quoted, role);
    print_template(out, operator_template, &names);
}
