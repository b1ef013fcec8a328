/* What users may set of Kafka's clients, what not, and what each client ends up with. */
#include "kafka_bed.h"

#include <stdlib.h>
#include <string.h>

static void takes(enum hv_kafka_role role, const char *name, const char *value) {
    struct hv_error err = {""};
    struct hv_kafka_property p = {name, value};
    if (hv_kafka_property_check(role, &p, &err) != 0) {
        fail_msg("%s=%s was refused: %s", name, value, err.text);
    }
}

/* The message names the property and holds `why`. */
static void refuses(enum hv_kafka_role role, const char *name, const char *value, const char *why) {
    struct hv_error err = {""};
    struct hv_kafka_property p = {name, value};
    if (hv_kafka_property_check(role, &p, &err) != -1) {
        fail_msg("%s=%s was taken", name, value);
    }
    if (strstr(err.text, name) == NULL || strstr(err.text, why) == NULL) {
        fail_msg("%s=%s: the message says nothing of '%s': %s", name, value, why, err.text);
    }
}

static void test_takes_what_is_free(void **state) {
    (void)state;
    takes(HV_KAFKA_SHARED, "bootstrap.servers", "a:1,b:2");
    takes(HV_KAFKA_SHARED, "security.protocol", "ssl");
    takes(HV_KAFKA_SHARED, "fetch.min.bytes", "10");  /* consumers' */
    takes(HV_KAFKA_SHARED, "batch.num.messages", "5"); /* producers' */
    takes(HV_KAFKA_SHARED, "debug", "broker");
    takes(HV_KAFKA_SHARED, "client.id", "me");
    takes(HV_KAFKA_RECORDS, "partitioner", "consistent_random");
    takes(HV_KAFKA_RECORDS, "compression.type", "zstd");
    takes(HV_KAFKA_RECORDS, "linger.ms", "0");
    takes(HV_KAFKA_RECORDS, "linger.ms", "20");
    takes(HV_KAFKA_RECORDS, "message.timeout.ms", "0");
    takes(HV_KAFKA_RECORDS, "delivery.timeout.ms", "120000");
    takes(HV_KAFKA_RECORDS, "max.in.flight", "1");
    takes(HV_KAFKA_RECORDS, "message.max.bytes", "5000000");
    takes(HV_KAFKA_ELECTION_CONSUMER, "fetch.wait.max.ms", "100");
}

static void test_takes_what_is_so_anyway(void **state) {
    (void)state;
    takes(HV_KAFKA_RECORDS, "enable.idempotence", "true");
    takes(HV_KAFKA_RECORDS, "acks", "all");
    takes(HV_KAFKA_RECORDS, "acks", "-1");
    takes(HV_KAFKA_RECORDS, "retries", "2147483647");
    takes(HV_KAFKA_ELECTION_CONSUMER, "enable.auto.commit", "false");
    takes(HV_KAFKA_ELECTION_CONSUMER, "auto.offset.reset", "latest");
}

static void test_refuses_what_order_depends_on(void **state) {
    (void)state;
    const enum hv_kafka_role roles[] = {HV_KAFKA_RECORDS, HV_KAFKA_SHARED, HV_KAFKA_SUSPECTS};
    for (int i = 0; i < 3; i++) {
        refuses(roles[i], "enable.idempotence", "false", "order");
        refuses(roles[i], "enable.gapless.guarantee", "false", "order");
        refuses(roles[i], "acks", "1", "acknowledged");
        refuses(roles[i], "request.required.acks", "0", "acknowledged");
        refuses(roles[i], "max.in.flight.requests.per.connection", "6", "order");
        refuses(roles[i], "max.in.flight", "100", "order");
        refuses(roles[i], "retries", "0", "order");
        refuses(roles[i], "queuing.strategy", "lifo", "order");
        refuses(roles[i], "linger.ms", "20.5", "spins");
        refuses(roles[i], "queue.buffering.max.ms", "100", "spins");
        refuses(roles[i], "message.timeout.ms", "1000", "fail-over");
        refuses(roles[i], "delivery.timeout.ms", "29999", "fail-over");
        refuses(roles[i], "transactional.id", "x", "transactions");
        refuses(roles[i], "delivery.report.only.error", "true", "reported");
        refuses(roles[i], "enabled_events", "1", "events");
        refuses(roles[i], "log.queue", "false", "queue");
        refuses(roles[i], "statistics.interval.ms", "1000", "statistics");
    }
}

