/* See cmd_pump_consumer.h. The partitions' queues are forwarded to one queue of ours, as is the client's main one. */
#include "app/cmd_pump_consumer.h"

#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "app/cmd_pump_record.h"
#include "base/memory.h"
#include "io/kafka_conf.h"
#include "io/kafka_queue.h"

enum { ANSWER_MS = 8000, TOLD_MAX = 10 /* of each kind of trouble */ };

struct partition {
    size_t topic;
    int32_t id;
    int64_t end; /* first offset that is read */
};

struct hv_pump_consumer {
    struct hv_pump_work *work;
    rd_kafka_t *client;
    rd_kafka_topic_t **topics; /* as many as options->pump_topics */
    struct partition *partitions;
    size_t partition_count;
    struct hv_queue *queue;
    struct hv_pump_heard heard;
    unsigned told_order, told_others;
    struct hv_error last_trouble;
};

/* ---- before the loop runs: where the topics end ---- */

static int make_client(struct hv_pump_consumer *c, struct hv_error *err) {
    /* The role's own values are small, as befits heartbeats. */
    static const struct hv_kafka_property list[] = {
        {"auto.offset.reset", "error"},        {"fetch.message.max.bytes", "1048576"}, {"fetch.max.bytes", "52428800"},
        {"message.max.bytes", "1000000"},      {"queued.max.messages.kbytes", "16384"}, {"fetch.wait.max.ms", "100"},
        {"isolation.level", "read_committed"}, {"fetch.error.backoff.ms", "100"},
    };
    static const struct hv_kafka_properties own = {list, sizeof list / sizeof list[0]};
    const struct hv_settings *s = c->work->settings;
    char why[300];
    rd_kafka_conf_t *conf;
    if (hv_kafka_conf_make(HV_KAFKA_ELECTION_CONSUMER, s->name, &s->kafka, &s->kafka_consumer, &own, &conf, err) != 0) {
        return -1;
    }
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
    c->client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (c->client == NULL) {
        rd_kafka_conf_destroy(conf);
        return hv_error_set(err, "no Kafka client: %s", why);
    }
    rd_kafka_set_log_queue(c->client, NULL);
    return 0;
}

/* What the client complained of, in place of a mere time-out. */
static int unanswered(struct hv_pump_consumer *c, const char *topic, rd_kafka_resp_err_t code, struct hv_error *err) {
    char reason[300];
    snprintf(reason, sizeof reason, "%s", rd_kafka_err2str(code));
    rd_kafka_queue_t *queue = rd_kafka_queue_get_main(c->client);
    for (rd_kafka_event_t *event; (event = rd_kafka_queue_poll(queue, 0)) != NULL; rd_kafka_event_destroy(event)) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR &&
            rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
            snprintf(reason, sizeof reason, "%s", rd_kafka_event_error_string(event));
        }
    }
    rd_kafka_queue_destroy(queue);
    return hv_error_set(err, "topic %s: Kafka cannot be asked for it: %s", topic, reason);
}

/* A topic that was just made is not known to all at once, nor who leads it. Waits a little when that may be the reason. */
static bool may_pass(rd_kafka_resp_err_t code, hv_time since) {
    static const struct timespec pause = {.tv_nsec = 50000000};
    hv_time limit = 0;
    switch (code) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        limit = HV_SECONDS(2);
        break;
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
        limit = HV_MS(ANSWER_MS);
        break;
    default:
        break;
    }
    if (hv_loop_clock() - since >= limit) {
        return false;
    }
    nanosleep(&pause, NULL);
    return true;
}

static int add_partition(struct hv_pump_consumer *c, size_t topic, int32_t id, struct hv_error *err) {
    const char *name = c->work->options->pump_topics.list[topic];
    int64_t low, high;
    rd_kafka_resp_err_t code;
    hv_time since = hv_loop_clock();
    do {
        code = rd_kafka_query_watermark_offsets(c->client, name, id, &low, &high, ANSWER_MS);
    } while (code != RD_KAFKA_RESP_ERR_NO_ERROR && may_pass(code, since));
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return unanswered(c, name, code, err);
    }
    c->partitions = hv_realloc(c->partitions, c->partition_count + 1, sizeof c->partitions[0]);
    c->partitions[c->partition_count++] = (struct partition){.topic = topic, .id = id, .end = high};
    return 0;
}

