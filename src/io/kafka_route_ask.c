/* See kafka_route_parts.h: asking for the partitions of topics. */
#include "io/kafka_route_parts.h"

#include <string.h>
#include <time.h>

#include "base/memory.h"

#define ASK_TIMEOUT_MS 1000             /* of one metadata request */
#define ASK_TRIES 6                     /* in one go: a topic that is just being created has no leaders yet */
#define UNKNOWN_LIMIT HV_SECONDS(5)     /* then a topic that brokers do not know is taken as missing */

/* On the thread pool, since the call blocks. */
static void ask(void *arg) {
    struct hv_routes *routes = arg;
    struct timespec pause = {.tv_nsec = 10000000};
    routes->answer = RD_KAFKA_RESP_ERR__TIMED_OUT;
    for (int i = 0; i < ASK_TRIES && !routes->stop_asking; i++) {
        const struct rd_kafka_metadata *metadata;
        rd_kafka_resp_err_t code = rd_kafka_metadata(routes->client, 0, routes->asked->handle, &metadata, ASK_TIMEOUT_MS);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            routes->answer = code;
            continue; /* it took its time-out already */
        }
        bool there = metadata->topic_cnt == 1;
        routes->answer = there ? metadata->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        routes->answer_count = there ? metadata->topics[0].partition_cnt : 0;
        rd_kafka_metadata_destroy(metadata);
        if (routes->answer == RD_KAFKA_RESP_ERR_NO_ERROR && routes->answer_count > 0) {
            return;
        }
        nanosleep(&pause, NULL);
        pause.tv_nsec *= 2;
    }
}

static void ask_next(struct hv_routes *routes);

void hv_route_ask_for(struct hv_routes *routes, struct hv_route_topic *topic) {
    if (topic->asking || routes->purged || routes->closing) {
        return;
    }
    topic->asking = true;
    topic->next_to_ask = NULL;
    *routes->to_ask_end = topic;
    routes->to_ask_end = &topic->next_to_ask;
    ask_next(routes);
}

/* The topic was deleted and made again with fewer partitions. */
static void lose_partitions(struct hv_routes *routes, struct hv_route_topic *topic, int32_t count) {
    for (int32_t n = count; n < topic->partition_count; n++) {
        routes->broken = routes->broken || (routes->prove && topic->partitions[n].held.count > 0);
        hv_held_report(routes, &topic->partitions[n].held, RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION);
    }
    topic->partition_count = count;
    for (int32_t n = 0; n < count; n++) {
        topic->partitions[n].proven = false;
    }
}

static void learn_partitions(struct hv_routes *routes, struct hv_route_topic *topic, int32_t count) {
    topic->unknown_since = 0;
    topic->asked_at = hv_loop_now(routes->loop);
    if (count < topic->partition_count) {
        lose_partitions(routes, topic, count);
    } else if (count > topic->partition_count) {
        topic->partitions = hv_realloc(topic->partitions, (size_t)count, sizeof *topic->partitions);
        memset(topic->partitions + topic->partition_count, 0,
               (size_t)(count - topic->partition_count) * sizeof *topic->partitions);
        topic->partition_count = count;
    }
    while (topic->held.count > 0) {
        hv_route_record(routes, topic, hv_held_take(&topic->held));
    }
    hv_routes_flush(routes);
}

/* The topic is not there, or not for us. Right after it was made brokers may not know it yet. */
static void learn_trouble(struct hv_routes *routes, struct hv_route_topic *topic, rd_kafka_resp_err_t code) {
    hv_time now = hv_loop_now(routes->loop);
    bool may_come = code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
                    code == RD_KAFKA_RESP_ERR_NO_ERROR;
    bool said_by_broker = may_come || code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
                          code == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
    if (may_come && topic->unknown_since == 0) {
        topic->unknown_since = now;
    }
    bool wait = may_come ? now - topic->unknown_since < UNKNOWN_LIMIT : !said_by_broker;
    if (topic->partition_count == 0 && !wait) {
        topic->unknown_since = 0;
        hv_held_report(routes, &topic->held, may_come ? RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART : code);
    } else if (topic->held.count > 0) {
        hv_route_ask_for(routes, topic);
    }
}

static void asked(void *arg) {
    struct hv_routes *routes = arg;
    struct hv_route_topic *topic = routes->asked;
    routes->asked = NULL;
    topic->asking = false;
    if (routes->closing) {
        hv_route_finish_close(routes);
        return;
    }
    if (routes->answer == RD_KAFKA_RESP_ERR_NO_ERROR && routes->answer_count > 0) {
        learn_partitions(routes, topic, routes->answer_count);
    } else {
        learn_trouble(routes, topic, routes->answer);
    }
    ask_next(routes);
}

static void ask_next(struct hv_routes *routes) {
    if (routes->asked != NULL || routes->to_ask == NULL || routes->closing) {
        return;
    }
    struct hv_route_topic *topic = routes->to_ask;
    routes->to_ask = topic->next_to_ask;
    if (routes->to_ask == NULL) {
        routes->to_ask_end = &routes->to_ask;
    }
    routes->asked = topic;
    if (hv_loop_offload(routes->loop, ask, asked, routes) != 0) {
        routes->asked = NULL; /* no memory: the next record of the topic asks again */
        topic->asking = false;
    }
}