static void test_refuses_what_the_election_needs(void **state) {
    (void)state;
    const enum hv_kafka_role roles[] = {HV_KAFKA_ELECTION_CONSUMER, HV_KAFKA_SHARED};
    for (int i = 0; i < 2; i++) {
        refuses(roles[i], "group.id", "x", "leader_group_id");
        refuses(roles[i], "partition.assignment.strategy", "roundrobin", "leader_assignor");
        refuses(roles[i], "session.timeout.ms", "45000", "heartbeat_timeout");
        refuses(roles[i], "heartbeat.interval.ms", "1", "heartbeat_timeout");
        refuses(roles[i], "max.poll.interval.ms", "10000", "heartbeat_timeout");
        refuses(roles[i], "group.instance.id", "x", "static membership");
        refuses(roles[i], "enable.auto.commit", "true", "offsets");
        refuses(roles[i], "enable.auto.offset.store", "true", "offsets");
        refuses(roles[i], "auto.offset.reset", "earliest", "offsets");
        refuses(roles[i], "isolation.level", "read_committed", "transactions");
    }
}

static void test_refuses_what_is_nonsense(void **state) {
    (void)state;
    refuses(HV_KAFKA_SHARED, "no.such.property", "1", "no such property");
    refuses(HV_KAFKA_RECORDS, "fetch.min.bytes", "1", "[kafka.consumer]");
    refuses(HV_KAFKA_ELECTION_CONSUMER, "linger.ms", "1", "[kafka.producer]");
    refuses(HV_KAFKA_SHARED, "socket.timeout.ms", "soon", "socket.timeout.ms");
    refuses(HV_KAFKA_SHARED, "compression.type", "rar", "rar");
    refuses(HV_KAFKA_SHARED, "dr_cb", "1", "dr_cb");
    refuses(HV_KAFKA_SHARED, "", "1", "");
}

static void test_keeps_secrets(void **state) {
    (void)state;
    struct hv_error err = {""};
    struct hv_kafka_property p = {"ssl.key.password.", "hunter2"};
    assert_int_equal(hv_kafka_property_check(HV_KAFKA_SHARED, &p, &err), -1);
    assert_null(strstr(err.text, "hunter2"));
    p = (struct hv_kafka_property){"sasl.password", "hunter2"};
    assert_int_equal(hv_kafka_property_check(HV_KAFKA_SHARED, &p, &err), 0);
}

/* ---- what is made ---- */

static void expect(const rd_kafka_conf_t *conf, const char *name, const char *value) {
    char is[512] = "";
    size_t size = sizeof is;
    assert_int_equal(rd_kafka_conf_get(conf, name, is, &size), RD_KAFKA_CONF_OK);
    if (strcmp(is, value) != 0) {
        fail_msg("%s is %s, not %s", name, is, value);
    }
}

static rd_kafka_conf_t *make(enum hv_kafka_role role, const struct hv_kafka_properties *base,
                             const struct hv_kafka_properties *specific, const struct hv_kafka_properties *own) {
    struct hv_error err = {""};
    rd_kafka_conf_t *conf;
    if (hv_kafka_conf_make(role, "me", base, specific, own, &conf, &err) != 0) {
        fail_msg("%s", err.text);
    }
    return conf;
}

