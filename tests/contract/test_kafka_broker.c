/* The Kafka adapters against a real broker, for what the mock cluster does not know: making topics, missing rights, limits of the
 * broker. HV_TEST_KAFKA names it; it lets everybody do everything that no ACL speaks of, and makes topics by itself. Two
 * members of a group are two objects on one loop. */
#include "kafka_member.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct bed bed;
static struct reports reports;

static void open_bed(void) {
    bed_open(&bed, 0);
    snprintf(bed.bootstrap, sizeof bed.bootstrap, "%s", getenv("HV_TEST_KAFKA"));
}

/* A name that no other run uses. */
static const char *fresh(char *out, size_t size, const char *what) {
    snprintf(out, size, "%s-%d-%lld", what, (int)getpid(), (long long)hv_loop_clock());
    return out;
}

/* ---- administration ---- */

static rd_kafka_t *admin_client(void) {
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", bed.bootstrap, NULL, 0);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(client);
    return client;
}

static void finish_admin(rd_kafka_t *client, rd_kafka_queue_t *queue) {
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 30000);
    assert_non_null(event);
    assert_int_equal(rd_kafka_event_error(event), 0);
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
}

#define CLUSTER "kafka-cluster"

static rd_kafka_ResourceType_t type_of(const char *resource) {
    return strcmp(resource, CLUSTER) == 0 ? RD_KAFKA_RESOURCE_BROKER : RD_KAFKA_RESOURCE_TOPIC;
}

static void add_acl(const char *resource, rd_kafka_AclOperation_t operation, rd_kafka_AclPermissionType_t permission) {
    char why[256];
    rd_kafka_t *client = admin_client();
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_AclBinding_t *acl =
        rd_kafka_AclBinding_new(type_of(resource), resource, RD_KAFKA_RESOURCE_PATTERN_LITERAL, "User:ANONYMOUS", "*",
                                operation, permission, why, sizeof why);
    assert_non_null(acl);
    rd_kafka_CreateAcls(client, &acl, 1, NULL, queue);
    rd_kafka_AclBinding_destroy(acl);
    finish_admin(client, queue);
}

static void remove_acls(const char *resource) {
    char why[256];
    rd_kafka_t *client = admin_client();
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_AclBindingFilter_t *filter =
        rd_kafka_AclBindingFilter_new(type_of(resource), resource, RD_KAFKA_RESOURCE_PATTERN_LITERAL, NULL, NULL,
                                      RD_KAFKA_ACL_OPERATION_ANY, RD_KAFKA_ACL_PERMISSION_TYPE_ANY, why, sizeof why);
    assert_non_null(filter);
    rd_kafka_DeleteAcls(client, &filter, 1, NULL, queue);
    rd_kafka_AclBinding_destroy(filter);
    finish_admin(client, queue);
}

static int partitions_of(const char *topic) {
    rd_kafka_t *client = admin_client();
    rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
    const struct rd_kafka_metadata *metadata;
    assert_int_equal(rd_kafka_metadata(client, 0, handle, &metadata, 30000), 0);
    int count = metadata->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(handle);
    rd_kafka_destroy(client);
    return count;
}

/* ---- records ---- */

static void must_send(struct hv_producer *producer, const struct hv_record *record, uint64_t ticket) {
    struct hv_error err = {""};
    if (hv_producer_send(producer, bed_keep(&bed, record), ticket, false, &err) != HV_SENT) {
        fail_msg("not taken: %s", err.text);
    }
    hv_producer_flush(producer);
}

static void test_topics_made_by_the_broker(void **state) {
    (void)state;
    open_bed();
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    for (uint64_t i = 0; i < 5; i++) {
        char topic[64];
        struct hv_record record = bed_record(fresh(topic, sizeof topic, "made"), "key", "value", 5);
        must_send(p, &record, i);
    }
    bed_reports(&bed, &reports, 5, HV_SECONDS(60));
    assert_int_equal(reports.delivered, 5);
    hv_producer_close(p);
    bed_close(&bed);
}

