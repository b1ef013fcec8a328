/* The outbox's statements against a real server (HV_TEST_PG): what they do, what they say about a table
 * that is not as it should be, and that they never read a large table from end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/ident.h"
#include "io/pg_outbox.h"
#include "pg_help.h"

#define TABLE_OF(id, value) \
    "CREATE TABLE outbox (id " id " PRIMARY KEY, kafka_topic text, kafka_key text, kafka_value " value ", " \
    "kafka_header_keys text[] DEFAULT '{}', kafka_header_values text[] DEFAULT '{}', leader_id uuid)"

struct client {
    struct bench bench;
    struct hv_outbox *outbox;
    PGconn *admin;
    uint8_t leader[16];
    int ups, downs, answers, refusals;
    bool closed, cut;
    struct hv_pg_failure failure;
    struct hv_record **records;
    size_t count;
    int64_t *ids;
    uint64_t hashes[16];
    struct hv_outbox_hidden hidden; /* of marks and scans */
    bool only_new;                  /* marks are told that nobody holds rows above */
};

static void forget(struct client *c) {
    for (size_t i = 0; c->records != NULL && i < c->count; i++) {
        hv_record_free(c->records[i]);
    }
    free(c->records);
    free(c->ids);
    c->records = NULL;
    c->ids = NULL;
    c->count = 0;
    c->answers = c->refusals = c->downs = c->ups = 0;
}

static void on_up(void *user, const char *host) {
    struct client *c = user;
    assert_true(strlen(host) > 0);
    assert_true(hv_outbox_is_idle(c->outbox));
    c->ups++;
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    struct client *c = user;
    assert_false(hv_outbox_is_idle(c->outbox));
    c->downs++;
    c->failure = *failure;
}

static void on_marked(void *user, struct hv_record **records, size_t count, bool cut) {
    struct client *c = user;
    c->cut = cut;
    c->answers++;
    c->count = count;
    c->records = malloc((count + 1) * sizeof *records);
    memcpy(c->records, records, count * sizeof *records);
    for (size_t i = 1; i < count; i++) {
        assert_true(records[i - 1]->id < records[i]->id);
    }
}

static void on_purged(void *user, size_t rows) {
    struct client *c = user;
    c->answers++;
    c->count = rows;
}

static void on_fetched(void *user, struct hv_record **records, size_t count, bool cut) {
    on_marked(user, records, count, cut);
}

static void on_listed(void *user, const struct hv_claimed *rows, size_t count) {
    struct client *c = user;
    c->answers++;
    c->count = count;
    c->ids = malloc((count + 1) * sizeof *c->ids);
    for (size_t i = 0; i < count; i++) {
        c->ids[i] = rows[i].id;
        c->hashes[i % 16] = rows[i].key_hash;
    }
}

static void on_writers(void *user, const uint64_t *hashes, size_t count) {
    struct client *c = user;
    c->answers++;
    c->count = count;
    assert_true(count <= 16);
    memcpy(c->hashes, hashes, count * sizeof *hashes);
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    struct client *c = user;
    c->refusals++;
    c->failure = *failure;
}

static const struct hv_outbox_handler handler = {.up = on_up,
                                                 .down = on_down,
                                                 .marked = on_marked,
                                                 .fetched = on_fetched,
                                                 .listed = on_listed,
                                                 .purged = on_purged,
                                                 .writers = on_writers,
                                                 .refused = on_refused};

static void client_open(struct client *c, const char *table_sql, const char *more) {
    struct hv_error err = {""};
    memset(c, 0, sizeof *c);
    bench_open(&c->bench);
    hv_ident_new(c->leader);
    c->admin = admin_open(conninfo_with(""));
    admin_sql(c->admin, "DROP TABLE IF EXISTS outbox CASCADE");
    if (table_sql != NULL) {
        admin_sql(c->admin, table_sql);
    }
    struct hv_pg_options options = options_for(conninfo_with(more));
    if (hv_outbox_open(c->bench.loop, &options, "outbox", &handler, c, &c->outbox, &err) != 0) {
        fail_msg("%s", err.text);
    }
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
    forget(c);
    admin_sql(c->admin, "DROP TABLE IF EXISTS outbox CASCADE");
    admin_close(c->admin);
}

static bool has_up(void *arg) {
    return ((struct client *)arg)->ups > 0;
}

static bool has_down(void *arg) {
    return ((struct client *)arg)->downs > 0;
}

static bool has_answer(void *arg) {
    struct client *c = arg;
    return c->answers + c->refusals + c->downs > 0;
}

static void wait_up(struct client *c) {
    c->ups = 0;
    bench_run_until(&c->bench, has_up, c);
}

static void wait_answer(struct client *c) {
    assert_false(hv_outbox_is_idle(c->outbox));
    bench_run_until(&c->bench, has_answer, c);
    if (c->downs + c->refusals > 0) {
        fail_msg("%s", c->failure.error.text);
    }
    assert_true(hv_outbox_is_idle(c->outbox));
}

static void mark_gaps(struct client *c, int64_t from_id, uint32_t limit, const struct hv_gap *gaps, size_t gap_count) {
    forget(c);
    hv_outbox_mark(c->outbox, c->leader, from_id, limit, gaps, gap_count, c->hidden, c->only_new);
    wait_answer(c);
}

static void mark(struct client *c, int64_t from_id, uint32_t limit) {
    mark_gaps(c, from_id, limit, NULL, 0);
}

#define GAPS(...) (const struct hv_gap[]){__VA_ARGS__}, sizeof((const struct hv_gap[]){__VA_ARGS__}) / sizeof(struct hv_gap)

static void purge(struct client *c, const int64_t *ids, size_t count) {
    forget(c);
    hv_outbox_purge(c->outbox, ids, NULL, count, false);
    wait_answer(c);
}

static void purge_versions(struct client *c, const int64_t *ids, const uint32_t *versions, size_t count, bool but_locked) {
    forget(c);
    hv_outbox_purge(c->outbox, ids, versions, count, but_locked);
    wait_answer(c);
}

static void fetch(struct client *c, const int64_t *ids, size_t count) {
    forget(c);
    hv_outbox_fetch(c->outbox, ids, count);
    wait_answer(c);
}

static void writers(struct client *c) {
    forget(c);
    hv_outbox_writers(c->outbox);
    wait_answer(c);
}

static void expect_rows(struct client *c, const char *where, const char *count) {
    char sql[256];
    snprintf(sql, sizeof sql, "SELECT count(*)::text FROM outbox WHERE %s", where);
    char *value = admin_value(c->admin, sql);
    assert_string_equal(value, count);
    free(value);
}

static void expect_ids(const struct client *c, const int64_t *ids, size_t count) {
    assert_int_equal(c->count, count);
    for (size_t i = 0; i < count; i++) {
        assert_true(c->records[i]->id == ids[i]);
    }
}

