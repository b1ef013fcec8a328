/* rt/settings: the table, single values, what depends on several, secrets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/pg_dsn.h"
#include "rt/settings.h"

static int setup(void **state) {
    struct hv_settings *settings = calloc(1, sizeof *settings);
    hv_settings_init(settings);
    *state = settings;
    return 0;
}

static int teardown(void **state) {
    hv_settings_free(*state);
    free(*state);
    return 0;
}

static void defaults_are_goharvests_except_for_speed(void **state) {
    const struct hv_settings *s = *state;
    assert_string_equal(s->data_source,
                        "host=localhost port=5432 user=postgres dbname=postgres sslmode=disable");
    assert_string_equal(s->outbox_table, "outbox");
    assert_string_equal(s->leader_group_id, "harvestd");
    assert_int_equal(s->leader_assignor, HV_COOPERATIVE_STICKY);
    assert_int_equal(s->min_poll_interval, HV_MS(100));
    assert_int_equal(s->heartbeat_timeout, HV_SECONDS(5));
    assert_int_equal(s->queue_timeout, HV_SECONDS(30));
    assert_int_equal(s->mark_backoff, HV_MS(10));
    assert_int_equal(s->wakeup, HV_WAKE_BY_POLL);
    assert_int_equal(s->io_error_backoff, HV_MS(500));
    assert_int_equal(s->io_error_backoff_max, HV_SECONDS(10));
    assert_int_equal(s->blocked_backoff_max, HV_SECONDS(30));
    assert_int_equal(s->poll_duration, HV_MS(1));
    assert_int_equal(s->min_metrics_interval, HV_SECONDS(5));
    assert_int_equal(s->connect_timeout, HV_SECONDS(10));
    assert_int_equal(s->statement_timeout, HV_SECONDS(30));
    assert_int_equal(s->drain_timeout, HV_SECONDS(10));
    assert_int_equal(s->rescan_interval, HV_SECONDS(5));
    assert_int_equal(s->max_in_flight_records, 5000);
    assert_int_equal(s->max_in_flight_bytes, 8 << 20);
    assert_int_equal(s->send_concurrency, 64);
    assert_int_equal(s->send_buffer, 2000);
    assert_int_equal(s->mark_query_records, 1000);
    assert_int_equal(s->mark_query_bytes, 1 << 20);
    assert_int_equal(s->purge_query_records, 2000);
    assert_int_equal(s->log_level, HV_INFO);
    assert_int_equal(s->log_format, HV_LOGFMT);
    assert_int_equal(s->kafka.count, 1);
    assert_string_equal(s->kafka.list[0].name, "bootstrap.servers");
    assert_string_equal(s->kafka.list[0].value, "localhost:9092");
    assert_int_equal(s->kafka_producer.count, 0);
    assert_int_equal(s->kafka_consumer.count, 0);
}

/* Each row has a field of its own, a default that is within its range and reads back, and help. */
static void the_table_is_sound(void **state) {
    struct hv_settings *s = *state;
    size_t count;
    const struct hv_setting *table = hv_settings_table(&count);
    assert_true(count >= 29);
    for (size_t i = 0; i < count; i++) {
        const struct hv_setting *row = &table[i];
        char text[200];
        assert_ptr_equal(hv_settings_find(row->section, row->name), row);
        assert_true(strlen(row->help) > 10);
        assert_null(strchr(row->help, '\n'));
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(table[j].offset, row->offset);
        }
        if (row->type != HV_SET_CHOICE) {
            assert_true(row->min <= row->max && row->max > 0);
        }
        if (row->derived) {
            continue;
        }
        assert_int_equal(hv_settings_set(s, row->section, row->name, row->default_text, NULL), 0);
        if (!row->secret) {
            assert_string_equal(hv_settings_text(s, row, text, sizeof text), row->default_text);
        }
    }
}

/* The lowest and the highest value are taken, one below and one above are not and change nothing. */
static void ranges_are_kept_to_the_edge(void **state) {
    struct hv_settings *s = *state;
    size_t count, numbers = 0;
    const struct hv_setting *table = hv_settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        const struct hv_setting *row = &table[i];
        const char *unit = row->type == HV_SET_DURATION ? "us" : "";
        if (row->type == HV_SET_STRING || row->type == HV_SET_CHOICE) {
            continue;
        }
        numbers++;
        for (int side = 0; side < 4; side++) {
            int64_t value = side < 2 ? row->min - side : row->max + side - 2;
            char text[64], before[64], after[64];
            struct hv_error err = {""};
            if (value < 0) {
                continue;
            }
            hv_settings_text(s, row, before, sizeof before);
            snprintf(text, sizeof text, "%lld%s", (long long)value, unit);
            bool fine = side == 0 || side == 2;
            assert_int_equal(hv_settings_set(s, row->section, row->name, text, &err), fine ? 0 : -1);
            hv_settings_text(s, row, after, sizeof after);
            if (!fine) {
                assert_string_equal(before, after);
                assert_non_null(strstr(err.text, row->name));
                assert_non_null(strstr(err.text, "out of range"));
            }
        }
    }
    assert_int_equal(numbers, 21);
}

