/* The stasher on a real server (HV_TEST_PG): that what was given is what the table holds, whatever it is and whichever
 * way it was written; that it writes in open transactions only; and that what it refuses leaves no trace. */
#include <libpq-fe.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harvest_stash.h"
#include "pg_help.h"

#define T harvest_stash_text
#define TABLE_OF(key, value, names, values)                                                                       \
    "DROP TABLE IF EXISTS outbox CASCADE; CREATE TABLE outbox (id bigserial PRIMARY KEY, create_time timestamptz " \
    "NOT NULL, kafka_topic varchar(249) NOT NULL, kafka_key " key " NOT NULL, kafka_value " value                  \
    ", kafka_header_keys " names " NOT NULL, kafka_header_values " values " NOT NULL, leader_id uuid)"
#define TABLE TABLE_OF("varchar(100)", "varchar(10000)", "text[]", "text[]")
#define TABLE_BYTEA TABLE_OF("text", "bytea", "text[]", "text[]")

static struct bench_of_stash {
    PGconn *conn;
    struct harvest_stash *stash;
    struct harvest_error err;
} b;

static const struct harvest_stash_record plain = {.topic = "t", .key = {"k", 1}, .value = {"v", 1}};

static void sql(const char *text) {
    admin_sql(b.conn, text);
}

static void begin_at(const char *more, const char *table_sql) {
    PQfinish(b.conn); /* of a test that failed: its locks would stop all others */
    memset(&b, 0, sizeof b);
    b.conn = admin_open(conninfo_with(more));
    sql(table_sql);
    assert_int_equal(harvest_stash_new("outbox", &b.stash, &b.err), 0);
}

static void begin_with(const char *table_sql) {
    begin_at("client_encoding=UTF8", table_sql);
}

static void end(void) {
    harvest_stash_free(b.stash);
    admin_close(b.conn);
    b.conn = NULL;
}

static int rows(void) {
    char *text = admin_value(b.conn, "SELECT count(*) FROM outbox");
    int count = atoi(text);
    free(text);
    return count;
}

static void expect_text(const char *part) {
    if (strstr(b.err.text, part) == NULL) {
        fail_msg("no \"%s\" in \"%s\"", part, b.err.text);
    }
}

static void expect_code(int rc, int expected) {
    if (rc != expected) {
        fail_msg("%d instead of %d: %s", rc, expected, b.err.text);
    }
}

/* ---- nonblocking users ---- */

static void wait_for_socket(short events) {
    struct pollfd fd = {.fd = PQsocket(b.conn), .events = events};
    if (poll(&fd, 1, DEADLINE_S * 1000) <= 0) {
        fail_msg("nothing from the server within %d s", DEADLINE_S);
    }
}

/* All results of what was sent; returns what the judge says of the only one. */
static int settle(void) {
    int verdict = 77;
    for (int rest; (rest = PQflush(b.conn)) != 0;) {
        assert_int_equal(rest, 1);
        wait_for_socket(POLLOUT | POLLIN);
        assert_int_equal(PQconsumeInput(b.conn), 1);
    }
    for (;;) {
        while (PQisBusy(b.conn)) {
            wait_for_socket(POLLIN);
            PQconsumeInput(b.conn);
        }
        PGresult *result = PQgetResult(b.conn);
        if (result == NULL) {
            return verdict;
        }
        assert_int_equal(verdict, 77);
        verdict = harvest_stash_judge(b.stash, result, &b.err);
        PQclear(result);
    }
}

enum form { WRITE, PREPARED, SEND, SEND_PREPARED, FORMS };

static void prepare_for(enum form form) {
    if (form == PREPARED) {
        expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), 0);
    } else if (form == SEND_PREPARED) {
        PQsetnonblocking(b.conn, 1);
        expect_code(harvest_stash_send_prepare(b.stash, b.conn, &b.err), 0);
        expect_code(settle(), 0);
    } else if (form == SEND) {
        PQsetnonblocking(b.conn, 1);
    }
}

static int write_by(enum form form, const struct harvest_stash_record *record) {
    int rc;
    switch (form) {
    case WRITE:
        return harvest_stash_write(b.stash, b.conn, record, &b.err);
    case PREPARED:
        return harvest_stash_write_prepared(b.stash, b.conn, record, &b.err);
    case SEND:
        rc = harvest_stash_send(b.stash, b.conn, record, &b.err);
        return rc != 0 ? rc : settle();
    default:
        rc = harvest_stash_send_prepared(b.stash, b.conn, record, &b.err);
        return rc != 0 ? rc : settle();
    }
}

/* ---- what arrives ---- */

