/* Statements that are prepared, against a real server (HV_TEST_PG): when they are, and what leads back to plain ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/pg_conn.h"
#include "io/pg_prepared.h"
#include "pg_help.h"

enum { OID_TEXT = 25 };

struct client {
    struct bench bench;
    struct hv_pg *pg;
    int ups, downs, results, refusals, unprepared;
    bool closed;
    struct hv_pg_failure failure;
    char value[128]; /* first column of the first row; "NULL" */
};

static void on_up(void *user, const char *host) {
    (void)host;
    ((struct client *)user)->ups++;
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    struct client *client = user;
    client->downs++;
    client->failure = *failure;
}

static void on_result(void *user, PGresult *result) {
    struct client *client = user;
    client->results++;
    const char *value = PQntuples(result) == 0 ? "" : PQgetisnull(result, 0, 0) ? "NULL" : PQgetvalue(result, 0, 0);
    snprintf(client->value, sizeof client->value, "%s", value);
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    struct client *client = user;
    client->refusals++;
    client->failure = *failure;
}

static void on_unprepared(void *user) {
    ((struct client *)user)->unprepared++;
}

static bool has_up(void *arg) {
    return ((struct client *)arg)->ups > 0;
}

static bool has_answer(void *arg) {
    struct client *client = arg;
    return client->results + client->refusals + client->downs > 0;
}

static void wait_up(struct client *client) {
    client->ups = 0;
    bench_run_until(&client->bench, has_up, client);
}

static void client_open(struct client *client) {
    static const struct hv_pg_handler handler = {.up = on_up, .down = on_down, .result = on_result, .refused = on_refused,
                                                 .unprepared = on_unprepared};
    struct hv_pg_options options = options_for(conninfo_with(""));
    struct hv_error err = {""};
    memset(client, 0, sizeof *client);
    bench_open(&client->bench);
    if (hv_pg_open(client->bench.loop, &options, &handler, client, &client->pg, &err) != 0) {
        fail_msg("%s", err.text);
    }
    wait_up(client);
}

static void on_closed(void *user) {
    ((struct client *)user)->closed = true;
}

static bool is_closed(void *arg) {
    return ((struct client *)arg)->closed;
}

static void client_close(struct client *client) {
    hv_pg_close(client->pg, on_closed);
    bench_run_until(&client->bench, is_closed, client);
    bench_close(&client->bench);
}

static void await(struct client *client) {
    bench_run_until(&client->bench, has_answer, client);
}

static void plainly(struct client *client, const char *sql) {
    client->results = client->refusals = client->downs = 0;
    hv_pg_send(client->pg, sql, 0, NULL, NULL, NULL, NULL);
    await(client);
}

static void send_often(struct client *client, const char *sql) {
    client->results = client->refusals = client->downs = 0;
    hv_pg_send_often(client->pg, sql, 0, NULL, NULL, NULL);
}

static void often(struct client *client, const char *sql) {
    send_often(client, sql);
    await(client);
}

static void expect(struct client *client, const char *value) {
    if (client->results != 1) {
        fail_msg("refused: %s", client->failure.error.text);
    }
    assert_string_equal(client->value, value);
    assert_true(hv_pg_is_idle(client->pg));
}

/* How many statements this session has prepared. */
static void expect_prepared(struct client *client, const char *count) {
    plainly(client, "SELECT count(*)::text FROM pg_prepared_statements");
    expect(client, count);
}

