/* See kafka_election.h. The consumer's queues (its own, and the client's main one) are forwarded to one queue of ours, which is drained
 * by its descriptor and by a timer: a consumer that is polled only when woken is expelled after max.poll.interval.ms.
 *
 *            ┌───────────── fatal error: destroyed, made anew after a while ─────────────┐
 *            ▼                                                                           │
 *   subscribed ── assign ──► assigned ── revoke ──► pending ── hv_election_answer ──► subscribed
 *        │ topic unknown: make it                      (still drained: the group's patience is max.poll.interval.ms)
 *
 * Partition 0 of the leader topic is what the election is about; others, should there be any, are taken and ignored.
 *
 * This file begins and ends it, takes its events and has the timers and the leader topic; for the others see kafka_election_parts.h. */
#include "io/kafka_election_parts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { TIMERS = 3, TOPIC_RETRY_MS = 10000, TOPIC_SETTLE_MS = 150, CLOSE_POLL_MS = 2, POLL_MS = 1000 };

static void on_later(uv_timer_t *timer);
static void on_poll(uv_timer_t *timer);

/* Rarely, for what there is to see wakes the queue's descriptor; often while it has to be found out whether the group still waits for an
 * answer, of which nothing tells. */
static void start_polling(struct hv_election *e) {
    hv_time interval = e->pending != NULL ? e->poll_interval : hv_time_max(e->poll_interval, HV_MS(POLL_MS));
    uint64_t ms = interval >= 1000 ? (uint64_t)(interval / 1000) : 1;
    uv_timer_start(&e->poll, on_poll, ms, ms);
}

static void do_later(struct hv_election *e) {
    uv_timer_start(&e->later, on_later, 0, 0);
}

/* ---- the leader topic ---- */

static void make_topic(struct hv_election *e) {
    if (e->making_topic || e->handler == NULL) {
        return;
    }
    e->making_topic = true;
    hv_beats_make_topic(e->beats);
}

static void on_retry_topic(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (!e->told_joined && e->consumer != NULL) {
        make_topic(e);
    }
}

static void on_topic_settled(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (!e->told_joined && e->consumer != NULL) {
        hv_election_subscribe(e);
    }
}

static void on_topic_made(void *user, int code, const char *reason) {
    struct hv_election *e = user;
    e->making_topic = false;
    if (e->handler == NULL || e->consumer == NULL) {
        return;
    }
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        /* The consumer looks again by itself within some seconds; at once when it is told again, but not before it has
         * forgotten (after 100 ms) that there was none. */
        uv_timer_start(&e->retry, on_topic_settled, TOPIC_SETTLE_MS, 0);
        return;
    }
    char text[HV_ERROR_MAX];
    snprintf(text, sizeof text,
             "leader topic %s does not exist and cannot be made (%s): run kafka-topics.sh --create --topic %s --partitions 1 "
             "--config retention.ms=60000",
             e->topic, reason, e->topic);
    hv_election_tell(e, false, code, text);
    uv_timer_start(&e->retry, on_retry_topic, TOPIC_RETRY_MS, 0);
}

/* ---- events of the consumer ---- */

static enum hv_queue_next on_rebalance(struct hv_election *e, rd_kafka_event_t *event) {
    enum hv_queue_next next = hv_election_rebalance(e, event);
    if (e->pending == event) {
        start_polling(e);
    }
    return next;
}

static void on_error(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    char reason[HV_ERROR_MAX];
    snprintf(reason, sizeof reason, "%s", rd_kafka_event_error_string(event));
    if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
        code = rd_kafka_fatal_error(e->consumer, reason, sizeof reason);
        hv_election_tell(e, false, code, reason);
        hv_election_lose(e);
        e->fatal = true; /* let go when this drain is over */
        if (e->handler != NULL) {
            do_later(e);
        }
        return;
    }
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
        make_topic(e);
        return;
    }
    hv_election_explain(e, code, reason, sizeof reason);
    hv_election_tell(e, false, code, reason);
}