static void expect_column(const char *what, const char *expression, struct harvest_stash_bytes expected) {
    char query[200];
    snprintf(query, sizeof query, "SELECT %s FROM outbox ORDER BY id DESC LIMIT 1", expression);
    PGresult *result = PQexecParams(b.conn, query, 0, NULL, NULL, NULL, NULL, 1);
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1) {
        fail_msg("%s: %s", query, PQerrorMessage(b.conn));
    }
    if (expected.data == NULL) {
        assert_true(PQgetisnull(result, 0, 0));
    } else if (PQgetisnull(result, 0, 0) || (size_t)PQgetlength(result, 0, 0) != expected.length ||
               memcmp(PQgetvalue(result, 0, 0), expected.data, expected.length) != 0) {
        fail_msg("%s: %s is %d bytes: %.60s", what, expression, PQgetlength(result, 0, 0), PQgetvalue(result, 0, 0));
    }
    PQclear(result);
}

static void expect_last_row(const char *what, const struct harvest_stash_record *record) {
    char expression[80], *count = admin_value(b.conn, "SELECT coalesce(array_length(kafka_header_keys, 1), 0) * 1000 + "
                                                      "coalesce(array_length(kafka_header_values, 1), 0) FROM outbox "
                                                      "ORDER BY id DESC LIMIT 1");
    assert_int_equal(atoi(count), record->header_count * 1001);
    free(count);
    expect_column(what, "kafka_topic", T(record->topic));
    expect_column(what, "kafka_key", record->key);
    expect_column(what, "kafka_value", record->value);
    for (size_t i = 0; i < record->header_count; i++) {
        snprintf(expression, sizeof expression, "kafka_header_keys[%zu]", i + 1);
        expect_column(what, expression, T(record->headers[i].name));
        snprintf(expression, sizeof expression, "kafka_header_values[%zu]", i + 1);
        expect_column(what, expression, record->headers[i].value);
    }
    char *now = admin_value(b.conn, "SELECT create_time = now() AND leader_id IS NULL FROM outbox ORDER BY id DESC "
                                    "LIMIT 1");
    assert_string_equal(now, "t"); /* in the same transaction, now() is the same */
    free(now);
}

static const char *const odd_texts[] = {
    "", " ", "NULL", "null", "a,b", "\"quoted\"", "back\\slash", "\\x41", "{}", "{a,\"b\"}", "it''s", "'", "$1", "%s",
    "\n\r\t\x01\x7f", "äöü€😀", "é", "\\", "\"", "x;DROP TABLE outbox;--", "  padded  ",
};
#define ODD (sizeof odd_texts / sizeof odd_texts[0])

static void write_odd_records(const char *what, enum form form, bool any_bytes) {
    struct harvest_stash_header headers[ODD];
    for (size_t i = 0; i < ODD; i++) {
        headers[i] = (struct harvest_stash_header){odd_texts[ODD - 1 - i], T(odd_texts[i])};
    }
    prepare_for(form);
    sql("BEGIN");
    for (size_t i = 0; i < ODD; i++) {
        struct harvest_stash_record record = {.topic = "Some.topic_1-x", .key = T(odd_texts[i]),
                                              .value = T(odd_texts[ODD - 1 - i]), .headers = headers,
                                              .header_count = i};
        expect_code(write_by(form, &record), 0);
        expect_last_row(what, &record);
        record.value = T(NULL);
        expect_code(write_by(form, &record), 0);
        expect_last_row(what, &record);
    }
    uint8_t all[512];
    for (int i = 0; i < 512; i++) {
        all[i] = (uint8_t)i;
    }
    struct harvest_stash_record bytes = plain;
    bytes.value = (struct harvest_stash_bytes){all, sizeof all};
    if (any_bytes) {
        expect_code(write_by(form, &bytes), 0);
        expect_last_row(what, &bytes);
    }
    sql("COMMIT");
    assert_int_equal(rows(), 2 * ODD + any_bytes);
    sql("TRUNCATE outbox");
    PQsetnonblocking(b.conn, 0);
}

static void test_bytes_arrive_as_they_were_given(void **state) {
    (void)state;
    static const struct {
        const char *what, *table;
        bool any_bytes;
    } tables[] = {
        {"varchar", TABLE, false},
        {"text", TABLE_OF("text", "text", "varchar[]", "varchar(100)[]"), false},
        {"bytea", TABLE_BYTEA, true},
        {"bytea key", TABLE_OF("bytea", "bytea", "text[]", "text[]"), true},
    };
    static const char *const settings[] = {"SET standard_conforming_strings = on",
                                           "SET standard_conforming_strings = off; SET escape_string_warning = off; "
                                           "SET bytea_output = escape; SET array_nulls = off"};
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        for (size_t s = 0; s < 2; s++) {
            for (enum form form = 0; form < FORMS; form++) {
                char what[80];
                snprintf(what, sizeof what, "%s, settings %zu, form %d", tables[t].what, s, (int)form);
                begin_with(tables[t].table);
                sql(settings[s]);
                write_odd_records(what, form, tables[t].any_bytes);
                end();
            }
        }
    }
}

