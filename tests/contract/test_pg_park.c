/* Parking against a real server (HV_TEST_PG), in the tables that `harvestd schema --park` makes: rows are moved whole, all or none, once; and
 * what is wrong with the table is told, with what to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/cmd_schema_park.h"
#include "base/text.h"
#include "io/pg_outbox.h"
#include "pg_help.h"

#define PLAIN \
    "CREATE TABLE outbox (id bigserial PRIMARY KEY, create_time timestamptz DEFAULT now(), kafka_topic varchar(249), kafka_key varchar(100), " \
    "kafka_value varchar(10000), kafka_header_keys text[] DEFAULT '{}', kafka_header_values text[] DEFAULT '{}', leader_id uuid)"

struct client {
    struct bench bench;
    struct hv_outbox *outbox;
    PGconn *admin;
    const char *table;
    int ups, downs, answers, refusals;
    bool closed;
    struct hv_pg_failure failure;
    int64_t ids[16];
    size_t count;
};

static void on_up(void *user, const char *host) {
    (void)host;
    ((struct client *)user)->ups++;
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    struct client *c = user;
    c->downs++;
    c->failure = *failure;
}

static void on_parked(void *user, const int64_t *ids, size_t count) {
    struct client *c = user;
    assert_true(hv_outbox_is_idle(c->outbox));
    assert_true(count <= 16);
    c->answers++;
    c->count = count;
    memcpy(c->ids, ids, count * sizeof *ids);
}

static void on_purged(void *user, size_t rows) {
    struct client *c = user;
    c->answers++;
    c->count = rows;
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    struct client *c = user;
    assert_true(hv_outbox_is_idle(c->outbox));
    c->refusals++;
    c->failure = *failure;
}

static const struct hv_outbox_handler handler = {
    .up = on_up, .down = on_down, .parked = on_parked, .purged = on_purged, .refused = on_refused};

static bool has_up(void *arg) {
    return ((struct client *)arg)->ups > 0;
}

static void drop_all(PGconn *admin) {
    admin_sql(admin, "DROP SCHEMA IF EXISTS \"My Schema\" CASCADE; DROP TABLE IF EXISTS outbox, outbox_parked CASCADE; "
                     "DROP FUNCTION IF EXISTS outbox_parked_note");
}

static void client_open(struct client *c, const char *table, const char *sql, const char *more) {
    struct hv_error err = {""};
    memset(c, 0, sizeof *c);
    bench_open(&c->bench);
    c->table = table;
    c->admin = admin_open(conninfo_with(""));
    drop_all(c->admin);
    admin_sql(c->admin, sql);
    struct hv_pg_options options = options_for(conninfo_with(more));
    if (hv_outbox_open(c->bench.loop, &options, table, &handler, c, &c->outbox, &err) != 0) {
        fail_msg("%s", err.text);
    }
    bench_run_until(&c->bench, has_up, c);
}

static void make_parked_table(struct client *c) {
    char *sql = NULL, quoted[600];
    size_t size;
    assert_int_equal(hv_outbox_quote_table(c->table, quoted, sizeof quoted, NULL), 0);
    FILE *out = open_memstream(&sql, &size);
    hv_schema_print_park(out, c->table, quoted);
    fclose(out);
    admin_sql(c->admin, sql);
    admin_sql(c->admin, sql); /* it can be run again */
    free(sql);
}

static void on_closed(void *user) {
    ((struct client *)user)->closed = true;
}

static bool is_closed(void *arg) {
    return ((struct client *)arg)->closed;
}

static void client_close(struct client *c) {
    hv_outbox_close(c->outbox, on_closed);
    bench_run_until(&c->bench, is_closed, c);
    bench_close(&c->bench);
    drop_all(c->admin);
    admin_close(c->admin);
}

static bool has_answer(void *arg) {
    struct client *c = arg;
    return c->answers + c->refusals + c->downs > 0;
}

/* One statement for rows of these ids; `how` it ended. */
static void park(struct client *c, const int64_t *ids, size_t count) {
    struct hv_parked rows[8];
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct hv_parked){ids[i], "too large", "Broker: Message size too large", 3, HV_SECONDS(60), 0};
    }
    c->answers = c->refusals = c->downs = 0;
    hv_outbox_park(c->outbox, rows, count);
    memset(rows, 0xff, sizeof rows); /* it has copied them */
    bench_run_until(&c->bench, has_answer, c);
}