static enum hv_queue_next on_event(void *user, rd_kafka_event_t *event) {
    struct hv_election *e = user;
    const char *facility, *text;
    int level;
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_REBALANCE:
        return on_rebalance(e, event);
    case RD_KAFKA_EVENT_FETCH:
        hv_election_heartbeats(e, event);
        return HV_QUEUE_DONE;
    case RD_KAFKA_EVENT_ERROR:
        on_error(e, event);
        return HV_QUEUE_DONE;
    case RD_KAFKA_EVENT_LOG:
        if (e->handler != NULL && rd_kafka_event_log(event, &facility, &text, &level) == 0 &&
            !hv_kafka_log_is_noise(facility, text)) {
            e->handler->log(e->user, level, facility, text);
        }
        return HV_QUEUE_DONE;
    default:
        return HV_QUEUE_DONE;
    }
}

/* ---- the consumer ---- */

static void on_retry_consumer(uv_timer_t *timer);

static void retry_consumer(struct hv_election *e) {
    hv_time wait = hv_backoff_next(&e->backoff, &e->dice);
    uv_timer_start(&e->retry, on_retry_consumer, (uint64_t)(wait / 1000), 0);
}

static void on_retry_consumer(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    struct hv_error err;
    assert(e->consumer == NULL);
    if (hv_election_make_consumer(e, on_event, &err) == 0) {
        return;
    }
    hv_election_tell(e, false, RD_KAFKA_RESP_ERR__FAIL, err.text);
    retry_consumer(e);
}

static void on_later(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    hv_election_tell_assigned(e);
    if (!e->fatal) {
        return;
    }
    /* It does nothing any more, and refuses to be closed. */
    e->fatal = false;
    hv_election_drop_consumer(e);
    start_polling(e);
    retry_consumer(e);
}

static void on_poll(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (e->consumer == NULL) {
        return;
    }
    hv_queue_kick(e->queue);
    if (e->pending == NULL || !rd_kafka_assignment_lost(e->consumer)) {
        return;
    }
    /* The group did not wait for our answer. */
    hv_election_let_through(e);
    start_polling(e);
    hv_election_lose(e);
}

void hv_election_answer(struct hv_election *e) {
    if (e->pending == NULL) {
        return;
    }
    hv_election_let_through(e);
    start_polling(e);
    e->owns = false;
    do_later(e);
}

/* ---- heartbeats ---- */

static void on_beats_trouble(void *user, int code, const char *reason) {
    struct hv_election *e = user;
    char text[HV_ERROR_MAX];
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
        snprintf(text, sizeof text, "not allowed to write topic %s: grant WRITE on it (kafka-acls.sh --add --operation Write --topic %s)",
                 e->topic, e->topic);
        reason = text;
    }
    hv_election_tell(e, true, code, reason);
}

static void on_beats_log(void *user, int level, const char *facility, const char *text) {
    struct hv_election *e = user;
    if (e->handler != NULL) {
        e->handler->log(e->user, level, facility, text);
    }
}

static const struct hv_beats_handler beats_handler = {
    .topic_made = on_topic_made, .trouble = on_beats_trouble, .log = on_beats_log};

void hv_election_beat(struct hv_election *e, int64_t stamp, const char *name) {
    hv_beats_send(e->beats, stamp, name);
}

/* ---- beginning ---- */

static struct hv_kafka_property *copy_properties(const struct hv_kafka_properties *from, struct hv_kafka_properties *to) {
    size_t count = from == NULL ? 0 : from->count;
    struct hv_kafka_property *list = hv_calloc(count, sizeof *list);
    for (size_t i = 0; i < count; i++) {
        list[i].name = hv_must(strdup(from->list[i].name));
        list[i].value = hv_must(strdup(from->list[i].value));
    }
    *to = (struct hv_kafka_properties){.list = list, .count = count};
    return list;
}

static void free_properties(struct hv_kafka_property *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free((char *)(uintptr_t)list[i].name);
        free((char *)(uintptr_t)list[i].value);
    }
    free(list);
}

