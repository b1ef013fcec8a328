/* See kafka_election_parts.h: the consumer itself, made and let go. */
#include "io/kafka_election_parts.h"

#include <inttypes.h>
#include <stdio.h>

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
        {"group.id", e->group_id},
        {"partition.assignment.strategy", e->assignor},
        {"session.timeout.ms", session_text},
        {"heartbeat.interval.ms", beat_text},
        {"max.poll.interval.ms", poll_text},
    };
    struct hv_kafka_properties own = {.list = list, .count = sizeof list / sizeof list[0]};
    rd_kafka_conf_t *conf;
    if (hv_kafka_conf_make(HV_KAFKA_ELECTION_CONSUMER, e->client_id, &e->base, &e->specific, &own, &conf, err) != 0) {
        return -1;
    }
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
static int make_queue(struct hv_election *e, hv_election_events *on_event, struct hv_error *err) {
    rd_kafka_queue_t *ours = rd_kafka_queue_new(e->consumer);
    rd_kafka_queue_t *consumer = rd_kafka_queue_get_consumer(e->consumer);
    rd_kafka_set_log_queue(e->consumer, NULL); /* to the main queue */
    rd_kafka_poll_set_consumer(e->consumer);   /* the main queue to the consumer's */
    rd_kafka_queue_forward(consumer, ours);
    rd_kafka_queue_destroy(consumer);
    return hv_queue_open(e->loop, ours, e->poll_duration, on_event, e, &e->queue, err);
}

int hv_election_subscribe(struct hv_election *e) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, e->topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t code = rd_kafka_subscribe(e->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

void hv_election_drop_consumer(struct hv_election *e) {
    if (e->pending != NULL) {
        rd_kafka_event_destroy(e->pending);
    }
    e->pending = NULL;
    hv_queue_close(e->queue);
    e->queue = NULL;
    if (e->topic_handle != NULL) {
        rd_kafka_topic_destroy(e->topic_handle);
    }
    e->topic_handle = NULL;
    if (e->late != NULL) {
        e->late->election = NULL; /* lets it go when librdkafka has replied */
    } else if (e->consumer != NULL) {
        hv_kafka_destroy(e->loop, e->consumer);
    }
    e->late = NULL;
    e->consumer = NULL;
}

int hv_election_make_consumer(struct hv_election *e, hv_election_events *on_event, struct hv_error *err) {
    if (make_client(e, err) != 0) {
        return -1;
    }
    if (make_queue(e, on_event, err) != 0) {
        hv_election_drop_consumer(e);
        return -1;
    }
    rd_kafka_resp_err_t code = hv_election_subscribe(e);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        hv_election_drop_consumer(e);
        return hv_error_set(err, "cannot subscribe to %s: %s", e->topic, rd_kafka_err2str(code));
    }
    return 0;
}
