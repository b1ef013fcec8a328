/* Shards: per-shard ordered queues of the records that are not acknowledged yet. A shard is the unit of order, of fairness and of
 * failure isolation. In its queue the records in flight come first, then the unsent ones; `next` is the first unsent one. A
 * failure makes records unsent again and moves `next` back: that is the whole recovery.
 *
 *            refused or defective                 time is up            still in the table
 *   OPEN ───────────────────────────► BLOCKED ───────────────► RESETTING ─────────────────► REREADING
 *    ▲                                   ▲                      │      │ gone: dropped            │ │
 *    │                                   └── database away ─────┘      └──────────► OPEN          │ │
 *    └──── read again: the first record is tried alone ────────────────────────────────────────────┘ └─ not seen ─► BLOCKED
 */
#ifndef HV_CORE_SHARDS_H
#define HV_CORE_SHARDS_H

#include "core/slots.h"

enum hv_shard_mode { HV_SHARD_OPEN, HV_SHARD_BLOCKED, HV_SHARD_RESETTING, HV_SHARD_REREADING };

struct hv_shard {
    struct hv_list queue;
    uint32_t next; /* first unsent slot or HV_NO_SLOT */
    uint32_t in_flight;
    uint64_t in_flight_bytes;
    uint8_t mode;
    bool reset_asked;      /* RESETTING: the statement is out */
    bool suspect;          /* records up to suspect_until go one at a time through the careful client */
    bool spilled;          /* some of its marked rows are not kept in memory: marked anew once it moves again */
    int64_t suspect_until; /* an id */
    hv_time until;         /* BLOCKED, REREADING: when that ends */
    uint32_t failures;     /* of the first record, in a row */
    const char *reason;    /* why the first record is blocked; static text or NULL */
};

struct hv_shards {
    struct hv_slots *slots;
    struct hv_shard *list;
    uint32_t count;
    uint32_t cursor;    /* whose turn it is */
    uint32_t keep;      /* unsent records that a shard which is not open may hold */
    uint32_t unsent;    /* in all shards */
    uint64_t unsent_bytes;
};

void hv_shards_init(struct hv_shards *shards, struct hv_slots *slots, uint32_t count, uint32_t keep);
void hv_shards_fini(struct hv_shards *shards);

static inline uint32_t hv_shard_unsent(const struct hv_shard *shard) {
    return shard->queue.count - shard->in_flight;
}

void hv_shard_move(struct hv_shard *shard, enum hv_shard_mode to);

/* Puts an unsent slot into its shard's queue: after all records in flight, by id among the unsent ones, but never before a record
 * that blocks the shard. */
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

/* Is there a record that the caller may try to send now? At most `limit` records of a shard are in flight, and none is
 * added when they come to `byte_limit`. */
bool hv_shard_may_send(const struct hv_shard *shard, uint32_t limit, uint64_t byte_limit);

#endif
