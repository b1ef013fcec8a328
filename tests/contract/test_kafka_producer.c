/* The record producer against librdkafka's mock cluster: every record is reported once, as what it became; nothing waits that need
 * not; nothing blocks the loop. */
#include "kafka_bed.h"

#include <netdb.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PRODUCE = 0 }; /* an ApiKey */

static struct reports reports; /* large */
static struct bed bed;

static enum hv_send send_one(struct hv_producer *producer, const struct hv_record *record, uint64_t ticket,
                             struct hv_error *err) {
    reports.inside = true;
    enum hv_send result = hv_producer_send(producer, bed_keep(&bed, record), ticket, false, err);
    hv_producer_flush(producer);
    reports.inside = false;
    return result;
}

static void must_send(struct hv_producer *producer, const struct hv_record *record, uint64_t ticket) {
    struct hv_error err = {""};
    enum hv_send result = send_one(producer, record, ticket, &err);
    if (result != HV_SENT) {
        fail_msg("not taken (%d): %s", (int)result, err.text);
    }
}

static int64_t written(const char *topic) {
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", bed.bootstrap, why, sizeof why);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    int64_t sum = 0, low, high;
    for (int32_t n = 0; n < 4; n++) {
        assert_int_equal(rd_kafka_query_watermark_offsets(client, topic, n, &low, &high, 10000), 0);
        sum += high;
    }
    rd_kafka_destroy(client);
    return sum;
}

/* ---- delivering ---- */

struct seen {
    size_t count;
    bool tombstone, empty, headers;
};

static void look(const rd_kafka_message_t *m, struct seen *seen) {
    assert_int_equal(m->err, 0);
    seen->count++;
    if (m->key_len == 4 && memcmp(m->key, "tomb", 4) == 0) {
        assert_null(m->payload);
        seen->tombstone = true;
    } else if (m->key_len == 5 && memcmp(m->key, "empty", 5) == 0) {
        assert_non_null(m->payload);
        assert_int_equal(m->len, 0);
        seen->empty = true;
    } else if (m->key_len == 7 && memcmp(m->key, "headers", 7) == 0) {
        rd_kafka_headers_t *headers;
        const char *name;
        const void *value;
        size_t size;
        assert_int_equal(rd_kafka_message_headers(m, &headers), 0);
        assert_int_equal(rd_kafka_header_cnt(headers), 3);
        assert_int_equal(rd_kafka_header_get_all(headers, 0, &name, &value, &size), 0);
        assert_string_equal(name, "a");
        assert_int_equal(size, 3);
        assert_memory_equal(value, "x\0y", 3);
        assert_int_equal(rd_kafka_header_get_all(headers, 1, &name, &value, &size), 0);
        assert_string_equal(name, "a"); /* the same name twice */
        assert_non_null(value);
        assert_int_equal(size, 0);
        assert_int_equal(rd_kafka_header_get_all(headers, 2, &name, &value, &size), 0);
        assert_string_equal(name, "");
        seen->headers = true;
    } else if (m->key_len == 5 && memcmp(m->key, "bytes", 5) == 0) {
        assert_int_equal(m->len, 5);
        assert_memory_equal(m->payload, "\0\xff\r\n\x80", 5);
    }
}

static struct seen read_topic(const char *topic, size_t count) {
    char why[256];
    struct seen seen = {0};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", bed.bootstrap, NULL, 0);
    rd_kafka_conf_set(conf, "group.id", "reader", NULL, 0);
    rd_kafka_t *reader = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    assert_non_null(reader);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(4);
    for (int i = 0; i < 4; i++) {
        rd_kafka_topic_partition_list_add(list, topic, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
    }
    rd_kafka_assign(reader, list);
    rd_kafka_topic_partition_list_destroy(list);
    hv_time end = hv_loop_clock() + HV_SECONDS(30);
    while (seen.count < count && hv_loop_clock() < end) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(reader, 100);
        if (message != NULL) {
            look(message, &seen);
            rd_kafka_message_destroy(message);
        }
    }
    rd_kafka_destroy(reader);
    assert_int_equal(seen.count, count);
    return seen;
}

