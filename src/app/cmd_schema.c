/* harvestd schema: the SQL that makes the outbox table, its name as the user wrote it (etc/outbox.sql is what it prints for the
 * default name), that grants the rights that are needed on it, and no more, or that has its inserts told (wakeup = listen). */
#include <stdio.h>
#include <string.h>

#include "app/cmd_schema_park.h"
#include "app/commands.h"
#include "app/options.h"
#include "io/pg_outbox.h"
#include "io/pg_table.h"

static const struct hv_option rows[] = {
    {.name = "--grants", .type = HV_OPTION_TEXT, .value = "ROLE", .offset = offsetof(struct hv_options, grants),
     .help = "print the GRANTs that harvestd needs, when it connects as ROLE"},
    {.name = "--application-grants", .type = HV_OPTION_TEXT, .value = "ROLE",
     .offset = offsetof(struct hv_options, application_grants),
     .help = "print the GRANTs that an application needs to write records as ROLE"},
    {.name = "--notify", .type = HV_OPTION_FLAG, .offset = offsetof(struct hv_options, notify),
     .help = "print the trigger that tells harvestd of new rows, for wakeup = listen (Postgres 14 or newer). It slows writers down, and a "
             "transaction that inserted cannot be prepared (two-phase commit) any more"},
    {.name = "--park", .offset = offsetof(struct hv_options, park_schema),
     .help = "print the SQL that makes the table of parked records beside the outbox; with --grants the GRANTs that parking needs as well"},
    {.name = "--operator-grants", .type = HV_OPTION_TEXT, .value = "ROLE", .offset = offsetof(struct hv_options, operator_grants),
     .help = "print the GRANTs that harvestd park needs, when it connects as ROLE"},
};

const struct hv_option_table hv_schema_option_table = {rows, sizeof rows / sizeof rows[0]};

static void print_table(const char *table) {
    printf(
        "CREATE TABLE IF NOT EXISTS %s (\n"
        "    id                  BIGSERIAL PRIMARY KEY,\n"
        "    create_time         TIMESTAMP WITH TIME ZONE NOT NULL,\n"
        "    kafka_topic         VARCHAR(249) NOT NULL,\n"
        "    kafka_key           VARCHAR(100) NOT NULL,  -- as long as your keys are\n"
        "    kafka_value         VARCHAR(10000),         -- as long as your values are; NULL is a tombstone\n"
        "    kafka_header_keys   TEXT[] NOT NULL,        -- '{}' for none\n"
        "    kafka_header_values TEXT[] NOT NULL,        -- as many as keys\n"
        "    leader_id           UUID                    -- harvestd's; leave it NULL\n"
        ");\n",
        table);
}

/* A right on what only the database can name: an expression for the name of that object. */
static void print_execute(const char *right, const char *name, const char *table, const char *role) {
    printf("    EXECUTE pg_catalog.format('GRANT %s TO %%s',\n        ", right);
    const char *at = strstr(name, "TABLE");
    printf("%.*s", at == NULL ? (int)strlen(name) : (int)(at - name), name);
    if (at != NULL) {
        hv_schema_print_literal(stdout, table);
        printf("%s", at + strlen("TABLE"));
    }
    printf(", ");
    hv_schema_print_literal(stdout, role);
    printf(");\n");
}

static void print_grants(const char *table, const char *role, bool application) {
    printf("DO $grants$ BEGIN\n");
    print_execute("CONNECT ON DATABASE %I", "current_database()", table, role);
    print_execute("USAGE ON SCHEMA %s",
                  "(SELECT relnamespace::regnamespace FROM pg_catalog.pg_class WHERE oid = TABLE::regclass)", table, role);
    if (application) {
        printf("    IF pg_catalog.pg_get_serial_sequence(");
        hv_schema_print_literal(stdout, table);
        printf(", 'id') IS NOT NULL THEN\n    ");
        print_execute("USAGE ON SEQUENCE %s", "pg_catalog.pg_get_serial_sequence(TABLE, 'id')", table, role);
        printf("    END IF;\n");
    }
    printf("END $grants$;\n");
    if (application) {
        printf("GRANT INSERT (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) ON %s "
               "TO %s;\n",
               table, role);
    } else {
        printf("GRANT SELECT, UPDATE (leader_id), DELETE ON %s TO %s;\n", table, role);
    }
}