static void free_election(struct hv_election *e) {
    free_properties(e->lists[0], e->base.count);
    free_properties(e->lists[1], e->specific.count);
    free(e->client_id);
    free(e->group_id);
    free(e->topic);
    free(e->assignor);
    free(e);
}

static struct hv_election *new_election(struct hv_loop *loop, const struct hv_election_options *options,
                                        const struct hv_election_handler *handler, void *user) {
    struct hv_election *e = hv_calloc(1, sizeof *e);
    e->loop = loop;
    e->handler = handler;
    e->user = user;
    e->lists[0] = copy_properties(options->base, &e->base);
    e->lists[1] = copy_properties(options->consumer, &e->specific);
    e->client_id = hv_must(strdup(options->client_id));
    e->group_id = hv_must(strdup(options->group_id));
    e->topic = hv_must(strdup(options->topic));
    e->assignor = hv_must(strdup(options->assignor));
    e->heartbeat_timeout = options->heartbeat_timeout;
    e->poll_interval = options->poll_interval;
    e->poll_duration = options->poll_duration;
    e->dice.state = (uint64_t)hv_loop_clock();
    hv_backoff_init(&e->backoff, HV_MS(500), HV_SECONDS(10));
    return e;
}

static void start_timers(struct hv_election *e) {
    uv_timer_t *timers[TIMERS] = {&e->poll, &e->later, &e->retry};
    for (int i = 0; i < TIMERS; i++) {
        uv_timer_init(hv_loop_uv(e->loop), timers[i]);
        timers[i]->data = e;
    }
    e->open_timers = TIMERS;
    start_polling(e);
}

int hv_election_open(struct hv_loop *loop, const struct hv_election_options *options, const struct hv_election_handler *handler,
                     void *user, struct hv_election **ret, struct hv_error *err) {
    struct hv_election *e = new_election(loop, options, handler, user);
    if (hv_beats_open(loop, &e->base, e->client_id, e->topic, e->heartbeat_timeout, e->poll_duration, &beats_handler, e, &e->beats,
                      err) != 0 ||
        hv_election_make_consumer(e, on_event, err) != 0) {
        hv_beats_close(e->beats);
        free_election(e);
        return -1;
    }
    start_timers(e);
    *ret = e;
    return 0;
}

/* ---- end ---- */

static void on_timer_closed(uv_handle_t *handle) {
    struct hv_election *e = handle->data;
    if (--e->open_timers == 0) {
        free_election(e);
    }
}

static void finish(struct hv_election *e) {
    hv_election_drop_consumer(e);
    hv_beats_close(e->beats);
    if (e->left != NULL) {
        e->left(e->user);
    }
    uv_close((uv_handle_t *)&e->poll, on_timer_closed);
    uv_close((uv_handle_t *)&e->later, on_timer_closed);
    uv_close((uv_handle_t *)&e->retry, on_timer_closed);
}

static void on_limit(uv_timer_t *timer) {
    finish(timer->data);
}

static void on_closing(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (rd_kafka_consumer_closed(e->consumer)) {
        finish(e);
    } else {
        hv_queue_kick(e->queue);
    }
}

void hv_election_close(struct hv_election *e, hv_time limit, void (*left)(void *user)) {
    assert(e->handler != NULL); /* once */
    e->handler = NULL;
    e->left = left;
    if (e->pending != NULL) {
        hv_election_let_through(e);
    }
    uv_timer_stop(&e->retry);
    bool closing = false;
    if (e->consumer != NULL) {
        rd_kafka_error_t *error = rd_kafka_consumer_close_queue(e->consumer, hv_queue_handle(e->queue));
        closing = error == NULL;
        rd_kafka_error_destroy(error);
    }
    uint64_t wait = closing && limit > 0 ? (uint64_t)(limit / 1000) : 0;
    uv_timer_start(&e->later, on_limit, wait, 0);
    if (closing) {
        uv_timer_start(&e->poll, on_closing, CLOSE_POLL_MS, CLOSE_POLL_MS);
    } else {
        uv_timer_stop(&e->poll);
    }
}
