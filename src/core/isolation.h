/* Isolation: what becomes of a record that was refused, and of its key, so that all other keys go on.
 *
 * Kafka's error names a batch, not a record: each record of it is *suspect*. When sending comes to one, its key is taken out of the
 * shard's queue (keys.h): all its records that are not sent yet wait in a queue of their own until those in flight are back; then
 * suspects go *apart*, one at a time a key, in small batches, through a client of their own, and those of a batch that is refused once
 * more *alone*, each in a request of its own. Who passes is innocent; once no suspect is left, the rest goes back to the shard. Who is
 * refused alone is *poison*, as is a record that cannot be sent as it is: its key is blocked, nothing of it is held in memory, its
 * later rows are left in the table. Its first row is read again after waits that grow, and tried alone: it may have been mended, or
 * deleted, or Kafka take it now. Then what was left of the key must come before anything newer of it: everything is claimed anew,
 * once for all such keys.
 *
 * A topic that takes nothing at all (there is none, or no right to write) is *closed*: one key, the probe, tries it again every few
 * seconds, and all others whose next record goes there wait for its success, without being tried. */
#ifndef HV_CORE_ISOLATION_H
#define HV_CORE_ISOLATION_H

#include "core/backoff.h"
#include "core/config.h"
#include "core/doubt.h"
#include "core/event.h"
#include "core/keys.h"
#include "core/shards.h"

/* A record that fails for a reason that we do not know goes alone after that often with others, and counts as refused after that often
 * in all: between two failures there is a new client, and a wait that grows. */
#define HV_PUZZLES_TOGETHER 3
#define HV_PUZZLES_MAX 8

#define HV_CLOSED_TOPICS 64 /* beyond that, each key tries by itself */

struct hv_refusal {
    bool because_of_topic; /* all records of the topic are */
    bool unknown;          /* nobody knows why: it is neither parked nor skipped */
    int code;              /* see struct hv_report */
    const char *reason;    /* static text */
    bool by_size;
};

struct hv_closed_topic {
    uint32_t topic;
    uint32_t probe;     /* the key that tries it */
    hv_time since;
    struct hv_refusal why;
};

/* Those that are parked, or skipped: see removal.h. */
struct hv_removals {
    uint32_t waiting, asked; /* rows */
    uint32_t batch;
    hv_time not_before;      /* the database does not let us */
    struct hv_backoff backoff;
};

struct hv_isolation {
    struct hv_slots *slots;
    struct hv_shards *shards;
    struct hv_random *dice;
    const struct hv_core_config *config;
    struct hv_keys keys;
    uint32_t unsent;       /* records in the queues of keys */
    uint64_t unsent_bytes;
    uint32_t keep;         /* records of one key in memory, when more of its rows come */
    struct hv_closed_topic closed[HV_CLOSED_TOPICS];
    uint32_t closed_count;
    struct hv_doubts doubts;
    uint32_t trials;       /* records that were refused before and are tried again */
    uint32_t first_due;    /* where to begin to look for those that are due */
    hv_time due;           /* no blocked key is due before */
    struct hv_removals removals[HV_POISON_SKIP + 1]; /* by policy; none for HV_POISON_BLOCK */
    struct hv_removed removed[HV_REMOVALS]; /* of the last statement... */
    int64_t removed_ids[HV_REMOVALS];
    void *told[2 * HV_REMOVALS]; /* topics and keys of those that were parked last: the log may tell of them when their keys are forgotten */
    uint32_t told_count;
};

void hv_isolation_init(struct hv_isolation *iso, struct hv_slots *slots, struct hv_shards *shards, struct hv_random *dice,
                       const struct hv_core_config *config);
void hv_isolation_fini(struct hv_isolation *iso);

/* ---- rows that were claimed ---- */

enum hv_isolation_place { HV_PLACE_SHARD, HV_PLACE_KEY, HV_PLACE_TABLE };

/* While no key is in trouble, what follows costs a branch for each record, and no more. */

/* Where a row that is not held belongs: into its shard; to its key (then *ret_key has it); or it has to be left in the table, which is
 * remembered. */
enum hv_isolation_place hv_isolation_place_in_trouble(struct hv_isolation *iso, uint64_t key, uint32_t shard, uint32_t *ret_key);
static inline enum hv_isolation_place hv_isolation_place(struct hv_isolation *iso, uint64_t key, uint32_t shard, uint32_t *ret_key) {
    return iso->keys.used == 0 ? HV_PLACE_SHARD : hv_isolation_place_in_trouble(iso, key, shard, ret_key);
}
/* Puts an unsent slot that is in no queue into that of the key. */
void hv_isolation_insert(struct hv_isolation *iso, uint32_t key, uint32_t index);
/* Claims may name the key from now on, which is that of the payload. */
void hv_isolation_keep_bytes(struct hv_isolation *iso, uint32_t key, const void *payload);
/* May rows of this key be in the table that are not held, and need not be? */
bool hv_isolation_leaves(const struct hv_isolation *iso, uint64_t key, uint32_t shard);

/* ---- sending ---- */