static void test_content_arrives_unchanged(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    static const char value[] = "\0\xff\r\n\x80";
    static const struct hv_header headers[] = {
        {"a", (const uint8_t *)"x\0y", 3, 1}, {"a", (const uint8_t *)"", 0, 1}, {"", NULL, 0, 0}};
    struct hv_record record = bed_record("content", "tomb", NULL, 0);
    must_send(p, &record, 0);
    record = bed_record("content", "empty", "", 0);
    must_send(p, &record, UINT64_C(1));
    record = bed_record("content", "bytes", value, 5);
    must_send(p, &record, 2);
    record = bed_record("content", "headers", "v", 1);
    record.headers = headers;
    record.header_count = 3;
    must_send(p, &record, 3);
    bed_reports(&bed, &reports, 4, HV_SECONDS(20));
    assert_int_equal(reports.delivered, 4);
    hv_producer_close(p);
    struct seen seen = read_topic("content", 4);
    assert_true(seen.tombstone && seen.empty && seen.headers);
    bed_close(&bed);
}

static void test_many_are_reported_once_each(void **state) {
    (void)state;
    bed_open(&bed, 3);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    for (uint64_t i = 0; i < 50000; i++) {
        char topic[16], key[16];
        snprintf(topic, sizeof topic, "many-%d", (int)(i % 3));
        snprintf(key, sizeof key, "key-%d", (int)(i % 100));
        struct hv_record record = bed_record(topic, key, "value", 5);
        must_send(p, &record, i);
    }
    bed_reports(&bed, &reports, 50000, HV_SECONDS(60));
    assert_int_equal(reports.delivered, 50000);
    assert_int_equal(reports.fatal, 0);
    hv_producer_close(p);
    bed_close(&bed);
}

/* Left to librdkafka's timer, each first record would wait up to a second (trap 16). */
static void test_first_records_do_not_wait(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    hv_time end = hv_loop_clock() + HV_SECONDS(10);
    for (uint64_t i = 0; i < 40; i++) {
        char topic[16];
        snprintf(topic, sizeof topic, "first-%d", (int)i);
        struct hv_record record = bed_record(topic, "key", "value", 5);
        must_send(p, &record, i);
        bed_reports(&bed, &reports, (size_t)i + 1, end - hv_loop_clock());
    }
    hv_producer_close(p);
    bed_close(&bed);
}

/* More topics than handles are kept. */
static void test_very_many_topics(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    for (uint64_t i = 0; i < 1100; i++) {
        char topic[16];
        snprintf(topic, sizeof topic, "topic-%d", (int)i);
        struct hv_record record = bed_record(topic, "key", "value", 5);
        must_send(p, &record, i);
    }
    bed_reports(&bed, &reports, 1100, HV_SECONDS(60));
    assert_int_equal(reports.delivered, 1100);
    hv_producer_close(p);
    bed_close(&bed);
}

static void test_passing_errors_are_the_clients_affair(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 4, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                      RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
                                      RD_KAFKA_RESP_ERR__TRANSPORT);
    struct hv_record record = bed_record("passing", "key", "value", 5);
    for (uint64_t i = 0; i < 100; i++) {
        must_send(p, &record, i);
    }
    bed_reports(&bed, &reports, 100, HV_SECONDS(60));
    assert_int_equal(reports.delivered, 100);
    hv_producer_close(p);
    bed_close(&bed);
}

/* ---- not taking ---- */

/* The client has no room: records wait here, or are not taken and tried again; each is delivered, once. */
static void test_full_queue(void **state) {
    (void)state;
    struct hv_error err = {""};
    bed_open(&bed, 1);
    const struct hv_kafka_property more[] = {{"queue.buffering.max.messages", "10"}};
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, more, 1);
    struct hv_record record = bed_record("full", "key", "value", 5);
    must_send(p, &record, 0); /* proves the partition */
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    for (uint64_t i = 1; i <= 100; i++) {
        enum hv_send result;
        while ((result = send_one(p, &record, i, &err)) == HV_SEND_FULL) {
            bed_reports(&bed, &reports, reports.count + 1, HV_SECONDS(20));
        }
        assert_int_equal(result, HV_SENT);
    }
    bed_reports(&bed, &reports, 101, HV_SECONDS(20));
    assert_int_equal(reports.delivered, 101);
    hv_producer_close(p);
    bed_close(&bed);
}

