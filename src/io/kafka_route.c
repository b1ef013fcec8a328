/* See kafka_route.h. */
#include "io/kafka_route.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"

#define BUCKETS 1024                    /* of the table of topics */
#define TOPICS_MAX 10000                /* librdkafka keeps each topic as long as the client lives */
#define ASK_TIMEOUT_MS 1000             /* of one metadata request */
#define ASK_TRIES 6                     /* in one go: a topic that is just being created has no leaders yet */
#define UNKNOWN_LIMIT HV_SECONDS(5)     /* then a topic that brokers do not know is taken as missing */
#define ASK_AGAIN HV_SECONDS(300)       /* partitions may be added */
#define PROOF_LASTS HV_SECONDS(600)     /* without traffic */
#define AHEAD 4                         /* records: they are out of the cache when they are given */
#define HURRY_RECORDS 48                /* in flight: with more, the client may linger */
#define PATIENCE HV_MS(5)               /* for the worker: others may keep the pool busy for long */
#define HURRY_MS 1                      /* what it takes the client's thread to see that */
#define PIPELINE 5                      /* records of a partition that librdkafka sends without waiting for those before */
#define SURELY_TAKEN HV_MS(2)           /* after linger.ms, by the client's thread if that is not held up for long */
#define TOO_LATE RD_KAFKA_RESP_ERR__RETRY

struct held {
    const struct hv_record *record;
    uint64_t ticket;
    bool alone; /* in a request of its own */
};

/* A first-in first-out queue, bounded by the records that the owner may have in flight. */
struct fifo {
    struct held *list;
    size_t first, count, capacity;
};

/* The tickets of what the client has. Places that are free are a list: each holds the next one, the last the capacity. */
struct given {
    uint64_t *tickets;
    uint32_t free, capacity;
};

struct partition {
    bool proven;
    bool fresh; /* in the list of those to flush */
    bool alone; /* what is in flight has to be alone */
    uint32_t in_flight;
    hv_time last_ack;
    bool whole;       /* the batch that was begun may have more records than PIPELINE */
    hv_time batch_at; /* when it was begun, and what was given for it */
    uint32_t batch_records;
    int64_t batch_bytes;
    struct fifo held;
};

struct place {
    struct topic *topic;
    int32_t partition;
};

struct topic {
    struct topic *next_in_bucket;
    struct topic *next_to_ask;
    rd_kafka_topic_t *handle;
    struct partition *partitions;
    int32_t partition_count; /* 0: not known */
    bool asking;             /* its metadata is being asked for, or will be */
    hv_time unknown_since;   /* first answer that it does not exist; 0: none */
    hv_time asked_at;
    struct fifo held;        /* while partitions are not known */
};

/* The worker that hurries the client. */
enum hurry {
    WANTED,    /* it waits for a thread */
    OUT,
    DONE,
    CALLED_OFF, /* it came too late: it will not flush */
};

typedef int32_t partitioner_function(const rd_kafka_topic_t *topic, const void *key, size_t length, int32_t count, void *opaque,
                                     void *message_opaque);

struct hv_routes {
    struct hv_loop *loop;
    rd_kafka_t *client;
    const struct hv_route_handler *handler;
    void *user;
    partitioner_function *partitioner; /* NULL: any */
    bool random_if_empty;
    struct hv_route_limits limits;
    bool prove, purged, closing;
    struct given given;
    uint32_t in_flight;       /* records that the client has */
    uint32_t unhurried;       /* of these, given since it was told to hurry */
    bool hurrying;            /* the worker that tells it has not come back */
    atomic_int hurry;         /* what it is at, or was */
    hv_time hurried_at;
    bool full;                /* something is held that only waits for room in the client's queue */
    bool broken;              /* a record failed: what is behind it must not go, the owner purges (only if prove) */
    uint32_t turn;            /* of the partitions for records without a place of their own */
    size_t topic_count;
    struct topic *buckets[BUCKETS];
    struct topic *last;       /* that a record went to */
    struct place *fresh;      /* partitions for which records came since the last flush */
    size_t fresh_count, fresh_capacity;
    struct topic *to_ask, **to_ask_end;
    struct topic *asked;      /* the one that the worker is about; NULL: no worker is out */
    rd_kafka_resp_err_t answer;
    int32_t answer_count;
    atomic_bool stop_asking;
};