/* One notification a statement, all alike: of those of one transaction Postgres keeps one. The function is the same for all outboxes of a
 * schema. It names all it uses by schema, so it does not matter what search_path writers have. */
static int print_notify(const char *table) {
    char schema[HV_TABLE_QUOTED_MAX], channel[HV_TABLE_CHANNEL_SIZE];
    struct hv_error err;
    if (hv_table_schema(table, schema, sizeof schema, &err) != 0 || hv_table_channel(table, channel, &err) != 0) {
        fprintf(stderr, "harvestd: outbox_table: %s\n", err.text);
        return 1;
    }
    printf("CREATE OR REPLACE FUNCTION %sharvestd_notify() RETURNS trigger LANGUAGE plpgsql AS $notify$\n"
           "BEGIN\n"
           "    PERFORM pg_catalog.pg_notify(TG_ARGV[0], '');\n"
           "    RETURN NULL;\n"
           "END\n"
           "$notify$;\n"
           "CREATE OR REPLACE TRIGGER harvestd_notify AFTER INSERT ON %s\n"
           "    FOR EACH STATEMENT EXECUTE FUNCTION %sharvestd_notify(",
           schema, table, schema);
    hv_schema_print_literal(stdout, channel);
    printf(");\n");
    return 0;
}

/* 0, or 1 when it told that this is no name. */
static int quote(const char *what, const char *name, bool one_part, char *out, size_t size) {
    struct hv_error err;
    if (hv_outbox_quote_table(name, out, size, &err) != 0) {
        fprintf(stderr, "harvestd: %s: %s\n", what, err.text);
    } else if (one_part && strstr(out, "\".\"") != NULL) {
        fprintf(stderr, "harvestd: %s: a role's name has one part; put one with a dot in double quotes\n", what);
    } else {
        return 0;
    }
    return 1;
}

typedef void print_grants_fn(FILE *out, const char *table, const char *quoted, const char *role);

static void for_harvestd(FILE *out, const char *table, const char *quoted, const char *role) {
    (void)out, (void)quoted;
    print_grants(table, role, false);
}

static void for_applications(FILE *out, const char *table, const char *quoted, const char *role) {
    (void)out, (void)quoted;
    print_grants(table, role, true);
}

/* 0, also when no role is given; 1 when it told that this is no name. */
static int grant(const char *option, const char *role, const char *table, const char *quoted_table, print_grants_fn *print) {
    char quoted[600];
    if (role == NULL) {
        return 0;
    }
    if (quote(option, role, true, quoted, sizeof quoted) != 0) {
        return 1;
    }
    print(stdout, table, quoted_table, quoted);
    return 0;
}

int hv_cmd_schema(const struct hv_settings *settings, const struct hv_options *options) {
    const char *role = options->grants, *application = options->application_grants, *operator_role = options->operator_grants;
    const char *table = settings->outbox_table;
    char quoted[600];
    if (quote("outbox_table", table, false, quoted, sizeof quoted) != 0) {
        return 1;
    }
    if (role == NULL && application == NULL && operator_role == NULL && !options->notify && !options->park_schema) {
        print_table(table);
    }
    if (options->park_schema && role == NULL && application == NULL && operator_role == NULL) {
        hv_schema_print_park(stdout, table, quoted);
    }
    if (options->notify && print_notify(table) != 0) {
        return 1;
    }
    return grant("--grants", role, quoted, quoted, for_harvestd) != 0 ||
           (options->park_schema && grant("--grants", role, table, quoted, hv_schema_print_park_grants) != 0) ||
           grant("--application-grants", application, quoted, quoted, for_applications) != 0 ||
           grant("--operator-grants", operator_role, table, quoted, hv_schema_print_operator_grants) != 0;
}