static void test_too_large_is_refused_at_once(void **state) {
    (void)state;
    struct hv_error err = {""};
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    static char large[2000000];
    struct hv_header header = {"h", (const uint8_t *)"v", 1, 1};
    struct hv_record record = bed_record("large", "key", large, sizeof large);
    record.headers = &header; /* not leaked when the record is not taken */
    record.header_count = 1;
    assert_int_equal(send_one(p, &record, 1, &err), HV_SEND_REFUSED);
    assert_non_null(strstr(err.text, "too large"));
    record = bed_record("large", "key", "small", 5);
    must_send(p, &record, 2);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    assert_int_equal(reports.delivered, 1);
    hv_producer_close(p);
    bed_close(&bed);
}

struct trier {
    struct hv_producer *producer;
    struct hv_record record;
    uint64_t ticket;
};

/* Tries again whenever the try before was reported. */
static bool is_delivered(void *arg) {
    struct trier *t = arg;
    struct hv_error err = {""};
    if (reports.delivered == 0 && reports.count == t->ticket && send_one(t->producer, &t->record, t->ticket, &err) == HV_SENT) {
        t->ticket++;
    }
    return reports.delivered > 0;
}

static uv_timer_t ticker;
static size_t ticks;

static void on_tick(uv_timer_t *timer) {
    (void)timer;
    ticks++;
}

static void start_ticking(void) {
    ticks = 0;
    uv_timer_init(hv_loop_uv(bed.loop), &ticker);
    uv_timer_start(&ticker, on_tick, 10, 10);
}

static void stop_ticking(void) {
    uv_close((uv_handle_t *)&ticker, NULL);
}