static const char *refusal(struct hv_settings *s, const char *section, const char *name, const char *value) {
    static struct hv_error err;
    err.text[0] = '\0';
    assert_int_equal(hv_settings_set(s, section, name, value, &err), -1);
    assert_true(err.text[0] != '\0');
    return err.text;
}

#define REFUSED(section, name, value, part)                                                                  \
    assert_non_null(strstr(refusal(*state, section, name, value), part))

static void bad_values(void **state) {
    REFUSED("limits", "mark_backoff", "10", "mark_backoff: '10' is not a duration");
    REFUSED("limits", "mark_backoff", "10 ms", "is not a duration");
    REFUSED("limits", "mark_backoff", "", "is not a duration");
    REFUSED("limits", "mark_backoff", "-10ms", "is not a duration");
    REFUSED("limits", "send_buffer", "many", "send_buffer: 'many' is not a number");
    REFUSED("limits", "send_buffer", "99999999999999999999", "is not a number");
    REFUSED("limits", "max_in_flight_bytes", "8MB", "is not a size");
    REFUSED("limits", "max_in_flight_bytes", "9223372036854775807GiB", "too large");
    REFUSED("log", "level", "verbose", "level: 'verbose' is not one of error, warn, info or debug");
    REFUSED("log", "format", "JSON", "is not one of logfmt or json");
    REFUSED("harvest", "leader_assignor", "sticky", "cooperative-sticky or range");
    REFUSED("harvest", "outbox_table", "", "empty");
    REFUSED("harvest", "outbox_table", "a.b.c", "outbox_table");
    REFUSED("harvest", "outbox_table", "a b", "outbox_table");
    REFUSED("harvest", "name", "a%b", "name");
    REFUSED("harvest", "name", "a\x1b[2Jb", "'a\\x1b[2Jb'");
    REFUSED("harvest", "name", "a\xff", "UTF-8");
    REFUSED("harvest", "leader_group_id", "", "empty");
}

static void topics_that_kafka_cannot_name(void **state) {
    char text[260];
    memset(text, 'a', sizeof text);
    text[250] = '\0';
    REFUSED("harvest", "leader_topic", text, "249");
    text[249] = '\0';
    assert_int_equal(hv_settings_set(*state, "harvest", "leader_topic", text, NULL), 0);
    static const char *const bad[] = {".", "..", "a b", "a/b", "a:b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        REFUSED("harvest", "leader_topic", bad[i], "cannot name a Kafka topic");
    }
    REFUSED("harvest", "leader_topic", "", "empty");
}

static void names_of_the_id_header(void **state) {
    struct hv_settings *s = *state;
    assert_string_equal(s->id_header, "");
    static const char *const good[] = {"id", "outbox-id", "x.y_z 1", "\xd0\xba%", ""};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(hv_settings_set(s, "harvest", "id_header", good[i], NULL), 0);
        assert_string_equal(s->id_header, good[i]);
    }
    char text[260];
    memset(text, 'a', sizeof text);
    text[250] = '\0';
    REFUSED("harvest", "id_header", text, "249");
    REFUSED("harvest", "id_header", "a\nb", "cannot name a header");
    REFUSED("harvest", "id_header", "a\x7f", "control character");
    REFUSED("harvest", "id_header", "a\xff", "UTF-8");
}

static void unknown_names_lead_to_the_nearest(void **state) {
    REFUSED("limits", "mark_bakcoff", "1s", "'mark_bakcoff' in [limits]; did you mean mark_backoff?");
    REFUSED("limits", "minPollInterval", "1s", "did you mean min_poll_interval?"); /* goharvest's spelling */
    REFUSED("harvest", "dataSource", "x", "did you mean data_source?");
    REFUSED("harvest", "mark_backoff", "1s", "did you mean mark_backoff in [limits]?");
    REFUSED("harvest", "bootstrap.servers", "x", "[kafka]");
    REFUSED("limits", "colour", "x", "--help-config");
    REFUSED("limit", "mark_backoff", "1s", "unknown section 'limit'; did you mean [limits]?");
    REFUSED("kafka.producers", "batch.size", "1", "did you mean [kafka.producer]?");
    REFUSED("colour", "x", "1", "there are [harvest]");
    REFUSED("kafka", "bootstrap.server", "x", "did you mean bootstrap.servers?");
}

