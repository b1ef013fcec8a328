/* A librdkafka queue on the loop: nothing is overlooked, however drains end, and whatever was in the queue before. The events are
 * lines of a client's log, which can be made in any number. */
#include "kafka_bed.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/kafka_queue.h"

enum { TOPICS = 40 };

struct taker {
    struct hv_queue *queue;
    size_t events, calls, kept_count;
    size_t more;     /* ask so often for the same event again */
    size_t close_at; /* close the queue at this event */
    bool keep, inside;
    rd_kafka_event_t *last, *kept[2 * TOPICS + 200];
};

static enum hv_queue_next take(void *user, rd_kafka_event_t *event) {
    struct taker *t = user;
    assert_false(t->inside);
    assert_int_equal(rd_kafka_event_type(event), RD_KAFKA_EVENT_LOG);
    t->calls++;
    if (t->more > 0 && t->last != event) { /* each event twice */
        t->last = event;
        return HV_QUEUE_MORE;
    }
    t->last = NULL;
    t->events++;
    if (t->events == t->close_at) {
        hv_queue_close(t->queue);
        t->queue = NULL;
    }
    if (t->keep) {
        t->kept[t->kept_count++] = event;
        return HV_QUEUE_KEPT;
    }
    return HV_QUEUE_DONE;
}

static rd_kafka_t *talkative(void) {
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", "127.0.0.1:1", NULL, 0);
    rd_kafka_conf_set(conf, "log.queue", "true", NULL, 0);
    rd_kafka_conf_set(conf, "log_level", "7", NULL, 0);
    rd_kafka_conf_set(conf, "debug", "topic", NULL, 0);
    rd_kafka_conf_set(conf, "reconnect.backoff.ms", "60000", NULL, 0);
    rd_kafka_conf_set(conf, "reconnect.backoff.max.ms", "60000", NULL, 0);
    rd_kafka_conf_set_log_cb(conf, NULL);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_LOG);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(client);
    return client;
}

/* At least one line each. */
static void talk(rd_kafka_t *client, const char *prefix) {
    for (int i = 0; i < TOPICS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s-%d", prefix, i);
        rd_kafka_topic_destroy(rd_kafka_topic_new(client, name, NULL));
    }
}

static rd_kafka_queue_t *log_queue(rd_kafka_t *client) {
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    assert_int_equal(rd_kafka_set_log_queue(client, queue), RD_KAFKA_RESP_ERR_NO_ERROR);
    return queue;
}

static void serve(struct bed *bed, struct taker *taker, rd_kafka_queue_t *queue, hv_time poll_duration) {
    struct hv_error err = {""};
    taker->inside = true;
    if (hv_queue_open(bed->loop, queue, poll_duration, take, taker, &taker->queue, &err) != 0) {
        fail_msg("%s", err.text);
    }
    taker->inside = false;
}

static bool has_all(void *arg) {
    return ((struct taker *)arg)->events >= TOPICS;
}

static bool has_twice(void *arg) {
    return ((struct taker *)arg)->events >= 2 * TOPICS;
}

/* What was in the queue before anybody watched it comes (trap 2), one event a drain if need be (trap 1), and what comes later too. */
static void check_all_comes(hv_time poll_duration, size_t more) {
    struct bed bed;
    struct taker taker = {.more = more};
    bed_open(&bed, 0);
    rd_kafka_t *client = talkative();
    rd_kafka_queue_t *queue = log_queue(client);
    talk(client, "before");
    serve(&bed, &taker, queue, poll_duration);
    bed_until(&bed, has_all, &taker, HV_SECONDS(20), "events from before come");
    bed_run_for(&bed, HV_MS(20));
    taker.events = 0;
    talk(client, "after");
    bed_until(&bed, has_all, &taker, HV_SECONDS(20), "events from after come");
    talk(client, "more");
    bed_until(&bed, has_twice, &taker, HV_SECONDS(20), "and further ones");
    if (more > 0) {
        assert_true(taker.calls > taker.events);
    }
    hv_queue_close(taker.queue);
    rd_kafka_destroy(client);
    bed_close(&bed);
}

static void test_all_comes(void **state) {
    (void)state;
    check_all_comes(HV_MS(1), 0);
}

static void test_all_comes_one_at_a_time(void **state) {
    (void)state;
    check_all_comes(0, 0);
}