/* A topic that is not there refuses its records, and heals when it is mended; other topics flow. */
static void test_unknown_topic(void **state) {
    (void)state;
    bed_open(&bed, 1);
    const struct hv_kafka_property more[] = {{"topic.metadata.propagation.max.ms", "100"}};
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, more, 1);
    rd_kafka_mock_topic_create(bed.cluster, "bad", 4, 1);
    rd_kafka_mock_topic_set_error(bed.cluster, "bad", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    struct hv_record bad = bed_record("bad", "key", "value", 5), good = bed_record("good", "key", "value", 5);
    must_send(p, &bad, 0);
    must_send(p, &good, 1);
    bed_reports(&bed, &reports, 2, HV_SECONDS(30));
    assert_int_equal(reports.refused, 1);
    assert_int_equal(reports.delivered, 1);
    assert_int_equal(reports.last_code, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    rd_kafka_mock_topic_set_error(bed.cluster, "bad", RD_KAFKA_RESP_ERR_NO_ERROR);
    must_send(p, &bad, 2);
    bed_reports(&bed, &reports, 3, HV_SECONDS(30));
    assert_int_equal(reports.delivered, 2);
    assert_int_equal(reports.fatal, 0);
    hv_producer_close(p);
    bed_close(&bed);
}

/* ---- refusals by the broker ---- */

static bool has_fatal(void *arg) {
    return ((struct reports *)arg)->fatal > 0;
}

/* Under the gapless guarantee a refused batch ends the client: told once, and no record is taken any more. */
static void test_refused_batch_ends_the_record_client(void **state) {
    (void)state;
    struct hv_error err = {""};
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record("poison", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    for (uint64_t i = 1; i <= 10; i++) {
        must_send(p, &record, i);
    }
    bed_until(&bed, has_fatal, &reports, HV_SECONDS(20), "the fatal error is told");
    hv_producer_purge(p, true);
    bed_reports(&bed, &reports, 11, HV_SECONDS(20));
    assert_true(reports.refused > 0);
    assert_int_equal(send_one(p, &record, 11, &err), HV_SEND_FATAL);
    bed_run_for(&bed, HV_MS(200));
    assert_int_equal(reports.fatal, 1);
    assert_true(strlen(reports.fatal_reason) > 0);
    assert_int_equal(reports.count, 11);
    hv_producer_close(p);
    bed_close(&bed);
}

/* Without it the others pass. */
static void check_refused_suspect(rd_kafka_resp_err_t code) {
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_SUSPECTS, &reports, NULL, 0);
    struct hv_record record = bed_record("poison", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 1, code);
    for (uint64_t i = 1; i <= 20; i++) {
        must_send(p, &record, i);
        bed_reports(&bed, &reports, (size_t)i + 1, HV_SECONDS(30)); /* one at a time, as suspects are sent */
    }
    assert_int_equal(reports.refused, 1);
    assert_int_equal(reports.last_code, code);
    assert_int_equal(reports.delivered, 20);
    assert_int_equal(reports.fatal, 0);
    hv_producer_close(p);
    bed_close(&bed);
}

static void test_refused_suspect_harms_nobody(void **state) {
    (void)state;
    check_refused_suspect(RD_KAFKA_RESP_ERR_INVALID_RECORD);
    check_refused_suspect(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    check_refused_suspect(RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE);
    check_refused_suspect(RD_KAFKA_RESP_ERR_POLICY_VIOLATION);
}

/* Suspects share requests, unless one has to be alone: then the error that a request gets is about it. */
static void test_who_is_alone_shares_no_request(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_error err = {""};
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_SUSPECTS, &reports, NULL, 0);
    struct hv_record record = bed_record("mixed", "key", "value", 5);
    must_send(p, &record, 0); /* its partition is known from now on */
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 3, RD_KAFKA_RESP_ERR_INVALID_RECORD, RD_KAFKA_RESP_ERR_NO_ERROR,
                                      RD_KAFKA_RESP_ERR_INVALID_RECORD);
    for (uint64_t i = 1; i <= 10; i++) { /* 1 to 4, 5, 6 to 10 */
        assert_int_equal(hv_producer_send(p, bed_keep(&bed, &record), i, i == 5, &err), HV_SENT);
    }
    hv_producer_flush(p);
    bed_reports(&bed, &reports, 5, HV_SECONDS(20));
    assert_int_equal(reports.refused, 4);
    bed_reports(&bed, &reports, 6, HV_SECONDS(20));
    assert_int_equal(reports.refused, 4);
    bed_reports(&bed, &reports, 11, HV_SECONDS(20));
    assert_int_equal(reports.refused, 9);
    assert_int_equal(reports.fatal, 0);
    rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_INVALID_RECORD);
    for (uint64_t i = 11; i <= 30; i++) {
        assert_int_equal(hv_producer_send(p, bed_keep(&bed, &record), i, true, &err), HV_SENT);
    }
    hv_producer_flush(p);
    bed_reports(&bed, &reports, 31, HV_SECONDS(20));
    assert_int_equal(reports.refused, 10);
    hv_producer_close(p);
    bed_close(&bed);
}

/* Missing rights refuse the topic's records, at once from then on, until they are mended. */
static void test_forbidden_topic_heals(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_SUSPECTS, &reports, NULL, 0);
    rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    struct hv_record record = bed_record("forbidden", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(30));
    assert_int_equal(reports.refused, 1);
    struct trier trier = {.producer = p, .record = record, .ticket = 1};
    start_ticking();
    bed_until(&bed, is_delivered, &trier, HV_SECONDS(20), "the topic takes records again");
    assert_int_equal(reports.delivered, 1);
    stop_ticking();
    hv_producer_close(p);
    bed_close(&bed);
}

