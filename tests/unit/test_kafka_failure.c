/* io/kafka_failure: what stays the same of librdkafka's complaints, what only follows from them, what to do. */
#include <string.h>

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/kafka_failure.h"

static void assert_cleaned(const char *reason, const char *expected) {
    char out[512];
    assert_string_equal(hv_kafka_clean_reason(reason, out, sizeof out), expected);
}

static void what_changes_is_left_out(void **state) {
    (void)state;
    assert_cleaned("sasl_ssl://a:1/bootstrap: SASL authentication error: no (after 350ms in state AUTH_REQ, 2 identical error(s) "
                   "suppressed)",
                   "sasl_ssl://a:1: SASL authentication error: no");
    assert_cleaned("ssl://a:1/17: x: y/z", "ssl://a:1: x: y/z");
    assert_cleaned("[thrd:ssl://a:1/bootstrap]: ssl://a:1/bootstrap: Certificate (subject=/CN=b, issuer=/CN=c) verification "
                   "callback failed: it has expired",
                   "ssl://a:1: Certificate (subject=/CN=b, issuer=/CN=c) is refused: it has expired");
    assert_cleaned("127.0.0.1:9092/bootstrap: Connect failed (after 0ms in state CONNECT)", "127.0.0.1:9092: Connect failed");
    assert_cleaned("1/1 brokers are down", "1/1 brokers are down");
    assert_cleaned("", "");
    assert_cleaned("GroupCoordinator: a:1: Disconnected", "GroupCoordinator: a:1: Disconnected");
    assert_cleaned("x://y", "x://y");
    assert_cleaned("see http://a/b c: d", "see http://a/b c: d");
    assert_cleaned("[thrd:", "[thrd:");
}

static void a_long_reason_is_cut(void **state) {
    (void)state;
    char out[12];
    assert_string_equal(hv_kafka_clean_reason("ssl://abcdefghijklmnop/1: x", out, sizeof out), "ssl://abcde");
}

static void what_follows_is_known(void **state) {
    (void)state;
    assert_true(hv_kafka_is_consequence(RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "1/1 brokers are down"));
    assert_true(hv_kafka_is_consequence(RD_KAFKA_RESP_ERR__SSL, "SSL handshake failed: certificate verify failed"));
    assert_false(hv_kafka_is_consequence(RD_KAFKA_RESP_ERR__AUTHENTICATION, "SASL authentication error"));
    assert_false(hv_kafka_is_consequence(0, "Certificate (...) is refused: it has expired"));
    assert_true(hv_kafka_log_is_trouble("SSLCERTVRFY"));
    assert_false(hv_kafka_log_is_trouble("FAIL"));
}

static void advice_fits(void **state) {
    (void)state;
    assert_non_null(strstr(hv_kafka_advice(RD_KAFKA_RESP_ERR__AUTHENTICATION, "x"), "sasl.password"));
    assert_non_null(strstr(hv_kafka_advice(0, "is refused: it has expired"), "renew"));
    assert_non_null(strstr(hv_kafka_advice(RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "2/2"), "security.protocol"));
    assert_non_null(strstr(hv_kafka_advice(RD_KAFKA_RESP_ERR__RESOLVE, "x"), "host names"));
    assert_null(hv_kafka_advice(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, "x"));
}

/* Each row of the table, and that the others are passing. */
static void failures_have_classes(void **state) {
    (void)state;
    static const int oversize[] = {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
                                   RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE};
    static const int record[] = {RD_KAFKA_RESP_ERR_INVALID_MSG, RD_KAFKA_RESP_ERR_INVALID_RECORD, RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
                                 RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, RD_KAFKA_RESP_ERR__INVALID_ARG, RD_KAFKA_RESP_ERR__BAD_MSG,
                                 RD_KAFKA_RESP_ERR__BAD_COMPRESSION};
    static const int destination[] = {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                      RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
                                      RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
                                      RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE, RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS};
    static const int client[] = {RD_KAFKA_RESP_ERR__FATAL, RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE, RD_KAFKA_RESP_ERR__STATE,
                                 RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER,
                                 RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH};
    static const int cluster[] = {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__RESOLVE,
                                  RD_KAFKA_RESP_ERR__AUTHENTICATION, RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__MSG_TIMED_OUT,
                                  RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
                                  RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                  RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
                                  RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
                                  RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED};
    static const int passing[] = {RD_KAFKA_RESP_ERR_UNKNOWN, RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, 12345, -12345};
    static const struct {
        const int *codes;
        size_t count;
        enum hv_kafka_class of;
    } all[] = {{oversize, sizeof oversize / sizeof *oversize, HV_KAFKA_OVERSIZE},
               {record, sizeof record / sizeof *record, HV_KAFKA_RECORD},
               {destination, sizeof destination / sizeof *destination, HV_KAFKA_DESTINATION},
               {client, sizeof client / sizeof *client, HV_KAFKA_CLIENT},
               {cluster, sizeof cluster / sizeof *cluster, HV_KAFKA_CLUSTER},
               {passing, sizeof passing / sizeof *passing, HV_KAFKA_PASSING}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        for (size_t k = 0; k < all[i].count; k++) {
            assert_int_equal(hv_kafka_class_of(all[i].codes[k]), all[i].of);
            assert_true((strcmp(hv_kafka_label_of(all[i].codes[k]), "unknown") == 0) == (all[i].of == HV_KAFKA_PASSING));
        }
    }
}

#define TEST(name) cmocka_unit_test(name)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_changes_is_left_out),
        TEST(a_long_reason_is_cut),
        TEST(what_follows_is_known),
        TEST(advice_fits),
        TEST(failures_have_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