static void test_all_comes_when_asked_again(void **state) {
    (void)state;
    check_all_comes(HV_MS(1), 1);
}

/* A queue forwarded to one that is served already: its events come after a kick, asked by no wake-up (trap 2). */
static void test_forwarded_later(void **state) {
    (void)state;
    struct bed bed;
    struct taker taker = {0};
    bed_open(&bed, 0);
    rd_kafka_t *client = talkative();
    rd_kafka_queue_t *logs = log_queue(client);
    talk(client, "before");
    rd_kafka_queue_t *served = rd_kafka_queue_new(client);
    serve(&bed, &taker, served, HV_MS(1));
    bed_run_for(&bed, HV_MS(20));
    rd_kafka_queue_forward(logs, served);
    hv_queue_kick(taker.queue);
    hv_queue_kick(taker.queue);
    bed_until(&bed, has_all, &taker, HV_SECONDS(20), "forwarded events come");
    hv_queue_close(taker.queue);
    rd_kafka_queue_destroy(logs);
    rd_kafka_destroy(client);
    bed_close(&bed);
}

static void test_kept_events_are_the_callees(void **state) {
    (void)state;
    struct bed bed;
    static struct taker taker = {.keep = true};
    bed_open(&bed, 0);
    rd_kafka_t *client = talkative();
    rd_kafka_queue_t *queue = log_queue(client);
    talk(client, "t");
    serve(&bed, &taker, queue, HV_MS(1));
    bed_until(&bed, has_all, &taker, HV_SECONDS(20), "events come");
    hv_queue_close(taker.queue);
    for (size_t i = 0; i < taker.kept_count; i++) {
        const char *facility, *text;
        int level;
        assert_int_equal(rd_kafka_event_log(taker.kept[i], &facility, &text, &level), 0);
        rd_kafka_event_destroy(taker.kept[i]);
    }
    rd_kafka_destroy(client);
    bed_close(&bed);
}

static void test_closing_inside_an_event(void **state) {
    (void)state;
    for (size_t more = 0; more < 2; more++) {
        struct bed bed;
        struct taker taker = {.close_at = 3, .more = more};
        bed_open(&bed, 0);
        rd_kafka_t *client = talkative();
        rd_kafka_queue_t *queue = log_queue(client);
        talk(client, "t");
        serve(&bed, &taker, queue, HV_MS(1));
        bed_run_for(&bed, HV_MS(50));
        assert_int_equal(taker.events, 3);
        talk(client, "u"); /* wakes nobody */
        rd_kafka_destroy(client);
        bed_close(&bed);
    }
}

/* With an event left over, and before anything was drained. */
static void test_closing_early(void **state) {
    (void)state;
    struct bed bed;
    struct taker taker = {0};
    bed_open(&bed, 0);
    rd_kafka_t *client = talkative();
    rd_kafka_queue_t *queue = log_queue(client);
    talk(client, "t");
    serve(&bed, &taker, queue, HV_MS(1));
    hv_queue_close(taker.queue);
    hv_queue_close(NULL);
    bed_run_for(&bed, HV_MS(20));
    assert_int_equal(taker.calls, 0);
    rd_kafka_destroy(client);
    bed_close(&bed);
}

/* librdkafka writes to the descriptor under a lock of its queue: it must not block (trap 3). */
static void test_descriptors_do_not_block(void **state) {
    (void)state;
    struct bed bed;
    struct taker taker = {0};
    bed_open(&bed, 0);
    rd_kafka_t *client = talkative();
    serve(&bed, &taker, rd_kafka_queue_new(client), HV_MS(1));
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    int found = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[300], target[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        if (readlink(path, target, sizeof target - 1) < 0 || strstr(target, "eventfd") == NULL) {
            continue;
        }
        found++;
        int fd = atoi(entry->d_name);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
    closedir(dir);
    assert_true(found > 0);
    hv_queue_close(taker.queue);
    rd_kafka_destroy(client);
    bed_close(&bed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_comes),
        cmocka_unit_test(test_all_comes_one_at_a_time),
        cmocka_unit_test(test_all_comes_when_asked_again),
        cmocka_unit_test(test_forwarded_later),
        cmocka_unit_test(test_kept_events_are_the_callees),
        cmocka_unit_test(test_closing_inside_an_event),
        cmocka_unit_test(test_closing_early),
        cmocka_unit_test(test_descriptors_do_not_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