/* A sequence error is fatal to an idempotent client (trap 12). */
static void test_fatal_error(void **state) {
    (void)state;
    struct hv_error err = {""};
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record("fatal", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    rd_kafka_mock_push_request_errors(bed.cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    must_send(p, &record, 1);
    bed_until(&bed, has_fatal, &reports, HV_SECONDS(20), "the fatal error is told");
    assert_int_equal(send_one(p, &record, 2, &err), HV_SEND_FATAL);
    hv_producer_close(p);
    /* Another one takes over. */
    p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    must_send(p, &record, 1);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    assert_int_equal(reports.delivered, 1);
    hv_producer_close(p);
    bed_close(&bed);
}

/* ---- giving up ---- */

static void test_purge_reports_everything(void **state) {
    (void)state;
    struct hv_error err = {""};
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record("purge", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 3600000);
    for (uint64_t i = 1; i <= 5000; i++) {
        must_send(p, &record, i);
    }
    bed_run_for(&bed, HV_MS(50)); /* some are in flight now, or all still queued: both are purged */
    reports.inside = true;
    hv_producer_purge(p, false);
    reports.inside = false;
    bed_reports(&bed, &reports, 5001, HV_SECONDS(20));
    assert_int_equal(reports.purged, 5000);
    assert_int_equal(reports.fatal, 0);
    assert_int_equal(send_one(p, &record, 5001, &err), HV_SEND_FATAL);
    hv_producer_close(p);
    bed_close(&bed);
}

/* Records that are held, since their partition is not proven or not known, are reported as well. */
/* A purge of what is not sent leaves alone what the broker has: it is acknowledged. */
static void test_purge_but_what_is_sent(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record("drain", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 1000);
    must_send(p, &record, 1);
    bed_run_for(&bed, HV_MS(300)); /* it is on its way */
    for (uint64_t i = 2; i <= 50; i++) {
        must_send(p, &record, i);
    }
    hv_producer_purge(p, true);
    bed_reports(&bed, &reports, 51, HV_SECONDS(20));
    assert_true(reports.delivered >= 2);
    assert_int_equal(reports.delivered + reports.purged, 51);
    assert_int_equal(reports.failed, 0);
    assert_int_equal(written("drain"), reports.delivered);
    hv_producer_close(p);
    bed_close(&bed);
}

static void test_purge_reports_what_is_held(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 3600000);
    struct hv_record record = bed_record("unknown", "key", "value", 5);
    for (uint64_t i = 0; i < 2500; i++) {
        must_send(p, &record, i);
    }
    bed_run_for(&bed, HV_MS(20));
    reports.inside = true;
    hv_producer_purge(p, false);
    reports.inside = false;
    bed_reports(&bed, &reports, 2500, HV_SECONDS(20));
    assert_int_equal(reports.purged, 2500);
    hv_producer_close(p);
    bed_close(&bed);
}

static void test_close_with_records_on_their_way(void **state) {
    (void)state;
    bed_open(&bed, 1);
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 3600000);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record("close", "key", "value", 5);
    for (uint64_t i = 0; i < 1000; i++) {
        must_send(p, &record, i);
    }
    bed_run_for(&bed, HV_MS(20));
    hv_producer_close(p); /* while the metadata worker waits for an answer */
    bed_close(&bed);
    assert_int_equal(reports.count, 0);
}

/* ---- the lease ---- */

/* The lease ends while records are in the client, and the loop stands still: nobody but the kernel could stop librdkafka's threads. */
static void test_nothing_is_sent_after_the_lease(void **state) {
    (void)state;
    struct hv_error err = {""};
    const struct hv_kafka_property slow[] = {{"linger.ms", "20"}};
    const struct timespec pause = {.tv_nsec = 300000000};
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, slow, 1);
    struct hv_record record = bed_record("lease", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    assert_int_equal(written("lease"), 1);
    uint64_t given = 0;
    while (given == 0) { /* on a busy machine we may come too late */
        hv_producer_lease(p, hv_loop_waking_clock() + HV_MS(10));
        while (given < 100 && send_one(p, &record, given + 1, &err) == HV_SENT) {
            given++;
        }
    }
    nanosleep(&pause, NULL);
    assert_int_equal(written("lease"), 1);
    assert_int_equal(reports.count, 1);

    must_send(p, &record, given + 1); /* waits for those before it */
    bed_run_for(&bed, HV_MS(300));
    assert_int_equal(written("lease"), 1);
    assert_int_equal(reports.trouble, 0); /* that connections are cut is nobody's trouble */
    hv_producer_lease(p, HV_NEVER);
    must_send(p, &record, given + 2);
    bed_reports(&bed, &reports, given + 3, HV_SECONDS(20));
    assert_int_equal(reports.delivered, given + 3);
    assert_int_equal(written("lease"), given + 3);
    hv_producer_close(p);
    bed_close(&bed);
}

