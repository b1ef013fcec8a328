/* See kafka_election.h. The consumer's queues (its own, and the client's main one) are forwarded to one queue of ours, which is drained
 * by its descriptor and by a timer: a consumer that is polled only when woken is expelled after max.poll.interval.ms.
 *
 *            ┌───────────── fatal error: destroyed, made anew after a while ─────────────┐
 *            ▼                                                                           │
 *   subscribed ── assign ──► assigned ── revoke ──► pending ── hv_election_answer ──► subscribed
 *        │ topic unknown: make it                      (still drained: the group's patience is max.poll.interval.ms)
 *
 * Partition 0 of the leader topic is what the election is about; others, should there be any, are taken and ignored. */
#include "io/kafka_election.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "core/backoff.h"
#include "io/kafka_beats.h"
#include "io/kafka_queue.h"

enum { TIMERS = 3, TROUBLES = 4, BEAT_MAX = 1024, TROUBLE_REPEAT_MS = 30000, TOPIC_RETRY_MS = 10000, TOPIC_SETTLE_MS = 150, CLOSE_POLL_MS = 2, POLL_MS = 1000 };

/* An answer to a rebalance while closing, given on the thread pool. */
struct late_answer {
    struct hv_loop *loop;
    rd_kafka_t *consumer;
    rd_kafka_event_t *event;
    bool add;
    struct hv_election *election; /* NULL: it did not wait; the consumer is to be let go */
};

struct hv_election {
    struct hv_loop *loop;
    const struct hv_election_handler *handler; /* NULL once closing */
    void *user;
    struct hv_kafka_property *lists[2]; /* copies of the users' properties; strings owned */
    struct hv_kafka_properties base, specific;
    char *client_id, *group_id, *topic, *assignor;
    hv_time heartbeat_timeout, poll_interval, poll_duration;

    rd_kafka_t *consumer;         /* NULL while one is to be made anew */
    rd_kafka_topic_t *topic_handle; /* of the consumer's */
    struct hv_queue *queue;
    struct hv_beats *beats;
    rd_kafka_event_t *pending; /* a revoke of partition 0 that waits for its answer */
    struct late_answer *late;  /* that is being given */
    bool owns, told_owns, told_joined;
    bool making_topic;
    bool fatal; /* the consumer is finished; another one is made in the next iteration */
    struct {
        int code;
        bool beats;
        hv_time at;
    } troubles[TROUBLES]; /* told last, a ring: what repeats for ever is told now and then */
    unsigned trouble_count;
    struct hv_backoff backoff;
    struct hv_random dice;

    uv_timer_t poll;  /* polls the consumer; while closing, looks whether it is closed */
    uv_timer_t later; /* does what cannot be done inside a call or an event; ends a close that takes too long */
    uv_timer_t retry; /* makes a consumer or the topic again */
    int open_timers;
    void (*left)(void *user);
};

static void on_later(uv_timer_t *timer);
static void on_poll(uv_timer_t *timer);

/* Rarely, for what there is to see wakes the queue's descriptor; often while it has to be found out whether the group still waits for an
 * answer, of which nothing tells. */
static void start_polling(struct hv_election *e) {
    hv_time interval = e->pending != NULL ? e->poll_interval : hv_time_max(e->poll_interval, HV_MS(POLL_MS));
    uint64_t ms = interval >= 1000 ? (uint64_t)(interval / 1000) : 1;
    uv_timer_start(&e->poll, on_poll, ms, ms);
}

/* ---- telling ---- */

/* `beats`: it came from the client that sends heartbeats; the same code means something else there. */
static void tell_trouble_of(struct hv_election *e, bool beats, int code, const char *reason) {
    if (e->handler == NULL)
        return;
    hv_time now = hv_loop_now(e->loop);
    for (unsigned i = 0; i < TROUBLES && i < e->trouble_count; i++) {
        if (e->troubles[i].code == code && e->troubles[i].beats == beats && now - e->troubles[i].at < HV_MS(TROUBLE_REPEAT_MS))
            return;
    }
    e->troubles[e->trouble_count % TROUBLES].code = code;
    e->troubles[e->trouble_count % TROUBLES].beats = beats;
    e->troubles[e->trouble_count % TROUBLES].at = now;
    e->trouble_count++;
    e->handler->trouble(e->user, code, reason);
}