static void data_sources(void **state) {
    struct hv_settings *s = *state;
    static const char *const good[] = {"host=a,b port=1,2 user=u password='a b\\'c' dbname=d",
                                       "postgresql://u:p%20w@[::1]:5432/d?sslmode=require", "host=a\n port=1",
                                       "service=x"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(hv_settings_set(s, "harvest", "data_source", good[i], NULL), 0);
        assert_string_equal(s->data_source, good[i]);
    }
    REFUSED("harvest", "data_source", "hots=a", "did you mean host?");
    REFUSED("harvest", "data_source", "host=a password='x", "single quote is not closed");
    REFUSED("harvest", "data_source", "host a", "'=' is missing");
    REFUSED("harvest", "data_source", "postgresql://u:100%zz@h/d", "%25");
    REFUSED("harvest", "data_source", "postgresql://[::1/d", "libpq cannot read it");
}

/* libpq's messages quote what it stumbled over, which is part of the password when that was not quoted. */
static void data_source_errors_do_not_tell_the_password(void **state) {
    static const char *const leaky[] = {"host=a password=my Topsecret user=u",
                                        "host=a password=my Topsecret=1",
                                        "host=a password='Topsecret",
                                        "postgresql://u:Topsecret%zz@h/d",
                                        "Topsecret",
                                        "postgresql://u:p@h/d?Topsecret=1"};
    for (size_t i = 0; i < sizeof leaky / sizeof leaky[0]; i++) {
        assert_null(strstr(refusal(*state, "harvest", "data_source", leaky[i]), "Topsecret"));
    }
    char out[200];
    hv_pg_dsn_redact("host=a,b port=1 user=u password=Topsecret dbname=d sslpassword=Topsecret", out,
                     sizeof out);
    assert_string_equal(out, "host=a,b port=1 user=u dbname=d");
    hv_pg_dsn_redact("postgresql://u:Topsecret@h:7/d", out, sizeof out);
    assert_string_equal(out, "host=h port=7 user=u dbname=d");
    assert_string_equal(hv_pg_dsn_redact("Topsecret", out, sizeof out), "");
}

static void secrets_are_known(void **state) {
    (void)state;
    static const char *const secret[] = {"sasl.password",
                                         "ssl.key.password",
                                         "ssl.keystore.password",
                                         "ssl.key.pem",
                                         "sasl.oauthbearer.client.secret",
                                         "sasl.oauthbearer.config"};
    for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++) {
        assert_true(hv_settings_is_secret("kafka", secret[i]));
    }
    assert_false(hv_settings_is_secret("kafka", "bootstrap.servers"));
    assert_true(hv_settings_is_secret("harvest", "data_source"));
    assert_false(hv_settings_is_secret("harvest", "name"));
}

static void secrets_are_not_shown(void **state) {
    char out[64];
    assert_string_equal(hv_settings_text(*state, hv_settings_find("harvest", "data_source"), out, sizeof out),
                        "(secret)");
    assert_null(strstr(refusal(*state, "kafka", "ssl.key.pasword", "Topsecret"), "Topsecret"));
}

static void properties_pass_through(void **state) {
    struct hv_settings *s = *state;
    assert_int_equal(hv_settings_set(s, "kafka", "bootstrap.servers", "a:1,b:2", NULL), 0);
    assert_int_equal(hv_settings_set(s, "kafka", "security.protocol", "ssl", NULL), 0);
    assert_int_equal(s->kafka.count, 2); /* the default was replaced */
    assert_string_equal(s->kafka.list[0].value, "a:1,b:2");
    assert_int_equal(hv_settings_set(s, "kafka", "security.protocol", "plaintext", NULL), 0);
    assert_int_equal(s->kafka.count, 2);
    assert_string_equal(s->kafka.list[1].value, "plaintext");
    assert_int_equal(hv_settings_set(s, "kafka.producer", "compression.type", "zstd", NULL), 0);
    assert_int_equal(s->kafka_producer.count, 1);
    assert_int_equal(hv_settings_set(s, "kafka.consumer", "fetch.wait.max.ms", "500", NULL), 0);
    assert_int_equal(s->kafka_consumer.count, 1);
    REFUSED("kafka.producer", "acks", "1", "acks");
    REFUSED("kafka.producer", "enable.idempotence", "false", "order");
    REFUSED("kafka.consumer", "group.id", "x", "leader_group_id");
    REFUSED("kafka.producer", "batch.size", "lots", "batch.size");
    assert_int_equal(s->kafka_producer.count, 1);
}

/* ---- what depends on several settings ---- */

static struct {
    unsigned count;
    char section[32], name[64], message[300];
} complaint;

