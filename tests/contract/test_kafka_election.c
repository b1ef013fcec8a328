/* The election's transport against librdkafka's mock cluster: who owns the leader partition, hand-overs, losses, and the troubles that an
 * operator has to be told of. */
#include "kafka_member.h"

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

enum { JOIN_GROUP = 11, HEARTBEAT = 12 }; /* ApiKeys */

static void join(struct bed *bed, struct member *m, const char *name, const char *assignor) {
    member_join(bed, m, name, "leaders", assignor, HV_SECONDS(2));
}

static void leave(struct bed *bed, struct member *m) {
    member_leave(bed, m);
    assert_int_equal(m->stale_beats, 0);
}

/* A cluster with one member that leads already. */
static void open_leading(struct bed *bed, struct member *m, const char *assignor, const char *what) {
    bed_open(bed, 1);
    join(bed, m, "a", assignor);
    bed_until(bed, member_leads, m, HV_SECONDS(30), what);
}

static bool has_foreign_beat(void *arg) {
    return ((struct member *)arg)->foreign_beats > 0;
}

static bool is_told_of_the_session(void *arg) {
    return ((struct member *)arg)->sessions_refused > 0;
}

static bool is_revoked(void *arg) {
    return ((struct member *)arg)->revoked > 0;
}

static bool has_lost(void *arg) {
    return ((struct member *)arg)->lost > 0;
}

/* ---- one member ---- */

static void check_alone(const char *assignor) {
    struct bed bed;
    struct member a;
    open_leading(&bed, &a, assignor, "the only member leads and reads its heartbeats");
    assert_true(a.owns);
    assert_int_equal(a.joined, 1);
    assert_int_equal(a.assigned, 1);
    assert_int_equal(a.revoked + a.lost, 0);
    leave(&bed, &a);
    bed_close(&bed);
}

static void test_alone_cooperative(void **state) {
    (void)state;
    check_alone("cooperative-sticky");
}

static void test_alone_eager(void **state) {
    (void)state;
    check_alone("range");
}

static void produce(struct bed *bed, const char *const *texts, int count) {
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", bed->bootstrap, NULL, 0);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    for (int i = 0; i < count; i++) {
        rd_kafka_producev(client, RD_KAFKA_V_TOPIC("leaders.neli"), RD_KAFKA_V_PARTITION(0),
                          RD_KAFKA_V_VALUE((void *)(uintptr_t)texts[i], strlen(texts[i])), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                          RD_KAFKA_V_END);
    }
    assert_int_equal(rd_kafka_flush(client, 20000), 0);
    rd_kafka_destroy(client);
}

static void test_old_and_malformed_heartbeats_mean_nothing(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    bed_open(&bed, 1);
    const char *old[] = {"1%other", "2%other"};
    produce(&bed, old, 2);
    join(&bed, &a, "a", "cooperative-sticky");
    bed_until(&bed, member_leads, &a, HV_SECONDS(30), "the member leads");
    assert_int_equal(a.foreign_beats, 0);
    static char large[3000];
    memset(large, '7', sizeof large - 1);
    const char *odd[] = {"", "%", "x%other", "12", "99999999999999999999999%other", large, "34%other%name"};
    produce(&bed, odd, 7);
    bed_until(&bed, has_foreign_beat, &a, HV_SECONDS(30), "a foreign heartbeat is read");
    int beats = a.beats;
    while (a.beats < beats + 5) {
        bed_run_for(&bed, HV_MS(50));
    }
    assert_int_equal(a.foreign_beats, 1); /* the last one: a name may hold '%' */
    leave(&bed, &a);
    bed_close(&bed);
}

/* ---- two members ---- */