#define PARK(c, ...) park(c, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

#define EXPECT_PARKED(c, ...)                                                                  \
    do {                                                                                       \
        const int64_t expected[] = {0, __VA_ARGS__};                                           \
        if ((c)->answers != 1) {                                                               \
            fail_msg("%s", (c)->failure.error.text);                                           \
        }                                                                                      \
        assert_int_equal((c)->count, sizeof expected / sizeof expected[0] - 1);                \
        assert_memory_equal((c)->ids, expected + 1, sizeof expected - sizeof expected[0]);     \
    } while (0)

static void expect_refused(struct client *c, enum hv_pg_trouble trouble, const char *says) {
    assert_int_equal(c->refusals, 1);
    assert_int_equal(c->failure.trouble, trouble);
    assert_false(c->failure.outcome_unknown);
    if (strstr(c->failure.error.text, says) == NULL) {
        fail_msg("'%s' is not in '%s'", says, c->failure.error.text);
    }
}

static void expect_sql(struct client *c, const char *sql, const char *expected) {
    char *value = admin_value(c->admin, sql);
    assert_string_equal(value, expected);
    free(value);
}

#define IDS(table) "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM " table

/* ---- the statement ---- */

static void rows_are_moved_once(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "outbox", PLAIN, "");
    make_parked_table(&c);
    admin_sql(c.admin, "INSERT INTO outbox (kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values, leader_id) "
                       "SELECT 't', 'k' || i, nullif('v' || i, 'v3'), '{a}', '{b}', gen_random_uuid() FROM generate_series(1, 5) i");
    admin_sql(c.admin, "CREATE TEMP TABLE before AS SELECT * FROM outbox");
    PARK(&c, 4, 2, 99, 3);
    EXPECT_PARKED(&c, 2, 3, 4);
    PARK(&c, 4, 2); /* as after an answer that was lost */
    EXPECT_PARKED(&c);
    PARK(&c, 5, 4);
    EXPECT_PARKED(&c, 5);
    expect_sql(&c, IDS("outbox"), "1");
    expect_sql(&c, IDS("outbox_parked"), "2 3 4 5");
    expect_sql(&c, "SELECT count(*) FROM before JOIN outbox_parked AS p USING (id) WHERE before IS NOT DISTINCT FROM "
                     "(SELECT b FROM before AS b WHERE (b.id, b.create_time, b.kafka_topic, b.kafka_key, b.leader_id) = "
                     "(p.id, p.create_time, p.kafka_topic, p.kafka_key, p.leader_id) AND b.kafka_value IS NOT DISTINCT FROM p.kafka_value "
                     "AND b.kafka_header_keys = p.kafka_header_keys AND b.kafka_header_values = p.kafka_header_values)", "4");
    expect_sql(&c, "SELECT count(*) FROM outbox_parked WHERE class = 'too large' AND error = 'Broker: Message size too large' "
                     "AND attempts = 3 AND parked_at - failed_at = '60s' AND now() - parked_at < '30s' AND place = id AND passed_by IS NULL "
                     "AND noted_by = (SELECT oid FROM pg_trigger WHERE tgname = 'harvestd_parked')", "4");
    client_close(&c);
}

static void what_is_parked_already_is_not_lost(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "outbox", PLAIN, "");
    make_parked_table(&c);
    admin_sql(c.admin, "INSERT INTO outbox (id, kafka_topic, kafka_key, kafka_value) VALUES (1, 't', 'k', 'first')");
    PARK(&c, 1);
    admin_sql(c.admin, "INSERT INTO outbox (id, kafka_topic, kafka_key, kafka_value) VALUES (1, 't', 'k', 'second'), (2, 't', 'k', 'x')");
    PARK(&c, 1, 2);
    expect_refused(&c, HV_PG_STATEMENT, "duplicate key");
    expect_sql(&c, IDS("outbox"), "1 2");
    expect_sql(&c, "SELECT kafka_value FROM outbox_parked", "first");
    PARK(&c, 2);
    EXPECT_PARKED(&c, 2);
    client_close(&c);
}