/* Asks for the topic's partitions. */
static rd_kafka_resp_err_t ask(struct hv_pump_consumer *c, size_t topic, const struct rd_kafka_metadata **ret) {
    hv_time since = hv_loop_clock();
    for (;;) {
        rd_kafka_resp_err_t code = rd_kafka_metadata(c->client, 0, c->topics[topic], ret, ANSWER_MS);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return code;
        }
        const struct rd_kafka_metadata_topic *found = (*ret)->topic_cnt > 0 ? &(*ret)->topics[0] : NULL;
        if (found != NULL && found->err == RD_KAFKA_RESP_ERR_NO_ERROR && found->partition_cnt > 0) {
            return RD_KAFKA_RESP_ERR_NO_ERROR;
        }
        code = found == NULL || found->err == 0 ? RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART : found->err;
        rd_kafka_metadata_destroy(*ret);
        if (!may_pass(code, since)) {
            return code;
        }
    }
}

static int look_at_topic(struct hv_pump_consumer *c, size_t topic, struct hv_error *err) {
    const char *name = c->work->options->pump_topics.list[topic];
    const struct rd_kafka_metadata *metadata;
    c->topics[topic] = hv_must(rd_kafka_topic_new(c->client, name, NULL));
    rd_kafka_resp_err_t code = ask(c, topic, &metadata);
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
        return hv_error_set(err, "topic %s: %s; --verify needs topics that exist and may be read", name, rd_kafka_err2str(code));
    }
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return unanswered(c, name, code, err);
    }
    int bad = 0;
    for (int i = 0; bad == 0 && i < metadata->topics[0].partition_cnt; i++) {
        bad = add_partition(c, topic, metadata->topics[0].partitions[i].id, err);
    }
    rd_kafka_metadata_destroy(metadata);
    return bad;
}

static void free_all(struct hv_pump_consumer *c) {
    for (size_t i = 0; i < c->work->options->pump_topics.count; i++) {
        if (c->topics[i] != NULL) {
            rd_kafka_topic_destroy(c->topics[i]);
        }
    }
    free(c->topics);
    free(c->partitions);
    free(c);
}

int hv_pump_consumer_open(struct hv_pump_work *work, struct hv_pump_consumer **ret, struct hv_error *err) {
    struct hv_pump_consumer *c = hv_calloc(1, sizeof *c);
    c->work = work;
    c->topics = hv_calloc(work->options->pump_topics.count, sizeof c->topics[0]);
    int bad = make_client(c, err);
    for (size_t i = 0; bad == 0 && i < work->options->pump_topics.count; i++) {
        bad = look_at_topic(c, i, err);
    }
    if (bad == 0) {
        *ret = c;
        return 0;
    }
    rd_kafka_t *client = c->client;
    free_all(c);
    if (client != NULL) {
        rd_kafka_destroy(client);
    }
    return -1;
}

/* ---- on the loop ---- */

static void __attribute__((format(printf, 3, 4))) tell(unsigned *told, const rd_kafka_message_t *m, const char *format, ...) {
    char text[300];
    va_list args;
    if (*told >= TOLD_MAX) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s (topic %s, partition %" PRId32 ", offset %" PRId64 ")%s\n", text, rd_kafka_topic_name(m->rkt),
            m->partition, m->offset, ++*told == TOLD_MAX ? "; more of this kind are only counted" : "");
}

/* Reads the headers. False: no record of this run. */
static bool read_tag(const struct hv_pump_consumer *c, const rd_kafka_message_t *m, struct hv_pump_tag *ret) {
    rd_kafka_headers_t *headers;
    const void *pump, *seq;
    size_t pump_size, seq_size;
    return rd_kafka_message_headers(m, &headers) == 0 && rd_kafka_header_get_last(headers, "Pump", &pump, &pump_size) == 0 &&
           rd_kafka_header_get_last(headers, "Seq", &seq, &seq_size) == 0 &&
           hv_pump_tag_read(pump, pump_size, seq, seq_size, ret) && ret->run == c->work->run;
}

static bool is_intact(const struct hv_pump_consumer *c, const rd_kafka_message_t *m, const struct hv_pump_tag *tag) {
    const struct hv_option_texts *topics = &c->work->options->pump_topics;
    return hv_pump_tag_fits(tag, m->key, m->key_len, m->payload, m->len) &&
           strcmp(rd_kafka_topic_name(m->rkt), topics->list[tag->key % topics->count]) == 0;
}

