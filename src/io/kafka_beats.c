/* See kafka_beats.h. Whether a heartbeat arrived is seen by reading it back; delivery reports are asked for only of those that failed, for
 * the reason. */
#include "io/kafka_beats.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "io/kafka_queue.h"

enum { ADMIN_TIMEOUT_MS = 5000, BEAT_MAX = 1024 };

struct hv_beats {
    struct hv_loop *loop;
    rd_kafka_t *client;
    struct hv_queue *queue;
    rd_kafka_topic_t *topic; /* NULL until warm */
    char *topic_name;
    bool plain; /* the broker did not like our settings for the topic: make it with its own */
    const struct hv_beats_handler *handler;
    void *user;
};

/* ---- the leader topic ---- */

/* Heartbeats are worthless after seconds. Old ones go with their segment, so segments are small. */
static void set_retention(rd_kafka_NewTopic_t *topic) {
    rd_kafka_NewTopic_set_config(topic, "cleanup.policy", "delete");
    rd_kafka_NewTopic_set_config(topic, "retention.ms", "60000");
    rd_kafka_NewTopic_set_config(topic, "segment.bytes", "1048576");
}

void hv_beats_make_topic(struct hv_beats *beats) {
    char why[256];
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(beats->topic_name, 1, -1, why, sizeof why);
    if (topic == NULL) {
        beats->handler->topic_made(beats->user, RD_KAFKA_RESP_ERR__INVALID_ARG, why);
        return;
    }
    if (!beats->plain) {
        set_retention(topic);
    }
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(beats->client, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, ADMIN_TIMEOUT_MS, why, sizeof why);
    rd_kafka_CreateTopics(beats->client, &topic, 1, options, hv_queue_handle(beats->queue));
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_NewTopic_destroy(topic);
}

static void on_topic_made(struct hv_beats *beats, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    const char *reason = rd_kafka_event_error_string(event);
    const rd_kafka_CreateTopics_result_t *result = rd_kafka_event_CreateTopics_result(event);
    size_t count = 0;
    const rd_kafka_topic_result_t **topics = result == NULL ? NULL : rd_kafka_CreateTopics_result_topics(result, &count);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR && count > 0) {
        code = rd_kafka_topic_result_error(topics[0]);
        reason = rd_kafka_topic_result_error_string(topics[0]);
    }
    if (code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
        code = RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    if ((code == RD_KAFKA_RESP_ERR_INVALID_CONFIG || code == RD_KAFKA_RESP_ERR_POLICY_VIOLATION) && !beats->plain) {
        beats->plain = true; /* hosted brokers refuse some settings */
        hv_beats_make_topic(beats);
        return;
    }
    beats->handler->topic_made(beats->user, code, reason == NULL ? rd_kafka_err2str(code) : reason);
}

/* ---- heartbeats ---- */

void hv_beats_warm(struct hv_beats *beats) {
    if (beats->topic == NULL) {
        beats->topic = rd_kafka_topic_new(beats->client, beats->topic_name, NULL);
    }
}

void hv_beats_send(struct hv_beats *beats, int64_t stamp, const char *name) {
    char text[BEAT_MAX];
    int length = snprintf(text, sizeof text, "%" PRId64 "%%%s", stamp, name);
    hv_beats_warm(beats);
    if (beats->topic == NULL || length < 0 || length >= (int)sizeof text) {
        return;
    }
    /* A full queue or an unknown topic: this one is lost, the lease takes care of that. */
    rd_kafka_producev(beats->client, RD_KAFKA_V_RKT(beats->topic), RD_KAFKA_V_PARTITION(0),
                      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_VALUE(text, (size_t)length), RD_KAFKA_V_END);
}

/* ---- events ---- */

/* The consumer tells of brokers that are away; once is enough. */
static bool is_about_brokers(rd_kafka_resp_err_t code) {
    return code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
           code == RD_KAFKA_RESP_ERR__RESOLVE;
}

/* One that got too old is no news: then the brokers are away, or slow. */
static void on_failed(struct hv_beats *beats, rd_kafka_event_t *event) {
    const rd_kafka_message_t *message;
    while ((message = rd_kafka_event_message_next(event)) != NULL) {
        if (message->err > RD_KAFKA_RESP_ERR_NO_ERROR) { /* answered by a broker */
            beats->handler->trouble(beats->user, message->err, rd_kafka_err2str(message->err));
        }
    }
}

static enum hv_queue_next on_event(void *user, rd_kafka_event_t *event) {
    struct hv_beats *beats = user;
    const char *facility, *text;
    int level;
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_CREATETOPICS_RESULT:
        on_topic_made(beats, event);
        break;
    case RD_KAFKA_EVENT_DR:
        on_failed(beats, event);
        break;
    case RD_KAFKA_EVENT_ERROR:
        if (!is_about_brokers(rd_kafka_event_error(event))) {
            beats->handler->trouble(beats->user, rd_kafka_event_error(event), rd_kafka_event_error_string(event));
        }
        break;
    case RD_KAFKA_EVENT_LOG:
        if (rd_kafka_event_log(event, &facility, &text, &level) == 0 &&
            !hv_kafka_log_is_noise(facility, text)) {
            beats->handler->log(beats->user, level, facility, text);
        }
        break;
    default:
        break;
    }
    return HV_QUEUE_DONE;
}

/* ---- beginning and end ---- */

static int make_client(struct hv_beats *beats, const struct hv_kafka_properties *base, const char *client_id, hv_time lifetime,
                       struct hv_error *err) {
    char timeout[24], why[256];
    snprintf(timeout, sizeof timeout, "%" PRId64, lifetime / 1000 > 0 ? lifetime / 1000 : 1);
    struct hv_kafka_property list[] = {{"message.timeout.ms", timeout}, {"delivery.report.only.error", "true"}};
    struct hv_kafka_properties own = {.list = list, .count = sizeof list / sizeof list[0]};
    rd_kafka_conf_t *conf;
    if (hv_kafka_conf_make(HV_KAFKA_ELECTION_PRODUCER, client_id, base, NULL, &own, &conf, err) != 0) {
        return -1;
    }
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
    beats->client = hv_kafka_client_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (beats->client == NULL) {
        return hv_error_set(err, "cannot make a Kafka producer: %s", why);
    }
    rd_kafka_set_log_queue(beats->client, NULL);
    return 0;
}

int hv_beats_open(struct hv_loop *loop, const struct hv_kafka_properties *base, const char *client_id, const char *topic,
                  hv_time lifetime, hv_time poll_duration, const struct hv_beats_handler *handler, void *user,
                  struct hv_beats **ret, struct hv_error *err) {
    struct hv_beats *beats = hv_calloc(1, sizeof *beats);
    beats->loop = loop;
    beats->handler = handler;
    beats->user = user;
    beats->topic_name = hv_must(strdup(topic));
    if (make_client(beats, base, client_id, lifetime, err) != 0 ||
        hv_queue_open(loop, rd_kafka_queue_get_main(beats->client), poll_duration, on_event, beats, &beats->queue, err) != 0) {
        hv_beats_close(beats);
        return -1;
    }
    *ret = beats;
    return 0;
}

void hv_beats_close(struct hv_beats *beats) {
    if (beats == NULL) {
        return;
    }
    hv_queue_close(beats->queue);
    if (beats->topic != NULL) {
        rd_kafka_topic_destroy(beats->topic);
    }
    if (beats->client != NULL) {
        hv_kafka_destroy(beats->loop, beats->client);
    }
    free(beats->topic_name);
    free(beats);
}