/* ---- held records ---- */

static void fifo_put(struct fifo *fifo, struct held held) {
    if (fifo->first + fifo->count == fifo->capacity) {
        if (fifo->first > 0) {
            memmove(fifo->list, fifo->list + fifo->first, fifo->count * sizeof *fifo->list);
            fifo->first = 0;
        } else {
            fifo->capacity = fifo->capacity == 0 ? 16 : fifo->capacity * 2;
            fifo->list = hv_realloc(fifo->list, fifo->capacity, sizeof *fifo->list);
        }
    }
    fifo->list[fifo->first + fifo->count++] = held;
}

static struct held fifo_take(struct fifo *fifo) {
    assert(fifo->count > 0);
    struct held held = fifo->list[fifo->first++];
    if (--fifo->count == 0) {
        free(fifo->list);
        *fifo = (struct fifo){0};
    }
    return held;
}

static void fifo_report(struct hv_routes *routes, struct fifo *fifo, rd_kafka_resp_err_t code) {
    while (fifo->count > 0) {
        routes->handler->report(routes->user, fifo_take(fifo).ticket, code);
    }
}

/* ---- given records ---- */

static_assert(sizeof(void *) >= sizeof(uint64_t), "a place and a partition travel as a pointer");

/* What travels with a record through the client: its place, and its partition, which librdkafka may have to ask for (and a report need
 * not tell). */
static void *opaque_of(uint32_t place, int32_t partition) {
    return (void *)(uintptr_t)((uint64_t)place << 32 | (uint32_t)partition);
}

static int32_t partition_in(const void *opaque) {
    return (int32_t)(uint32_t)(uintptr_t)opaque;
}

static void *given_put(struct given *given, uint64_t ticket, int32_t partition) {
    if (given->free == given->capacity) {
        given->capacity = given->capacity == 0 ? 64 : given->capacity * 2;
        given->tickets = hv_realloc(given->tickets, given->capacity, sizeof *given->tickets);
        for (uint32_t i = given->free; i < given->capacity; i++) {
            given->tickets[i] = i + 1;
        }
    }
    uint32_t place = given->free;
    given->free = (uint32_t)given->tickets[place];
    given->tickets[place] = ticket;
    return opaque_of(place, partition);
}

static uint64_t given_take(struct given *given, const void *opaque) {
    uint32_t place = (uint32_t)((uintptr_t)opaque >> 32);
    assert(place < given->capacity);
    uint64_t ticket = given->tickets[place];
    given->tickets[place] = given->free;
    given->free = place;
    return ticket;
}

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

static int32_t partition_of(struct hv_routes *routes, const struct topic *topic, const struct hv_record *record) {
    size_t length = record->key_length > 0 ? (size_t)record->key_length : 0;
    if (routes->partitioner == NULL || (length == 0 && routes->random_if_empty)) {
        return (int32_t)(routes->turn++ % (uint32_t)topic->partition_count);
    }
    const void *key = length > 0 ? (const void *)record->key : "";
    return routes->partitioner(topic->handle, key, length, topic->partition_count, NULL, NULL);
}

/* By the time that it is, not the turn's: a turn that gives many records takes longer than librdkafka waits for them. */
static hv_time last_moment(const struct hv_routes *routes, const struct partition *partition) {
    return partition->batch_at + routes->limits.linger * 3 / 4;
}

/* Will a record that is given now travel with the batch that was begun? */
static bool joins_batch(const struct hv_routes *routes, const struct partition *partition, const struct hv_record *record) {
    return partition->whole && partition->batch_at > routes->hurried_at &&
           hv_loop_clock() <= last_moment(routes, partition) &&
           partition->batch_records < routes->limits.batch_records &&
           partition->batch_bytes + record->size <= routes->limits.batch_bytes;
}