static void odd_reasons(void **state) {
    (void)state;
    struct client c;
    char huge[5000];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    client_open(&c, "outbox", PLAIN, "");
    make_parked_table(&c);
    admin_sql(c.admin, "INSERT INTO outbox (kafka_topic, kafka_key) SELECT 't', 'k' FROM generate_series(1, 3)");
    const struct hv_parked rows[] = {
        {1, NULL, NULL, 0, 0, 0}, {2, "a\xff\n{}\"'\\", huge, UINT32_MAX, -5, 0}, {3, "", "\xc3\xa9t\xc3\xa9", 1, INT64_MAX / 4, 0}};
    hv_outbox_park(c.outbox, rows, 3);
    bench_run_until(&c.bench, has_answer, &c);
    EXPECT_PARKED(&c, 1, 2, 3);
    expect_sql(&c, "SELECT concat_ws('|', class, error, attempts) FROM outbox_parked WHERE id = 1", "||0");
    expect_sql(&c, "SELECT concat_ws('|', class, length(error), attempts) FROM outbox_parked WHERE id = 2", "a? {}\"'\\|1000|2147483647");
    client_close(&c);
}

static void tables_of_every_shape(void **state) {
    (void)state;
    static const struct {
        const char *table, *parked, *sql, *values;
    } cases[] = {
        {"outbox", "outbox_parked",
         "CREATE TABLE outbox (kafka_value bytea, more jsonb, id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kafka_topic text, kafka_key "
         "bytea, kafka_header_keys text[], kafka_header_values bytea[], twice int GENERATED ALWAYS AS (id * 2) STORED, leader_id uuid)",
         "(kafka_value, more, kafka_topic, kafka_key, kafka_header_keys, kafka_header_values) VALUES ('\\x00ff', '{}', 't', '\\x00', '{a}', "
         "'{\"\\\\x00\"}')"},
        {"outbox", "outbox_parked",
         "CREATE TABLE outbox (id bigint, kafka_topic text, kafka_key text, kafka_value jsonb, kafka_header_keys text[], kafka_header_values "
         "text[], leader_id uuid, day date DEFAULT now(), PRIMARY KEY (id, day)) PARTITION BY RANGE (day); "
         "CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES FROM ('2000-01-01') TO ('2900-01-01')",
         "(id, kafka_topic, kafka_key, kafka_value) VALUES (1, 't', NULL, '{\"a\": 1}')"},
        {"\"My Schema\".\"Out.\"\"Box\"", "\"My Schema\".\"Out.\"\"Box_parked\"",
         "CREATE SCHEMA \"My Schema\"; CREATE TABLE \"My Schema\".\"Out.\"\"Box\" (id bigserial PRIMARY KEY, kafka_topic text, kafka_key text, "
         "kafka_value json, kafka_header_keys text[], kafka_header_values text[], leader_id uuid, \"Odd \"\"column\" int)",
         "(kafka_topic, kafka_key, kafka_value, \"Odd \"\"column\") VALUES ('t', 'k', '{\"a\":  1}', 7)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client c;
        char sql[1000];
        client_open(&c, cases[i].table, cases[i].sql, "");
        make_parked_table(&c);
        snprintf(sql, sizeof sql, "INSERT INTO %s %s", cases[i].table, cases[i].values);
        admin_sql(c.admin, sql);
        snprintf(sql, sizeof sql, "SELECT to_jsonb(o) FROM %s o", cases[i].table);
        char *before = admin_value(c.admin, sql);
        PARK(&c, 1);
        EXPECT_PARKED(&c, 1);
        snprintf(sql, sizeof sql, "SELECT to_jsonb(o) - '{class,error,attempts,failed_at,parked_at,place,passed_by,noted_by}'::text[] FROM %s o",
                 cases[i].parked);
        expect_sql(&c, sql, before);
        free(before);
        client_close(&c);
    }
}

/* ---- what is wrong with the table ---- */

static void a_missing_table_is_told_and_made(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "outbox", PLAIN, "");
    admin_sql(c.admin, "INSERT INTO outbox (kafka_topic, kafka_key) VALUES ('t', 'k')");
    for (int i = 0; i < 2; i++) {
        PARK(&c, 1);
        expect_refused(&c, HV_PG_PARKED_TABLE, "harvestd schema --park");
        expect_sql(&c, IDS("outbox"), "1");
        make_parked_table(&c);
        PARK(&c, 1);
        EXPECT_PARKED(&c, 1);
        if (i == 0) { /* and when it goes away under a session that knows it */
            admin_sql(c.admin, "DROP TABLE outbox_parked; INSERT INTO outbox (id, kafka_topic, kafka_key) VALUES (1, 't', 'k')");
            PARK(&c, 1);
            expect_refused(&c, HV_PG_PARKED_TABLE, "outbox_parked");
        }
    }
    client_close(&c);
}