static void check_clean_hand_over(const char *assignor) {
    struct bed bed;
    struct member a, b;
    open_leading(&bed, &a, assignor, "the first member leads");
    join(&bed, &b, "b", assignor);
    bed_until(&bed, member_has_joined, &b, HV_SECONDS(30), "the second member joins");
    struct member *leader = b.owns ? &b : &a, *other = b.owns ? &a : &b;
    leave(&bed, leader);
    bed_until(&bed, member_leads, other, HV_SECONDS(30), "the other member takes over");
    leave(&bed, other);
    bed_close(&bed);
}

static void test_clean_hand_over_cooperative(void **state) {
    (void)state;
    check_clean_hand_over("cooperative-sticky");
}

static void test_clean_hand_over_eager(void **state) {
    (void)state;
    check_clean_hand_over("range");
}

/* A revoke waits for its answer, however long that takes, while the consumer is polled (traps 4 and 6). */
static void test_revoke_waits_for_its_answer(void **state) {
    (void)state;
    struct bed bed;
    struct member a, b;
    open_leading(&bed, &a, "range", "the first member leads");
    a.late = true;
    join(&bed, &b, "b", "range"); /* an eager group takes all from all when a member joins */
    bed_until(&bed, is_revoked, &a, HV_SECONDS(30), "the leader is asked to let go");
    assert_true(a.owns); /* not told to be without it before it answers */
    bed_run_for(&bed, HV_MS(500));
    assert_true(a.owns);
    assert_int_equal(b.joined, 0);
    a.late = false;
    bed_until(&bed, member_has_joined, &b, HV_SECONDS(30), "the second member joins");
    assert_true(a.assigned >= 2);
    assert_int_equal(a.lost, 0);
    leave(&bed, &a);
    leave(&bed, &b);
    bed_close(&bed);
}

static void test_closing_lets_a_pending_revoke_through(void **state) {
    (void)state;
    struct bed bed;
    struct member a, b;
    open_leading(&bed, &a, "range", "the first member leads");
    a.late = true;
    join(&bed, &b, "b", "range");
    bed_until(&bed, is_revoked, &a, HV_SECONDS(30), "the leader is asked to let go");
    leave(&bed, &a);
    bed_until(&bed, member_leads, &b, HV_SECONDS(30), "the second member takes over");
    leave(&bed, &b);
    bed_close(&bed);
}

/* ---- losses ---- */