static void test_bytea_headers_and_json(void **state) {
    (void)state;
    uint8_t raw[] = {0, 255, 1};
    struct harvest_stash_header header = {"h", {raw, sizeof raw}};
    struct harvest_stash_record record = {.topic = "t", .key = T("k"), .value = T("{\"a\":  1}"), .headers = &header,
                                          .header_count = 1};
    for (enum form form = 0; form < FORMS; form++) {
        begin_with(TABLE_OF("text", "json", "text[]", "bytea[]"));
        expect_code(harvest_stash_learn(b.stash, b.conn, &b.err), 0);
        prepare_for(form);
        sql("BEGIN");
        expect_code(write_by(form, &record), 0);
        expect_last_row("json and bytea[]", &record);
        sql("COMMIT");
        end();
        begin_with(TABLE_OF("text", "jsonb", "text[]", "bytea[]"));
        expect_code(harvest_stash_learn(b.stash, b.conn, &b.err), 0);
        prepare_for(form);
        sql("BEGIN");
        expect_code(write_by(form, &record), 0);
        expect_column("jsonb", "kafka_value::text", T("{\"a\": 1}"));
        record.value = T(NULL);
        expect_code(write_by(form, &record), 0);
        expect_last_row("jsonb tombstone", &record);
        record.value = T("{\"a\":  1}");
        sql("COMMIT");
        end();
    }
}

static void test_large_values(void **state) {
    (void)state;
    size_t size = 8u << 20;
    char *large = malloc(size);
    for (size_t i = 0; i < size; i++) {
        large[i] = (char)('a' + i % 23);
    }
    struct harvest_stash_record record = plain;
    record.value = (struct harvest_stash_bytes){large, size};
    begin_with(TABLE_OF("text", "text", "text[]", "text[]"));
    for (enum form form = WRITE; form <= SEND; form += SEND - WRITE) {
        prepare_for(form);
        sql("BEGIN");
        expect_code(write_by(form, &record), 0);
        expect_last_row("large", &record);
        sql("ROLLBACK");
    }
    record.value.length = (size_t)1 << 40;
    sql("BEGIN");
    expect_code(write_by(SEND, &record), HARVEST_STASH_BAD_RECORD);
    expect_text("1 GiB");
    sql("ROLLBACK");
    end();
    free(large);
}

/* ---- only in transactions ---- */

static void expect_not_sent(const char *part, int pipeline) {
    for (enum form form = 0; form < FORMS; form++) {
        if (pipeline && form >= SEND) {
            continue;
        }
        b.err.text[0] = 0;
        expect_code(form == WRITE     ? harvest_stash_write(b.stash, b.conn, &plain, &b.err)
                    : form == PREPARED ? harvest_stash_write_prepared(b.stash, b.conn, &plain, &b.err)
                    : form == SEND     ? harvest_stash_send(b.stash, b.conn, &plain, &b.err)
                                       : harvest_stash_send_prepared(b.stash, b.conn, &plain, &b.err),
                    HARVEST_STASH_NOT_SENT);
        expect_text(part);
    }
}

static void test_refused_outside_of_a_transaction(void **state) {
    (void)state;
    begin_with(TABLE);
    expect_not_sent("BEGIN first", false);
    expect_code(harvest_stash_write(b.stash, b.conn, &plain, NULL), HARVEST_STASH_NOT_SENT); /* err may be NULL */

    sql("BEGIN");
    PQclear(PQexec(b.conn, "SELECT 1/0"));
    expect_not_sent("ROLLBACK", false);
    expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), HARVEST_STASH_NOT_SENT);
    expect_code(harvest_stash_learn(b.stash, b.conn, &b.err), HARVEST_STASH_NOT_SENT);
    sql("ROLLBACK");

    sql("BEGIN");
    assert_int_equal(PQsendQuery(b.conn, "SELECT 1"), 1);
    expect_not_sent("in progress", false);
    PGresult *result = PQgetResult(b.conn);
    assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK); /* it was left alone */
    PQclear(result);
    expect_not_sent("in progress", false); /* one NULL is still to come */
    assert_null(PQgetResult(b.conn));
    expect_code(harvest_stash_write(b.stash, b.conn, &plain, &b.err), 0);
    sql("COMMIT");
    assert_int_equal(rows(), 1);
    end();
}