static void the_wrong_shape_is_told(void **state) {
    (void)state;
    struct client c;
    static const struct {
        const char *sql, *says;
    } cases[] = {
        {"ALTER TABLE outbox ADD COLUMN \"More\" int[]; ALTER TABLE outbox ALTER kafka_key TYPE varchar(200)",
         "ALTER TABLE \"outbox_parked\" ALTER COLUMN kafka_key TYPE character varying(200), ADD COLUMN \"More\" integer[]"},
        {"ALTER TABLE outbox_parked DROP COLUMN passed_by", "ALTER TABLE \"outbox_parked\" ADD COLUMN passed_by bigint"},
        {"ALTER TABLE outbox_parked DROP CONSTRAINT outbox_parked_pkey", "ALTER TABLE \"outbox_parked\" ADD PRIMARY KEY (id)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        client_open(&c, "outbox", PLAIN, "");
        make_parked_table(&c);
        admin_sql(c.admin, "INSERT INTO outbox (kafka_topic, kafka_key) VALUES ('t', 'k')");
        admin_sql(c.admin, cases[i].sql);
        PARK(&c, 1);
        expect_refused(&c, HV_PG_PARKED_TABLE, cases[i].says);
        expect_sql(&c, IDS("outbox"), "1");
        admin_sql(c.admin, strstr(c.failure.error.text, "ALTER TABLE"));
        PARK(&c, 1);
        EXPECT_PARKED(&c, 1);
        client_close(&c);
    }
}

static void missing_rights_are_told(void **state) {
    (void)state;
    struct client c;
    char *grant = NULL;
    size_t size;
    client_open(&c, "outbox", PLAIN "; DROP ROLE IF EXISTS parker; CREATE ROLE parker; GRANT SELECT, UPDATE, DELETE ON outbox TO parker",
                "options='-c role=parker'");
    make_parked_table(&c);
    admin_sql(c.admin, "INSERT INTO outbox (kafka_topic, kafka_key) VALUES ('t', 'k'), ('t', 'k')");
    PARK(&c, 1);
    expect_refused(&c, HV_PG_PARKED_TABLE, "GRANT INSERT, SELECT (id) ON \"outbox_parked\" TO parker");
    FILE *out = open_memstream(&grant, &size);
    hv_schema_print_park_grants(out, "outbox", "\"outbox\"", "parker");
    fclose(out);
    admin_sql(c.admin, grant);
    PARK(&c, 1);
    EXPECT_PARKED(&c, 1);
    /* The note needs no right of whoever deletes. */
    hv_outbox_purge(c.outbox, (const int64_t[]){2}, NULL, 1, false);
    c.answers = 0;
    bench_run_until(&c.bench, has_answer, &c);
    expect_sql(&c, "SELECT passed_by FROM outbox_parked", "2");
    client_close(&c);
    c.admin = admin_open(conninfo_with(""));
    admin_sql(c.admin, "DROP ROLE parker");
    admin_close(c.admin);
    free(grant);
}

/* ---- the end of a session in the middle ---- */

static bool is_waiting(void *arg) {
    struct client *c = arg;
    bench_step(&c->bench);
    char *value = admin_value(c->admin, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox_parked'::regclass");
    bool waits = strcmp(value, "0") != 0;
    free(value);
    return waits;
}

static bool went_down_and_up(void *arg) {
    struct client *c = arg;
    return c->downs > 0 && c->ups > 0;
}

static void a_session_that_ends_in_the_middle(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "outbox", PLAIN, "");
    make_parked_table(&c);
    admin_sql(c.admin, "INSERT INTO outbox (kafka_topic, kafka_key) SELECT 't', 'k' || i FROM generate_series(1, 4) i");
    PARK(&c, 1);
    PGconn *holder = admin_open(conninfo_with(""));
    admin_sql(holder, "BEGIN; LOCK TABLE outbox_parked IN ACCESS EXCLUSIVE MODE");
    const struct hv_parked rows[] = {{2, "c", "e", 1, 0, 0}, {3, "c", "e", 1, 0, 0}};
    c.ups = c.downs = c.answers = c.refusals = 0;
    hv_outbox_park(c.outbox, rows, 2);
    while (!is_waiting(&c)) {
    }
    admin_sql(c.admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'contract'");
    bench_run_until(&c.bench, went_down_and_up, &c);
    assert_int_equal(c.answers + c.refusals, 0);
    assert_true(c.failure.outcome_unknown);
    admin_close(holder);
    expect_sql(&c, IDS("outbox"), "2 3 4");
    PARK(&c, 2, 3);
    EXPECT_PARKED(&c, 2, 3);
    expect_sql(&c, IDS("outbox_parked"), "1 2 3");
    client_close(&c);
}

/* ---- what passed a parked record ---- */

static void purge(struct client *c, const int64_t *ids, size_t count) {
    c->answers = 0;
    hv_outbox_purge(c->outbox, ids, NULL, count, false);
    bench_run_until(&c->bench, has_answer, c);
    assert_int_equal(c->answers, 1);
}

#define PURGE(c, ...) purge(c, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
#define PASSED "SELECT string_agg(id || ':' || coalesce(passed_by::text, '-'), ' ' ORDER BY id) FROM outbox_parked"

static void what_passed_is_noted(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "outbox", PLAIN, "");
    make_parked_table(&c);
    admin_sql(c.admin, "INSERT INTO outbox (kafka_topic, kafka_key) SELECT 't', CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END "
                       "FROM generate_series(1, 20) i");
    PURGE(&c, 1, 2);
    PARK(&c, 3, 4, 6, 10); /* one statement that takes several of a key: they do not pass each other */
    EXPECT_PARKED(&c, 3, 4, 6, 10);
    expect_sql(&c, PASSED, "3:- 4:- 6:- 10:-");
    PURGE(&c, 8);
    expect_sql(&c, PASSED, "3:- 4:8 6:8 10:-");
    PARK(&c, 12);
    PURGE(&c, 5, 7, 14, 16);
    expect_sql(&c, PASSED, "3:7 4:8 6:8 10:16 12:16");
    admin_sql(c.admin, "DROP TABLE outbox_parked"); /* a note that cannot be made any more holds up nothing */
    PURGE(&c, 18);
    assert_int_equal(c.count, 1);
    client_close(&c);
}

/* ---- names ---- */

static void expect_name(const char *quoted, const char *expected) {
    char name[400];
    hv_park_name(quoted, HV_PARK_TABLE, name, sizeof name);
    assert_string_equal(name, expected);
}

static void names(void **state) {
    (void)state;
    expect_name("\"outbox\"", "\"outbox_parked\"");
    expect_name("\"a.b\".\"c\"\".\"\"d\"", "\"a.b\".\"c\"\".\"\"d_parked\"");
    /* 56 bytes are the most that need no cut */
    expect_name("\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_parked\"");
    char a[400], b[400], quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s1\"", "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
             "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9");
    hv_park_name(quoted, HV_PARK_TABLE, a, sizeof a);
    assert_true(strlen(a) <= 63 + 2 && hv_utf8_length(a + 45, 4, NULL) == 2);
    strchr(quoted, '1')[0] = '2';
    hv_park_name(quoted, HV_PARK_TABLE, b, sizeof b);
    assert_string_not_equal(a, b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_moved_once),
        cmocka_unit_test(what_is_parked_already_is_not_lost),
        cmocka_unit_test(odd_reasons),
        cmocka_unit_test(tables_of_every_shape),
        cmocka_unit_test(a_missing_table_is_told_and_made),
        cmocka_unit_test(the_wrong_shape_is_told),
        cmocka_unit_test(missing_rights_are_told),
        cmocka_unit_test(a_session_that_ends_in_the_middle),
        cmocka_unit_test(what_passed_is_noted),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