#define EXPECT_IDS(c, ...) \
    expect_ids(c, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* ---- the protocol ---- */

static void test_mark_purge_fetch(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    wait_up(&c);
    mark(&c, INT64_MIN, 10);
    assert_int_equal(c.count, 0);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k' || i, 'v' FROM generate_series(1, 10) i ORDER BY i DESC");
    mark(&c, INT64_MIN, 3);
    EXPECT_IDS(&c, 1, 2, 3);
    assert_int_equal(c.records[0]->defect, HV_SOUND);
    assert_string_equal(c.records[0]->topic, "t");
    assert_memory_equal(c.records[2]->key, "k3", 2);
    mark(&c, 6, 2); /* from an id on */
    EXPECT_IDS(&c, 6, 7);
    mark(&c, INT64_MIN, 100);
    EXPECT_IDS(&c, 4, 5, 8, 9, 10);
    mark(&c, INT64_MIN, 100);
    assert_int_equal(c.count, 0);
    expect_rows(&c, "leader_id IS NOT NULL", "10");
    fetch(&c, (const int64_t[]){8, 99, 2}, 3);
    EXPECT_IDS(&c, 2, 8);
    assert_memory_equal(c.records[0]->key, "k2", 2);
    admin_sql(c.admin, "UPDATE outbox SET leader_id = NULL WHERE id IN (2, 8)");
    purge(&c, (const int64_t[]){1, 3, 77}, 3);
    assert_int_equal(c.count, 2);
    mark(&c, INT64_MIN, 100);
    EXPECT_IDS(&c, 2, 8);
    hv_ident_new(c.leader); /* a refresh: everything again */
    mark(&c, INT64_MIN, 100);
    EXPECT_IDS(&c, 2, 4, 5, 6, 7, 8, 9, 10);
    expect_rows(&c, "true", "8");
    client_close(&c);
}

static void test_edge_ids(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM unnest('{-9223372036854775808,-256,-1,0,1,127,128,255,"
                       "9223372036854775807}'::bigint[]) i");
    wait_up(&c);
    mark(&c, INT64_MIN, 100);
    EXPECT_IDS(&c, INT64_MIN, -256, -1, 0, 1, 127, 128, 255, INT64_MAX);
    fetch(&c, (const int64_t[]){INT64_MAX, -256, INT64_MIN}, 3);
    EXPECT_IDS(&c, INT64_MIN, -256, INT64_MAX);
    admin_sql(c.admin, "UPDATE outbox SET leader_id = NULL WHERE id = 9223372036854775807");
    mark(&c, INT64_MAX, 100);
    EXPECT_IDS(&c, INT64_MAX);
    purge(&c, (const int64_t[]){INT64_MIN, -1, INT64_MAX}, 3);
    assert_int_equal(c.count, 3);
    client_close(&c);
}

static void test_narrow_ids(void **state) {
    (void)state;
    static const char *const tables[] = {TABLE_OF("integer", "text"), TABLE_OF("smallint", "text")};
    for (int i = 0; i < 2; i++) {
        struct client c;
        client_open(&c, tables[i], "");
        admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM unnest('{-32768,-1,0,300,32767}'::int[]) i");
        wait_up(&c);
        mark(&c, INT64_MIN, 100);
        EXPECT_IDS(&c, -32768, -1, 0, 300, 32767);
        mark(&c, INT64_MAX, 100);
        assert_int_equal(c.count, 0);
        fetch(&c, (const int64_t[]){-32768, INT64_MAX}, 2);
        EXPECT_IDS(&c, -32768);
        purge(&c, (const int64_t[]){-1, 300, INT64_MIN}, 3);
        assert_int_equal(c.count, 2);
        client_close(&c);
    }
}

static void test_bytes_null_and_empty(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "bytea"), "");
    admin_sql(c.admin, "INSERT INTO outbox SELECT 1, 't', 'k', decode(string_agg(lpad(to_hex(i), 2, '0'), '' ORDER BY i), 'hex') "
                       "FROM generate_series(0, 255) i");
    admin_sql(c.admin, "INSERT INTO outbox VALUES (2, 't', 'k', ''), (3, 't', 'k', NULL), (4, 't', '', 'x')");
    wait_up(&c);
    mark(&c, 0, 100);
    EXPECT_IDS(&c, 1, 2, 3, 4);
    assert_int_equal(c.records[0]->value_length, 256);
    for (int i = 0; i < 256; i++) {
        assert_int_equal(c.records[0]->value[i], i);
    }
    assert_int_equal(c.records[1]->value_length, 0);
    assert_non_null(c.records[1]->value);
    assert_int_equal(c.records[2]->value_length, -1);
    assert_null(c.records[2]->value);
    assert_int_equal(c.records[3]->key_length, 0);
    client_close(&c);
}

static void test_other_column_types(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "CREATE TABLE outbox (id bigint PRIMARY KEY, kafka_topic name, kafka_key bytea, kafka_value jsonb, "
                    "kafka_header_keys varchar(9)[], kafka_header_values bytea[], leader_id uuid)", "");
    admin_sql(c.admin, "INSERT INTO outbox VALUES (1, 't', '\\x00ff', '{\"a\":  1}', '{n}', '{\"\\\\x00\"}')");
    wait_up(&c);
    mark(&c, 0, 100);
    assert_int_equal(c.records[0]->defect, HV_SOUND);
    assert_string_equal(c.records[0]->topic, "t");
    assert_memory_equal(c.records[0]->key, "\0\xff", 2);
    assert_int_equal(c.records[0]->value_length, 8);
    assert_memory_equal(c.records[0]->value, "{\"a\": 1}", 8);
    assert_string_equal(c.records[0]->headers[0].name, "n");
    assert_int_equal(c.records[0]->headers[0].value_length, 1);
    assert_int_equal(c.records[0]->headers[0].value[0], 0);
    client_close(&c);
}

static void test_headers_and_defects(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    admin_sql(c.admin,
              "INSERT INTO outbox VALUES (1, 't', 'k', 'v', '{a,b}', '{1,\"\"}'), (2, 't', 'k', 'v', NULL, NULL), "
              "(3, 't', 'k', 'v', NULL, '{}'), (4, 't', 'k', 'v', '{a}', NULL), (5, 't', 'k', 'v', '{a}', '{}'), "
              "(6, 't', 'k', 'v', '{a,NULL}', '{1,2}'), (7, 't', 'k', 'v', '{{a,b},{c,d}}', '{{1,2},{3,4}}'), "
              "(8, NULL, 'k', 'v', '{}', '{}'), (9, 't', NULL, 'v', '{}', '{}'), "
              "(10, 'no topic', 'k', 'v', '{}', '{}'), (11, 't', 'k', 'v', '[5:6]={a,b}', '{1,2}'), "
              "(12, 't', 'k', 'v', DEFAULT, DEFAULT)");
    static const enum hv_defect defects[] = {
        HV_SOUND, HV_SOUND, HV_SOUND, HV_DEFECT_NULL_HEADERS, HV_DEFECT_HEADER_LENGTHS, HV_DEFECT_HEADER_NULL,
        HV_DEFECT_HEADER_FORM, HV_DEFECT_NULL_TOPIC, HV_DEFECT_NULL_KEY, HV_DEFECT_TOPIC_NAME, HV_SOUND,
            HV_SOUND};
    wait_up(&c);
    mark(&c, 0, 100);
    assert_int_equal(c.count, 12);
    for (size_t i = 0; i < c.count; i++) {
        assert_int_equal(c.records[i]->defect, defects[i]);
    }
    assert_int_equal(c.records[0]->header_count, 2);
    assert_string_equal(c.records[0]->headers[1].name, "b");
    assert_int_equal(c.records[0]->headers[1].value_length, 0);
    assert_int_equal(c.records[10]->header_count, 2);
    client_close(&c);
}

static void test_large_purge_and_large_rows(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM generate_series(1, 100000) i");
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', repeat('x', 5000000) FROM generate_series(200001, 200008) i");
    wait_up(&c);
    mark(&c, 200000, 100);
    assert_int_equal(c.count, 8);
    assert_int_equal(c.records[7]->value_length, 5000000);
    int64_t *ids = malloc(150000 * sizeof *ids);
    for (int i = 0; i < 150000; i++) {
        ids[i] = 150000 - i;
    }
    fetch(&c, ids, 150000);
    assert_int_equal(c.count, 100000);
    purge(&c, ids, 150000);
    assert_int_equal(c.count, 100000);
    free(ids);
    client_close(&c);
}