static void note(void *user, const char *section, const char *name, const char *message) {
    (void)user;
    complaint.count++;
    snprintf(complaint.section, sizeof complaint.section, "%s", section);
    snprintf(complaint.name, sizeof complaint.name, "%s", name);
    snprintf(complaint.message, sizeof complaint.message, "%s", message);
}

static void set(struct hv_settings *s, const char *section, const char *name, const char *value) {
    assert_int_equal(hv_settings_set(s, section, name, value, NULL), 0);
}

static void derived_defaults(void **state) {
    struct hv_settings *s = *state;
    memset(&complaint, 0, sizeof complaint);
    set(s, "harvest", "leader_group_id", "my-group");
    assert_int_equal(hv_settings_finish(s, note, NULL), 0);
    assert_string_equal(s->leader_topic, "my-group.neli");
    const char *underline = strrchr(s->name, '_');
    assert_non_null(underline);
    assert_true(atoll(underline + 1) > 1700000000);
    assert_true(underline > s->name + 2);
}

static void what_was_set_is_not_derived(void **state) {
    struct hv_settings *s = *state;
    set(s, "harvest", "name", "me");
    set(s, "harvest", "leader_topic", "t");
    set(s, "harvest", "wakeup", "listen");
    set(s, "limits", "idle_backoff_max", "100ms");
    assert_int_equal(hv_settings_finish(s, note, NULL), 0);
    assert_string_equal(s->name, "me");
    assert_string_equal(s->leader_topic, "t");
    assert_int_equal(s->idle_backoff_max, HV_MS(100));
}

static void how_seldom_rows_are_looked_for(void **state) {
    struct hv_settings *s = *state;
    struct hv_settings listening;
    assert_int_equal(hv_settings_finish(s, note, NULL), 0);
    assert_int_equal(s->idle_backoff_max, HV_MS(100));
    hv_settings_init(&listening);
    set(&listening, "harvest", "wakeup", "listen");
    assert_int_equal(hv_settings_finish(&listening, note, NULL), 0);
    assert_int_equal(listening.idle_backoff_max, HV_SECONDS(1));
    hv_settings_free(&listening);
}

static void conflicts(void **state) {
    struct hv_settings *s = *state;
    static const struct {
        const char *name, *value, *culprit;
    } cases[] = {
        {"min_poll_interval", "5s", "min_poll_interval"},
        {"heartbeat_timeout", "100ms", "heartbeat_timeout"},
        {"mark_backoff", "1s", "mark_backoff"},
        {"idle_backoff_max", "5ms", "idle_backoff_max"},
        {"io_error_backoff", "20s", "io_error_backoff"},
        {"blocked_backoff_max", "100ms", "blocked_backoff_max"},
        {"max_in_flight_bytes", "64KiB", "max_in_flight_bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct hv_setting *setting = hv_settings_find("limits", cases[i].name);
        const char *normal = setting->derived ? "100ms" : setting->default_text;
        memset(&complaint, 0, sizeof complaint);
        set(s, "limits", cases[i].name, cases[i].value);
        assert_int_equal(hv_settings_finish(s, note, NULL), 1);
        assert_int_equal(complaint.count, 1);
        assert_string_equal(complaint.section, "limits");
        assert_string_equal(complaint.name, cases[i].culprit);
        assert_non_null(strstr(complaint.message, "has to be"));
        set(s, "limits", cases[i].name, normal);
        assert_int_equal(hv_settings_finish(s, note, NULL), 0);
    }
    set(s, "limits", "mark_backoff", "1s"); /* several at once are all told */
    set(s, "limits", "min_poll_interval", "9s");
    assert_int_equal(hv_settings_finish(s, note, NULL), 2);
}

static void a_group_that_cannot_name_a_topic(void **state) {
    struct hv_settings *s = *state;
    memset(&complaint, 0, sizeof complaint);
    set(s, "harvest", "leader_group_id", "my group");
    assert_int_equal(hv_settings_finish(s, note, NULL), 1);
    assert_string_equal(complaint.name, "leader_group_id");
    assert_non_null(strstr(complaint.message, "leader_topic"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(defaults_are_goharvests_except_for_speed),
        TEST(the_table_is_sound),
        TEST(ranges_are_kept_to_the_edge),
        TEST(bad_values),
        TEST(topics_that_kafka_cannot_name),
        TEST(names_of_the_id_header),
        TEST(unknown_names_lead_to_the_nearest),
        TEST(data_sources),
        TEST(data_source_errors_do_not_tell_the_password),
        TEST(secrets_are_known),
        TEST(secrets_are_not_shown),
        TEST(properties_pass_through),
        TEST(derived_defaults),
        TEST(how_seldom_rows_are_looked_for),
        TEST(what_was_set_is_not_derived),
        TEST(conflicts),
        TEST(a_group_that_cannot_name_a_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
