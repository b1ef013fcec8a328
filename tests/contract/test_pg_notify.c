/* Notifications against a real server (HV_TEST_PG): whenever they come they are taken, also when nobody wants them; the table's trigger
 * and the session that listens mean the same channel. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/pg_conn.h"
#include "io/pg_outbox.h"
#include "io/pg_table.h"
#include "pg_help.h"

struct client {
    struct bench bench;
    struct hv_pg *pg;
    struct hv_outbox *outbox;
    PGconn *admin;
    int ups, downs, results, notified, listening;
    bool closed;
    void (*then)(struct client *client); /* when notified */
};

static void on_up(void *user, const char *host) {
    (void)host;
    ((struct client *)user)->ups++;
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    (void)failure;
    ((struct client *)user)->downs++;
}

static void on_result(void *user, PGresult *result) {
    (void)result;
    ((struct client *)user)->results++;
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    (void)user;
    fail_msg("%s", failure->error.text);
}

static void on_notified(void *user) {
    struct client *client = user;
    assert_false(client->closed);
    client->notified++;
    if (client->then != NULL) {
        client->then(client);
    }
}

static void on_listening(void *user) {
    ((struct client *)user)->listening++;
}

static const struct hv_pg_handler handler = {on_up, on_down, on_result, on_refused, on_notified, NULL};
static const struct hv_pg_handler deaf_handler = {on_up, on_down, on_result, on_refused, NULL, NULL};
static const struct hv_outbox_handler outbox_handler = {
    .up = on_up, .down = on_down, .refused = on_refused, .listening = on_listening, .notified = on_notified};

static void on_closed(void *user) {
    ((struct client *)user)->closed = true;
}

#define UNTIL(client, member)                                                                                    \
    static bool member##_came(void *arg) { return ((struct client *)arg)->member > 0; }                          \
    static void wait_##member(struct client *client) { bench_run_until(&client->bench, member##_came, client); } \
    struct client

UNTIL(client, ups);
UNTIL(client, downs);
UNTIL(client, results);
UNTIL(client, notified);
UNTIL(client, listening);
UNTIL(client, closed);

static void open_conn(struct client *c, const struct hv_pg_handler *told, const char *more) {
    struct hv_error err = {""};
    memset(c, 0, sizeof *c);
    bench_open(&c->bench);
    c->admin = admin_open(conninfo_with(""));
    struct hv_pg_options options = options_for(conninfo_with(more));
    if (hv_pg_open(c->bench.loop, &options, told, c, &c->pg, &err) != 0) {
        fail_msg("%s", err.text);
    }
    wait_ups(c);
}

static void close_all(struct client *c) {
    if (c->outbox != NULL) {
        hv_outbox_close(c->outbox, on_closed);
    } else if (c->pg != NULL) {
        hv_pg_close(c->pg, on_closed);
    }
    wait_closed(c);
    bench_close(&c->bench);
    admin_close(c->admin);
}

static void run(struct client *c, const char *sql) {
    c->results = 0;
    hv_pg_send(c->pg, sql, 0, NULL, NULL, NULL, NULL);
    wait_results(c);
}

static void notify(struct client *c) {
    c->notified = 0;
    admin_sql(c->admin, "NOTIFY contract");
}

/* ---- the connection ---- */

static void at_any_time(const char *more) {
    struct client c;
    open_conn(&c, &handler, more);
    run(&c, "LISTEN contract");
    notify(&c);
    wait_notified(&c); /* idle */
    assert_true(hv_pg_is_idle(c.pg));
    c.results = 0;
    hv_pg_send(c.pg, "SELECT pg_catalog.pg_sleep(0.2)", 0, NULL, NULL, NULL, NULL);
    notify(&c);
    wait_notified(&c); /* busy: the server tells it with the answer */
    wait_results(&c);
    run(&c, "SELECT pg_catalog.pg_notify('contract', ''), repeat('x', 100000)"); /* its own */
    c.notified = 0;
    run(&c, "UNLISTEN contract");
    notify(&c);
    run(&c, "SELECT 1");
    assert_int_equal(c.notified, 0);
    close_all(&c);
}

