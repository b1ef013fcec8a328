/* What becomes of records between us and librdkafka's queues, against its mock cluster: a topic that librdkafka forgets (its metadata is too
 * old, since brokers were away for long), and the lane of suspects after a refusal. */
#include "kafka_bed.h"

#include <string.h>

enum { PRODUCE = 0 }; /* an ApiKey */

static struct reports reports; /* large */
static struct bed bed;

static void send_many(struct hv_producer *p, uint64_t from, uint64_t to) {
    struct hv_record record = bed_record("topic", "key", "value", 5);
    struct hv_error err = {""};
    for (uint64_t i = from; i < to; i++) {
        assert_int_equal(hv_producer_send(p, bed_keep(&bed, &record), i, false, &err), HV_SENT);
    }
    hv_producer_flush(p);
}

static bool has_logged(void *arg) {
    return ((struct reports *)arg)->awaited_logs > 0;
}

/* Its partition is proven. Then what librdkafka knows of the topic is a second old, which is too old here, and it asks anew, which takes a
 * second, too, and brings this answer. */
static struct hv_producer *forget_topic(enum hv_kafka_role role, rd_kafka_resp_err_t answer) {
    static const struct hv_kafka_property more[] = {{"topic.metadata.refresh.interval.ms", "-1"}, {"metadata.max.age.ms", "1000"},
        {"topic.metadata.propagation.max.ms", "100"}, {"debug", "topic"}};
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, role, &reports, more, 4);
    send_many(p, 0, 1);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    assert_int_equal(reports.delivered, 1);
    rd_kafka_mock_topic_set_error(bed.cluster, "topic", answer);
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 1000);
    reports.awaited_log = "metadata information timed out";
    bed_until(&bed, has_logged, &reports, HV_SECONDS(20), "the topic was forgotten");
    return p;
}

/* Records that are given meanwhile go to their partition once it is known again: whole batches, and nothing is rewound. */
static void test_a_forgotten_topic_is_remembered(void **state) {
    (void)state;
    struct hv_producer *p = forget_topic(HV_KAFKA_RECORDS, RD_KAFKA_RESP_ERR_NO_ERROR);
    send_many(p, 1, 101);
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 0);
    bed_reports(&bed, &reports, 101, HV_SECONDS(30));
    assert_int_equal(reports.delivered, 101);
    assert_int_equal(reports.fatal, 0);
    hv_producer_close(p);
    bed_close(&bed);
}

/* Or are refused, if it is gone; when it is back there is room for others. */
static void test_a_forgotten_topic_is_gone(void **state) {
    (void)state;
    struct hv_producer *p = forget_topic(HV_KAFKA_SUSPECTS, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    send_many(p, 1, 17);
    bed_reports(&bed, &reports, 17, HV_SECONDS(30));
    assert_int_equal(reports.refused, 16);
    rd_kafka_mock_topic_set_error(bed.cluster, "topic", RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 0);
    uint64_t next = 17;
    for (int i = 0; i < 200 && reports.delivered == 1; i++, next += 16) { /* each that is refused leads to a question */
        send_many(p, next, next + 16);
        bed_reports(&bed, &reports, next + 16, HV_SECONDS(30));
        bed_run_for(&bed, HV_MS(50));
    }
    assert_true(reports.delivered > 1); /* it may come back between two records */
    hv_producer_close(p);
    bed_close(&bed);
}

/* A refusal is everyday business of suspects: they share requests afterwards as before. Who gives them may be interrupted, then fewer do. */
static void test_suspects_share_requests_after_a_refusal(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_SUSPECTS, &reports, NULL, 0);
    uint64_t next = 1;
    send_many(p, 0, next);
    bed_reports(&bed, &reports, next, HV_SECONDS(20));
    size_t together = 0;
    for (int i = 0; i < 20 && together < 16; i++, next += 16) {
        size_t before = reports.refused;
        rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_INVALID_RECORD);
        send_many(p, next, next + 16);
        bed_reports(&bed, &reports, next + 16, HV_SECONDS(30));
        together = i == 0 ? 0 : reports.refused - before;
    }
    assert_int_equal(together, 16);
    hv_producer_close(p);
    bed_close(&bed);
}

int main(void) {
    static const struct bed_test tests[] = {
        {"test_a_forgotten_topic_is_remembered", test_a_forgotten_topic_is_remembered},
        {"test_a_forgotten_topic_is_gone", test_a_forgotten_topic_is_gone},
        {"test_suspects_share_requests_after_a_refusal", test_suspects_share_requests_after_a_refusal},
    };
    return bed_run_side_by_side(tests, sizeof tests / sizeof tests[0]);
}