static void judge(struct hv_pump_consumer *c, const rd_kafka_message_t *m, const struct hv_pump_tag *tag) {
    hv_time now = hv_loop_clock();
    enum hv_arrival arrival = hv_ledger_arrived(c->work->ledger, tag->key, tag->seq, tag->doomed, now);
    switch (arrival) {
    case HV_ARRIVAL_OUT_OF_ORDER:
        tell(&c->told_order, m, "out of order: Seq %" PRIu64 " of " HV_PUMP_KEY_PREFIX "%" PRIu32 " came after %" PRIu64,
             tag->seq, tag->key, hv_ledger_highest(c->work->ledger, tag->key));
        c->heard.news = now;
        break;
    case HV_ARRIVAL_FIRST:
        c->heard.news = now;
        break;
    case HV_ARRIVAL_DUPLICATE:
        break;
    case HV_ARRIVAL_PHANTOM:
    case HV_ARRIVAL_INVENTED:
        tell(&c->told_others, m, "%s: Seq %" PRIu64 " of " HV_PUMP_KEY_PREFIX "%" PRIu32,
             arrival == HV_ARRIVAL_PHANTOM ? "phantom, was rolled back" : "invented, never written", tag->seq, tag->key);
        break;
    }
}

static void take_message(struct hv_pump_consumer *c, const rd_kafka_message_t *m) {
    struct hv_pump_tag tag;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        tell(&c->told_others, m, "kafka: %s", rd_kafka_message_errstr(m));
        return;
    }
    if (!read_tag(c, m, &tag)) {
        c->heard.foreign++;
        return;
    }
    if (!is_intact(c, m, &tag)) {
        c->heard.corrupted++;
        tell(&c->told_others, m, "corrupted: what says that it is Seq %" PRIu64 " of " HV_PUMP_KEY_PREFIX "%" PRIu32, tag.seq,
             tag.key);
        return; /* its Seq is worth no more than the rest of it */
    }
    judge(c, m, &tag);
}

static enum hv_queue_next on_event(void *user, rd_kafka_event_t *event) {
    struct hv_pump_consumer *c = user;
    const rd_kafka_message_t *m;
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_FETCH:
        while ((m = rd_kafka_event_message_next(event)) != NULL) {
            take_message(c, m);
        }
        hv_loop_wake(c->work->loop);
        break;
    case RD_KAFKA_EVENT_ERROR:
        if (strcmp(c->last_trouble.text, rd_kafka_event_error_string(event)) != 0) { /* once, not for each attempt */
            hv_error_set(&c->last_trouble, "%s", rd_kafka_event_error_string(event));
            fprintf(stderr, "kafka: %s\n", c->last_trouble.text);
        }
        break;
    default:
        break;
    }
    return HV_QUEUE_DONE;
}

int hv_pump_consumer_start(struct hv_pump_consumer *c, struct hv_error *err) {
    rd_kafka_queue_t *ours = rd_kafka_queue_new(c->client);
    rd_kafka_queue_t *main = rd_kafka_queue_get_main(c->client);
    rd_kafka_queue_forward(main, ours);
    rd_kafka_queue_destroy(main);
    for (size_t i = 0; i < c->partition_count; i++) {
        const struct partition *p = &c->partitions[i];
        if (rd_kafka_consume_start_queue(c->topics[p->topic], p->id, p->end, ours) != 0) {
            rd_kafka_queue_destroy(ours);
            return hv_error_set(err, "topic %s cannot be consumed: %s", rd_kafka_topic_name(c->topics[p->topic]),
                                rd_kafka_err2str(rd_kafka_last_error()));
        }
    }
    return hv_queue_open(c->work->loop, ours, HV_MS(1), on_event, c, &c->queue, err);
}

const struct hv_pump_heard *hv_pump_consumer_heard(const struct hv_pump_consumer *c) {
    return &c->heard;
}

void hv_pump_consumer_close(struct hv_pump_consumer *c) {
    if (c == NULL) {
        return;
    }
    rd_kafka_t *client = c->client;
    struct hv_loop *loop = c->work->loop;
    hv_queue_close(c->queue);
    free_all(c);
    hv_kafka_destroy(loop, client);
}
