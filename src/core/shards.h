/* Shards: per-shard ordered queues of the records that are not acknowledged yet. A shard is the unit of fairness; records of one key
 * are of one shard, and in order there. In its queue the records in flight come first, then the unsent ones; `next` is the first unsent
 * one. A failure makes records unsent again and moves `next` back: that is the whole recovery. Keys in trouble have queues of their own
 * (isolation.h). */
#ifndef HV_CORE_SHARDS_H
#define HV_CORE_SHARDS_H

#include "core/slots.h"

struct hv_shard {
    struct hv_list queue;
    uint32_t next; /* first unsent slot or HV_NO_SLOT */
    uint32_t in_flight;
    uint64_t in_flight_bytes;
};

struct hv_shards {
    struct hv_slots *slots;
    struct hv_shard *list;
    uint32_t count;
    uint32_t cursor;    /* whose turn it is */
    uint32_t unsent;    /* in all shards */
    uint64_t unsent_bytes;
};

void hv_shards_init(struct hv_shards *shards, struct hv_slots *slots, uint32_t count);
void hv_shards_fini(struct hv_shards *shards);

static inline uint32_t hv_shard_unsent(const struct hv_shard *shard) {
    return shard->queue.count - shard->in_flight;
}

/* Puts an unsent slot into its shard's queue: after all records in flight, by id among the unsent ones. */
void hv_shards_insert(struct hv_shards *shards, uint32_t index);

/* Takes an unsent slot out of its queue. */
void hv_shards_remove_unsent(struct hv_shards *shards, uint32_t index);

/* The shard's `next` was handed over: in flight now. */
void hv_shards_sent(struct hv_shards *shards, struct hv_shard *shard, hv_time now);

/* A slot in flight was acknowledged: it leaves its queue. */
void hv_shards_acked(struct hv_shards *shards, uint32_t index, hv_time now);

/* A slot in flight was not acknowledged: unsent again, at its place. When records behind it are still in flight, hv_shard_rewind must
 * be called before anything of the shard is sent. */
void hv_shards_failed(struct hv_shards *shards, uint32_t index);

/* Sets `next` to the first unsent record of the queue. */
void hv_shard_rewind(struct hv_shards *shards, struct hv_shard *shard);

#endif