static void test_makes_each_client(void **state) {
    (void)state;
    /* Base properties of all kinds: each client takes what concerns it. */
    struct hv_kafka_property b[] = {
        {"bootstrap.servers", "a:1"}, {"message.max.bytes", "5000000"}, {"fetch.min.bytes", "7"},
        {"compression.type", "zstd"}, {"enable.idempotence", "true"},   {"enable.gapless.guarantee", "true"},
        {"acks", "all"},              {"message.timeout.ms", "60000"},
    };
    struct hv_kafka_property s[] = {{"bootstrap.servers", "b:2"}, {"linger.ms", "1"}};
    struct hv_kafka_property o[] = {{"message.timeout.ms", "777"}};
    struct hv_kafka_property g[] = {{"group.id", "group"}};
    struct hv_kafka_properties base = {b, 8}, specific = {s, 2}, own = {o, 1}, group = {g, 1};

    rd_kafka_conf_t *conf = make(HV_KAFKA_RECORDS, &base, &specific, NULL);
    expect(conf, "bootstrap.servers", "b:2"); /* the later one */
    expect(conf, "client.id", "me");
    expect(conf, "enable.idempotence", "true");
    expect(conf, "enable.gapless.guarantee", "true");
    expect(conf, "request.required.acks", "-1");
    expect(conf, "linger.ms", "1");
    expect(conf, "compression.codec", "zstd");
    expect(conf, "message.timeout.ms", "60000");
    expect(conf, "partitioner", "murmur2_random");
    expect(conf, "socket.timeout.ms", "5000");
    expect(conf, "reconnect.backoff.max.ms", "1000");
    rd_kafka_conf_destroy(conf);

    conf = make(HV_KAFKA_SUSPECTS, &base, &specific, NULL);
    expect(conf, "enable.idempotence", "true");
    expect(conf, "enable.gapless.guarantee", "false");
    expect(conf, "batch.num.messages", "16");
    expect(conf, "linger.ms", "1");
    rd_kafka_conf_destroy(conf);

    conf = make(HV_KAFKA_ELECTION_PRODUCER, &base, NULL, &own);
    expect(conf, "bootstrap.servers", "a:1");
    expect(conf, "enable.idempotence", "false");
    expect(conf, "enable.gapless.guarantee", "false");
    expect(conf, "request.required.acks", "1");
    expect(conf, "linger.ms", "0");
    expect(conf, "message.timeout.ms", "777");
    rd_kafka_conf_destroy(conf);

    conf = make(HV_KAFKA_ELECTION_CONSUMER, &base, NULL, &group);
    expect(conf, "fetch.min.bytes", "7");
    expect(conf, "message.max.bytes", "65536");
    expect(conf, "group.id", "group");
    expect(conf, "enable.auto.commit", "false");
    expect(conf, "auto.offset.reset", "largest");
    expect(conf, "allow.auto.create.topics", "false");
    rd_kafka_conf_destroy(conf);
}

static void test_the_user_overrides_defaults(void **state) {
    (void)state;
    struct hv_kafka_property s[] = {{"client.id", "other"}, {"partitioner", "consistent"}, {"socket.timeout.ms", "9000"}};
    struct hv_kafka_properties specific = {s, 3};
    rd_kafka_conf_t *conf = make(HV_KAFKA_RECORDS, NULL, &specific, NULL);
    expect(conf, "client.id", "other");
    expect(conf, "partitioner", "consistent");
    expect(conf, "socket.timeout.ms", "9000");
    rd_kafka_conf_destroy(conf);
}

static void test_making_checks_again(void **state) {
    (void)state;
    struct hv_kafka_property s[] = {{"acks", "1"}};
    struct hv_kafka_properties bad = {s, 1};
    struct hv_error err = {""};
    rd_kafka_conf_t *conf = NULL;
    assert_int_equal(hv_kafka_conf_make(HV_KAFKA_RECORDS, "me", NULL, &bad, NULL, &conf, &err), -1);
    assert_non_null(strstr(err.text, "acks"));
    assert_int_equal(hv_kafka_conf_make(HV_KAFKA_ELECTION_PRODUCER, "me", &bad, NULL, NULL, &conf, &err), -1);
    assert_null(conf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_what_is_free),
        cmocka_unit_test(test_takes_what_is_so_anyway),
        cmocka_unit_test(test_refuses_what_order_depends_on),
        cmocka_unit_test(test_refuses_what_the_election_needs),
        cmocka_unit_test(test_refuses_what_is_nonsense),
        cmocka_unit_test(test_keeps_secrets),
        cmocka_unit_test(test_makes_each_client),
        cmocka_unit_test(test_the_user_overrides_defaults),
        cmocka_unit_test(test_making_checks_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
