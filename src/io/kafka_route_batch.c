/* See kafka_route_parts.h: when the client is given what is held for a partition. */
#include "io/kafka_route_parts.h"

#include "base/memory.h"

#define PROOF_LASTS HV_SECONDS(600)     /* without traffic */
#define AHEAD 4                         /* records: they are out of the cache when they are given */
#define HURRY_RECORDS 48                /* in flight: with more, the client may linger */
#define PATIENCE HV_MS(5)               /* for the worker: others may keep the pool busy for long */
#define HURRY_MS 1                      /* what it takes the client's thread to see that */
#define PIPELINE 5                      /* records of a partition that librdkafka sends without waiting for those before */
#define SURELY_TAKEN HV_MS(2)           /* after linger.ms, by the client's thread if that is not held up for long */
#define TOO_LATE RD_KAFKA_RESP_ERR__RETRY

/* By the time that it is, not the turn's: a turn that gives many records takes longer than librdkafka waits for them. */
static hv_time last_moment(const struct hv_routes *routes, const struct hv_route_partition *partition) {
    return partition->batch_at + routes->limits.linger * 3 / 4;
}

/* Will a record that is given now travel with the batch that was begun? */
static bool joins_batch(const struct hv_routes *routes, const struct hv_route_partition *partition, const struct hv_record *record) {
    return partition->whole && partition->batch_at > routes->hurried_at &&
           hv_loop_clock() <= last_moment(routes, partition) &&
           partition->batch_records < routes->limits.batch_records &&
           partition->batch_bytes + record->size <= routes->limits.batch_bytes;
}

/* Or does it still linger there? Another would be taken with it then, as far as it is given by that moment. */
static bool is_taken(const struct hv_routes *routes, const struct hv_route_partition *partition) {
    return (partition->batch_at < routes->hurried_at && routes->hurry == HV_HURRY_DONE) ||
           hv_loop_clock() - partition->batch_at >= routes->limits.linger + SURELY_TAKEN;
}

/* May a batch be begun? If records are in flight, then only if the client will send it without waiting for them: up to
 * PIPELINE at any time, more once it has taken those before. */
static bool may_begin(const struct hv_routes *routes, struct hv_route_partition *partition) {
    if (!routes->prove) {
        partition->whole = partition->in_flight == 0 || is_taken(routes, partition);
        return partition->in_flight < PIPELINE;
    }
    if (routes->broken) {
        return false;
    }
    if (partition->in_flight == 0) {
        if (partition->proven && hv_loop_now(routes->loop) - partition->last_ack >= PROOF_LASTS) {
            partition->proven = false;
        }
        partition->whole = true;
        return true;
    }
    if (!partition->proven || partition->in_flight >= PIPELINE) {
        return false;
    }
    partition->whole = is_taken(routes, partition);
    return partition->whole || partition->held.count <= PIPELINE - partition->in_flight;
}

/* Who gives a record may be interrupted at any point, and while that lasts librdkafka takes the others. So there is a last look at the
 * clock from within, when all that is left to do is to put it into the queue: as a partitioner, which may refuse. */
struct last_look {
    hv_time until;
    bool too_late;
};

static _Thread_local struct last_look *last_look;

/* On a thread of librdkafka's there is none: it had forgotten the topic, took the record nevertheless, and knows the topic again. */
int32_t hv_route_look_at_clock(const rd_kafka_topic_t *topic, const void *key, size_t length, int32_t count, void *opaque,
                             void *message_opaque) {
    (void)topic;
    (void)key;
    (void)length;
    (void)opaque;
    if (last_look != NULL && hv_loop_clock() > last_look->until) {
        last_look->too_late = true;
        return count; /* there is no such partition */
    }
    return hv_given_partition(message_opaque);
}

static rd_kafka_resp_err_t produce(struct hv_routes *routes, struct hv_route_topic *topic, int32_t number, const struct hv_record *record,
                                   void *opaque) {
    const struct hv_route_partition *partition = &topic->partitions[number];
    if (partition->in_flight < PIPELINE) {
        return routes->handler->produce(routes->user, topic->handle, number, record, opaque);
    }
    struct last_look look = {.until = last_moment(routes, partition)};
    last_look = &look;
    rd_kafka_resp_err_t code = routes->handler->produce(routes->user, topic->handle, RD_KAFKA_PARTITION_UA, record, opaque);
    last_look = NULL;
    return look.too_late ? TOO_LATE : code;
}

static rd_kafka_resp_err_t give(struct hv_routes *routes, struct hv_route_topic *topic, int32_t number, const struct hv_record *record,
                                uint64_t ticket) {
    void *opaque = hv_given_put(&routes->given, ticket, number);
    rd_kafka_resp_err_t code = produce(routes, topic, number, record, opaque);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        hv_given_take(&routes->given, opaque);
        return code;
    }
    struct hv_route_partition *partition = &topic->partitions[number];
    routes->in_flight++;
    routes->unhurried++;
    partition->in_flight++;
    partition->batch_records++;
    partition->batch_bytes += record->size; /* what it takes in the batch is less */
    return code;
}

/* The client does not take a record. */
static void refuse(struct hv_routes *routes, struct hv_route_topic *topic, uint64_t ticket, rd_kafka_resp_err_t code) {
    routes->broken = routes->prove;
    routes->handler->report(routes->user, ticket, code);
    if (code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC || code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) {
        hv_route_ask_for(routes, topic); /* it was deleted, perhaps made again */
    }
}