static void tell_trouble(struct hv_election *e, int code, const char *reason) {
    tell_trouble_of(e, false, code, reason);
}

static void tell_assigned(struct hv_election *e) {
    if (e->told_owns == e->owns || e->handler == NULL)
        return;
    e->told_owns = e->owns;
    e->handler->assigned(e->user, e->owns);
}

/* Partition 0 is gone without a hand-over. */
static void lose(struct hv_election *e) {
    e->told_joined = false;
    if (!e->owns)
        return;
    e->owns = false;
    if (e->handler != NULL)
        e->handler->revoked(e->user, true);
    tell_assigned(e);
}

/* ---- the assignment ---- */

static bool is_cooperative(rd_kafka_t *consumer) {
    const char *protocol = rd_kafka_rebalance_protocol(consumer);
    return protocol != NULL && strcmp(protocol, "COOPERATIVE") == 0;
}

static bool has_leader_partition(const struct hv_election *e, const rd_kafka_topic_partition_list_t *list) {
    return rd_kafka_topic_partition_list_find((rd_kafka_topic_partition_list_t *)(uintptr_t)list, e->topic, 0) != NULL;
}

/* Gives librdkafka the list, in the words of the group's protocol. Waits for a thread of librdkafka's, which answers at once unless the
 * consumer is being closed. */
static rd_kafka_resp_err_t answer(rd_kafka_t *consumer, bool add, const rd_kafka_topic_partition_list_t *list) {
    if (list == NULL || !is_cooperative(consumer)) {
        return rd_kafka_assign(consumer, add ? list : NULL);
    }
    rd_kafka_error_t *error = add ? rd_kafka_incremental_assign(consumer, list) : rd_kafka_incremental_unassign(consumer, list);
    rd_kafka_resp_err_t code = error == NULL ? RD_KAFKA_RESP_ERR_NO_ERROR : rd_kafka_error_code(error);
    rd_kafka_error_destroy(error);
    return code;
}

static void apply(struct hv_election *e, bool add, const rd_kafka_topic_partition_list_t *list) {
    rd_kafka_resp_err_t code = answer(e->consumer, add, list);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        tell_trouble(e, code, rd_kafka_err2str(code));
    }
}

static void give_late_answer(void *arg) {
    struct late_answer *late = arg;
    answer(late->consumer, late->add, rd_kafka_event_topic_partition_list(late->event));
}

static void late_answer_given(void *arg) {
    struct late_answer *late = arg;
    rd_kafka_event_destroy(late->event);
    if (late->election != NULL) {
        late->election->late = NULL;
    } else {
        hv_kafka_destroy(late->loop, late->consumer);
    }
    free(late);
}

/* While closing. librdkafka 2.0.2 may end the group's business with our answer on its way and drop it; who waits for the reply to
 * that waits for ever. It must not be the loop. */
static enum hv_queue_next answer_late(struct hv_election *e, bool add, rd_kafka_event_t *event) {
    if (e->late != NULL) {
        return HV_QUEUE_MORE; /* one after the other */
    }
    struct late_answer *late = hv_calloc(1, sizeof *late);
    *late = (struct late_answer){.loop = e->loop, .consumer = e->consumer, .event = event, .add = add, .election = e};
    if (hv_loop_offload(e->loop, give_late_answer, late_answer_given, late) != 0) {
        free(late);
        return HV_QUEUE_DONE; /* no memory: the limit of the closing ends it */
    }
    e->late = late;
    return HV_QUEUE_KEPT;
}

static void on_assign(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    tell_assigned(e); /* an answered revoke before this */
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = RD_KAFKA_OFFSET_END; /* the heartbeats of earlier leaders mean nothing to us */
    apply(e, true, list);
    e->trouble_count = 0;
    hv_backoff_reset(&e->backoff);
    e->owns = e->owns || has_leader_partition(e, list);
    hv_beats_warm(e->beats);
    if (!e->told_joined) {
        e->told_joined = true;
        e->handler->joined(e->user);
    }
    tell_assigned(e);
}