static void they_come_at_any_time(void **state) {
    (void)state;
    at_any_time("sslmode=disable");
}

static void they_come_at_any_time_over_tls(void **state) {
    (void)state;
    at_any_time("sslmode=require");
}

static void many_are_told_as_few(void **state) {
    (void)state;
    struct client c;
    open_conn(&c, &handler, "");
    run(&c, "LISTEN contract");
    admin_sql(c.admin, "SELECT pg_notify('contract', i::text) FROM generate_series(1, 2000) i");
    wait_notified(&c);
    run(&c, "SELECT 1");
    assert_in_range(c.notified, 1, 200);
    close_all(&c);
}

/* 40 MB of them, while nobody wants any. */
static void they_do_not_pile_up(void **state) {
    (void)state;
    struct client c;
    open_conn(&c, &deaf_handler, "");
    run(&c, "LISTEN contract");
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < 40; i++) {
        admin_sql(c.admin, "SELECT pg_notify('contract', i || repeat('x', 7000)) FROM generate_series(1, 150) i");
        run(&c, "SELECT 1");
    }
    assert_true(mallinfo2().uordblks < before + (4 << 20));
    close_all(&c);
}

static void send_on(struct client *c) {
    if (hv_pg_is_idle(c->pg)) {
        hv_pg_send(c->pg, "SELECT 1", 0, NULL, NULL, NULL, NULL);
    }
}

static void drop(struct client *c) {
    hv_pg_drop(c->pg, HV_PG_LOST, "dropped by the test");
}

static void close_it(struct client *c) {
    hv_pg_close(c->pg, on_closed);
    c->pg = NULL;
    c->then = NULL;
}

static void a_handler_may_do_anything(void **state) {
    (void)state;
    struct client c;
    open_conn(&c, &handler, "");
    run(&c, "LISTEN contract");
    c.then = send_on;
    c.results = 0;
    notify(&c);
    wait_results(&c);
    c.then = drop;
    c.ups = 0;
    notify(&c);
    wait_downs(&c);
    wait_ups(&c); /* a new session, which does not listen */
    c.then = close_it;
    run(&c, "LISTEN contract");
    hv_pg_send(c.pg, "SELECT pg_catalog.pg_notify('contract', '')", 0, NULL, NULL, NULL, NULL); /* comes with the answer */
    close_all(&c);
}

/* ---- the outbox ---- */

#define TABLE \
    "(id bigint PRIMARY KEY, kafka_topic text, kafka_key text, kafka_value text, kafka_header_keys text[], " \
    "kafka_header_values text[], leader_id uuid)"

/* The trigger, with the channel that it has to notify. */
static void open_outbox(struct client *c, const char *table, const char *channel) {
    char sql[1024];
    struct hv_error err = {""};
    memset(c, 0, sizeof *c);
    bench_open(&c->bench);
    c->admin = admin_open(conninfo_with(""));
    admin_sql(c->admin, "DROP SCHEMA IF EXISTS notify CASCADE; CREATE SCHEMA notify");
    snprintf(sql, sizeof sql, "CREATE TABLE %s " TABLE, table);
    admin_sql(c->admin, sql);
    admin_sql(c->admin, "CREATE FUNCTION notify.f() RETURNS trigger LANGUAGE plpgsql AS "
                        "$$ BEGIN PERFORM pg_notify(TG_ARGV[0], ''); RETURN NULL; END $$");
    snprintf(sql, sizeof sql, "CREATE TRIGGER t AFTER INSERT ON %s EXECUTE FUNCTION notify.f('%s')", table, channel);
    admin_sql(c->admin, sql);
    struct hv_pg_options options = options_for(conninfo_with(""));
    if (hv_outbox_open(c->bench.loop, &options, table, &outbox_handler, c, &c->outbox, &err) != 0) {
        fail_msg("%s", err.text);
    }
    wait_ups(c);
}