static void end_session(struct client *client) {
    PGconn *admin = admin_open(conninfo_with(""));
    client->downs = 0;
    admin_sql(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'contract'");
    admin_close(admin);
    wait_up(client);
    assert_int_equal(client->downs, 1);
}

static void test_prepared_once_and_planned_once(void **state) {
    (void)state;
    static const char sql[] = "SELECT $1 || coalesce($2, ', none')";
    static const Oid types[] = {OID_TEXT, OID_TEXT};
    struct client c;
    client_open(&c);
    const char *long_value = "a value of some length, which makes a copy grow";
    const char *values[][2] = {{"a", "b"}, {"", NULL}, {long_value, ""}, {NULL, "x"}};
    static const char *const results[] = {"ab", ", none", "a value of some length, which makes a copy grow", "NULL"};
    for (int i = 0; i < 4; i++) {
        int lengths[] = {values[i][0] != NULL ? (int)strlen(values[i][0]) : 0, values[i][1] != NULL ? (int)strlen(values[i][1]) : 0};
        c.results = 0;
        hv_pg_send_often(c.pg, sql, 2, types, values[i], lengths);
        assert_false(hv_pg_is_idle(c.pg));
        await(&c);
        expect(&c, results[i]);
    }
    expect_prepared(&c, "1");
    if (hv_pg_server_version(c.pg) >= 140000) {
        plainly(&c, "SELECT generic_plans || ' ' || custom_plans FROM pg_prepared_statements");
        expect(&c, "4 0");
    }
    plainly(&c, "SELECT 'plain'");
    expect(&c, "plain");
    often(&c, "SELECT 'again'");
    end_session(&c); /* with it they are gone */
    expect_prepared(&c, "0");
    often(&c, "SELECT 'again'");
    expect(&c, "again");
    expect_prepared(&c, "1");
    client_close(&c);
}

static void test_more_statements_than_are_kept(void **state) {
    (void)state;
    static char sql[HV_PG_PREPARED_MAX + 3][32];
    struct client c;
    client_open(&c);
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < HV_PG_PREPARED_MAX + 3; i++) {
            char value[16];
            snprintf(value, sizeof value, "%d", i);
            snprintf(sql[i], sizeof sql[i], "SELECT '%d'", i);
            often(&c, sql[i]);
            expect(&c, value);
        }
    }
    char count[8];
    snprintf(count, sizeof count, "%d", HV_PG_PREPARED_MAX);
    expect_prepared(&c, count);
    client_close(&c);
}

/* Somebody took them away, as a pooler does that resets or changes the session under us: nothing fails, and nothing is prepared any more, in
 * later sessions neither. */
static void test_statements_that_are_gone(void **state) {
    (void)state;
    static const char *const ends[] = {"DISCARD ALL", "DEALLOCATE ALL"};
    for (int i = 0; i < 2; i++) {
        struct client c;
        client_open(&c);
        often(&c, "SELECT 'kept'");
        plainly(&c, ends[i]);
        often(&c, "SELECT 'kept'");
        expect(&c, "kept");
        often(&c, "SELECT 'other'");
        expect(&c, "other");
        expect_prepared(&c, "0");
        end_session(&c);
        often(&c, "SELECT 'kept'");
        expect(&c, "kept");
        expect_prepared(&c, "0");
        assert_int_equal(c.unprepared, 1);
        client_close(&c);
    }
}

/* The same from the other side: a session in which others prepared. Under our name there is nothing but our statement, so here it is made up. */
static void test_name_that_is_taken(void **state) {
    (void)state;
    struct client c;
    char name[128], take[192];
    client_open(&c);
    often(&c, "SELECT 'ours'");
    plainly(&c, "SELECT name FROM pg_prepared_statements");
    snprintf(name, sizeof name, "%s", c.value);
    assert_int_equal(strncmp(name, "harvestd_", 9), 0);
    end_session(&c);
    snprintf(take, sizeof take, "PREPARE %s AS SELECT 'theirs'", name);
    plainly(&c, take);
    assert_int_equal(c.results, 1);
    often(&c, "SELECT 'ours'");
    expect(&c, "ours");
    often(&c, "SELECT 'ours'");
    expect(&c, "ours");
    expect_prepared(&c, "1");
    assert_int_equal(c.unprepared, 1);
    client_close(&c);
}