static enum hv_queue_next on_revoke(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    bool ours = e->owns && has_leader_partition(e, list);
    bool lost = rd_kafka_assignment_lost(e->consumer);
    if (ours && !lost) {
        assert(e->pending == NULL); /* librdkafka waits for the answer */
        e->pending = event;
        start_polling(e);
        e->handler->revoked(e->user, false);
        return HV_QUEUE_KEPT;
    }
    /* The handler first: the answer lets the group go on. */
    if (ours || lost)
        lose(e);
    apply(e, false, list);
    return HV_QUEUE_DONE;
}

static void let_through(struct hv_election *e) {
    rd_kafka_event_t *event = e->pending;
    e->pending = NULL;
    start_polling(e);
    apply(e, false, rd_kafka_event_topic_partition_list(event));
    rd_kafka_event_destroy(event);
}

void hv_election_answer(struct hv_election *e) {
    if (e->pending == NULL)
        return;
    let_through(e);
    e->owns = false;
    uv_timer_start(&e->later, on_later, 0, 0);
}

static enum hv_queue_next on_rebalance(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    if (e->handler == NULL) { /* librdkafka takes whatever we say as an empty assignment */
        return answer_late(e, code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, event);
    }
    if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        on_assign(e, event);
        return HV_QUEUE_DONE;
    }
    if (code == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
        return on_revoke(e, event);
    lose(e);
    rd_kafka_assign(e->consumer, NULL);
    return HV_QUEUE_DONE;
}

/* ---- heartbeats read ---- */

static void on_fetched(struct hv_election *e, rd_kafka_event_t *event) {
    char text[BEAT_MAX];
    const rd_kafka_message_t *message;
    while ((message = rd_kafka_event_message_next(event)) != NULL) {
        if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            tell_trouble(e, message->err, rd_kafka_message_errstr(message));
            continue;
        }
        if (message->partition != 0 || message->payload == NULL || message->len >= sizeof text || !e->owns)
            continue;
        memcpy(text, message->payload, message->len);
        text[message->len] = '\0';
        char *end;
        errno = 0;
        int64_t stamp = strtoll(text, &end, 10);
        if (errno == 0 && end != text && *end == '%' && strlen(text) == message->len && e->handler != NULL)
            e->handler->heartbeat(e->user, stamp, end + 1);
    }
}

/* ---- errors ---- */

static void make_topic(struct hv_election *e) {
    if (e->making_topic || e->handler == NULL)
        return;
    e->making_topic = true;
    hv_beats_make_topic(e->beats);
}

static void on_error(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    char reason[HV_ERROR_MAX];
    snprintf(reason, sizeof reason, "%s", rd_kafka_event_error_string(event));
    if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
        code = rd_kafka_fatal_error(e->consumer, reason, sizeof reason);
        tell_trouble(e, code, reason);
        lose(e);
        e->fatal = true; /* let go when this drain is over */
        if (e->handler != NULL)
            uv_timer_start(&e->later, on_later, 0, 0);
        return;
    }
    switch (code) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        make_topic(e);
        return;
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
        snprintf(reason, sizeof reason,
                 "the brokers refuse a session of %" PRId64 " ms, which is three times heartbeat_timeout: change heartbeat_timeout, or "
                 "the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms",
                 e->heartbeat_timeout * 3 / 1000);
        break;
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
        snprintf(reason, sizeof reason, "not allowed to join group %s: grant READ on it (kafka-acls.sh --add --operation Read --group %s)",
                 e->group_id, e->group_id);
        break;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        snprintf(reason, sizeof reason, "not allowed to read topic %s: grant READ and WRITE on it, and CREATE if it does not exist (kafka-acls.sh --add --operation Read "
                 "--operation Write --topic %s)",
                 e->topic, e->topic);
        break;
    case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
        snprintf(reason, sizeof reason, "other members of group %s use another assignor than %s: set leader_assignor to theirs",
                 e->group_id, e->assignor);
        break;
    default:
        break;
    }
    tell_trouble(e, code, reason);
}