static void listen_now(struct client *c, bool listen) {
    c->listening = 0;
    assert_true(hv_outbox_is_idle(c->outbox));
    hv_outbox_listen(c->outbox, listen);
    assert_false(hv_outbox_is_idle(c->outbox));
    wait_listening(c);
    assert_true(hv_outbox_is_idle(c->outbox));
}

static void insert(struct client *c, const char *table, int id) {
    char sql[1024];
    snprintf(sql, sizeof sql, "INSERT INTO %s VALUES (%d, 't', 'k', 'v')", table, id);
    admin_sql(c->admin, sql);
}

static void tells_of_inserts(const char *table, const char *channel) {
    struct client c;
    open_outbox(&c, table, channel);
    listen_now(&c, true);
    insert(&c, table, 1);
    wait_notified(&c);
    listen_now(&c, false);
    c.notified = 0;
    insert(&c, table, 2);
    listen_now(&c, true);
    assert_int_equal(c.notified, 0);
    admin_sql(c.admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'contract'");
    c.ups = 0;
    wait_ups(&c);
    listen_now(&c, true);
    insert(&c, table, 3);
    wait_notified(&c);
    close_all(&c);
}

static void inserts_are_told_of(void **state) {
    (void)state;
    tells_of_inserts("notify.outbox", "harvestd_notify.outbox");
}

static void names_of_channels(void **state) {
    (void)state;
    char channel[HV_TABLE_CHANNEL_SIZE], other[HV_TABLE_CHANNEL_SIZE], name[300];
    static const char *const same[][2] = {
        {"outbox", "harvestd_outbox"},  {"OutBox", "harvestd_outbox"},        {"\"outbox\"", "harvestd_outbox"},
        {"Sales.outbox", "harvestd_sales.outbox"}, {"\"My App\".\"a\"\"b\"", "harvestd_My App.a\"b"},
    };
    struct hv_error err;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        assert_int_equal(hv_table_channel(same[i][0], channel, &err), 0);
        assert_string_equal(channel, same[i][1]);
    }
    assert_int_equal(hv_table_channel("a.b.c", channel, &err), -1);
    memset(name, 'x', sizeof name);
    strcpy(name + 54, "");
    assert_int_equal(hv_table_channel(name, channel, &err), 0);
    assert_int_equal(strlen(channel), 63); /* it just fits */
    strcpy(name + 54, "y");
    assert_int_equal(hv_table_channel(name, channel, &err), 0);
    strcpy(name + 54, "z");
    assert_int_equal(hv_table_channel(name, other, &err), 0);
    assert_true(strlen(channel) <= 63 && strcmp(channel, other) != 0);
}

static void inserts_into_tables_with_strange_names_are_told_of(void **state) {
    (void)state;
    static const char quoted[] = "notify.\"It''s \"\"one\"\" with \xc3\xa4\"";
    tells_of_inserts(quoted, "harvestd_notify.It''''s \"one\" with \xc3\xa4");
    char table[100] = "notify.", channel[HV_TABLE_CHANNEL_SIZE];
    struct hv_error err;
    for (int i = 0; i < 31; i++) {
        strcat(table, "\xc3\xa4");
    }
    assert_int_equal(hv_table_channel(table, channel, &err), 0);
    tells_of_inserts(table, channel);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_come_at_any_time),
        cmocka_unit_test(they_come_at_any_time_over_tls),
        cmocka_unit_test(many_are_told_as_few),
        cmocka_unit_test(they_do_not_pile_up),
        cmocka_unit_test(a_handler_may_do_anything),
        cmocka_unit_test(inserts_are_told_of),
        cmocka_unit_test(names_of_channels),
        cmocka_unit_test(inserts_into_tables_with_strange_names_are_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