/* Its result has other types then, which the server refuses to a prepared statement; each time there is a new one, but not for ever. */
static void test_table_that_changes(void **state) {
    (void)state;
    struct client c;
    PGconn *admin = admin_open(conninfo_with(""));
    admin_sql(admin, "DROP TABLE IF EXISTS changing; CREATE TABLE changing (v varchar(10)); INSERT INTO changing VALUES ('x')");
    client_open(&c);
    for (int i = 0; i < 12; i++) {
        char sql[80];
        often(&c, "SELECT v FROM changing");
        expect(&c, "x");
        often(&c, "SELECT v FROM changing");
        expect(&c, "x");
        snprintf(sql, sizeof sql, "ALTER TABLE changing ALTER v TYPE varchar(%d)", 11 + i);
        admin_sql(admin, sql);
    }
    expect_prepared(&c, "8");
    often(&c, "SELECT 'other'"); /* the others are prepared as before */
    expect_prepared(&c, "9");
    admin_sql(admin, "DROP TABLE changing; CREATE TABLE changing (more int, v varchar(10)); INSERT INTO changing VALUES (1, 'y')");
    often(&c, "SELECT v FROM changing");
    expect(&c, "y");
    client_close(&c);
    admin_sql(admin, "DROP TABLE changing");
    admin_close(admin);
}

static void test_errors_are_told(void **state) {
    (void)state;
    struct client c;
    PGconn *admin = admin_open(conninfo_with(""));
    admin_sql(admin, "DROP TABLE IF EXISTS missing");
    client_open(&c);
    for (int i = 0; i < 20; i++) {
        often(&c, "SELECT v FROM missing"); /* cannot be prepared yet */
        assert_int_equal(c.refusals, 1);
        assert_int_equal(c.failure.trouble, HV_PG_NO_TABLE);
        assert_string_equal(c.failure.sqlstate, "42P01");
    }
    admin_sql(admin, "CREATE TABLE missing (v text); INSERT INTO missing VALUES ('z')");
    often(&c, "SELECT v FROM missing");
    expect(&c, "z");
    admin_sql(admin, "DROP TABLE missing"); /* cannot be executed */
    often(&c, "SELECT v FROM missing");
    assert_int_equal(c.refusals, 1);
    assert_string_equal(c.failure.sqlstate, "42P01");
    often(&c, "DO $$BEGIN RAISE SQLSTATE '0A000' USING MESSAGE = 'not for its name'; END$$");
    assert_int_equal(c.refusals, 1);
    assert_string_equal(c.failure.sqlstate, "0A000");
    often(&c, "SELECT 'fine'");
    expect(&c, "fine");
    expect_prepared(&c, "3");
    assert_int_equal(c.unprepared, 0);
    client_close(&c);
    admin_close(admin);
}

/* The first time it was only being prepared when the session was lost: then it did nothing, and that is known. */
static void test_session_lost_while_it_waits(void **state) {
    (void)state;
    static const char sql[] = "UPDATE held SET v = 'changed'";
    struct client c;
    PGconn *admin = admin_open(conninfo_with("")), *blocker = admin_open(conninfo_with(""));
    admin_sql(admin, "DROP TABLE IF EXISTS held; CREATE TABLE held (v text)");
    client_open(&c);
    for (int unknown = 0; unknown < 2; unknown++) {
        if (unknown) {
            often(&c, sql);
            assert_int_equal(c.results, 1);
        }
        admin_sql(blocker, "BEGIN; LOCK TABLE held");
        send_often(&c, sql);
        end_session(&c);
        assert_int_equal(c.failure.trouble, HV_PG_LOST);
        assert_int_equal(c.failure.outcome_unknown, unknown);
        admin_sql(blocker, "ROLLBACK");
    }
    client_close(&c);
    admin_sql(admin, "DROP TABLE held");
    admin_close(blocker);
    admin_close(admin);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prepared_once_and_planned_once),
        cmocka_unit_test(test_more_statements_than_are_kept),
        cmocka_unit_test(test_statements_that_are_gone),
        cmocka_unit_test(test_name_that_is_taken),
        cmocka_unit_test(test_table_that_changes),
        cmocka_unit_test(test_errors_are_told),
        cmocka_unit_test(test_session_lost_while_it_waits),
    };
    cmocka_set_test_filter(getenv("HV_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
