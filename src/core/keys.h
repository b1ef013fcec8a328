/* Keys in trouble: those of which a record was refused, or cannot be sent as it is. What happens to one of them must not touch the
 * others, so each has a queue of its own, apart from its shard's. A bounded table, found by key.
 *
 * As long as a key stands here, none of its records goes through the lane of all. If the table is full, the trouble of a key becomes
 * that of its shard: one entry a shard is kept for that, which stands for all keys of the shard that have no entry of their own.
 *
 *            none of it is suspect any more                   (REMOVING: between refused alone and SUSPECT again, see removal.h)
 *   SUSPECT ─────────────────────────────────► LEFT (rows of it were left in the table: until all is claimed anew) or free
 *    │    ▲ there: tried alone                  ▲ gone
 *    │    └──────────────────────── FETCHING ───┘
 *    │ refused alone, or defective   ▲   │ no answer
 *    └─────────────────► BLOCKED ────┘◄──┘
 */
#ifndef HV_CORE_KEYS_H
#define HV_CORE_KEYS_H

#include "core/event.h"
#include "core/slots.h"

enum hv_key_state {
    HV_KEY_FREE,
    HV_KEY_SUSPECT,  /* its records are in `queue`; the first one goes alone */
    HV_KEY_BLOCKED,  /* record `id` was refused; nothing of the key is in memory, the next try is due at `until` */
    HV_KEY_FETCHING, /* that record is being read from the table again */
    HV_KEY_REMOVING, /* that record was refused, and leaves the table; those behind it wait in `queue` */
    HV_KEY_LEFT,     /* nothing is wrong any more, but newer rows must not come before those that were left in the table */
};

struct hv_key {
    uint64_t key;
    uint32_t shard;
    uint8_t state;       /* enum hv_key_state */
    bool whole_shard;    /* stands for all keys of the shard that have no entry of their own */
    bool left;           /* rows of it were seen, or are hidden from claims, and are not in memory */
    bool trial;          /* SUSPECT: the record that was refused is tried again */
    bool asked;          /* REMOVING: the statement is out */
    uint8_t policy;      /* enum hv_poison: what is to become of the record that was refused last */
    uint32_t removing;   /* REMOVING: its slot */
    bool waiting;        /* in the line of those that may have something to do */
    struct hv_list queue; /* by id; only the first one may be in flight, in the suspects' lane */
    uint32_t others;     /* records that were in flight in the lane of all when this became suspect, and still are */
    int64_t id;          /* of the record that was refused last */
    uint32_t attempts;   /* by which it was refused in a row; 0: none was */
    hv_time since;       /* the first of those */
    int code;            /* of the last one, as the report told; 0: the record is defective */
    const char *reason;  /* static text */
    hv_time until;       /* BLOCKED */
    bool of_topic;       /* because of its topic, which is... */
    uint32_t topic;      /* ... this */
    char *topic_name;    /* of the record that was refused last; NULL: not known */
    uint8_t *bytes;      /* the key itself, so that claims can leave its rows out; NULL: not known */
    uint32_t length;
    uint32_t next_in_bucket, next_waiting, next_free;
};

#define HV_NO_KEY HV_NO_SLOT

struct hv_keys {
    struct hv_key *table; /* those of keys, then one for each shard */
    uint32_t max, shards; /* of each kind */
    uint32_t top;         /* entries from here to max were never used */
    uint32_t free;        /* the first of those that were */
    uint32_t used;        /* of both kinds */
    uint32_t *buckets, bucket_mask; /* index + 1, 0: none */
    uint32_t first_waiting, last_waiting;
    uint32_t count[HV_KEY_LEFT + 1]; /* in each state but FREE */
    uint64_t bytes, bytes_max;       /* of keys that are kept */
    struct hv_key_bytes *hidden;     /* see hv_keys_hidden */
    uint32_t hidden_count;
    bool hidden_changed;
};

void hv_keys_init(struct hv_keys *keys, uint32_t max, uint64_t bytes_max, uint32_t shards);
void hv_keys_fini(struct hv_keys *keys);

/* Those that may be in use are from hv_keys_next(keys, HV_NO_KEY) on, until HV_NO_KEY; some are free. */
static inline uint32_t hv_keys_next(const struct hv_keys *keys, uint32_t index) {
    index++; /* from HV_NO_KEY to 0 */
    index = index >= keys->top && index < keys->max ? keys->max : index;
    return keys->used > 0 && index < keys->max + keys->shards ? index : HV_NO_KEY;
}

static inline struct hv_key *hv_key(struct hv_keys *keys, uint32_t index) {
    return &keys->table[index];
}

/* The entry of a key itself; that of its shard; HV_NO_KEY: there is none. */
uint32_t hv_keys_find_exact(const struct hv_keys *keys, uint64_t key, uint32_t shard);
uint32_t hv_keys_find_shard(const struct hv_keys *keys, uint32_t shard);
/* Either, the first kind first. */
uint32_t hv_keys_find(const struct hv_keys *keys, uint64_t key, uint32_t shard);

/* A new entry, SUSPECT and with an empty queue, for a key that has none: its own, or its shard's. */
uint32_t hv_keys_add(struct hv_keys *keys, uint64_t key, uint32_t shard);
/* Its queue is empty. */
void hv_keys_remove(struct hv_keys *keys, uint32_t index);
/* Asserts that the life above allows it. */
void hv_key_move(struct hv_keys *keys, uint32_t index, enum hv_key_state to);

/* Rows of it stay in the table, or all of those are to come again. */
void hv_keys_set_left(struct hv_keys *keys, uint32_t index, bool left);
/* Keeps a copy of the key as long as there is room for it, until the entry is removed. NULL: there is none. */
void hv_keys_keep_bytes(struct hv_keys *keys, uint32_t index, const void *bytes, uint32_t length);
/* Are claims told to leave out its rows? */
static inline bool hv_keys_is_hidden(const struct hv_keys *keys, uint32_t index) {
    return keys->table[index].left && keys->table[index].bytes != NULL;
}
/* The keys whose rows claims need not bring, since they were left before. Lent until one of those is removed, or this called again. */
const struct hv_key_bytes *hv_keys_hidden(struct hv_keys *keys, uint32_t *ret_count);

/* Keeps a copy, which may be cut. */
void hv_keys_keep_topic(struct hv_keys *keys, uint32_t index, const char *name);

/* The line of those that may have something to do. */
void hv_keys_wait(struct hv_keys *keys, uint32_t index);
void hv_keys_leave_line(struct hv_keys *keys); /* the first one */

#endif