static bool hashes_hold(const struct client *c, uint64_t hash) {
    for (size_t i = 0; i < c->count; i++) {
        if (c->hashes[i] == hash) {
            return true;
        }
    }
    return false;
}

static void test_writers(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    PGconn *a = admin_open(conninfo_with("")), *b = admin_open(conninfo_with(""));
    wait_up(&c);
    writers(&c);
    assert_int_equal(c.count, 0);
    admin_sql(a, "BEGIN");
    admin_sql(a, "SELECT * FROM outbox"); /* a reader is none */
    writers(&c);
    assert_int_equal(c.count, 0);
    admin_sql(a, "INSERT INTO outbox VALUES (1, 't', 'k', 'v')");
    writers(&c);
    assert_int_equal(c.count, 1);
    uint64_t first = c.hashes[0];
    admin_sql(b, "BEGIN");
    admin_sql(b, "LOCK TABLE outbox IN ROW EXCLUSIVE MODE");
    admin_sql(b, "INSERT INTO outbox VALUES (2, 't', 'k', 'v')");
    writers(&c);
    assert_int_equal(c.count, 2);
    assert_true(hashes_hold(&c, first));
    admin_sql(a, "COMMIT");
    writers(&c);
    assert_int_equal(c.count, 1);
    assert_false(hashes_hold(&c, first));
    admin_sql(b, "PREPARE TRANSACTION 'contract'");
    writers(&c);
    assert_int_equal(c.count, 1);
    uint64_t prepared = c.hashes[0];
    admin_sql(b, "BEGIN; INSERT INTO outbox VALUES (3, 't', 'k', 'v')");
    writers(&c);
    assert_int_equal(c.count, 2);
    assert_true(hashes_hold(&c, prepared));
    admin_sql(b, "COMMIT");
    admin_sql(b, "COMMIT PREPARED 'contract'");
    writers(&c);
    assert_int_equal(c.count, 0);
    /* The table is made anew under the session: still the right one. */
    admin_sql(c.admin, "DROP TABLE outbox; " TABLE_OF("bigint", "text"));
    admin_sql(a, "BEGIN; INSERT INTO outbox VALUES (1, 't', 'k', 'v')");
    writers(&c);
    assert_int_equal(c.count, 1);
    admin_sql(a, "ROLLBACK");
    admin_close(a);
    admin_close(b);
    client_close(&c);
}

/* ---- by cursor ---- */

static void scan_without(struct client *c, int64_t from_id, uint32_t limit, const struct hv_gap *gaps, size_t gap_count,
                         const int64_t *left_out, size_t left_out_count) {
    forget(c);
    hv_outbox_scan(c->outbox, from_id, limit, gaps, gap_count, left_out, left_out_count, c->hidden);
    wait_answer(c);
}

static void scan(struct client *c, int64_t from_id, uint32_t limit, const struct hv_gap *gaps, size_t gap_count) {
    scan_without(c, from_id, limit, gaps, gap_count, NULL, 0);
}

static void list(struct client *c, int64_t from_id, int64_t to_id, uint32_t limit) {
    forget(c);
    hv_outbox_list(c->outbox, from_id, to_id, limit);
    wait_answer(c);
}


static void expect_listed(const struct client *c, const int64_t *ids, size_t count) {
    assert_int_equal(c->count, count);
    assert_memory_equal(c->ids, ids, count * sizeof *ids);
}