static void test_copy_is_left_alone(void **state) {
    (void)state;
    begin_with(TABLE);
    sql("CREATE TEMP TABLE other (n int)");
    sql("BEGIN");
    PQclear(PQexec(b.conn, "COPY other FROM STDIN"));
    assert_int_equal(PQputCopyData(b.conn, "1\n", 2), 1);
    expect_not_sent("COPY", false);
    assert_int_equal(PQputCopyData(b.conn, "2\n", 2), 1);
    assert_int_equal(PQputCopyEnd(b.conn, NULL), 1);
    for (PGresult *result; (result = PQgetResult(b.conn)) != NULL; PQclear(result)) {
        assert_int_equal(PQresultStatus(result), PGRES_COMMAND_OK);
    }
    sql("COMMIT");
    char *copied = admin_value(b.conn, "SELECT count(*) FROM other");
    assert_string_equal(copied, "2");
    free(copied);
    assert_int_equal(rows(), 0);
    end();
}

static void test_lost_and_missing_connections(void **state) {
    (void)state;
    begin_with(TABLE);
    PGconn *admin = admin_open(conninfo_with("")), *conn = b.conn;
    char kill[80];
    snprintf(kill, sizeof kill, "SELECT pg_terminate_backend(%d, 20000)", PQbackendPID(conn));
    sql("BEGIN");
    expect_code(write_by(WRITE, &plain), 0);
    admin_sql(admin, kill);
    expect_code(write_by(WRITE, &plain), HARVEST_STASH_FAILED);
    assert_true(b.err.text[0] != 0 && strchr(b.err.text, '\n') == NULL);
    expect_not_sent("not open", false);
    b.conn = NULL;
    expect_not_sent("not open", false);
    b.conn = conn;
    admin_close(admin);
    end();
}

/* ---- what cannot be written ---- */

static void expect_untouched_after(const struct harvest_stash_record *record, const char *part) {
    b.err.text[0] = 0;
    expect_code(harvest_stash_write(b.stash, b.conn, record, &b.err), HARVEST_STASH_BAD_RECORD);
    expect_text(part);
    assert_int_equal(PQtransactionStatus(b.conn), PQTRANS_INTRANS);
}

static void test_bad_records_leave_the_transaction_alone(void **state) {
    (void)state;
    char topic[251], key[102];
    memset(topic, 'x', sizeof topic - 1);
    topic[250] = 0;
    memset(key, 'k', sizeof key - 1);
    key[101] = 0;
    static const struct harvest_stash_header no_name = {NULL, {"v", 1}}, no_value = {"n", {NULL, 0}},
                                             nul = {"n", {"a\0b", 3}}, latin = {"n", {"\xe9", 1}},
                                             latin_name = {"\xe9", {"v", 1}};
    const struct {
        struct harvest_stash_record record;
        const char *part;
    } bad[] = {
        {{.topic = NULL, .key = T("k")}, "the topic is missing"},
        {{.topic = "", .key = T("k")}, "topic"},
        {{.topic = topic, .key = T("k")}, "1 to 249"},
        {{.topic = "a b", .key = T("k")}, "topic"},
        {{.topic = "..", .key = T("k")}, "topic"},
        {{.topic = "t", .key = T(NULL)}, "the key is missing"},
        {{.topic = "t", .key = T(key)}, "the key has 101 characters, and column kafka_key holds 100"},
        {{.topic = "t", .key = {"a\0b", 3}}, "the key holds a zero byte (at byte 1)"},
        {{.topic = "t", .key = {"\xff", 1}}, "the key is no valid UTF-8 (at byte 0)"},
        {{.topic = "t", .key = T("k"), .value = {"a\0", 2}}, "the value holds a zero byte"},
        {{.topic = "t", .key = T("k"), .value = {"a\xc3", 2}}, "the value is no valid UTF-8 (at byte 1)"},
        {{.topic = "t", .key = T("k"), .value = {NULL, 7}}, "its length is 7"},
        {{.topic = "t", .key = T("k"), .headers = &no_name, .header_count = 1}, "header 0 has no name"},
        {{.topic = "t", .key = T("k"), .headers = &no_value, .header_count = 1}, "header 0 has no value"},
        {{.topic = "t", .key = T("k"), .headers = &nul, .header_count = 1}, "a header's value holds a zero byte"},
        {{.topic = "t", .key = T("k"), .headers = &latin, .header_count = 1}, "a header's value is no valid UTF-8"},
        {{.topic = "t", .key = T("k"), .headers = &latin_name, .header_count = 1}, "a header's name is no valid"},
        {{.topic = "t", .key = T("k"), .headers = NULL, .header_count = 1}, "headers is NULL"},
    };
    begin_with(TABLE);
    sql("BEGIN");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_untouched_after(&bad[i].record, bad[i].part);
    }
    expect_untouched_after(NULL, "topic");
    expect_code(write_by(WRITE, &plain), 0);
    sql("COMMIT");
    assert_int_equal(rows(), 1);
    end();
}

