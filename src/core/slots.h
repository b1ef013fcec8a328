/* Where the records that we hold are kept: a fixed table of slots, found by id, linked into lists by index.
 *
 * Life of a slot:
 *
 *    FREE ──claimed──► UNSENT ──produce──► IN_FLIGHT ──delivered──► ACKED ──purge──► PURGING ──purged──► FREE
 *                        ▲  │                 │ failed                ▲                │ │ refused alone
 *                        └──┼─────────────────┘                       └────failed──────┘ └──► STUCK ──time──► ACKED
 *                           └──forgotten──► FREE
 *
 * Instead of being sent, an UNSENT record that was refused may leave the table: UNSENT ──► REMOVING ──► FREE (removal.h). PURGED comes before
 * FREE, from PURGING or REMOVING, while a claim is out that may still bring the row.
 */
#ifndef HV_CORE_SLOTS_H
#define HV_CORE_SLOTS_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"

#define HV_NO_SLOT UINT32_MAX

/* How a record is sent. Each way takes more care than the one before. */
enum hv_way {
    HV_WAY_OF_ALL, /* through the client of all */
    HV_WAY_APART,  /* through the client of suspects, one at a time a key */
    HV_WAY_ALONE,  /* ... and in a request of its own */
};

enum hv_slot_state {
    HV_SLOT_FREE,
    HV_SLOT_UNSENT,
    HV_SLOT_IN_FLIGHT,
    HV_SLOT_ACKED,
    HV_SLOT_PURGING,
    HV_SLOT_STUCK,
    HV_SLOT_REMOVING, /* it was refused, and leaves the table */
    HV_SLOT_PURGED,   /* it is gone; known until no claim can bring it any more */
};

struct hv_slot {
    int64_t id;
    void *payload;       /* NULL once acknowledged */
    hv_time since;       /* of the state: claimed, handed over, acknowledged */
    uint32_t generation; /* rises at each hand-over, so that a late report finds nothing */
    uint32_t bytes;
    uint32_t version;    /* see struct hv_claimed */
    uint32_t next, prev; /* in the one list that the slot is a member of */
    uint32_t trouble;    /* the key in whose queue it is (keys.h), HV_NO_SLOT: not in one */
    uint64_t key;        /* see struct hv_claimed */
    uint32_t topic;
    uint16_t shard;
    uint8_t state : 4;    /* enum hv_slot_state */
    uint8_t lane : 2;     /* while in flight */
    bool defective : 1;
    bool moved : 1;       /* we gave the row another version since its purge was sent */
    bool other : 1;       /* another row was seen in its place since then, or since its check was */
    uint8_t way : 2;      /* enum hv_way, at least: what was refused, perhaps because of another record, takes another */
    uint8_t puzzles : 4;  /* so often it failed for a reason that we do not know (HV_PUZZLING) */
};

struct hv_list {
    uint32_t first, last, count;
};

struct hv_slots {
    void *memory;
    struct hv_slot *table; /* within it */
    uint32_t capacity, used;
    uint32_t *map; /* open addressing by id; slot index + 1, 0 is empty */
    uint32_t map_mask;
    struct hv_list free; /* given back, the latest first: memory that no peak needed is never touched */
    uint32_t fresh;      /* the first that was not taken yet; none behind it was */
};

void hv_slots_init(struct hv_slots *slots, uint32_t capacity);
void hv_slots_fini(struct hv_slots *slots); /* payloads are the caller's */

static inline struct hv_slot *hv_slot(struct hv_slots *slots, uint32_t index) {
    return &slots->table[index];
}

static inline uint32_t hv_slots_left(const struct hv_slots *slots) {
    return slots->capacity - slots->used;
}

/* The slot that holds this id, or HV_NO_SLOT. */
uint32_t hv_slots_find(const struct hv_slots *slots, int64_t id);

/* Takes a free slot (there is one, asserted) for an id that is not held yet (asserted). State UNSENT, in no list. */
uint32_t hv_slots_take(struct hv_slots *slots, int64_t id);

/* Gives a slot back; it must be in no list. */
void hv_slots_give(struct hv_slots *slots, uint32_t index);

/* An unsent slot is handed over. */
void hv_slot_sent(struct hv_slot *slot, hv_time now);

/* Moves a slot to a state, asserting that the life above allows it. */
void hv_slot_move(struct hv_slot *slot, enum hv_slot_state to);

/* The ticket of a slot's latest hand-over, and back: HV_NO_SLOT unless it is still that hand-over and in flight. */
uint64_t hv_slot_ticket(const struct hv_slots *slots, uint32_t index);
uint32_t hv_slots_by_ticket(const struct hv_slots *slots, uint64_t ticket);

/* It will be looked for in a moment. */
static inline void hv_slots_prefetch(const struct hv_slots *slots, uint64_t ticket) {
    if ((uint32_t)ticket < slots->capacity) {
        __builtin_prefetch(&slots->table[(uint32_t)ticket], 1);
    }
}

#define HV_LIST_EMPTY ((struct hv_list){HV_NO_SLOT, HV_NO_SLOT, 0})

/* Inserts before `before`; HV_NO_SLOT appends. */
static inline void hv_list_insert(struct hv_slots *slots, struct hv_list *list, uint32_t before, uint32_t index) {
    struct hv_slot *slot = &slots->table[index];
    slot->next = before;
    slot->prev = before == HV_NO_SLOT ? list->last : slots->table[before].prev;
    if (slot->prev == HV_NO_SLOT) {
        list->first = index;
    } else {
        slots->table[slot->prev].next = index;
    }
    if (slot->next == HV_NO_SLOT) {
        list->last = index;
    } else {
        slots->table[slot->next].prev = index;
    }
    list->count++;
}

static inline void hv_list_append(struct hv_slots *slots, struct hv_list *list, uint32_t index) {
    hv_list_insert(slots, list, HV_NO_SLOT, index);
}

static inline void hv_list_remove(struct hv_slots *slots, struct hv_list *list, uint32_t index) {
    const struct hv_slot *slot = &slots->table[index];
    if (slot->prev == HV_NO_SLOT) {
        assert(list->first == index);
        list->first = slot->next;
    } else {
        slots->table[slot->prev].next = slot->next;
    }
    if (slot->next == HV_NO_SLOT) {
        assert(list->last == index);
        list->last = slot->prev;
    } else {
        slots->table[slot->next].prev = slot->prev;
    }
    list->count--;
}

/* Puts all of one list behind those of another. */
static inline void hv_list_append_all(struct hv_slots *slots, struct hv_list *list, struct hv_list *from) {
    if (from->count == 0) {
        return;
    }
    if (list->count == 0) {
        *list = *from;
    } else {
        slots->table[list->last].next = from->first;
        slots->table[from->first].prev = list->last;
        list->last = from->last;
        list->count += from->count;
    }
    *from = HV_LIST_EMPTY;
}

#endif