/* A process that is stopped between a look at the clock and what it does then: the time is that before the stop. Found before libc's. */
static _Thread_local int stop_at_look; /* at the how many-th from now; 0: never */
static struct timespec stopped_for;
static void (*while_stopped)(void);

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_BOOTTIME && stop_at_look > 0 && --stop_at_look == 0) {
        if (while_stopped != NULL) {
            while_stopped();
        }
        nanosleep(&stopped_for, NULL);
    }
    return (int)result;
}

/* The lease ends right after it was looked at, while nothing is in the client: so nothing was cut, and what is handed over
 * then must not go out. */
static void test_a_stop_right_before_a_record_is_given(void **state) {
    (void)state;
    struct hv_error err = {""};
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record("stop", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    assert_int_equal(written("stop"), 1);
    bed_run_for(&bed, HV_MS(50)); /* the client need not hurry any more */
    hv_producer_lease(p, hv_loop_waking_clock() + HV_MS(300));
    stopped_for = (struct timespec){.tv_nsec = 600000000};
    stop_at_look = 1;
    send_one(p, &record, 1, &err);
    assert_int_equal(stop_at_look, 0);
    nanosleep(&stopped_for, NULL); /* the loop stands still, librdkafka's threads do not */
    assert_int_equal(written("stop"), 1);
    hv_producer_close(p);
    bed_close(&bed);
}

/* ---- a busy pool ---- */

static atomic_bool pool_is_free;

static void occupy(uv_work_t *work) {
    (void)work;
    const struct timespec pause = {.tv_nsec = 1000000};
    while (!pool_is_free) {
        nanosleep(&pause, NULL);
    }
}

static void freed(uv_work_t *work, int status) {
    (void)status;
    *(size_t *)work->data += 1;
}

static bool are_all_free(void *arg) {
    return *(size_t *)arg == 16;
}

/* Who embeds us may use all threads of the pool: batches linger then, and go all the same. */
static void test_busy_pool_stops_nothing(void **state) {
    (void)state;
    bed_open(&bed, 1);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record("pool", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    uv_work_t work[16];
    size_t count = 0;
    for (size_t i = 0; i < 16; i++) {
        work[i].data = &count;
        assert_int_equal(uv_queue_work(hv_loop_uv(bed.loop), &work[i], occupy, freed), 0);
    }
    for (uint64_t i = 1; i <= 20; i++) {
        must_send(p, &record, i);
        bed_run_for(&bed, HV_MS(6)); /* turns */
    }
    hv_producer_flush(p);
    bed_reports(&bed, &reports, 21, HV_SECONDS(20));
    assert_int_equal(reports.delivered, 21);
    pool_is_free = true;
    bed_until(&bed, are_all_free, &count, HV_SECONDS(20), "the pool is free");
    hv_producer_close(p);
    bed_close(&bed);
}

/* ---- brokers that do not answer ---- */

/* A broker that hangs costs next to no CPU (trap 15), and the records arrive when it wakes. */
static void test_hanging_broker_costs_nothing(void **state) {
    (void)state;
    bed_open(&bed, 1);
    const struct hv_kafka_property more[] = {{"linger.ms", "20"}, {"socket.timeout.ms", "10000"}};
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, more, 2);
    struct hv_record record = bed_record("hang", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 3600000);
    for (uint64_t i = 1; i <= 1000; i++) { /* in ten portions: more than may be in flight */
        must_send(p, &record, i);
        if (i % 100 == 0) {
            bed_run_for(&bed, HV_MS(150));
        }
    }
    double before = bed_cpu();
    bed_run_for(&bed, HV_SECONDS(3));
    double share = (bed_cpu() - before) / 3;
    if (share > 0.1) {
        fail_msg("%.0f %% of a core while the broker hangs", share * 100);
    }
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 0);
    bed_reports(&bed, &reports, 1001, HV_SECONDS(60));
    assert_int_equal(reports.delivered, 1001);
    hv_producer_close(p);
    bed_close(&bed);
}

/* Gives 100 records to a broker that is silent, and is stopped at the fiftieth. The client must wait asleep for the answer: what is given
 * has to be one request, or the rest of it waits inside the client, which polls until it may send it. */