static void test_limits_are_looked_up_again(void **state) {
    (void)state;
    struct harvest_stash_record record = {.topic = "t", .key = T("äöüäöü"), .value = T("12345   ")};
    begin_with(TABLE_OF("varchar(6)", "varchar(5)", "text[]", "text[]"));
    sql("BEGIN");
    expect_untouched_after(&record, "the value has 8 characters"); /* the server would cut the blanks silently */
    sql("ROLLBACK");
    sql("ALTER TABLE outbox ALTER kafka_value TYPE varchar(8)");
    sql("BEGIN");
    expect_code(write_by(WRITE, &record), 0);
    expect_last_row("widened", &record);
    sql("COMMIT");
    sql("ALTER TABLE outbox ALTER kafka_key TYPE varchar(5)  USING 'k'");
    sql("BEGIN");
    expect_code(write_by(WRITE, &record), HARVEST_STASH_FAILED); /* not known yet: the server's word */
    expect_text("22001");
    expect_not_sent("ROLLBACK", false);
    sql("ROLLBACK");
    end();
}

static void test_tables_that_do_not_fit(void **state) {
    (void)state;
    static const struct {
        const char *sql, *part;
    } tables[] = {
        {"DROP TABLE IF EXISTS outbox CASCADE", "there is no table \"outbox\""},
        {TABLE "; ALTER TABLE outbox DROP create_time", "no column create_time"},
        {TABLE "; ALTER TABLE outbox DROP kafka_header_values", "no column kafka_header_values"},
        {TABLE_OF("bigint", "text", "text[]", "text[]"), "column kafka_key of table \"outbox\" has type bigint"},
        {TABLE_OF("text", "text", "jsonb", "text[]"), "column kafka_header_keys of table \"outbox\" has type jsonb"},
    };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        begin_with(tables[i].sql);
        sql("BEGIN");
        expect_code(harvest_stash_write(b.stash, b.conn, &plain, &b.err), HARVEST_STASH_NOT_SENT);
        expect_text(tables[i].part);
        assert_int_equal(PQtransactionStatus(b.conn), PQTRANS_INTRANS);
        expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), HARVEST_STASH_NOT_SENT);
        assert_int_equal(PQtransactionStatus(b.conn), PQTRANS_INTRANS);
        sql("COMMIT");
        end();
    }
}

static void test_domains_and_views(void **state) {
    (void)state;
    begin_with("DROP TABLE IF EXISTS outbox CASCADE; DROP DOMAIN IF EXISTS short; CREATE DOMAIN short AS varchar(3); "
               "CREATE TABLE outbox (id bigserial PRIMARY KEY, create_time timestamptz, kafka_topic text, kafka_key short, "
               "kafka_value text, kafka_header_keys text[], kafka_header_values text[], leader_id uuid); "
               "CREATE VIEW seen AS SELECT * FROM outbox");
    struct harvest_stash *seen;
    struct harvest_stash_record record = {.topic = "t", .key = T("long")};
    assert_int_equal(harvest_stash_new("seen", &seen, &b.err), 0);
    sql("BEGIN");
    expect_untouched_after(&record, "kafka_key holds 3");
    expect_code(harvest_stash_write(seen, b.conn, &plain, &b.err), 0);
    sql("COMMIT");
    assert_int_equal(rows(), 1);
    sql("DROP VIEW seen; DROP TABLE outbox; DROP DOMAIN short");
    harvest_stash_free(seen);
    end();
}

static void test_rights(void **state) {
    (void)state;
    begin_with(TABLE);
    sql("DROP ROLE IF EXISTS writer");
    sql("CREATE ROLE writer");
    sql("BEGIN; SET LOCAL ROLE writer");
    expect_code(write_by(WRITE, &plain), HARVEST_STASH_FAILED);
    expect_text("grant INSERT");
    sql("ROLLBACK");
    sql("GRANT INSERT ON outbox TO writer; GRANT USAGE ON SEQUENCE outbox_id_seq TO writer");
    for (enum form form = 0; form < FORMS; form++) {
        sql("BEGIN; SET LOCAL ROLE writer");
        if (form == PREPARED) {
            sql("DEALLOCATE ALL");
        }
        PQsetnonblocking(b.conn, 0);
        if (form != SEND_PREPARED) {
            prepare_for(form);
        }
        expect_code(write_by(form, &plain), 0); /* the last one with what the second prepared */
        sql("COMMIT");
    }
    PQsetnonblocking(b.conn, 0);
    assert_int_equal(rows(), 4);
    sql("DROP OWNED BY writer; DROP ROLE writer");
    end();
}