/* Or does it still linger there? Another would be taken with it then, as far as it is given by that moment. */
static bool is_taken(const struct hv_routes *routes, const struct partition *partition) {
    return (partition->batch_at < routes->hurried_at && routes->hurry == DONE) ||
           hv_loop_clock() - partition->batch_at >= routes->limits.linger + SURELY_TAKEN;
}

/* May a batch be begun? If records are in flight, then only if the client will send it without waiting for them: up to
 * PIPELINE at any time, more once it has taken those before. */
static bool may_begin(const struct hv_routes *routes, struct partition *partition) {
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
static int32_t look_at_clock(const rd_kafka_topic_t *topic, const void *key, size_t length, int32_t count, void *opaque,
                             void *message_opaque) {
    (void)topic;
    (void)key;
    (void)length;
    (void)opaque;
    if (last_look != NULL && hv_loop_clock() > last_look->until) {
        last_look->too_late = true;
        return count; /* there is no such partition */
    }
    return partition_in(message_opaque);
}

static rd_kafka_resp_err_t produce(struct hv_routes *routes, struct topic *topic, int32_t number, const struct hv_record *record,
                                   void *opaque) {
    const struct partition *partition = &topic->partitions[number];
    if (partition->in_flight < PIPELINE) {
        return routes->handler->produce(routes->user, topic->handle, number, record, opaque);
    }
    struct last_look look = {.until = last_moment(routes, partition)};
    last_look = &look;
    rd_kafka_resp_err_t code = routes->handler->produce(routes->user, topic->handle, RD_KAFKA_PARTITION_UA, record, opaque);
    last_look = NULL;
    return look.too_late ? TOO_LATE : code;
}

static rd_kafka_resp_err_t give(struct hv_routes *routes, struct topic *topic, int32_t number, const struct hv_record *record,
                                uint64_t ticket) {
    void *opaque = given_put(&routes->given, ticket, number);
    rd_kafka_resp_err_t code = produce(routes, topic, number, record, opaque);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        given_take(&routes->given, opaque);
        return code;
    }
    struct partition *partition = &topic->partitions[number];
    routes->in_flight++;
    routes->unhurried++;
    partition->in_flight++;
    partition->batch_records++;
    partition->batch_bytes += record->size; /* what it takes in the batch is less */
    return code;
}

static void ask_for(struct hv_routes *routes, struct topic *topic);

/* The client does not take a record. */
static void refuse(struct hv_routes *routes, struct topic *topic, uint64_t ticket, rd_kafka_resp_err_t code) {
    routes->broken = routes->prove;
    routes->handler->report(routes->user, ticket, code);
    if (code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC || code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) {
        ask_for(routes, topic); /* it was deleted, perhaps made again */
    }
}

/* Does the first held record go now: with the batch that was begun, or beginning another? */
static bool may_give(struct hv_routes *routes, struct partition *partition) {
    const struct held *held = &partition->held.list[partition->held.first];
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
static void release(struct hv_routes *routes, struct topic *topic, int32_t number) {
    struct partition *partition = &topic->partitions[number];
    while (partition->held.count > 0 && may_give(routes, partition)) {
        struct held *list = partition->held.list + partition->held.first;
        if (partition->held.count > AHEAD) {
            __builtin_prefetch(list[AHEAD].record);
        }
        struct held held = *list;
        rd_kafka_resp_err_t code = give(routes, topic, number, held.record, held.ticket);
        if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL || code == RD_KAFKA_RESP_ERR__FATAL) {
            routes->full = true; /* or fatal: the owner purges */
            return;
        }
        if (code == TOO_LATE) {
            return;
        }
        fifo_take(&partition->held);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            refuse(routes, topic, held.ticket, code);
        }
    }
}

/* The partition has records that a flush may give. */
static void note_fresh(struct hv_routes *routes, struct topic *topic, int32_t number) {
    struct partition *partition = &topic->partitions[number];
    if (partition->fresh) {
        return;
    }
    partition->fresh = true;
    if (routes->fresh_count == routes->fresh_capacity) {
        routes->fresh_capacity = routes->fresh_capacity == 0 ? 16 : routes->fresh_capacity * 2;
        routes->fresh = hv_realloc(routes->fresh, routes->fresh_capacity, sizeof *routes->fresh);
    }
    routes->fresh[routes->fresh_count++] = (struct place){topic, number};
}