#define EXPECT_LISTED(c, ...) \
    expect_listed(c, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void test_scan_list_fetch(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    wait_up(&c);
    scan(&c, INT64_MIN, 10, NULL, 0);
    assert_int_equal(c.count, 0);
    list(&c, INT64_MIN, INT64_MAX, 10);
    assert_int_equal(c.count, 0);
    fetch(&c, (const int64_t[]){1, 2}, 2);
    assert_int_equal(c.count, 0);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k' || i, 'v' FROM generate_series(1, 20) i ORDER BY i DESC");
    scan(&c, INT64_MIN, 3, NULL, 0);
    EXPECT_IDS(&c, 1, 2, 3);
    assert_false(c.cut);
    assert_string_equal(c.records[2]->topic, "t");
    assert_memory_equal(c.records[2]->key, "k3", 2);
    scan(&c, 4, 100, NULL, 0);
    assert_int_equal(c.count, 17);
    expect_rows(&c, "leader_id IS NULL", "20"); /* nothing was written */
    scan(&c, 18, 10, GAPS({.lo = 2, .hi = 3}, {.lo = 7, .hi = 7}, {.lo = 25, .hi = 30}));
    EXPECT_IDS(&c, 2, 3, 7, 18, 19, 20);
    scan(&c, 18, 4, GAPS({.lo = INT64_MIN, .hi = 3}, {.lo = 7, .hi = 17})); /* the lowest of all */
    EXPECT_IDS(&c, 1, 2, 3, 7);
    scan_without(&c, 19, 4, GAPS({.lo = INT64_MIN, .hi = 5}, {.lo = 7, .hi = 17}), (const int64_t[]){1, 2, 3, 8, 19}, 5);
    EXPECT_IDS(&c, 4, 5, 7, 9); /* what is left out does not count */
    scan_without(&c, 19, 9, GAPS({.lo = 8, .hi = 8}), (const int64_t[]){8, 19}, 2);
    EXPECT_IDS(&c, 19, 20); /* above the gaps nothing is left out */
    list(&c, 3, 8, 4);
    EXPECT_LISTED(&c, 5, 6, 7, 8); /* the highest, ascending */
    assert_int_equal(c.hashes[0], hv_fnv1a("k5", 2));
    list(&c, 7, 8, 4);
    EXPECT_LISTED(&c, 7, 8);
    list(&c, 8, 7, 4);
    assert_int_equal(c.count, 0);
    fetch(&c, (const int64_t[]){9, 99, 2}, 3);
    EXPECT_IDS(&c, 2, 9);
    expect_rows(&c, "leader_id IS NULL", "20");
    client_close(&c);
}

static void test_marks_in_gaps(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    wait_up(&c);
    mark_gaps(&c, INT64_MAX, 10, GAPS({.lo = INT64_MIN, .hi = INT64_MAX - 1}));
    assert_int_equal(c.count, 0);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k' || i, '12345678' FROM generate_series(1, 20) i ORDER BY i DESC");
    mark_gaps(&c, 18, 10, GAPS({.lo = 2, .hi = 3}, {.lo = 7, .hi = 7}, {.lo = 15, .hi = 15}));
    EXPECT_IDS(&c, 2, 3, 7, 15, 18, 19, 20);
    assert_memory_equal(c.records[2]->key, "k7", 2);
    expect_rows(&c, "leader_id IS NOT NULL", "7");
    mark_gaps(&c, 18, 4, GAPS({.lo = INT64_MIN, .hi = 4}, {.lo = 6, .hi = 17})); /* the lowest of all that are left */
    EXPECT_IDS(&c, 1, 4, 6, 8);
    admin_sql(c.admin, "UPDATE outbox SET leader_id = 'b0000000-0000-0000-0000-000000000000' WHERE id IN (3, 5, 19, 20)");
    mark_gaps(&c, 20, 9, GAPS({.lo = 3, .hi = 3}, {.lo = 19, .hi = 19}));
    EXPECT_IDS(&c, 3, 19, 20); /* another leader's, and none outside */
    hv_outbox_set_reply_bytes(c.outbox, 1);
    mark_gaps(&c, 17, 9, GAPS({.lo = 5, .hi = 9}, {.lo = 11, .hi = 16}));
    EXPECT_IDS(&c, 5);
    mark(&c, 11, 9);
    EXPECT_IDS(&c, 11);
    client_close(&c);
}

static void test_scan_at_the_ends_of_int8(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM unnest('{-9223372036854775808, -9223372036854775807, 0, "
                       "9223372036854775806, 9223372036854775807}'::int8[]) i");
    scan(&c, INT64_MIN, 10, NULL, 0);
    EXPECT_IDS(&c, INT64_MIN, INT64_MIN + 1, 0, INT64_MAX - 1, INT64_MAX);
    scan(&c, INT64_MAX, 10, GAPS({.lo = INT64_MIN, .hi = INT64_MIN}, {.lo = -1, .hi = INT64_MAX - 1}));
    EXPECT_IDS(&c, INT64_MIN, 0, INT64_MAX - 1, INT64_MAX);
    list(&c, INT64_MIN, INT64_MAX, 10);
    EXPECT_LISTED(&c, INT64_MIN, INT64_MIN + 1, 0, INT64_MAX - 1, INT64_MAX);
    fetch(&c, (const int64_t[]){INT64_MAX, INT64_MIN}, 2);
    EXPECT_IDS(&c, INT64_MIN, INT64_MAX);
    client_close(&c);
}

static void test_scan_of_narrow_ids_and_other_types(void **state) {
    (void)state;
    static const char *const values[] = {"bytea", "json", "jsonb", "varchar(300)"};
    for (size_t i = 0; i < 4; i++) {
        char sql[700];
        struct client c;
        snprintf(sql, sizeof sql, TABLE_OF("%s", "%s"), i % 2 == 0 ? "integer" : "smallint", values[i]);
        client_open(&c, sql, "");
        hv_outbox_set_reply_bytes(c.outbox, 1000000);
        wait_up(&c);
        admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', '12' FROM generate_series(1, 9) i");
        scan(&c, 100000000000, 10, GAPS({.lo = INT64_MIN, .hi = 2}, {.lo = 8, .hi = 90000000000}));
        EXPECT_IDS(&c, 1, 2, 8, 9);
        assert_int_equal(c.records[0]->value_length, 2);
        assert_false(c.cut);
        list(&c, INT64_MIN, INT64_MAX, 2);
        EXPECT_LISTED(&c, 8, 9);
        mark(&c, INT64_MIN, 4);
        EXPECT_IDS(&c, 1, 2, 3, 4);
        client_close(&c);
    }
}

/* A transaction commits rows in a gap and above at one moment, again and again: who sees the one sees the other. */
static void test_a_scan_is_one_snapshot(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    wait_up(&c);
    PGconn *writer = admin_open(conninfo_with(""));
    int seen = 0;
    for (int round = 0; round < 2000 && seen < 200; round++) {
        assert_int_equal(PQsendQuery(writer, round % 2 == 0
                                     ? "BEGIN; INSERT INTO outbox VALUES (100, 't', 'k', 'v'); INSERT INTO outbox VALUES (5, 't', 'k', 'v'), "
                                     "(50, 't', 'k', 'v'); COMMIT" : "DELETE FROM outbox"), 1);
        scan(&c, 60, 10, GAPS({.lo = 1, .hi = 9}, {.lo = 40, .hi = 59}));
        if (c.count != 0) {
            EXPECT_IDS(&c, 5, 50, 100);
            seen++;
        }
        for (PGresult *r; (r = PQgetResult(writer)) != NULL; PQclear(r)) {
        }
    }
    assert_true(seen > 0);
    admin_close(writer);
    client_close(&c);
}

/* Once a row was larger than its share of the bytes, the sum is asked for, for a while; then shares again, until one is larger. */
static void scan_beyond_the_sums(struct client *c) {
    for (int i = 0; i < 120; i++) {
        scan(c, 20, 1000, NULL, 0);
        assert_int_equal(c->count, 22); /* 20, those without a value, and one */
        assert_true(c->cut);
        scan(c, 52, 1000, GAPS({.lo = 21, .hi = 49}));
        assert_int_equal(c->count, 20);
        assert_false(c->cut);
        assert_string_equal(c->records[0]->topic, "t");
    }
}

static void test_replies_are_bounded_in_bytes(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    hv_outbox_set_reply_bytes(c.outbox, 100000);
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', repeat(chr(65 + (random() * 25)::int), 30000) FROM generate_series(1, 20) i;"
                       "INSERT INTO outbox SELECT i, 't', 'k', NULL FROM generate_series(21, 40) i;"
                       "INSERT INTO outbox VALUES (50, 't', 'k', repeat('x', 1000000)), (51, 't', 'k', repeat('x', 1000000))");
    scan(&c, INT64_MIN, 1000, NULL, 0);
    EXPECT_IDS(&c, 1, 2, 3, 4); /* the fourth one reaches it */
    assert_true(c.cut);
    scan(&c, 30, 1000, GAPS({.lo = 5, .hi = 5}, {.lo = 9, .hi = 20}));
    EXPECT_IDS(&c, 5, 9, 10, 11);
    assert_true(c.cut);
    scan(&c, 30, 2, GAPS({.lo = 5, .hi = 5}, {.lo = 9, .hi = 20}));
    EXPECT_IDS(&c, 5, 9);
    assert_false(c.cut); /* by its limit only */
    scan(&c, 50, 1000, NULL, 0); /* one at least, of any size */
    EXPECT_IDS(&c, 50);
    assert_true(c.cut);
    scan(&c, 52, 1000, GAPS({.lo = 19, .hi = 49}));
    assert_int_equal(c.count, 22);
    assert_false(c.cut);
    scan_beyond_the_sums(&c);
    mark(&c, INT64_MIN, 1000);
    EXPECT_IDS(&c, 1, 2, 3, 4);
    hv_ident_new(c.leader);
    c.only_new = true;
    mark(&c, INT64_MIN, 1000);
    EXPECT_IDS(&c, 1, 2, 3, 4);
    mark(&c, 19, 1000);
    assert_int_equal(c.count, 23); /* 19, 20, those without a value, and what follows */
    mark(&c, 51, 1000);
    EXPECT_IDS(&c, 51);
    fetch(&c, (const int64_t[]){51, 30, 29, 50, 99}, 5);
    EXPECT_IDS(&c, 29, 30, 50);
    assert_true(c.cut);
    fetch(&c, (const int64_t[]){29, 30, 99}, 3);
    EXPECT_IDS(&c, 29, 30);
    assert_false(c.cut);
    client_close(&c);
}

/* ---- keys whose rows need not be brought ---- */

#define HIDE(c, ...) \
    ((c)->hidden = (struct hv_outbox_hidden){(const struct hv_key_bytes[]){__VA_ARGS__}, \
                                             sizeof((const struct hv_key_bytes[]){__VA_ARGS__}) / sizeof(struct hv_key_bytes)})

static void expect_bare(const struct client *c, const bool *bare) {
    for (size_t i = 0; i < c->count; i++) {
        const struct hv_record *record = c->records[i];
        assert_int_equal(record->bare, bare[i]);
        assert_int_equal(record->key_id, hv_record_key_id(record->key, record->key_length));
        assert_int_equal(record->value_length, bare[i] ? -1 : 1);
    }
}

#define EXPECT_BARE(c, ...) expect_bare(c, (const bool[]){__VA_ARGS__})