static void test_refused_by_the_server(void **state) {
    (void)state;
    for (enum form form = 0; form < FORMS; form++) {
        begin_with(TABLE "; ALTER TABLE outbox ADD CHECK (kafka_key <> 'bad')");
        prepare_for(form);
        struct harvest_stash_record record = plain;
        record.key = T("bad");
        sql("BEGIN");
        expect_code(write_by(form, &plain), 0);
        expect_code(write_by(form, &record), HARVEST_STASH_FAILED);
        expect_text("check constraint");
        expect_text("23514");
        expect_not_sent("ROLLBACK", false);
        sql("ROLLBACK");
        PQsetnonblocking(b.conn, 0);
        assert_int_equal(rows(), 0);
        end();
    }
}

static void test_zero_bytes_that_only_the_server_can_see(void **state) {
    (void)state;
    begin_with(TABLE);
    struct harvest_stash_record record = plain;
    record.value = (struct harvest_stash_bytes){"a\0b", 3};
    PQsetnonblocking(b.conn, 1);
    sql("BEGIN");
    expect_code(write_by(SEND, &record), HARVEST_STASH_FAILED);
    expect_text("BYTEA");
    sql("ROLLBACK");
    expect_code(harvest_stash_learn(b.stash, b.conn, &b.err), 0);
    sql("BEGIN");
    expect_code(write_by(SEND, &record), HARVEST_STASH_BAD_RECORD);
    expect_code(write_by(SEND, &plain), 0);
    sql("COMMIT");
    end();
}

/* ---- names ---- */

static void test_table_names(void **state) {
    (void)state;
    static const char *const names[] = {"\"My Schema\".\"Out.\"\"Box\"", "other.outbox", "Other.OutBox", "outbox"};
    static const char *const wrong[] = {"", "a b", "a.b.c", "\"open", "x;y", NULL};
    begin_with(TABLE);
    sql("DROP SCHEMA IF EXISTS \"My Schema\", other CASCADE");
    sql("CREATE SCHEMA \"My Schema\"; CREATE TABLE \"My Schema\".\"Out.\"\"Box\" (LIKE outbox INCLUDING ALL); "
        "CREATE SCHEMA other; CREATE TABLE other.outbox (LIKE outbox INCLUDING ALL)");
    sql("BEGIN");
    for (size_t i = 0; i < 4; i++) { /* prepared side by side on one connection */
        struct harvest_stash *stash;
        assert_int_equal(harvest_stash_new(names[i], &stash, &b.err), 0);
        expect_code(harvest_stash_prepare(stash, b.conn, &b.err), 0);
        expect_code(harvest_stash_write_prepared(stash, b.conn, &plain, &b.err), 0);
        expect_code(harvest_stash_write(stash, b.conn, &plain, &b.err), 0);
        harvest_stash_free(stash);
    }
    sql("COMMIT");
    char *counts = admin_value(b.conn, "SELECT (SELECT count(*) FROM \"My Schema\".\"Out.\"\"Box\") || ' ' || "
                                       "(SELECT count(*) FROM other.outbox) || ' ' || (SELECT count(*) FROM outbox)");
    assert_string_equal(counts, "2 4 2");
    free(counts);
    for (size_t i = 0; i < 6; i++) {
        struct harvest_stash *none = NULL;
        b.err.text[0] = 0;
        expect_code(harvest_stash_new(wrong[i], &none, &b.err), HARVEST_STASH_NOT_SENT);
        assert_true(none == NULL && b.err.text[0] != 0);
    }
    harvest_stash_free(NULL);

    sql("SET search_path = other");
    sql("TRUNCATE other.outbox");
    sql("BEGIN");
    expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), 0); /* the fourth of above: the name leads elsewhere now */
    expect_code(write_by(PREPARED, &plain), 0);
    expect_code(write_by(WRITE, &plain), 0);
    sql("COMMIT");
    assert_int_equal(rows(), 2);
    sql("DROP SCHEMA \"My Schema\", other CASCADE");
    end();
}

/* ---- preparing ---- */

static void test_prepared_lives_with_the_session(void **state) {
    (void)state;
    begin_with(TABLE);
    struct harvest_stash *twin;
    assert_int_equal(harvest_stash_new("OUTBOX", &twin, &b.err), 0);
    expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), 0); /* without a transaction */
    for (int i = 0; i < 3; i++) {
        sql("BEGIN");
        expect_code(harvest_stash_prepare(i == 1 ? twin : b.stash, b.conn, &b.err), 0);
        expect_code(harvest_stash_write_prepared(twin, b.conn, &plain, &b.err), 0);
        expect_code(write_by(PREPARED, &plain), 0);
        sql(i == 0 ? "ROLLBACK" : "COMMIT");
    }
    char *prepared = admin_value(b.conn, "SELECT count(*) FROM pg_prepared_statements");
    assert_string_equal(prepared, "1");
    free(prepared);
    assert_int_equal(rows(), 4);

    sql("DISCARD ALL");
    sql("BEGIN");
    expect_code(write_by(PREPARED, &plain), HARVEST_STASH_FAILED);
    expect_text("26000");
    sql("ROLLBACK");
    sql("BEGIN");
    expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), 0);
    expect_code(write_by(PREPARED, &plain), 0);
    expect_code(harvest_stash_send_prepare(b.stash, b.conn, &b.err), 0);
    expect_code(settle(), HARVEST_STASH_FAILED);
    expect_text("once is enough");
    sql("ROLLBACK");
    harvest_stash_free(twin);
    end();
}