/* Each record of a turn waits for its end: what goes to one partition is given together. */
static void route(struct hv_routes *routes, struct topic *topic, struct held held) {
    int32_t number = partition_of(routes, topic, held.record);
    assert(number >= 0 && number < topic->partition_count);
    struct partition *partition = &topic->partitions[number];
    fifo_put(&partition->held, held);
    note_fresh(routes, topic, number);
}

static void finish_close(struct hv_routes *routes);
static void hurry(struct hv_routes *routes);

/* On the thread pool, since the call blocks until all is acknowledged, for HURRY_MS at most. */
static void send_at_once(void *arg) {
    struct hv_routes *routes = arg;
    int wanted = WANTED;
    if (atomic_compare_exchange_strong(&routes->hurry, &wanted, OUT)) {
        rd_kafka_flush(routes->client, HURRY_MS);
        routes->hurry = DONE;
    }
}

static void sent_at_once(void *arg) {
    struct hv_routes *routes = arg;
    routes->hurrying = false;
    if (routes->closing) {
        finish_close(routes);
    } else {
        hv_routes_retry(routes); /* which was put off meanwhile */
        hv_routes_flush(routes);
    }
}

/* Is the client hurried now? A worker that does not get a thread for long is called off. */
static bool is_hurrying(struct hv_routes *routes) {
    if (routes->hurrying && routes->hurry == WANTED && hv_loop_clock() - routes->hurried_at >= PATIENCE) {
        int wanted = WANTED;
        atomic_compare_exchange_strong(&routes->hurry, &wanted, CALLED_OFF);
    }
    return routes->hurrying && (routes->hurry == WANTED || routes->hurry == OUT);
}

/* A lingering batch gains nothing when little is under way: the client is told not to wait for more. When much is, batches fill by
 * themselves, and breaking them would cost more than it brings. Meanwhile nothing is given to it: it would take the first record
 * alone, and poll for its acknowledgement. */
static void hurry(struct hv_routes *routes) {
    if (routes->hurrying || !routes->limits.hurry || routes->in_flight > HURRY_RECORDS || routes->purged || routes->closing) {
        return;
    }
    routes->hurry = WANTED;
    routes->hurrying = hv_loop_offload(routes->loop, send_at_once, sent_at_once, routes) == 0; /* or they linger */
    routes->hurried_at = hv_loop_clock();
    routes->unhurried = 0;
}