/* The group has thrown the leader out: told as lost, answered at once, and it joins again. */
static void check_loss(const char *assignor) {
    struct bed bed;
    struct member a;
    open_leading(&bed, &a, assignor, "the member leads");
    rd_kafka_mock_push_request_errors(bed.cluster, HEARTBEAT, 1, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
    bed_until(&bed, has_lost, &a, HV_SECONDS(30), "the loss is told");
    assert_int_equal(a.revoked, 0);
    a.beats = 0;
    bed_until(&bed, member_leads, &a, HV_SECONDS(30), "the member leads again");
    assert_int_equal(a.joined, 2);
    assert_int_equal(a.assigned, 3);
    leave(&bed, &a);
    bed_close(&bed);
}

static void test_loss_cooperative(void **state) {
    (void)state;
    check_loss("cooperative-sticky");
}

static void test_loss_eager(void **state) {
    (void)state;
    check_loss("range");
}

/* The broker is away for longer than a session: the client itself declares the assignment lost. */
static void test_session_without_broker(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    open_leading(&bed, &a, "cooperative-sticky", "the member leads");
    rd_kafka_mock_broker_set_down(bed.cluster, -1);
    bed_until(&bed, has_lost, &a, HV_SECONDS(30), "the loss is told");
    assert_true(a.trouble > 0);
    rd_kafka_mock_broker_set_up(bed.cluster, -1);
    a.beats = 0;
    bed_until(&bed, member_leads, &a, HV_SECONDS(60), "the member leads again");
    leave(&bed, &a);
    bed_close(&bed);
}

/* A fatal error ends the consumer for good and it refuses to be closed (trap 7): another one is made. */
static void test_fatal_error_makes_a_new_consumer(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    bed_open(&bed, 1);
    rd_kafka_mock_push_request_errors(bed.cluster, JOIN_GROUP, 1, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID);
    join(&bed, &a, "a", "cooperative-sticky");
    bed_until(&bed, member_has_trouble, &a, HV_SECONDS(30), "trouble is told");
    assert_int_equal(a.trouble_code, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID);
    bed_until(&bed, member_leads, &a, HV_SECONDS(60), "a new consumer leads");
    leave(&bed, &a);
    bed_close(&bed);
}

/* While leading, a fatal error is a loss. */
static void test_closing_right_after_a_fatal_error(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    open_leading(&bed, &a, "cooperative-sticky", "the member leads");
    rd_kafka_mock_push_request_errors(bed.cluster, HEARTBEAT, 1, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID);
    bed_until(&bed, has_lost, &a, HV_SECONDS(30), "the loss is told");
    leave(&bed, &a);
    bed_close(&bed);
}

/* ---- troubles ---- */

static void test_refused_session_names_the_setting(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    bed_open(&bed, 1);
    rd_kafka_mock_push_request_errors(bed.cluster, JOIN_GROUP, 2, RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT,
                                      RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT);
    join(&bed, &a, "a", "cooperative-sticky");
    bed_until(&bed, is_told_of_the_session, &a, HV_SECONDS(30), "trouble is told");
    assert_int_equal(a.trouble_code, RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT);
    assert_non_null(strstr(a.trouble_reason, "heartbeat_timeout"));
    assert_non_null(strstr(a.trouble_reason, "group.min.session.timeout.ms"));
    bed_until(&bed, member_leads, &a, HV_SECONDS(60), "the member leads in the end");
    assert_int_equal(a.sessions_refused, 1); /* repeated, told once; a busy machine may have other troubles */
    leave(&bed, &a);
    bed_close(&bed);
}

/* The mock cluster knows no CreateTopics: what to do is told, and the member leads as soon as somebody did it. */
static void test_missing_topic(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    bed_open(&bed, 1);
    rd_kafka_mock_topic_create(bed.cluster, "leaders.neli", 1, 1);
    rd_kafka_mock_topic_set_error(bed.cluster, "leaders.neli", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    join(&bed, &a, "a", "cooperative-sticky");
    bed_until(&bed, member_has_trouble, &a, HV_SECONDS(30), "trouble is told");
    assert_non_null(strstr(a.trouble_reason, "kafka-topics.sh"));
    assert_non_null(strstr(a.trouble_reason, "leaders.neli"));
    assert_int_equal(a.joined, 0);
    rd_kafka_mock_topic_set_error(bed.cluster, "leaders.neli", RD_KAFKA_RESP_ERR_NO_ERROR);
    bed_until(&bed, member_leads, &a, HV_SECONDS(60), "the member leads");
    leave(&bed, &a);
    bed_close(&bed);
}

/* ---- polling ---- */

static int idle_polls; /* that found nothing, right after one that found nothing */

/* Stands before librdkafka's own, and counts. */
rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *queue, int timeout_ms) {
    static rd_kafka_event_t *(*true_poll)(rd_kafka_queue_t *, int);
    static rd_kafka_queue_t *empty;
    if (true_poll == NULL) {
        *(void **)&true_poll = dlsym(RTLD_NEXT, "rd_kafka_queue_poll");
    }
    assert_int_equal(timeout_ms, 0); /* never blocks */
    rd_kafka_event_t *event = true_poll(queue, timeout_ms);
    idle_polls += event == NULL && empty == queue;
    empty = event == NULL ? queue : NULL;
    return event;
}

static bool has_polled(void *arg) {
    return idle_polls >= *(int *)arg;
}

/* A consumer that is polled only when woken is expelled after max.poll.interval.ms (trap 4). */
static void test_polls_without_being_woken(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    open_leading(&bed, &a, "cooperative-sticky", "the member leads");
    a.silent = true;
    int wanted = idle_polls + 20;
    bed_until(&bed, has_polled, &wanted, HV_SECONDS(20), "the consumer is polled");
    leave(&bed, &a);
    bed_close(&bed);
}

/* ---- leaving ---- */

static void test_leaving_is_bounded(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    open_leading(&bed, &a, "cooperative-sticky", "the member leads");
    rd_kafka_mock_broker_set_rtt(bed.cluster, -1, 3600000); /* nothing is answered any more */
    member_start_leaving(&a, HV_MS(300));
    bed_until(&bed, member_has_left, &a, HV_SECONDS(30), "the member left");
    bed_close(&bed);
}

/* librdkafka drops an answer that is on its way when the group's business ends, and the call never returns. Found before librdkafka's. */
static bool swallow, swallowed, on_loop;
static pthread_t loop_thread;
static sem_t let_go;

__attribute__((visibility("default"))) rd_kafka_error_t *
rd_kafka_incremental_unassign(rd_kafka_t *client, const rd_kafka_topic_partition_list_t *list) {
    rd_kafka_error_t *(*real)(rd_kafka_t *, const rd_kafka_topic_partition_list_t *);
    void *found = dlsym(RTLD_NEXT, "rd_kafka_incremental_unassign");
    memcpy(&real, &found, sizeof real);
    if (swallow) {
        swallowed = true;
        on_loop = pthread_equal(pthread_self(), loop_thread);
    }
    if (swallow && !on_loop) {
        sem_wait(&let_go);
    }
    return real(client, list);
}

static void test_an_answer_that_is_swallowed_does_not_stop_the_loop(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    loop_thread = pthread_self();
    sem_init(&let_go, 0, 0);
    open_leading(&bed, &a, "cooperative-sticky", "the member leads");
    swallow = true;
    member_start_leaving(&a, HV_SECONDS(1));
    bed_until(&bed, member_has_left, &a, HV_SECONDS(30), "the member left");
    sem_post(&let_go);
    assert_true(swallowed);
    assert_false(on_loop);
    bed_close(&bed);
}

static void test_leaving_before_joining(void **state) {
    (void)state;
    struct bed bed;
    struct member a;
    bed_open(&bed, 0); /* no broker at all */
    join(&bed, &a, "a", "range");
    member_start_leaving(&a, HV_MS(300));
    bed_until(&bed, member_has_left, &a, HV_SECONDS(30), "the member left");
    join(&bed, &a, "a", "range");
    bed_until(&bed, member_has_trouble, &a, HV_SECONDS(30), "trouble is told");
    member_start_leaving(&a, 0);
    bed_until(&bed, member_has_left, &a, HV_SECONDS(30), "the member left");
    bed_close(&bed);
}

#define TEST(name)                                                                                                             \
    { #name, name }

int main(void) {
    const struct bed_test tests[] = {
        TEST(test_alone_cooperative),
        TEST(test_alone_eager),
        TEST(test_old_and_malformed_heartbeats_mean_nothing),
        TEST(test_clean_hand_over_cooperative),
        TEST(test_clean_hand_over_eager),
        TEST(test_revoke_waits_for_its_answer),
        TEST(test_closing_lets_a_pending_revoke_through),
        TEST(test_loss_cooperative),
        TEST(test_loss_eager),
        TEST(test_session_without_broker),
        TEST(test_fatal_error_makes_a_new_consumer),
        TEST(test_closing_right_after_a_fatal_error),
        TEST(test_refused_session_names_the_setting),
        TEST(test_missing_topic),
        TEST(test_polls_without_being_woken),
        TEST(test_leaving_is_bounded),
        TEST(test_an_answer_that_is_swallowed_does_not_stop_the_loop),
        TEST(test_leaving_before_joining),
    };
    return bed_run_side_by_side(tests, sizeof tests / sizeof tests[0]);
}
