/* See kafka_route.h. */
#include "io/kafka_route_parts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define TOPICS_MAX 10000                /* librdkafka keeps each topic as long as the client lives */
#define ASK_AGAIN HV_SECONDS(300)       /* partitions may be added */

/* ---- partitions ---- */

static void choose_partitioner(struct hv_routes *routes, const char *name) {
    if (strncmp(name, "murmur2", 7) == 0) {
        routes->partitioner = rd_kafka_msg_partitioner_murmur2;
    } else if (strncmp(name, "fnv1a", 5) == 0) {
        routes->partitioner = rd_kafka_msg_partitioner_fnv1a;
    } else if (strncmp(name, "consistent", 10) == 0) {
        routes->partitioner = rd_kafka_msg_partitioner_consistent;
        routes->random_if_empty = strcmp(name, "consistent_random") == 0;
    }
}

static int32_t partition_of(struct hv_routes *routes, const struct hv_route_topic *topic, const struct hv_record *record) {
    size_t length = record->key_length > 0 ? (size_t)record->key_length : 0;
    if (routes->partitioner == NULL || (length == 0 && routes->random_if_empty)) {
        return (int32_t)(routes->turn++ % (uint32_t)topic->partition_count);
    }
    const void *key = length > 0 ? (const void *)record->key : "";
    return routes->partitioner(topic->handle, key, length, topic->partition_count, NULL, NULL);
}

void hv_route_record(struct hv_routes *routes, struct hv_route_topic *topic, struct hv_held held) {
    int32_t number = partition_of(routes, topic, held.record);
    assert(number >= 0 && number < topic->partition_count);
    struct hv_route_partition *partition = &topic->partitions[number];
    hv_held_put(&partition->held, held);
    hv_route_note_fresh(routes, topic, number);
}

/* ---- topics ---- */