static void give_a_batch(struct hv_producer *p, const char *what) {
    struct hv_record record = bed_record("batch", "key", "value", 5);
    struct hv_error err = {""};
    for (uint64_t i = 1000; i < 1100; i++) {
        assert_int_equal(hv_producer_send(p, bed_keep(&bed, &record), i, false, &err), HV_SENT);
    }
    stop_at_look = 50;
    hv_producer_flush(p);
    assert_int_equal(stop_at_look, 0);
    bed_run_for(&bed, HV_MS(100));
    double before = bed_cpu();
    bed_run_for(&bed, HV_SECONDS(2));
    double share = (bed_cpu() - before) / 2;
    if (share > 0.1) {
        fail_msg("%s: %.0f %% of a core while the broker hangs", what, share * 100);
    }
}

static struct hv_producer *prove_partition(void) {
    bed_open(&bed, 1);
    const struct hv_kafka_property more[] = {{"socket.timeout.ms", "10000"}};
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, more, 1);
    struct hv_record record = bed_record("batch", "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(20));
    bed_run_for(&bed, HV_MS(50)); /* the client need not hurry any more */
    hv_producer_lease(p, hv_loop_waking_clock() + HV_SECONDS(3600)); /* so that it is looked at with each record */
    return p;
}

static void wake_broker(struct hv_producer *p, size_t reported) {
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 0);
    bed_reports(&bed, &reports, reported, HV_SECONDS(60));
    assert_int_equal(reports.delivered, reported);
    while_stopped = NULL;
    hv_producer_close(p);
    bed_close(&bed);
}

/* Who gives a batch is held up for longer than linger.ms, between the look at the clock and the giving of a record: librdkafka takes
 * those before it alone. */
static void test_a_batch_takes_long_to_give(void **state) {
    (void)state;
    struct hv_producer *p = prove_partition();
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 3600000);
    stopped_for = (struct timespec){.tv_nsec = 5000000};
    give_a_batch(p, "held up");
    wake_broker(p, 101);
}

static sem_t let_go;

static void wait_to_be_let_go(uv_work_t *work) {
    (void)work;
    while (sem_wait(&let_go) != 0) {
    }
}

static void let_all_go(void) {
    for (int i = 0; i < 16; i++) {
        sem_post(&let_go);
    }
}

/* A flush that gets a thread late, when a batch is just being given: librdkafka sends what is there without lingering. */
static void test_the_flush_comes_amid_a_batch(void **state) {
    (void)state;
    struct hv_producer *p = prove_partition();
    uv_work_t work[16];
    size_t count = 0;
    sem_init(&let_go, 0, 0);
    for (size_t i = 0; i < 16; i++) {
        work[i].data = &count;
        assert_int_equal(uv_queue_work(hv_loop_uv(bed.loop), &work[i], wait_to_be_let_go, freed), 0);
    }
    struct hv_record record = bed_record("batch", "key", "value", 5);
    must_send(p, &record, 1); /* the client is told to hurry, as soon as there is a thread */
    bed_reports(&bed, &reports, 2, HV_SECONDS(20));
    bed_run_for(&bed, HV_MS(50)); /* nobody waits for it any more */
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 3600000);
    while_stopped = let_all_go;
    stopped_for = (struct timespec){.tv_nsec = 300000};
    give_a_batch(p, "flush");
    bed_until(&bed, are_all_free, &count, HV_SECONDS(20), "the pool is free");
    wake_broker(p, 102);
}

static bool has_trouble(void *arg) {
    return ((struct reports *)arg)->trouble > 0;
}

static void test_trouble_is_told_and_passes(void **state) {
    (void)state;
    bed_open(&bed, 1);
    const struct hv_kafka_property more[] = {{"debug", "broker"}};
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, more, 1);
    struct hv_record record = bed_record("down", "key", "value", 5);
    rd_kafka_mock_broker_set_down(bed.cluster, -1);
    must_send(p, &record, 0);
    bed_until(&bed, has_trouble, &reports, HV_SECONDS(20), "trouble is told");
    assert_true(strlen(reports.trouble_reason) > 0);
    assert_true(reports.logs > 0);
    rd_kafka_mock_broker_set_up(bed.cluster, -1);
    bed_reports(&bed, &reports, 1, HV_SECONDS(30));
    assert_int_equal(reports.delivered, 1);
    hv_producer_close(p);
    bed_close(&bed);
}