static void test_hidden_keys(void **state) {
    (void)state;
    static const char *const tables[] = {
        TABLE_OF("bigint", "text"),
        "CREATE TABLE outbox (id integer PRIMARY KEY, kafka_topic text, kafka_key bytea, kafka_value json, kafka_header_keys text[], "
        "kafka_header_values bytea[], leader_id uuid)",
        "CREATE TABLE outbox (id bigint PRIMARY KEY, kafka_topic name, kafka_key varchar(10), kafka_value varchar, kafka_header_keys "
        "varchar[], kafka_header_values varchar[], leader_id uuid)"};
    for (size_t i = 0; i < 3; i++) {
        struct client c;
        client_open(&c, tables[i], "");
        wait_up(&c);
        admin_sql(c.admin, "INSERT INTO outbox VALUES (1, 't', 'a', '1'), (2, 't', 'b', '2'), (3, 't', NULL, '3'), (4, 't', '', '4'), "
                           "(5, 't', 'a', '5'), (6, 't', 'A', '6'), (7, 't', 'a ', '7'), (8, 't', 'b', '8')");
        HIDE(&c, {"a", 1}, {"", 0}, {"none", 4}, {"\xff\xfe", 2});
        scan(&c, INT64_MIN, 100, NULL, 0);
        EXPECT_IDS(&c, 1, 2, 3, 4, 5, 6, 7, 8); /* those above have to be seen */
        EXPECT_BARE(&c, true, false, false, true, true, false, false, false);
        scan(&c, 5, 100, GAPS({.lo = 1, .hi = 2}, {.lo = 4, .hi = 4}));
        EXPECT_IDS(&c, 2, 5, 6, 7, 8);
        EXPECT_BARE(&c, false, true, false, false, false);
        scan_without(&c, 6, 2, GAPS({.lo = 1, .hi = 5}), (const int64_t[]){2}, 1);
        EXPECT_IDS(&c, 3, 6);
        mark(&c, INT64_MIN, 3);
        EXPECT_IDS(&c, 1, 2, 3);
        EXPECT_BARE(&c, true, false, false);
        mark_gaps(&c, 5, 100, GAPS({.lo = 1, .hi = 2}, {.lo = 4, .hi = 4}));
        EXPECT_IDS(&c, 5, 6, 7, 8); /* what is in a gap need not be told */
        EXPECT_BARE(&c, true, false, false, false);
        expect_rows(&c, "leader_id IS NULL", "3"); /* they are not even written to */
        mark(&c, INT64_MIN, 100);
        EXPECT_IDS(&c, 1, 4, 5);
        EXPECT_BARE(&c, true, true, true);
        fetch(&c, (const int64_t[]){1, 5}, 2);
        EXPECT_IDS(&c, 1, 5);
        EXPECT_BARE(&c, false, false);
        c.hidden = (struct hv_outbox_hidden){0};
        mark(&c, INT64_MIN, 100);
        EXPECT_IDS(&c, 1, 4, 5);
        client_close(&c);
    }
}

/* Where equal texts may have other bytes, another key must not be hidden: nobody would know of its rows. */
static void test_hidden_keys_are_compared_by_their_bytes(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "CREATE COLLATION IF NOT EXISTS anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
                    "CREATE TABLE outbox (id bigint PRIMARY KEY, kafka_topic text, kafka_key text COLLATE anycase, kafka_value text, "
                    "kafka_header_keys text[], kafka_header_values text[], leader_id uuid)", "");
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO outbox VALUES (1, 't', 'a', '1'), (2, 't', 'A', '2')");
    HIDE(&c, {"a", 1});
    mark(&c, INT64_MIN, 100);
    EXPECT_BARE(&c, true, false);
    scan(&c, INT64_MIN, 100, NULL, 0);
    EXPECT_BARE(&c, true, false);
    client_close(&c);
}

static void test_scan_of_a_partitioned_table(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "CREATE TABLE outbox (id bigint PRIMARY KEY, kafka_topic text, kafka_key text, kafka_value text, kafka_header_keys "
                    "text[], kafka_header_values text[], leader_id uuid) PARTITION BY RANGE (id);"
                    "CREATE TABLE outbox_b PARTITION OF outbox FOR VALUES FROM (10) TO (20);"
                    "CREATE TABLE outbox_a PARTITION OF outbox FOR VALUES FROM (0) TO (10)", "");
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM generate_series(0, 19) i");
    scan(&c, 15, 12, GAPS({.lo = 3, .hi = 4}, {.lo = 8, .hi = 12}));
    EXPECT_IDS(&c, 3, 4, 8, 9, 10, 11, 12, 15, 16, 17, 18, 19);
    list(&c, 8, 11, 10);
    EXPECT_LISTED(&c, 8, 9, 10, 11);
    fetch(&c, (const int64_t[]){9, 10, 77}, 3);
    EXPECT_IDS(&c, 9, 10);
    client_close(&c);
}

/* ---- tables that are not as they should be ---- */

static void expect_down(struct client *c, enum hv_pg_trouble trouble, const char *sqlstate,
                        const char *text) {
    for (int i = 0; i < 2; i++) { /* and again: it keeps trying */
        c->downs = c->ups = 0;
        bench_run_until(&c->bench, has_down, c);
        assert_int_equal(c->ups, 0);
        if (c->failure.trouble != trouble || strstr(c->failure.error.text, text) == NULL) {
            fail_msg("trouble %d: %s", c->failure.trouble, c->failure.error.text);
        }
        assert_string_equal(c->failure.sqlstate, sqlstate);
        assert_false(c->failure.outcome_unknown);
        assert_true(strlen(hv_pg_advice(trouble)) > 10);
    }
}

static void test_missing_table_and_columns(void **state) {
    (void)state;
    struct client c;
    client_open(&c, NULL, "");
    expect_down(&c, HV_PG_NO_TABLE, "42P01", "outbox");
    admin_sql(c.admin, "CREATE TABLE outbox (id bigint)");
    expect_down(&c, HV_PG_NO_COLUMN, "42703", "kafka_topic");
    admin_sql(c.admin, "DROP TABLE outbox; " TABLE_OF("bigint", "text"));
    wait_up(&c); /* mended: works */
    admin_sql(c.admin, "ALTER TABLE outbox DROP leader_id");
    forget(&c);
    hv_outbox_mark(c.outbox, c.leader, 0, 1, NULL, 0, c.hidden, false);
    bench_run_until(&c.bench, has_answer, &c);
    assert_int_equal(c.refusals, 1);
    assert_int_equal(c.failure.trouble, HV_PG_NO_COLUMN);
    client_close(&c);
}

static void test_wrong_types(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"id TYPE numeric", "column id of table \"outbox\" has type numeric, expected bigint"},
        {"kafka_topic TYPE bytea USING NULL", "column kafka_topic of table \"outbox\" has type bytea, expected text"},
        {"kafka_key TYPE int USING NULL", "column kafka_key of table \"outbox\" has type integer"},
        {"kafka_value TYPE xml USING NULL", "column kafka_value of table \"outbox\" has type xml"},
        {"kafka_value TYPE point USING NULL", "column kafka_value of table \"outbox\" has type with oid 600"},
        {"kafka_header_keys TYPE text", "column kafka_header_keys of table \"outbox\" has type text, expected text[]"},
        {"kafka_header_values TYPE jsonb USING NULL", "column kafka_header_values of table \"outbox\" has type jsonb"},
        {"leader_id TYPE text", "column leader_id of table \"outbox\" has type text, expected uuid"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct client c;
        char sql[256];
        client_open(&c, TABLE_OF("bigint", "text"), "");
        admin_sql(c.admin, "ALTER TABLE outbox ALTER kafka_header_keys DROP DEFAULT, ALTER kafka_header_values DROP DEFAULT");
        snprintf(sql, sizeof sql, "ALTER TABLE outbox ALTER %s", changes[i][0]);
        admin_sql(c.admin, sql);
        expect_down(&c, HV_PG_WRONG_TYPE, "", changes[i][1]);
        client_close(&c);
    }
}