void hv_routes_release(struct hv_routes *routes) {
    if (is_hurrying(routes)) {
        return;
    }
    for (size_t i = 0; i < routes->fresh_count; i++) {
        struct place place = routes->fresh[i];
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

/* ---- metadata ---- */

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

static void ask_for(struct hv_routes *routes, struct topic *topic) {
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
static void lose_partitions(struct hv_routes *routes, struct topic *topic, int32_t count) {
    for (int32_t n = count; n < topic->partition_count; n++) {
        routes->broken = routes->broken || (routes->prove && topic->partitions[n].held.count > 0);
        fifo_report(routes, &topic->partitions[n].held, RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION);
    }
    topic->partition_count = count;
    for (int32_t n = 0; n < count; n++) {
        topic->partitions[n].proven = false;
    }
}

static void learn_partitions(struct hv_routes *routes, struct topic *topic, int32_t count) {
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
        route(routes, topic, fifo_take(&topic->held));
    }
    hv_routes_flush(routes);
}

/* The topic is not there, or not for us. Right after it was made brokers may not know it yet. */
static void learn_trouble(struct hv_routes *routes, struct topic *topic, rd_kafka_resp_err_t code) {
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
        fifo_report(routes, &topic->held, may_come ? RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART : code);
    } else if (topic->held.count > 0) {
        ask_for(routes, topic);
    }
}


static void asked(void *arg) {
    struct hv_routes *routes = arg;
    struct topic *topic = routes->asked;
    routes->asked = NULL;
    topic->asking = false;
    if (routes->closing) {
        finish_close(routes);
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
    struct topic *topic = routes->to_ask;
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

/* ---- topics ---- */

static rd_kafka_resp_err_t make_topic(struct hv_routes *routes, const char *name, struct topic **bucket,
                                      struct topic **ret) {
    if (routes->topic_count == TOPICS_MAX) {
        return RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
    }
    struct topic *topic = hv_calloc(1, sizeof *topic);
    rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(routes->client);
    rd_kafka_topic_conf_set_opaque(conf, topic);
    rd_kafka_topic_conf_set_partitioner_cb(conf, look_at_clock);
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

static rd_kafka_resp_err_t find_topic(struct hv_routes *routes, const char *name, struct topic **ret) {
    if (routes->last != NULL && strcmp(rd_kafka_topic_name(routes->last->handle), name) == 0) {
        *ret = routes->last;
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    struct topic **bucket = &routes->buckets[hv_fnv1a(name, strlen(name)) % BUCKETS];
    for (struct topic *topic = *bucket; topic != NULL; topic = topic->next_in_bucket) {
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
    const struct held held = {record, ticket, alone};
    struct topic *topic;
    rd_kafka_resp_err_t code = find_topic(routes, record->topic, &topic);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return code;
    }
    routes->last = topic;
    if (topic->partition_count == 0 || hv_loop_now(routes->loop) - topic->asked_at >= ASK_AGAIN) {
        ask_for(routes, topic);
    }
    if (topic->partition_count == 0) {
        fifo_put(&topic->held, held);
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    route(routes, topic, held);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

uint64_t hv_routes_reported(struct hv_routes *routes, const rd_kafka_message_t *message) {
    uint64_t ticket = given_take(&routes->given, message->_private);
    struct topic *topic = rd_kafka_topic_opaque(message->rkt);
    int32_t number = partition_in(message->_private);
    assert(routes->in_flight > 0);
    routes->in_flight--;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        routes->broken = routes->prove;
    }
    if (number >= topic->partition_count) {
        return ticket; /* lost since */
    }
    struct partition *partition = &topic->partitions[number];
    if (partition->in_flight > 0) {
        partition->in_flight--;
    }
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        partition->proven = true;
        partition->last_ack = hv_loop_now(routes->loop);
    }
    if (partition->held.count > 0 && !routes->purged) {
        note_fresh(routes, topic, number);
    }
    return ticket;
}

bool hv_routes_are_full(const struct hv_routes *routes) {
    return routes->full;
}

void hv_routes_retry(struct hv_routes *routes) {
    if (!routes->full || routes->purged || is_hurrying(routes)) {
        return;
    }
    routes->full = false;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct topic *topic = routes->buckets[i]; topic != NULL; topic = topic->next_in_bucket) {
            for (int32_t n = 0; n < topic->partition_count; n++) {
                release(routes, topic, n);
            }
        }
    }
}

static void for_each_fifo(struct hv_routes *routes, void (*call)(struct hv_routes *routes, struct fifo *fifo)) {
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct topic *topic = routes->buckets[i]; topic != NULL; topic = topic->next_in_bucket) {
            call(routes, &topic->held);
            for (int32_t n = 0; n < topic->partition_count; n++) {
                call(routes, &topic->partitions[n].held);
            }
        }
    }
}

static void report_purged(struct hv_routes *routes, struct fifo *fifo) {
    fifo_report(routes, fifo, RD_KAFKA_RESP_ERR__PURGE_QUEUE);
}

static void drop(struct hv_routes *routes, struct fifo *fifo) {
    (void)routes;
    free(fifo->list);
    *fifo = (struct fifo){0};
}

void hv_routes_purge(struct hv_routes *routes) {
    routes->purged = true;
    routes->stop_asking = true;
    for_each_fifo(routes, report_purged);
}

/* Once no worker is out. */
static void finish_close(struct hv_routes *routes) {
    if (routes->asked != NULL || routes->hurrying) {
        return;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        while (routes->buckets[i] != NULL) {
            struct topic *topic = routes->buckets[i];
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
    for_each_fifo(routes, drop);
    finish_close(routes);
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