/* A name that cannot be resolved for the time being: librdkafka's broker thread sits in getaddrinfo(), and destroying the client
 * joins it (trap 8). This one is found before libc's. */
static atomic_bool slow_dns;
static sem_t asked, answer;

__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                                                       struct addrinfo **result) {
    (void)node;
    if (atomic_load(&slow_dns)) {
        sem_post(&asked);
        sem_wait(&answer);
        return EAI_AGAIN;
    }
    /* Enough of the true one for the mock cluster's addresses. */
    struct sockaddr_in *address = calloc(1, sizeof *address);
    *result = calloc(1, sizeof **result);
    assert_true(address != NULL && *result != NULL);
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)atoi(service == NULL ? "0" : service));
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (*result)->ai_family = AF_INET;
    (*result)->ai_socktype = hints == NULL ? SOCK_STREAM : hints->ai_socktype;
    (*result)->ai_addr = (struct sockaddr *)address;
    (*result)->ai_addrlen = sizeof *address;
    return 0;
}

__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *list) {
    free(list->ai_addr);
    free(list);
}

static bool has_ticked(void *arg) {
    return ticks >= *(size_t *)arg;
}

static void check_close_during_dns(bool with_record, size_t ticks_wanted) {
    bed_open(&bed, 0);
    sem_init(&asked, 0, 0);
    sem_init(&answer, 0, 0);
    atomic_store(&slow_dns, true);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    sem_wait(&asked); /* a broker thread is in the look-up now */
    struct hv_record record = bed_record("dns", "key", "value", 5);
    if (with_record) {
        must_send(p, &record, 0);
    }
    start_ticking();
    hv_producer_close(p); /* would never return if it joined that thread */
    bed_until(&bed, has_ticked, &ticks_wanted, HV_SECONDS(30), "the loop goes on");
    stop_ticking();
    atomic_store(&slow_dns, false);
    for (int i = 0; i < 100; i++) {
        sem_post(&answer);
    }
    bed_close(&bed);
}

static void test_close_does_not_wait_for_dns(void **state) {
    (void)state;
    check_close_during_dns(false, 5);
    check_close_during_dns(true, 200); /* a metadata request is out, and given up after a second */
}

int main(void) {
    hv_producer_use_signal(SIGRTMIN); /* as the daemon does */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_arrives_unchanged),
        cmocka_unit_test(test_many_are_reported_once_each),
        cmocka_unit_test(test_first_records_do_not_wait),
        cmocka_unit_test(test_very_many_topics),
        cmocka_unit_test(test_passing_errors_are_the_clients_affair),
        cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_too_large_is_refused_at_once),
        cmocka_unit_test(test_unknown_topic),
        cmocka_unit_test(test_refused_batch_ends_the_record_client),
        cmocka_unit_test(test_refused_suspect_harms_nobody),
        cmocka_unit_test(test_who_is_alone_shares_no_request),
        cmocka_unit_test(test_forbidden_topic_heals),
        cmocka_unit_test(test_fatal_error),
        cmocka_unit_test(test_purge_reports_everything),
        cmocka_unit_test(test_purge_reports_what_is_held),
        cmocka_unit_test(test_purge_but_what_is_sent),
        cmocka_unit_test(test_busy_pool_stops_nothing),
        cmocka_unit_test(test_close_with_records_on_their_way),
        cmocka_unit_test(test_nothing_is_sent_after_the_lease),
        cmocka_unit_test(test_a_stop_right_before_a_record_is_given),
        cmocka_unit_test(test_hanging_broker_costs_nothing),
        cmocka_unit_test(test_a_batch_takes_long_to_give),
        cmocka_unit_test(test_the_flush_comes_amid_a_batch),
        cmocka_unit_test(test_trouble_is_told_and_passes),
        cmocka_unit_test(test_close_does_not_wait_for_dns),
    };
    cmocka_set_test_filter(getenv("HV_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