/* The broker takes less than the client was told (a megabyte). */
static void check_too_large(enum hv_kafka_role role) {
    open_bed();
    char topic[64];
    const struct hv_kafka_property more[] = {{"message.max.bytes", "8000000"}, {"compression.type", "none"}};
    struct hv_producer *p = bed_producer(&bed, role, &reports, more, 2);
    static char large[3000000];
    struct hv_record record = bed_record(fresh(topic, sizeof topic, "large"), "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(60));
    record = bed_record(topic, "key", large, sizeof large);
    must_send(p, &record, 1);
    bed_reports(&bed, &reports, 2, HV_SECONDS(60));
    assert_int_equal(reports.refused, 1);
    assert_int_equal(reports.last_code, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    if (role == HV_KAFKA_SUSPECTS) {
        record = bed_record(topic, "key", "value", 5);
        must_send(p, &record, 2);
        bed_reports(&bed, &reports, 3, HV_SECONDS(60));
        assert_int_equal(reports.delivered, 2);
        assert_int_equal(reports.fatal, 0);
    }
    hv_producer_close(p);
    bed_close(&bed);
}

static void test_too_large_for_the_broker(void **state) {
    (void)state;
    check_too_large(HV_KAFKA_RECORDS);
    check_too_large(HV_KAFKA_SUSPECTS);
}

struct trier {
    struct hv_producer *producer;
    struct hv_record record;
    uint64_t ticket; /* of the next try */
};

/* Tries again whenever the try before was reported. */
static bool is_delivered(void *arg) {
    struct trier *t = arg;
    struct hv_error err;
    if (reports.count == t->ticket &&
        hv_producer_send(t->producer, bed_keep(&bed, &t->record), t->ticket, false, &err) == HV_SENT) {
        t->ticket++;
    }
    hv_producer_flush(t->producer);
    return reports.delivered > 0;
}

static void on_tick(uv_timer_t *timer) {
    (void)timer;
}

static void test_forbidden_topic_heals(void **state) {
    (void)state;
    open_bed();
    char topic[64];
    fresh(topic, sizeof topic, "forbidden");
    add_acl(topic, RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_PERMISSION_TYPE_DENY);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_RECORDS, &reports, NULL, 0);
    struct hv_record record = bed_record(topic, "key", "value", 5);
    must_send(p, &record, 0);
    bed_reports(&bed, &reports, 1, HV_SECONDS(60));
    assert_int_equal(reports.refused, 1);
    assert_int_equal(reports.last_code, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(reports.fatal, 0); /* nothing was sent, so others are not disturbed */
    remove_acls(topic);
    uv_timer_t tick; /* something that the loop waits for, between tries */
    uv_timer_init(hv_loop_uv(bed.loop), &tick);
    uv_timer_start(&tick, on_tick, 50, 50);
    struct trier trier = {p, record, 1};
    bed_until(&bed, is_delivered, &trier, HV_SECONDS(60), "the topic takes records once it is allowed");
    uv_close((uv_handle_t *)&tick, NULL);
    hv_producer_close(p);
    bed_close(&bed);
}

/* It may be looked at, but not written to. */
static void test_read_only_topic_refuses(void **state) {
    (void)state;
    open_bed();
    char topic[64];
    fresh(topic, sizeof topic, "readonly");
    assert_true(partitions_of(topic) >= 0); /* made by asking */
    add_acl(topic, RD_KAFKA_ACL_OPERATION_DESCRIBE, RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW);
    struct hv_producer *p = bed_producer(&bed, HV_KAFKA_SUSPECTS, &reports, NULL, 0);
    struct hv_record record = bed_record(topic, "key", "value", 5);
    hv_time end = hv_loop_clock() + HV_SECONDS(60);
    for (uint64_t i = 0; reports.refused == 0 && hv_loop_clock() < end; i++) { /* an ACL takes a moment to hold */
        must_send(p, &record, i);
        bed_reports(&bed, &reports, (size_t)i + 1, HV_SECONDS(60));
    }
    assert_int_equal(reports.refused, 1);
    assert_int_equal(reports.last_code, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(reports.fatal, 0);
    hv_producer_close(p);
    remove_acls(topic);
    bed_close(&bed);
}

/* ---- the election ---- */

/* The leader topic comes into being with one partition, whatever the broker's own habit; a second member stands by; a clean leave
 * hands over long before the session would end. */
static void check_life(const char *assignor) {
    open_bed();
    struct member a, b;
    char group[64], topic[128];
    fresh(group, sizeof group, "group");
    member_join(&bed, &a, "a", group, assignor, HV_SECONDS(20)); /* a session of a minute */
    bed_until(&bed, member_leads, &a, HV_SECONDS(50), "the first member leads");
    snprintf(topic, sizeof topic, "%s.neli", group);
    assert_int_equal(partitions_of(topic), 1);
    member_join(&bed, &b, "b", group, assignor, HV_SECONDS(20));
    bed_until(&bed, member_has_joined, &b, HV_SECONDS(50), "the second member joins");
    struct member *leader = b.owns ? &b : &a, *other = b.owns ? &a : &b;
    member_leave(&bed, leader);
    bed_until(&bed, member_leads, other, HV_SECONDS(50), "the other member takes over");
    assert_int_equal(a.lost + b.lost, 0);
    assert_int_equal(a.trouble + b.trouble, 0);
    member_leave(&bed, other);
    bed_close(&bed);
}

static void test_life_cooperative(void **state) {
    (void)state;
    check_life("cooperative-sticky");
}

static void test_life_eager(void **state) {
    (void)state;
    check_life("range");
}

static void test_refused_session_names_the_setting(void **state) {
    (void)state;
    open_bed();
    struct member a;
    char group[64];
    member_join(&bed, &a, "a", fresh(group, sizeof group, "short"), "cooperative-sticky", HV_SECONDS(1)); /* brokers want 6 s */
    bed_until(&bed, member_has_trouble, &a, HV_SECONDS(50), "trouble is told");
    assert_int_equal(a.trouble_code, RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT);
    assert_non_null(strstr(a.trouble_reason, "heartbeat_timeout"));
    member_leave(&bed, &a);
    bed_close(&bed);
}

static bool is_told_what_to_run(void *arg) {
    return strstr(((struct member *)arg)->trouble_reason, "kafka-topics.sh") != NULL;
}

static void test_forbidden_leader_topic_heals(void **state) {
    (void)state;
    open_bed();
    struct member a;
    char group[64], topic[128];
    fresh(group, sizeof group, "denied");
    snprintf(topic, sizeof topic, "%s.neli", group);
    add_acl(CLUSTER, RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW);
    add_acl(CLUSTER, RD_KAFKA_ACL_OPERATION_CREATE, RD_KAFKA_ACL_PERMISSION_TYPE_DENY);
    add_acl(topic, RD_KAFKA_ACL_OPERATION_DESCRIBE, RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW);
    member_join(&bed, &a, "a", group, "cooperative-sticky", HV_SECONDS(5));
    bed_until(&bed, is_told_what_to_run, &a, HV_SECONDS(50), "what to do is told");
    remove_acls(CLUSTER);
    remove_acls(topic);
    bed_until(&bed, member_leads, &a, HV_SECONDS(90), "the member leads once it is allowed");
    member_leave(&bed, &a);
    bed_close(&bed);
}

int main(void) {
    if (getenv("HV_TEST_KAFKA") == NULL) {
        fputs("HV_TEST_KAFKA is not set\n", stderr);
        return 2;
    }
    const struct bed_test tests[] = {
        {"topics_made_by_the_broker", test_topics_made_by_the_broker},
        {"too_large_for_the_broker", test_too_large_for_the_broker},
        {"forbidden_topic_heals", test_forbidden_topic_heals},
        {"read_only_topic_refuses", test_read_only_topic_refuses},
        {"life_cooperative", test_life_cooperative},
        {"life_eager", test_life_eager},
        {"refused_session_names_the_setting", test_refused_session_names_the_setting},
    };
    /* It changes what everybody may do. */
    const struct bed_test alone[] = {{"forbidden_leader_topic_heals", test_forbidden_leader_topic_heals}};
    return bed_run_side_by_side(tests, sizeof tests / sizeof tests[0]) + bed_run_side_by_side(alone, 1);
}