static void test_a_foreign_statement_of_that_name_is_not_used(void **state) {
    (void)state;
    begin_with(TABLE);
    expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), 0);
    char *name = admin_value(b.conn, "SELECT name FROM pg_prepared_statements"), text[200];
    snprintf(text, sizeof text, "DEALLOCATE %s; PREPARE %s AS SELECT 1", name, name);
    sql(text);
    expect_code(harvest_stash_prepare(b.stash, b.conn, &b.err), HARVEST_STASH_NOT_SENT);
    expect_text(name);
    free(name);
    end();
}

static void test_column_types_that_change(void **state) {
    (void)state;
    begin_with(TABLE);
    for (enum form form = WRITE; form <= SEND; form++) {
        sql(TABLE);
        sql("DEALLOCATE ALL");
        prepare_for(form);
        sql("BEGIN");
        expect_code(write_by(form, &plain), 0);
        sql("COMMIT");
        sql("ALTER TABLE outbox ALTER kafka_value TYPE bytea USING NULL");
        sql("BEGIN");
        expect_code(write_by(form, &plain), form == PREPARED ? HARVEST_STASH_FAILED : 0);
        if (form == PREPARED) {
            expect_text("42804");
        } else {
            expect_last_row("changed", &plain);
        }
        sql("ROLLBACK");
    }
    end();
}

/* ---- pipelines ---- */

static int next_verdict(void) {
    PGresult *result = PQgetResult(b.conn);
    int verdict = harvest_stash_judge(b.stash, result, &b.err);
    PQclear(result);
    assert_null(PQgetResult(b.conn));
    return verdict;
}

static void expect_sync(void) {
    PGresult *result = PQgetResult(b.conn);
    assert_int_equal(PQresultStatus(result), PGRES_PIPELINE_SYNC);
    PQclear(result);
}

static void send_text(const char *text) {
    assert_int_equal(PQsendQueryParams(b.conn, text, 0, NULL, NULL, NULL, NULL, 0), 1);
}

static void test_pipeline(void **state) {
    (void)state;
    begin_with(TABLE);
    struct harvest_stash_record bad = plain;
    bad.value = (struct harvest_stash_bytes){"\0", 1};
    assert_int_equal(PQenterPipelineMode(b.conn), 1);
    expect_not_sent("pipeline", true);
    expect_code(harvest_stash_send(b.stash, b.conn, &plain, &b.err), HARVEST_STASH_NOT_SENT);
    expect_text("BEGIN first");

    send_text("BEGIN");
    expect_code(harvest_stash_send_prepare(b.stash, b.conn, &b.err), 0);
    for (int i = 0; i < 100; i++) {
        expect_code(harvest_stash_send_prepared(b.stash, b.conn, &plain, &b.err), 0);
    }
    expect_code(harvest_stash_send(b.stash, b.conn, &plain, &b.err), 0);
    send_text("COMMIT");
    assert_int_equal(PQpipelineSync(b.conn), 1);
    for (int i = 0; i < 104; i++) {
        expect_code(next_verdict(), 0);
    }
    expect_sync();

    send_text("BEGIN");
    expect_code(harvest_stash_send_prepared(b.stash, b.conn, &plain, &b.err), 0);
    expect_code(harvest_stash_send_prepared(b.stash, b.conn, &bad, &b.err), 0);
    expect_code(harvest_stash_send_prepared(b.stash, b.conn, &plain, &b.err), 0);
    assert_int_equal(PQpipelineSync(b.conn), 1);
    expect_code(next_verdict(), 0);
    expect_code(next_verdict(), 0);
    expect_code(next_verdict(), HARVEST_STASH_FAILED);
    expect_text("22021");
    expect_code(harvest_stash_send_prepared(b.stash, b.conn, &plain, &b.err), HARVEST_STASH_NOT_SENT);
    expect_text("pipeline failed");
    expect_code(next_verdict(), HARVEST_STASH_FAILED);
    expect_text("earlier statement");
    expect_sync();
    assert_int_equal(PQexitPipelineMode(b.conn), 1);
    expect_not_sent("ROLLBACK", false);
    sql("ROLLBACK");
    assert_int_equal(rows(), 101);
    end();
}