/* The shard's first unsent record is suspect or defective: from it on, all unsent ones of its key are taken out of the shard. */
void hv_isolation_begin(struct hv_isolation *iso, struct hv_shard *shard);
/* The record that is to go apart or alone next, or HV_NO_SLOT. Blocks keys whose turn brings that up, and gives innocent ones back. */
uint32_t hv_isolation_next(struct hv_isolation *iso, hv_time now, struct hv_actions *out);
/* That one was handed over, the way that it then has. */
void hv_isolation_sent(struct hv_isolation *iso, uint32_t index, hv_time now);
/* ... and acknowledged: it is in no queue. */
void hv_isolation_acked(struct hv_isolation *iso, uint32_t index, hv_time now, struct hv_actions *out);
/* ... or not: it is unsent again. */
void hv_isolation_failed(struct hv_isolation *iso, uint32_t index);
/* ... because it was refused, with others. */
void hv_isolation_refused_with_others(struct hv_isolation *iso, uint32_t index);
/* ... because it was refused, alone: it is poison. */
void hv_isolation_refused(struct hv_isolation *iso, uint32_t index, const struct hv_refusal *why, hv_time now, struct hv_actions *out);
/* Which way has a record to go? */
static inline enum hv_way hv_isolation_way(const struct hv_isolation *iso, const struct hv_slot *slot, hv_time now) {
    enum hv_way way = hv_doubts_way(&iso->doubts, slot, now);
    return way > slot->way ? way : (enum hv_way)slot->way;
}

/* Can the record, the first unsent one of its key, not go the way of all, or not at all? */
static inline bool hv_isolation_is_due(const struct hv_isolation *iso, const struct hv_slot *slot, hv_time now) {
    return slot->defective || hv_isolation_way(iso, slot, now) != HV_WAY_OF_ALL;
}

/* The closed topic, or NULL. */
static inline const struct hv_closed_topic *hv_isolation_closed(const struct hv_isolation *iso, uint32_t topic) {
    for (uint32_t i = 0; i < iso->closed_count; i++) {
        if (iso->closed[i].topic == topic) {
            return &iso->closed[i];
        }
    }
    return NULL;
}

/* A record of the lane of all is back: acknowledged (its slot is in no queue), or unsent in its shard's queue, from where it goes to its
 * key if that is in trouble meanwhile. */
void hv_isolation_other_back_in_trouble(struct hv_isolation *iso, uint32_t index, struct hv_actions *out);
static inline void hv_isolation_other_back(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    if (iso->keys.used > 0) {
        hv_isolation_other_back_in_trouble(iso, index, out);
    }
}

/* Forgets an unsent record that is in the queue of its key: its slot is free, its payload released. */
void hv_isolation_forget(struct hv_isolation *iso, uint32_t index, struct hv_actions *out);
/* Forgets all that is unsent, and every key of which nothing is in flight. */
void hv_isolation_forget_all(struct hv_isolation *iso, struct hv_actions *out);
/* Has one of the unsent records been held since before this time? */
bool hv_isolation_holds_since(const struct hv_isolation *iso, hv_time before);
/* Forgets what is unsent; everything will be claimed anew. */
void hv_isolation_forget_unsent(struct hv_isolation *iso, struct hv_actions *out);

/* Takes an unsent slot out of its key's queue. */
void hv_isolation_take_out(struct hv_isolation *iso, uint32_t index);
/* The row that was to be removed stays: its key is blocked until it is tried again. */
void hv_isolation_block_removed(struct hv_isolation *iso, uint32_t key, hv_time now, struct hv_actions *out);

/* ---- blocked keys ---- */

/* The records that are to be read again now, `max` at most, ascending; returns how many. */
size_t hv_isolation_due(struct hv_isolation *iso, int64_t *ids, size_t max, hv_time now);
hv_time hv_isolation_deadline(const struct hv_isolation *iso);
/* All are due now: somebody says that things were mended. */
void hv_isolation_retry_all(struct hv_isolation *iso, hv_time now);
/* Reading them came to nothing: again at that time. */
void hv_isolation_not_fetched(struct hv_isolation *iso, hv_time until);
/* The key for which this record is being read; HV_NO_KEY: none. */
uint32_t hv_isolation_fetching(const struct hv_isolation *iso, int64_t id);
/* The record is there: it is in the slot, which is in no queue, and will be tried alone. */
void hv_isolation_try(struct hv_isolation *iso, uint32_t key, uint32_t index);
/* It cannot be tried now. */
void hv_isolation_put_off(struct hv_isolation *iso, uint32_t key, hv_time now);
/* It is not there any more, or is of another key now. */
void hv_isolation_gone(struct hv_isolation *iso, uint32_t key, struct hv_actions *out);
/* The answer is complete: the others up to this id are not there, those above were not looked at. */
void hv_isolation_none_came(struct hv_isolation *iso, int64_t up_to, hv_time now, struct hv_actions *out);

/* Everything will be claimed anew, from the first id on: what was left comes again. */
void hv_isolation_claimed_anew(struct hv_isolation *iso);

static inline bool hv_isolation_wants_claim_anew(const struct hv_isolation *iso) {
    return iso->keys.count[HV_KEY_LEFT] > 0;
}

static inline uint32_t hv_isolation_blocked(const struct hv_isolation *iso) {
    return iso->keys.count[HV_KEY_BLOCKED] + iso->keys.count[HV_KEY_FETCHING];
}

#endif