static enum hv_queue_next on_event(void *user, rd_kafka_event_t *event) {
    struct hv_election *e = user;
    const char *facility, *text;
    int level;
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_REBALANCE:
        return on_rebalance(e, event);
    case RD_KAFKA_EVENT_FETCH:
        on_fetched(e, event);
        return HV_QUEUE_DONE;
    case RD_KAFKA_EVENT_ERROR:
        on_error(e, event);
        return HV_QUEUE_DONE;
    case RD_KAFKA_EVENT_LOG:
        if (e->handler != NULL && rd_kafka_event_log(event, &facility, &text, &level) == 0 &&
            !hv_kafka_log_is_noise(facility, text))
            e->handler->log(e->user, level, facility, text);
        return HV_QUEUE_DONE;
    default:
        return HV_QUEUE_DONE;
    }
}

/* ---- the consumer ---- */

static int subscribe(struct hv_election *e) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, e->topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t code = rd_kafka_subscribe(e->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

hv_time hv_election_patience(hv_time heartbeat_timeout) {
    return hv_time_max(3 * heartbeat_timeout, HV_SECONDS(300));
}

static int make_client(struct hv_election *e, struct hv_error *err) {
    int64_t session = e->heartbeat_timeout * 3 / 1000;
    int64_t beat = session / 10 < 1000 ? session / 10 : 1000;
    char session_text[24], beat_text[24], poll_text[24], why[256];
    snprintf(session_text, sizeof session_text, "%" PRId64, session);
    snprintf(beat_text, sizeof beat_text, "%" PRId64, beat > 0 ? beat : 1);
    snprintf(poll_text, sizeof poll_text, "%" PRId64, hv_election_patience(e->heartbeat_timeout) / 1000);
    struct hv_kafka_property list[] = {
        {"group.id", e->group_id},           {"partition.assignment.strategy", e->assignor},
        {"session.timeout.ms", session_text}, {"heartbeat.interval.ms", beat_text},
        {"max.poll.interval.ms", poll_text},
    };
    struct hv_kafka_properties own = {.list = list, .count = sizeof list / sizeof list[0]};
    rd_kafka_conf_t *conf;
    if (hv_kafka_conf_make(HV_KAFKA_ELECTION_CONSUMER, e->client_id, &e->base, &e->specific, &own, &conf, err) != 0)
        return -1;
    rd_kafka_conf_set_events(conf,
                             RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
    e->consumer = hv_kafka_client_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (e->consumer == NULL) {
        return hv_error_set(err, "cannot make a Kafka consumer: %s", why);
    }
    /* Nothing is done with the handle, but while it stands librdkafka knows the partition's leader already when it is assigned. If it has
     * to look first, it waits half a second before it fetches. */
    e->topic_handle = rd_kafka_topic_new(e->consumer, e->topic, NULL);
    return 0;
}

/* Forwards whatever the client has to say to one queue of ours. That one may also be given to the asynchronous close, which forwards the
 * consumer's queue to it: the consumer's own would then be forwarded to itself. */
static int make_queue(struct hv_election *e, struct hv_error *err) {
    rd_kafka_queue_t *ours = rd_kafka_queue_new(e->consumer);
    rd_kafka_queue_t *consumer = rd_kafka_queue_get_consumer(e->consumer);
    rd_kafka_set_log_queue(e->consumer, NULL); /* to the main queue */
    rd_kafka_poll_set_consumer(e->consumer);   /* the main queue to the consumer's */
    rd_kafka_queue_forward(consumer, ours);
    rd_kafka_queue_destroy(consumer);
    return hv_queue_open(e->loop, ours, e->poll_duration, on_event, e, &e->queue, err);
}

/* Lets the consumer go without leaving the group. */
static void drop_consumer(struct hv_election *e) {
    if (e->pending != NULL)
        rd_kafka_event_destroy(e->pending);
    e->pending = NULL;
    hv_queue_close(e->queue);
    e->queue = NULL;
    if (e->topic_handle != NULL)
        rd_kafka_topic_destroy(e->topic_handle);
    e->topic_handle = NULL;
    if (e->late != NULL)
        e->late->election = NULL; /* lets it go when librdkafka has replied */
    else if (e->consumer != NULL)
        hv_kafka_destroy(e->loop, e->consumer);
    e->late = NULL;
    e->consumer = NULL;
}

static int make_consumer(struct hv_election *e, struct hv_error *err) {
    if (make_client(e, err) != 0)
        return -1;
    if (make_queue(e, err) != 0) {
        drop_consumer(e);
        return -1;
    }
    rd_kafka_resp_err_t code = subscribe(e);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        drop_consumer(e);
        return hv_error_set(err, "cannot subscribe to %s: %s", e->topic, rd_kafka_err2str(code));
    }
    return 0;
}

static void on_retry_consumer(uv_timer_t *timer);

static void retry_consumer(struct hv_election *e) {
    hv_time wait = hv_backoff_next(&e->backoff, &e->dice);
    uv_timer_start(&e->retry, on_retry_consumer, (uint64_t)(wait / 1000), 0);
}

static void on_retry_consumer(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    struct hv_error err;
    assert(e->consumer == NULL);
    if (make_consumer(e, &err) == 0)
        return;
    tell_trouble(e, RD_KAFKA_RESP_ERR__FAIL, err.text);
    retry_consumer(e);
}

static void on_later(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    tell_assigned(e);
    if (!e->fatal)
        return;
    /* It does nothing any more, and refuses to be closed. */
    e->fatal = false;
    drop_consumer(e);
    start_polling(e);
    retry_consumer(e);
}

static void on_poll(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (e->consumer == NULL)
        return;
    hv_queue_kick(e->queue);
    if (e->pending == NULL || !rd_kafka_assignment_lost(e->consumer))
        return;
    /* The group did not wait for our answer. */
    let_through(e);
    lose(e);
}

/* ---- the leader topic ---- */

static void on_retry_topic(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (!e->told_joined && e->consumer != NULL)
        make_topic(e);
}

static void on_topic_settled(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (!e->told_joined && e->consumer != NULL)
        subscribe(e);
}

static void on_topic_made(void *user, int code, const char *reason) {
    struct hv_election *e = user;
    e->making_topic = false;
    if (e->handler == NULL || e->consumer == NULL)
        return;
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
    tell_trouble(e, code, text);
    uv_timer_start(&e->retry, on_retry_topic, TOPIC_RETRY_MS, 0);
}

static void on_beats_trouble(void *user, int code, const char *reason) {
    struct hv_election *e = user;
    char text[HV_ERROR_MAX];
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
        snprintf(text, sizeof text, "not allowed to write topic %s: grant WRITE on it (kafka-acls.sh --add --operation Write --topic %s)",
                 e->topic, e->topic);
        reason = text;
    }
    tell_trouble_of(e, true, code, reason);
}

