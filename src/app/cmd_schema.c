/* harvestd schema: the SQL that makes the outbox table, its name as the user wrote it. etc/outbox.sql is
 * what it prints for the default name. */
#include <stdio.h>

#include "app/commands.h"
#include "io/pg_outbox.h"

int hv_cmd_schema(const struct hv_settings *settings) {
    char table[600];
    struct hv_error err;
    if (hv_outbox_quote_table(settings->outbox_table, table, sizeof table, &err) != 0) {
        fprintf(stderr, "harvestd: outbox_table: %s\n", err.text);
        return 1;
    }
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
        settings->outbox_table);
    return 0;
}