static void test_types_that_change_under_the_session(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    wait_up(&c);
    admin_sql(c.admin, "ALTER TABLE outbox ALTER kafka_value TYPE bytea USING NULL");
    admin_sql(c.admin, "INSERT INTO outbox VALUES (1, 't', 'k', 'v')");
    forget(&c);
    hv_outbox_mark(c.outbox, c.leader, 0, 10, NULL, 0, c.hidden, false);
    bench_run_until(&c.bench, has_answer, &c);
    assert_int_equal(c.downs, 1);
    assert_int_equal(c.failure.trouble, HV_PG_WRONG_TYPE);
    assert_true(c.failure.outcome_unknown); /* the rows are marked, and we do not have them */
    wait_up(&c);
    hv_ident_new(c.leader);
    mark(&c, 0, 10);
    EXPECT_IDS(&c, 1);
    client_close(&c);
}

static void test_rights(void **state) {
    (void)state;
    struct client c;
    PGconn *admin = admin_open(conninfo_with(""));
    admin_sql(admin, "DROP TABLE IF EXISTS outbox");
    admin_sql(admin, "DROP ROLE IF EXISTS contract_role");
    admin_sql(admin, "CREATE ROLE contract_role LOGIN PASSWORD 'p'");
    client_open(&c, TABLE_OF("bigint", "text"), "user=contract_role password=p");
    expect_down(&c, HV_PG_NO_RIGHTS, "42501", "GRANT SELECT ON public.outbox TO contract_role; "
                "GRANT UPDATE (leader_id) ON public.outbox TO contract_role; GRANT DELETE ON public.outbox TO contract_role;");
    admin_sql(c.admin, "GRANT SELECT ON outbox TO contract_role");
    expect_down(&c, HV_PG_NO_RIGHTS, "", "UPDATE (leader_id) on public.outbox");
    admin_sql(c.admin, "GRANT UPDATE (leader_id) ON outbox TO contract_role");
    expect_down(&c, HV_PG_NO_RIGHTS, "", "DELETE");
    admin_sql(c.admin, "GRANT DELETE ON outbox TO contract_role");
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO outbox VALUES (1, 't', 'k', 'v')");
    mark(&c, 0, 10);
    fetch(&c, (const int64_t[]){1}, 1);
    purge(&c, (const int64_t[]){1}, 1);
    writers(&c);
    client_close(&c);
    admin_sql(admin, "DROP ROLE contract_role");
    admin_close(admin);
}