static void on_beats_log(void *user, int level, const char *facility, const char *text) {
    struct hv_election *e = user;
    if (e->handler != NULL)
        e->handler->log(e->user, level, facility, text);
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
        make_consumer(e, err) != 0) {
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
    if (--e->open_timers == 0)
        free_election(e);
}

static void finish(struct hv_election *e) {
    drop_consumer(e);
    hv_beats_close(e->beats);
    if (e->left != NULL)
        e->left(e->user);
    uv_close((uv_handle_t *)&e->poll, on_timer_closed);
    uv_close((uv_handle_t *)&e->later, on_timer_closed);
    uv_close((uv_handle_t *)&e->retry, on_timer_closed);
}

static void on_limit(uv_timer_t *timer) {
    finish(timer->data);
}

static void on_closing(uv_timer_t *timer) {
    struct hv_election *e = timer->data;
    if (rd_kafka_consumer_closed(e->consumer))
        finish(e);
    else
        hv_queue_kick(e->queue);
}

void hv_election_close(struct hv_election *e, hv_time limit, void (*left)(void *user)) {
    assert(e->handler != NULL); /* once */
    e->handler = NULL;
    e->left = left;
    if (e->pending != NULL)
        let_through(e);
    uv_timer_stop(&e->retry);
    bool closing = false;
    if (e->consumer != NULL) {
        rd_kafka_error_t *error = rd_kafka_consumer_close_queue(e->consumer, hv_queue_handle(e->queue));
        closing = error == NULL;
        rd_kafka_error_destroy(error);
    }
    uint64_t wait = closing && limit > 0 ? (uint64_t)(limit / 1000) : 0;
    uv_timer_start(&e->later, on_limit, wait, 0);
    if (closing)
        uv_timer_start(&e->poll, on_closing, CLOSE_POLL_MS, CLOSE_POLL_MS);
    else
        uv_timer_stop(&e->poll);
}