static void test_judging_what_is_no_write(void **state) {
    (void)state;
    begin_with(TABLE);
    PGresult *result = PQexec(b.conn, "SELECT 1");
    expect_code(harvest_stash_judge(b.stash, result, &b.err), HARVEST_STASH_FAILED);
    expect_text("another statement");
    PQclear(result);
    expect_code(harvest_stash_judge(b.stash, NULL, &b.err), HARVEST_STASH_FAILED);
    end();
}

/* ---- encodings ---- */

static void expect_with_encoding(const char *client, int text_rc, int ascii_rc) {
    struct harvest_stash_record record = plain;
    record.value = T("süß");
    assert_int_equal(PQsetClientEncoding(b.conn, client), 0);
    for (enum form form = WRITE; form <= SEND; form += SEND - WRITE) {
        sql("BEGIN");
        expect_code(write_by(form, &record), text_rc);
        if (text_rc == 0) {
            expect_column(client, "kafka_value::bytea", record.value);
        } else {
            expect_text("PQsetClientEncoding");
        }
        expect_code(write_by(form, &plain), ascii_rc);
        sql("ROLLBACK");
    }
}

static void test_client_encodings(void **state) {
    (void)state;
    begin_with(TABLE);
    expect_with_encoding("UTF8", 0, 0);
    expect_with_encoding("SQL_ASCII", 0, 0);
    expect_with_encoding("LATIN1", HARVEST_STASH_NOT_SENT, 0);
    expect_with_encoding("SJIS", HARVEST_STASH_NOT_SENT, 0);
    sql(TABLE_BYTEA);
    sql("BEGIN");
    struct harvest_stash_record record = plain;
    record.value = (struct harvest_stash_bytes){"\xff\0", 2};
    harvest_stash_learn(b.stash, b.conn, &b.err);
    expect_code(write_by(WRITE, &record), 0);
    expect_last_row("bytea, SJIS", &record);
    sql("COMMIT");
    end();
}

static void with_database(const char *encoding, void (*act)(void)) {
    char text[200];
    PGconn *admin = admin_open(conninfo_with(""));
    admin_sql(admin, "DROP DATABASE IF EXISTS stash_other");
    snprintf(text, sizeof text, "CREATE DATABASE stash_other TEMPLATE template0 LOCALE 'C' ENCODING '%s'", encoding);
    admin_sql(admin, text);
    begin_at("dbname=stash_other client_encoding=UTF8", TABLE);
    act();
    end();
    admin_sql(admin, "DROP DATABASE stash_other WITH (FORCE)");
    admin_close(admin);
}

static void without_encoding(void) {
    expect_with_encoding("UTF8", 0, 0);
    expect_with_encoding("SQL_ASCII", 0, 0);
    expect_with_encoding("LATIN1", 0, 0);
}

static void in_latin1(void) {
    struct harvest_stash_record record = plain;
    record.value = T("süß");
    sql("BEGIN");
    expect_code(write_by(WRITE, &record), 0); /* harvestd reads it back as UTF-8 */
    expect_column("latin1", "kafka_value", record.value);
    record.value = T("漢");
    expect_code(write_by(WRITE, &record), HARVEST_STASH_FAILED);
    expect_text("22P05");
    sql("ROLLBACK");
    expect_with_encoding("LATIN1", HARVEST_STASH_NOT_SENT, 0);
    expect_with_encoding("SQL_ASCII", HARVEST_STASH_NOT_SENT, 0);
}

static void test_database_encodings(void **state) {
    (void)state;
    with_database("SQL_ASCII", without_encoding);
    with_database("LATIN1", in_latin1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_arrive_as_they_were_given),
        cmocka_unit_test(test_bytea_headers_and_json),
        cmocka_unit_test(test_large_values),
        cmocka_unit_test(test_refused_outside_of_a_transaction),
        cmocka_unit_test(test_copy_is_left_alone),
        cmocka_unit_test(test_lost_and_missing_connections),
        cmocka_unit_test(test_bad_records_leave_the_transaction_alone),
        cmocka_unit_test(test_limits_are_looked_up_again),
        cmocka_unit_test(test_tables_that_do_not_fit),
        cmocka_unit_test(test_domains_and_views),
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_refused_by_the_server),
        cmocka_unit_test(test_zero_bytes_that_only_the_server_can_see),
        cmocka_unit_test(test_table_names),
        cmocka_unit_test(test_prepared_lives_with_the_session),
        cmocka_unit_test(test_a_foreign_statement_of_that_name_is_not_used),
        cmocka_unit_test(test_column_types_that_change),
        cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_judging_what_is_no_write),
        cmocka_unit_test(test_client_encodings),
        cmocka_unit_test(test_database_encodings),
    };
    cmocka_set_test_filter(getenv("HV_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