static rd_kafka_resp_err_t make_topic(struct hv_routes *routes, const char *name, struct hv_route_topic **bucket,
                                      struct hv_route_topic **ret) {
    if (routes->topic_count == TOPICS_MAX) {
        return RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
    }
    struct hv_route_topic *topic = hv_calloc(1, sizeof *topic);
    rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(routes->client);
    rd_kafka_topic_conf_set_opaque(conf, topic);
    rd_kafka_topic_conf_set_partitioner_cb(conf, hv_route_look_at_clock);
    topic->handle = rd_kafka_topic_new(routes->client, name, conf);
    if (topic->handle == NULL) {
        rd_kafka_resp_err_t code = rd_kafka_last_error();
        rd_kafka_topic_conf_destroy(conf);
        free(topic);
        return code == RD_KAFKA_RESP_ERR_NO_ERROR ? RD_KAFKA_RESP_ERR__INVALID_ARG : code;
    }
    topic->next_in_bucket = *bucket;
    *bucket = topic;
    routes->topic_count++;
    *ret = topic;
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t find_topic(struct hv_routes *routes, const char *name, struct hv_route_topic **ret) {
    if (routes->last != NULL && strcmp(rd_kafka_topic_name(routes->last->handle), name) == 0) {
        *ret = routes->last;
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    struct hv_route_topic **bucket = &routes->buckets[hv_fnv1a(name, strlen(name)) % HV_ROUTE_BUCKETS];
    for (struct hv_route_topic *topic = *bucket; topic != NULL; topic = topic->next_in_bucket) {
        if (strcmp(rd_kafka_topic_name(topic->handle), name) == 0) {
            *ret = topic;
            return RD_KAFKA_RESP_ERR_NO_ERROR;
        }
    }
    return make_topic(routes, name, bucket, ret);
}

/* ---- the interface ---- */

rd_kafka_resp_err_t hv_routes_send(struct hv_routes *routes, const struct hv_record *record, uint64_t ticket, bool alone) {
    if (routes->full) {
        return RD_KAFKA_RESP_ERR__QUEUE_FULL;
    }
    const struct hv_held held = {record, ticket, alone};
    struct hv_route_topic *topic;
    rd_kafka_resp_err_t code = find_topic(routes, record->topic, &topic);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return code;
    }
    routes->last = topic;
    if (topic->partition_count == 0 || hv_loop_now(routes->loop) - topic->asked_at >= ASK_AGAIN) {
        hv_route_ask_for(routes, topic);
    }
    if (topic->partition_count == 0) {
        hv_held_put(&topic->held, held);
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    hv_route_record(routes, topic, held);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

uint64_t hv_routes_reported(struct hv_routes *routes, const rd_kafka_message_t *message) {
    uint64_t ticket = hv_given_take(&routes->given, message->_private);
    struct hv_route_topic *topic = rd_kafka_topic_opaque(message->rkt);
    int32_t number = hv_given_partition(message->_private);
    assert(routes->in_flight > 0);
    routes->in_flight--;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        routes->broken = routes->prove;
    }
    if (number >= topic->partition_count) {
        return ticket; /* lost since */
    }
    struct hv_route_partition *partition = &topic->partitions[number];
    if (partition->in_flight > 0) {
        partition->in_flight--;
    }
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        partition->proven = true;
        partition->last_ack = hv_loop_now(routes->loop);
    }
    if (partition->held.count > 0 && !routes->purged) {
        hv_route_note_fresh(routes, topic, number);
    }
    return ticket;
}

static void for_each_queue(struct hv_routes *routes, void (*call)(struct hv_routes *routes, struct hv_held_queue *queue)) {
    for (size_t i = 0; i < HV_ROUTE_BUCKETS; i++) {
        for (struct hv_route_topic *topic = routes->buckets[i]; topic != NULL; topic = topic->next_in_bucket) {
            call(routes, &topic->held);
            for (int32_t n = 0; n < topic->partition_count; n++) {
                call(routes, &topic->partitions[n].held);
            }
        }
    }
}

static void report_purged(struct hv_routes *routes, struct hv_held_queue *queue) {
    hv_held_report(routes, queue, RD_KAFKA_RESP_ERR__PURGE_QUEUE);
}

static void drop(struct hv_routes *routes, struct hv_held_queue *queue) {
    (void)routes;
    free(queue->list);
    *queue = (struct hv_held_queue){0};
}

void hv_routes_purge(struct hv_routes *routes) {
    routes->purged = true;
    routes->stop_asking = true;
    for_each_queue(routes, report_purged);
}

void hv_route_finish_close(struct hv_routes *routes) {
    if (routes->asked != NULL || routes->hurrying) {
        return;
    }
    for (size_t i = 0; i < HV_ROUTE_BUCKETS; i++) {
        while (routes->buckets[i] != NULL) {
            struct hv_route_topic *topic = routes->buckets[i];
            routes->buckets[i] = topic->next_in_bucket;
            rd_kafka_topic_destroy(topic->handle);
            free(topic->partitions);
            free(topic);
        }
    }
    const struct hv_route_handler *handler = routes->handler;
    void *user = routes->user;
    free(routes->fresh);
    free(routes->given.tickets);
    free(routes);
    handler->closed(user);
}

void hv_routes_close(struct hv_routes *routes) {
    routes->closing = true;
    routes->stop_asking = true;
    for_each_queue(routes, drop);
    hv_route_finish_close(routes);
}

struct hv_routes *hv_routes_open(struct hv_loop *loop, rd_kafka_t *client, const char *partitioner,
                                 const struct hv_route_limits *limits, bool prove, const struct hv_route_handler *handler,
                                 void *user) {
    struct hv_routes *routes = calloc(1, sizeof *routes);
    if (routes == NULL) {
        return NULL;
    }
    routes->loop = loop;
    routes->client = client;
    routes->handler = handler;
    routes->user = user;
    routes->limits = *limits;
    routes->prove = prove;
    routes->to_ask_end = &routes->to_ask;
    choose_partitioner(routes, partitioner);
    return routes;
}
