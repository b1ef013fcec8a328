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

#define TEST(name) cmocka_unit_test(name)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_changes_is_left_out),
        TEST(a_long_reason_is_cut),
        TEST(what_follows_is_known),
        TEST(advice_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