static void test_table_names(void **state) {
    (void)state;
    static const char *const good[][2] = {
        {"outbox", "\"outbox\""}, {"OutBox", "\"outbox\""}, {"\"OutBox\"", "\"OutBox\""},
        {"a.b", "\"a\".\"b\""}, {"\"a.b\"", "\"a.b\""}, {"A.\"B\"", "\"a\".\"B\""},
        {"\"x\"\"y\"", "\"x\"\"y\""}, {"_a$1", "\"_a$1\""}, {"\"\"\"\".\"a b\"", "\"\"\"\".\"a b\""},
        {"\xc3\xa4", "\"\xc3\xa4\""},
        {"\"; DROP TABLE x; --\"", "\"; DROP TABLE x; --\""},
    };
    static const char *const bad[] = {"", ".", "a.", ".a", "a.b.c", "a b", "1a", "$a", "a-b", "\"a",
                                      "\"a\"b", "\"\"",
                                      "a;b", "a\"b\"", "a. b",
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    char out[300];
    struct hv_error err;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(hv_outbox_quote_table(good[i][0], out, sizeof out, &err), 0);
        assert_string_equal(out, good[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (hv_outbox_quote_table(bad[i], out, sizeof out, &err) != -1) {
            fail_msg("\"%s\" was taken for a name", bad[i]);
        }
    }
    char longest[64];
    memset(longest, '"', sizeof longest);
    char quoted[200] = "\"";
    for (int i = 0; i < 63; i++) {
        strcat(quoted, "\"\"");
    }
    strcat(quoted, "\"");
    assert_int_equal(hv_outbox_quote_table(quoted, out, sizeof out, &err), 0);
    assert_string_equal(out, quoted);
}

static void test_table_with_a_strange_name(void **state) {
    (void)state;
    struct client c;
    struct hv_error err;
    client_open(&c, "DROP SCHEMA IF EXISTS \"S.1\" CASCADE; CREATE SCHEMA \"S.1\"; CREATE TABLE \"S.1\".\"Out\"\"box%s\" (id bigint "
                    "PRIMARY KEY, kafka_topic text, kafka_key text, kafka_value text, kafka_header_keys text[], "
                    "kafka_header_values text[], leader_id uuid)", "");
    hv_outbox_close(c.outbox, on_closed);
    bench_run_until(&c.bench, is_closed, &c);
    c.closed = false;
    struct hv_pg_options options = options_for(conninfo_with(""));
    assert_int_equal(hv_outbox_open(c.bench.loop, &options, "\"S.1\".\"Out\"\"box%s\"", &handler, &c,
                                    &c.outbox, &err), 0);
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO \"S.1\".\"Out\"\"box%s\" VALUES (1, 't', 'k', 'v')");
    PGconn *other = admin_open(conninfo_with(""));
    admin_sql(other, "BEGIN; INSERT INTO \"S.1\".\"Out\"\"box%s\" VALUES (2, 't', 'k', 'v')");
    writers(&c);
    assert_int_equal(c.count, 1);
    admin_close(other);
    mark(&c, 0, 10);
    EXPECT_IDS(&c, 1);
    scan(&c, 5, 10, GAPS({.lo = 0, .hi = 4}));
    EXPECT_IDS(&c, 1);
    list(&c, 0, 4, 10);
    EXPECT_LISTED(&c, 1);
    fetch(&c, (const int64_t[]){1}, 1);
    EXPECT_IDS(&c, 1);
    c.hidden = (struct hv_outbox_hidden){&(const struct hv_key_bytes){"k", 1}, 1};
    scan(&c, 0, 10, NULL, 0);
    assert_true(c.records[0]->bare);
    hv_ident_new(c.leader);
    mark(&c, 0, 10);
    assert_true(c.records[0]->bare);
    purge(&c, (const int64_t[]){1}, 1);
    assert_int_equal(c.count, 1);
    admin_sql(c.admin, "DROP SCHEMA \"S.1\" CASCADE");
    client_close(&c);
}

static void test_refused_statement(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    admin_sql(c.admin, "CREATE TABLE refers (id bigint REFERENCES outbox)");
    admin_sql(c.admin, "INSERT INTO outbox VALUES (1, 't', 'k', 'v')");
    admin_sql(c.admin, "INSERT INTO refers VALUES (1)");
    wait_up(&c);
    forget(&c);
    hv_outbox_purge(c.outbox, (const int64_t[]){1}, NULL, 1, false);
    bench_run_until(&c.bench, has_answer, &c);
    assert_int_equal(c.refusals, 1);
    assert_int_equal(c.failure.trouble, HV_PG_STATEMENT);
    assert_string_equal(c.failure.sqlstate, "23503");
    assert_true(hv_outbox_is_idle(c.outbox));
    admin_sql(c.admin, "DROP TABLE refers");
    purge(&c, (const int64_t[]){1}, 1);
    assert_int_equal(c.count, 1);
    client_close(&c);
}

/* Who claimed rows 1 to 4 deletes these and nothing else. */
static void versions_tell_rows_apart(const char *create) {
    struct client c;
    uint32_t versions[4];
    const int64_t ids[] = {4, 1, 3, 2};
    client_open(&c, create, "");
    wait_up(&c);
    for (int by_mark = 0; by_mark < 3; by_mark++) {
        admin_sql(c.admin, "DELETE FROM outbox; INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM generate_series(1, 4) i");
        c.only_new = by_mark == 2;
        scan(&c, 0, 10, NULL, 0);
        EXPECT_IDS(&c, 1, 2, 3, 4);
        uint32_t before = c.records[0]->version;
        assert_int_not_equal(before, 0);
        assert_int_equal(c.records[0]->was, before);
        if (by_mark) {
            hv_ident_new(c.leader);
            mark(&c, 0, 10);
            EXPECT_IDS(&c, 1, 2, 3, 4);
            assert_int_not_equal(c.records[0]->version, before);
        }
        for (int i = 0; i < 4; i++) {
            assert_int_equal(c.records[i]->was, c.only_new ? c.records[i]->version : before);
            versions[i] = c.records[ids[i] - 1]->version;
        }
        admin_sql(c.admin, "UPDATE outbox SET kafka_value = 'w' WHERE id = 1");
        admin_sql(c.admin, "DELETE FROM outbox WHERE id = 2; INSERT INTO outbox SELECT i, 't', 'k', 'n' FROM generate_series(5, 5) i");
        admin_sql(c.admin, "INSERT INTO outbox VALUES (2, 't', 'k', 'n')");
        admin_sql(c.admin, "VACUUM (FREEZE, FULL) outbox");
        purge_versions(&c, ids, versions, 4, by_mark);
        assert_int_equal(c.count, 2);
        fetch(&c, (const int64_t[]){1, 2, 3, 4, 5}, 5);
        EXPECT_IDS(&c, 1, 2, 5);
        purge_versions(&c, (const int64_t[]){5, 2, 1},
                       (const uint32_t[]){c.records[2]->version, c.records[1]->version, c.records[0]->version}, 3, !by_mark);
        assert_int_equal(c.count, 3);
    }
    client_close(&c);
}

static void test_versions_tell_rows_apart(void **state) {
    (void)state;
    versions_tell_rows_apart(TABLE_OF("bigint", "text"));
    versions_tell_rows_apart(TABLE_OF("smallint", "bytea"));
    versions_tell_rows_apart("CREATE TABLE outbox (id bigint PRIMARY KEY, kafka_topic text, kafka_key text, kafka_value text, kafka_header_keys "
                             "text[], kafka_header_values text[], leader_id uuid) PARTITION BY RANGE (id);"
                             "CREATE TABLE outbox_b PARTITION OF outbox FOR VALUES FROM (3) TO (9);"
                             "CREATE TABLE outbox_a (leader_id uuid, gone int, kafka_value text, kafka_key text, kafka_topic text, kafka_header_values "
                             "text[], kafka_header_keys text[], id bigint NOT NULL);"
                             "ALTER TABLE outbox_a DROP COLUMN gone;"
                             "ALTER TABLE outbox ATTACH PARTITION outbox_a FOR VALUES FROM (1) TO (3)");
}

/* Nothing but the id tells rows of a view apart. */
static void test_a_view_has_no_versions(void **state) {
    (void)state;
    struct client c;
    client_open(&c, "DROP TABLE IF EXISTS below CASCADE; CREATE TABLE below (id bigint PRIMARY KEY, kafka_topic text, kafka_key text, kafka_value "
                    "text, kafka_header_keys text[], kafka_header_values text[], leader_id uuid); CREATE VIEW outbox AS SELECT * FROM below", "");
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM generate_series(1, 4) i");
    scan(&c, 2, 10, GAPS({.lo = 0, .hi = 1}));
    EXPECT_IDS(&c, 1, 2, 3, 4);
    mark(&c, 0, 10);
    EXPECT_IDS(&c, 1, 2, 3, 4);
    assert_int_equal(c.records[0]->version, 0);
    c.hidden = (struct hv_outbox_hidden){&(const struct hv_key_bytes){"x", 1}, 1};
    hv_ident_new(c.leader);
    mark(&c, 0, 10);
    EXPECT_IDS(&c, 1, 2, 3, 4);
    scan(&c, 0, 10, NULL, 0);
    EXPECT_IDS(&c, 1, 2, 3, 4);
    admin_sql(c.admin, "UPDATE outbox SET kafka_value = 'w' WHERE id = 1");
    purge_versions(&c, (const int64_t[]){2, 1, 9}, (const uint32_t[]){0, 0, 0}, 3, true);
    assert_int_equal(c.count, 3); /* none of them is there */
    fetch(&c, (const int64_t[]){1, 2, 3}, 3);
    EXPECT_IDS(&c, 3);
    admin_sql(c.admin, "DROP VIEW outbox; DROP TABLE below");
    client_close(&c);
}

static void test_locked_rows(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    wait_up(&c);
    admin_sql(c.admin, "INSERT INTO outbox SELECT i, 't', 'k', 'v' FROM generate_series(1, 4) i");
    scan(&c, 0, 10, NULL, 0);
    const int64_t ids[] = {1, 2, 3, 4};
    const uint32_t v = c.records[0]->version, versions[] = {v, v, v, v};
    PGconn *holder = admin_open(conninfo_with(""));
    admin_sql(holder, "BEGIN; SELECT FROM outbox WHERE id = 3 FOR KEY SHARE");
    forget(&c);
    hv_outbox_purge(c.outbox, ids, versions, 4, false);
    bench_run_until(&c.bench, has_answer, &c);
    assert_int_equal(c.refusals, 1);
    assert_int_equal(c.failure.trouble, HV_PG_LOCKED);
    purge_versions(&c, ids, versions, 4, true);
    assert_int_equal(c.count, 3);
    purge_versions(&c, ids, versions, 4, true);
    assert_int_equal(c.count, 0);
    admin_sql(holder, "ROLLBACK");
    purge_versions(&c, ids, versions, 4, false);
    assert_int_equal(c.count, 1);
    admin_close(holder);
    client_close(&c);
}

static void test_session_lost_during_a_mark(void **state) {
    (void)state;
    struct client c;
    client_open(&c, TABLE_OF("bigint", "text"), "");
    admin_sql(c.admin, "INSERT INTO outbox VALUES (1, 't', 'k', 'v')");
    PGconn *blocker = admin_open(conninfo_with(""));
    wait_up(&c);
    mark(&c, 2, 10); /* the first is prepared before it is sent */
    admin_sql(blocker, "BEGIN; LOCK TABLE outbox");
    forget(&c);
    hv_outbox_mark(c.outbox, c.leader, 0, 10, NULL, 0, c.hidden, false);
    admin_sql(blocker, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'contract'");
    bench_run_until(&c.bench, has_down, &c);
    assert_int_equal(c.failure.trouble, HV_PG_LOST);
    assert_true(c.failure.outcome_unknown);
    /* The next probe waits for the table, and is not taken for a mark. */
    c.downs = 0;
    admin_sql(blocker, "ROLLBACK");
    admin_close(blocker);
    wait_up(&c);
    mark(&c, 0, 10);
    EXPECT_IDS(&c, 1);
    client_close(&c);
}

/* ---- plans ---- */

static void wait_gone(PGconn *admin) {
    for (;;) {
        char *n = admin_value(admin, "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'contract'");
        bool gone = strcmp(n, "0") == 0;
        free(n);
        if (gone) {
            return;
        }
    }
}

static char *scans(PGconn *admin) {
    return admin_value(admin, "SELECT pg_stat_get_numscans('outbox'::regclass)::text || ' scans, ' || "
                              "pg_stat_get_tuples_returned('outbox'::regclass)");
}

/* Above, and as many gaps as there may be, with and without rows that are left out. */
static void scan_in_all_forms(struct client *c, int64_t from_id, uint32_t limit, bool hiding) {
    struct hv_gap gaps[256];
    int64_t left_out[2000];
    for (int i = 0; i < 256; i++) {
        gaps[i] = (struct hv_gap){.lo = from_id + 20 * i, .hi = from_id + 20 * i + 10};
    }
    for (int i = 0; i < 2000; i++) {
        left_out[i] = from_id + i;
    }
    scan(c, from_id, limit, NULL, 0);
    assert_int_equal(c->count, limit);
    scan(c, from_id + 10000, limit, gaps, 256);
    assert_int_equal(c->count, limit);
    scan_without(c, from_id + 10000, limit, gaps, 256, left_out, 2000);
    assert_int_equal(c->count, limit);
    if (!hiding) {
        return;
    }
    static struct hv_key_bytes keys[1000];
    static char texts[1000][8];
    for (size_t i = 0; i < 1000; i++) {
        keys[i] = (struct hv_key_bytes){texts[i], (uint32_t)snprintf(texts[i], sizeof texts[i], "k%zu", i + 50)};
    }
    c->hidden = (struct hv_outbox_hidden){keys, 1000};
    scan(c, from_id, limit, NULL, 0);
    assert_int_equal(c->count, limit);
    scan_without(c, from_id + 10000, limit, gaps, 256, left_out, 2000);
    assert_int_equal(c->count, limit);
    mark(c, from_id, 1);
    assert_int_equal(c->count, 1);
    c->hidden = (struct hv_outbox_hidden){0};
}

static void admin_unmark(PGconn *admin, int64_t id) {
    char sql[100];
    snprintf(sql, sizeof sql, "UPDATE outbox SET leader_id = NULL WHERE id = %lld", (long long)id);
    admin_sql(admin, sql);
}

/* Marks, scans, fetches and purges in a table prepared by sql; no statement may read the table from end to end. */
static void work_without_scans(const char *what, const char *create, const char *const *sql,
                               int64_t from_id) {
    struct client c;
    client_open(&c, create, "");
    wait_up(&c);
    for (; *sql != NULL; sql++) {
        admin_sql(c.admin, *sql);
    }
    admin_sql(c.admin, "SELECT pg_stat_force_next_flush()");
    char *before = scans(c.admin);
    bench_step(&c.bench); /* the loop's clock stood still meanwhile */
    static int64_t ids[5000];
    static uint32_t versions[5000];
    static const uint32_t limits[] = {1, 5000, 1000, 100, 1000, 5000, 10, 1000, 1000, 1000};
    memset(c.leader, 0, sizeof c.leader);
    for (int round = 0; round < 10; round++) {
        mark(&c, from_id, limits[round]);
        size_t count = c.count;
        assert_int_equal(count, limits[round]);
        for (size_t i = 0; i < count; i++) {
            ids[i] = c.records[i]->id;
            versions[i] = c.records[i]->version;
        }
        fetch(&c, ids, 5 < count ? 5 : count);
        assert_int_equal(c.count, 5 < count ? 5 : count);
        admin_unmark(c.admin, ids[0]);
        list(&c, from_id, INT64_MAX, limits[round]);
        scan_in_all_forms(&c, from_id, limits[round], round < 2);
        count = round % 2 == 0 ? count : 10 < count ? 10 : count;
        purge_versions(&c, ids, versions, count, round >= 5);
        assert_int_equal(c.count, count - 1); /* but the one that is not marked any more */
        purge(&c, ids, count);
        assert_int_equal(c.count, 1);
    }
    PGconn *admin = c.admin;
    c.admin = admin_open(conninfo_with(""));
    hv_outbox_close(c.outbox, on_closed);
    bench_run_until(&c.bench, is_closed, &c);
    bench_close(&c.bench);
    forget(&c);
    wait_gone(admin);
    char *after = scans(admin);
    if (strcmp(before, after) != 0) {
        fail_msg("%s: %s before, %s after", what, before, after);
    }
    free(before);
    free(after);
    admin_sql(admin, "DROP TABLE outbox");
    admin_close(admin);
    admin_close(c.admin);
}

#define FILL                                                                        \
    "INSERT INTO outbox SELECT i, 't', 'k' || i % 100, repeat('v', 200), '{a,b}', '{1,2}' " \
    "FROM generate_series(1, 300000) i"
#define NO_VACUUM "ALTER TABLE outbox SET (autovacuum_enabled = off)"
#define ANALYZE "ANALYZE outbox"
#define STEPS(...) ((const char *const[]){NO_VACUUM, __VA_ARGS__, NULL})

static void test_no_statement_reads_the_whole_table(void **state) {
    (void)state;
    const char *create = TABLE_OF("bigint", "text"), *narrow = TABLE_OF("integer", "text");
    const char *delete_head = "DELETE FROM outbox WHERE id < 280000";
    const char *mark_all = "UPDATE outbox SET leader_id = gen_random_uuid()";
    const char *mark_all_ours = "UPDATE outbox SET leader_id = '00000000-0000-0000-0000-000000000000'";
    const char *unmark_tail = "UPDATE outbox SET leader_id = NULL WHERE id > 280000";
    work_without_scans("fresh", create, STEPS(FILL), 0);
    work_without_scans("analyzed", create, STEPS(FILL, ANALYZE), 0);
    work_without_scans("head deleted", create, STEPS(FILL, delete_head), 280000);
    work_without_scans("analyzed while empty", create, STEPS(ANALYZE, FILL), 0);
    work_without_scans("analyzed, head deleted", create, STEPS(FILL, ANALYZE, delete_head), 280000);
    work_without_scans("marked by another", create, STEPS(FILL, mark_all, ANALYZE), 0);
    work_without_scans("most marked by us", create, STEPS(FILL, mark_all_ours, ANALYZE, unmark_tail), 0);
    work_without_scans("narrow ids", narrow, STEPS(FILL), 0);
    work_without_scans("narrow ids, analyzed", narrow, STEPS(FILL, ANALYZE), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mark_purge_fetch),
        cmocka_unit_test(test_edge_ids),
        cmocka_unit_test(test_narrow_ids),
        cmocka_unit_test(test_bytes_null_and_empty),
        cmocka_unit_test(test_other_column_types),
        cmocka_unit_test(test_headers_and_defects),
        cmocka_unit_test(test_large_purge_and_large_rows),
        cmocka_unit_test(test_writers),
        cmocka_unit_test(test_scan_list_fetch),
        cmocka_unit_test(test_marks_in_gaps),
        cmocka_unit_test(test_scan_at_the_ends_of_int8),
        cmocka_unit_test(test_scan_of_narrow_ids_and_other_types),
        cmocka_unit_test(test_a_scan_is_one_snapshot),
        cmocka_unit_test(test_replies_are_bounded_in_bytes),
        cmocka_unit_test(test_hidden_keys),
        cmocka_unit_test(test_hidden_keys_are_compared_by_their_bytes),
        cmocka_unit_test(test_scan_of_a_partitioned_table),
        cmocka_unit_test(test_missing_table_and_columns),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_types_that_change_under_the_session),
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_table_names),
        cmocka_unit_test(test_table_with_a_strange_name),
        cmocka_unit_test(test_refused_statement),
        cmocka_unit_test(test_versions_tell_rows_apart),
        cmocka_unit_test(test_a_view_has_no_versions),
        cmocka_unit_test(test_locked_rows),
        cmocka_unit_test(test_session_lost_during_a_mark),
        cmocka_unit_test(test_no_statement_reads_the_whole_table),
    };
    cmocka_set_test_filter(getenv("HV_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
