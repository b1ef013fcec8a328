/* What the files of struct hv_routes share; nobody else includes this.
 *
 *   kafka_route.c        beginning and end, topics, which partition a record goes to; calls the others
 *   kafka_route_batch.c  when the client is given what is held: proving, batches, hurrying
 *   kafka_route_ask.c    asking for partitions, off the loop
 *   kafka_route_held.c   records that are held, and the tickets of those that the client has
 *
 * Why records are held is told in kafka_route.h. */
#ifndef HV_IO_KAFKA_ROUTE_PARTS_H
#define HV_IO_KAFKA_ROUTE_PARTS_H

#include <stdatomic.h>

#include "io/kafka_route.h"

#define HV_ROUTE_BUCKETS 1024 /* of the table of topics */

struct hv_held {
    const struct hv_record *record;
    uint64_t ticket;
    bool alone; /* in a request of its own */
};

/* A first-in first-out queue, bounded by the records that the owner may have in flight. */
struct hv_held_queue {
    struct hv_held *list;
    size_t first, count, capacity;
};

/* The tickets of what the client has. Places that are free are a list: each holds the next one, the last the capacity. */
struct hv_given {
    uint64_t *tickets;
    uint32_t free, capacity;
};

struct hv_route_partition {
    bool proven;
    bool fresh; /* in the list of those to flush */
    bool alone; /* what is in flight has to be alone */
    uint32_t in_flight;
    hv_time last_ack;
    bool whole;       /* the batch that was begun may have more records than the client sends without waiting */
    hv_time batch_at; /* when it was begun, and what was given for it */
    uint32_t batch_records;
    int64_t batch_bytes;
    struct hv_held_queue held;
};

struct hv_route_place {
    struct hv_route_topic *topic;
    int32_t partition;
};

struct hv_route_topic {
    struct hv_route_topic *next_in_bucket;
    struct hv_route_topic *next_to_ask;
    rd_kafka_topic_t *handle;
    struct hv_route_partition *partitions;
    int32_t partition_count; /* 0: not known */
    bool asking;             /* its metadata is being asked for, or will be */
    hv_time unknown_since;   /* first answer that it does not exist; 0: none */
    hv_time asked_at;
    struct hv_held_queue held; /* while partitions are not known */
};

/* The worker that hurries the client. */
enum hv_hurry {
    HV_HURRY_WANTED,     /* it waits for a thread */
    HV_HURRY_OUT,
    HV_HURRY_DONE,
    HV_HURRY_CALLED_OFF, /* it came too late: it will not flush */
};

typedef int32_t hv_partitioner(const rd_kafka_topic_t *topic, const void *key, size_t length, int32_t count, void *opaque,
                               void *message_opaque);

struct hv_routes {
    struct hv_loop *loop;
    rd_kafka_t *client;
    const struct hv_route_handler *handler;
    void *user;
    hv_partitioner *partitioner; /* NULL: any */
    bool random_if_empty;
    struct hv_route_limits limits;
    bool prove, purged, closing;
    struct hv_given given;
    uint32_t in_flight;       /* records that the client has */
    uint32_t unhurried;       /* of these, given since it was told to hurry */
    bool hurrying;            /* the worker that tells it has not come back */
    atomic_int hurry;         /* what it is at, or was */
    hv_time hurried_at;
    bool full;                /* something is held that only waits for room in the client's queue */
    bool broken;              /* a record failed: what is behind it must not go, the owner purges (only if prove) */
    uint32_t turn;            /* of the partitions for records without a place of their own */
    size_t topic_count;
    struct hv_route_topic *buckets[HV_ROUTE_BUCKETS];
    struct hv_route_topic *last;  /* that a record went to */
    struct hv_route_place *fresh; /* partitions for which records came since the last flush */
    size_t fresh_count, fresh_capacity;
    struct hv_route_topic *to_ask, **to_ask_end;
    struct hv_route_topic *asked; /* the one that the worker is about; NULL: no worker is out */
    rd_kafka_resp_err_t answer;
    int32_t answer_count;
    atomic_bool stop_asking;
};

/* ---- kafka_route_held.c ---- */

void hv_held_put(struct hv_held_queue *queue, struct hv_held held);
struct hv_held hv_held_take(struct hv_held_queue *queue); /* there is one (asserted) */
/* Empties the queue: each record will not be given to the client. */
void hv_held_report(struct hv_routes *routes, struct hv_held_queue *queue, rd_kafka_resp_err_t code);

/* What travels with a record through the client, for its ticket and its partition. */
void *hv_given_put(struct hv_given *given, uint64_t ticket, int32_t partition);
uint64_t hv_given_take(struct hv_given *given, const void *opaque);
int32_t hv_given_partition(const void *opaque);

/* ---- kafka_route_batch.c ---- */

/* A partitioner for librdkafka: it takes that which travels with the record, unless it is too late for that. */
int32_t hv_route_look_at_clock(const rd_kafka_topic_t *topic, const void *key, size_t length, int32_t count, void *opaque,
                               void *message_opaque);
/* The partition has records that a flush may give. */
void hv_route_note_fresh(struct hv_routes *routes, struct hv_route_topic *topic, int32_t number);

/* ---- kafka_route_ask.c ---- */

/* Its partitions will be asked for. */
void hv_route_ask_for(struct hv_routes *routes, struct hv_route_topic *topic);

/* ---- kafka_route.c ---- */

/* The topic's partitions are known: the record waits for the end of the turn, and goes with what else goes there. */
void hv_route_record(struct hv_routes *routes, struct hv_route_topic *topic, struct hv_held held);
/* Once no worker is out. */
void hv_route_finish_close(struct hv_routes *routes);

#endif