/* Does the first held record go now: with the batch that was begun, or beginning another? */
static bool may_give(struct hv_routes *routes, struct hv_route_partition *partition) {
    const struct hv_held *held = &partition->held.list[partition->held.first];
    if (partition->in_flight > 0 && (partition->alone || held->alone)) {
        return false;
    }
    if (partition->in_flight > 0 && partition->proven && !routes->broken && joins_batch(routes, partition, held->record)) {
        return true;
    }
    if (!may_begin(routes, partition)) {
        return false;
    }
    partition->alone = held->alone;
    partition->batch_at = hv_loop_clock();
    partition->batch_records = 0;
    partition->batch_bytes = 0;
    return true;
}

/* Gives to the client what is held for a partition, as far as may be. */
static void release(struct hv_routes *routes, struct hv_route_topic *topic, int32_t number) {
    struct hv_route_partition *partition = &topic->partitions[number];
    while (partition->held.count > 0 && may_give(routes, partition)) {
        struct hv_held *list = partition->held.list + partition->held.first;
        if (partition->held.count > AHEAD) {
            __builtin_prefetch(list[AHEAD].record);
        }
        struct hv_held held = *list;
        rd_kafka_resp_err_t code = give(routes, topic, number, held.record, held.ticket);
        if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL || code == RD_KAFKA_RESP_ERR__FATAL) {
            routes->full = true; /* or fatal: the owner purges */
            return;
        }
        if (code == TOO_LATE) {
            return;
        }
        hv_held_take(&partition->held);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            refuse(routes, topic, held.ticket, code);
        }
    }
}

void hv_route_note_fresh(struct hv_routes *routes, struct hv_route_topic *topic, int32_t number) {
    struct hv_route_partition *partition = &topic->partitions[number];
    if (partition->fresh) {
        return;
    }
    partition->fresh = true;
    if (routes->fresh_count == routes->fresh_capacity) {
        routes->fresh_capacity = routes->fresh_capacity == 0 ? 16 : routes->fresh_capacity * 2;
        routes->fresh = hv_realloc(routes->fresh, routes->fresh_capacity, sizeof *routes->fresh);
    }
    routes->fresh[routes->fresh_count++] = (struct hv_route_place){topic, number};
}

/* ---- hurrying ---- */

/* On the thread pool, since the call blocks until all is acknowledged, for HURRY_MS at most. */
static void send_at_once(void *arg) {
    struct hv_routes *routes = arg;
    int wanted = HV_HURRY_WANTED;
    if (atomic_compare_exchange_strong(&routes->hurry, &wanted, HV_HURRY_OUT)) {
        rd_kafka_flush(routes->client, HURRY_MS);
        routes->hurry = HV_HURRY_DONE;
    }
}

static void sent_at_once(void *arg) {
    struct hv_routes *routes = arg;
    routes->hurrying = false;
    if (routes->closing) {
        hv_route_finish_close(routes);
    } else {
        hv_routes_retry(routes); /* which was put off meanwhile */
        hv_routes_flush(routes);
    }
}

/* Is the client hurried now? A worker that does not get a thread for long is called off. */
static bool is_hurrying(struct hv_routes *routes) {
    if (routes->hurrying && routes->hurry == HV_HURRY_WANTED && hv_loop_clock() - routes->hurried_at >= PATIENCE) {
        int wanted = HV_HURRY_WANTED;
        atomic_compare_exchange_strong(&routes->hurry, &wanted, HV_HURRY_CALLED_OFF);
    }
    return routes->hurrying && (routes->hurry == HV_HURRY_WANTED || routes->hurry == HV_HURRY_OUT);
}

/* A lingering batch gains nothing when little is under way: the client is told not to wait for more. When much is, batches fill by
 * themselves, and breaking them would cost more than it brings. Meanwhile nothing is given to it: it would take the first record
 * alone, and poll for its acknowledgement. */
static void hurry(struct hv_routes *routes) {
    if (routes->hurrying || !routes->limits.hurry || routes->in_flight > HURRY_RECORDS || routes->purged || routes->closing) {
        return;
    }
    routes->hurry = HV_HURRY_WANTED;
    routes->hurrying = hv_loop_offload(routes->loop, send_at_once, sent_at_once, routes) == 0; /* or they linger */
    routes->hurried_at = hv_loop_clock();
    routes->unhurried = 0;
}

void hv_routes_release(struct hv_routes *routes) {
    if (is_hurrying(routes)) {
        return;
    }
    for (size_t i = 0; i < routes->fresh_count; i++) {
        struct hv_route_place place = routes->fresh[i];
        if (place.partition < place.topic->partition_count) {
            place.topic->partitions[place.partition].fresh = false;
            release(routes, place.topic, place.partition);
        }
    }
    routes->fresh_count = 0;
}

void hv_routes_flush(struct hv_routes *routes) {
    hv_routes_release(routes);
    if (routes->unhurried > 0) {
        hurry(routes);
    }
}

bool hv_routes_are_full(const struct hv_routes *routes) {
    return routes->full;
}

void hv_routes_retry(struct hv_routes *routes) {
    if (!routes->full || routes->purged || is_hurrying(routes)) {
        return;
    }
    routes->full = false;
    for (size_t i = 0; i < HV_ROUTE_BUCKETS; i++) {
        for (struct hv_route_topic *topic = routes->buckets[i]; topic != NULL; topic = topic->next_in_bucket) {
            for (int32_t n = 0; n < topic->partition_count; n++) {
                release(routes, topic, n);
            }
        }
    }
}
