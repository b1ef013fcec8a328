/* See slots.h. */
#include "core/slots.h"

#include <assert.h>

#include "base/fsm.h"
#include "base/memory.h"

#define LINE 64 /* of the cache: each slot is looked for by itself, and has to be waited for */

static const struct hv_fsm_state slot_states[] = {
    [HV_SLOT_FREE] = {"free", HV_TO(HV_SLOT_UNSENT)},
    [HV_SLOT_UNSENT] = {"unsent", HV_TO(HV_SLOT_IN_FLIGHT) | HV_TO(HV_SLOT_REMOVING) | HV_TO(HV_SLOT_FREE)},
    [HV_SLOT_IN_FLIGHT] = {"in flight", HV_TO(HV_SLOT_UNSENT) | HV_TO(HV_SLOT_ACKED)},
    [HV_SLOT_ACKED] = {"acked", HV_TO(HV_SLOT_PURGING)},
    [HV_SLOT_PURGING] = {"purging", HV_TO(HV_SLOT_ACKED) | HV_TO(HV_SLOT_STUCK) | HV_TO(HV_SLOT_PURGED) | HV_TO(HV_SLOT_FREE)},
    [HV_SLOT_STUCK] = {"stuck", HV_TO(HV_SLOT_ACKED)},
    [HV_SLOT_REMOVING] = {"removing", HV_TO(HV_SLOT_PURGED) | HV_TO(HV_SLOT_FREE)},
    [HV_SLOT_PURGED] = {"purged", HV_TO(HV_SLOT_FREE)},
};

/* Ids come in runs, and are looked up in them: those that share all but their last bits stand in one line of the cache, in order, so that
 * they do not collide with each other. The lines are spread by Fibonacci hashing. */
static uint32_t home_of(const struct hv_slots *slots, int64_t id) {
    enum { LINE_BITS = 4 };
    uint64_t z = ((uint64_t)id >> LINE_BITS) * 0x9e3779b97f4a7c15u;
    return ((uint32_t)(z >> 32) << LINE_BITS | ((uint32_t)id & ((1u << LINE_BITS) - 1))) & slots->map_mask;
}

void hv_slots_init(struct hv_slots *slots, uint32_t capacity) {
    assert(capacity > 0 && capacity < (1u << 28));
    uint32_t map_size = 16;
    while (map_size < capacity * 2) {
        map_size *= 2;
    }
    *slots = (struct hv_slots){
        .capacity = capacity,
        .map = hv_calloc(map_size, sizeof *slots->map),
        .map_mask = map_size - 1,
        .free = HV_LIST_EMPTY,
    };
    static_assert(sizeof(struct hv_slot) == LINE, "a slot is a line of the cache");
    slots->memory = hv_calloc(capacity + 1, sizeof *slots->table);
    slots->table = (struct hv_slot *)(((uintptr_t)slots->memory + LINE - 1) & ~(uintptr_t)(LINE - 1));
}

void hv_slots_fini(struct hv_slots *slots) {
    free(slots->memory);
    free(slots->map);
    *slots = (struct hv_slots){0};
}

uint32_t hv_slots_find(const struct hv_slots *slots, int64_t id) {
    for (uint32_t at = home_of(slots, id); slots->map[at] != 0; at = (at + 1) & slots->map_mask) {
        uint32_t index = slots->map[at] - 1;
        if (slots->table[index].id == id) {
            return index;
        }
    }
    return HV_NO_SLOT;
}

uint32_t hv_slots_take(struct hv_slots *slots, int64_t id) {
    assert(slots->used < slots->capacity);
    uint32_t at = home_of(slots, id);
    for (; slots->map[at] != 0; at = (at + 1) & slots->map_mask) {
        assert(slots->table[slots->map[at] - 1].id != id);
    }
    uint32_t index = slots->free.first;
    if (index != HV_NO_SLOT) {
        hv_list_remove(slots, &slots->free, index);
    } else {
        assert(slots->fresh < slots->capacity);
        index = slots->fresh++;
    }
    struct hv_slot *slot = &slots->table[index];
    hv_slot_move(slot, HV_SLOT_UNSENT);
    slot->id = id;
    slot->defective = slot->moved = false;
    slot->way = HV_WAY_OF_ALL;
    slot->puzzles = 0;
    slot->trouble = HV_NO_SLOT;
    slots->map[at] = index + 1;
    slots->used++;
    return index;
}

/* Takes an entry out and closes the gap, so that look-ups need no tombstones (Knuth, TAOCP 3, 6.4, algorithm R). */
static void map_remove(struct hv_slots *slots, int64_t id) {
    uint32_t hole = home_of(slots, id);
    while (slots->table[slots->map[hole] - 1].id != id) {
        hole = (hole + 1) & slots->map_mask;
        assert(slots->map[hole] != 0);
    }
    uint32_t at = hole;
    for (;;) {
        slots->map[hole] = 0;
        uint32_t home;
        do {
            at = (at + 1) & slots->map_mask;
            if (slots->map[at] == 0) {
                return;
            }
            home = home_of(slots, slots->table[slots->map[at] - 1].id);
        } while (((at - home) & slots->map_mask) < ((at - hole) & slots->map_mask));
        slots->map[hole] = slots->map[at];
        hole = at;
    }
}

void hv_slots_give(struct hv_slots *slots, uint32_t index) {
    struct hv_slot *slot = &slots->table[index];
    assert(slot->payload == NULL);
    hv_slot_move(slot, HV_SLOT_FREE);
    map_remove(slots, slot->id);
    hv_list_insert(slots, &slots->free, slots->free.first, index);
    slots->used--;
}

void hv_slot_sent(struct hv_slot *slot, hv_time now) {
    hv_slot_move(slot, HV_SLOT_IN_FLIGHT);
    slot->generation++;
    slot->since = now;
}

void hv_slot_move(struct hv_slot *slot, enum hv_slot_state to) {
    slot->state = (uint8_t)hv_fsm_move("slot", slot_states, slot->state, to);
}

uint64_t hv_slot_ticket(const struct hv_slots *slots, uint32_t index) {
    return (uint64_t)slots->table[index].generation << 32 | index;
}

uint32_t hv_slots_by_ticket(const struct hv_slots *slots, uint64_t ticket) {
    uint32_t index = (uint32_t)ticket;
    if (index >= slots->capacity) {
        return HV_NO_SLOT;
    }
    const struct hv_slot *slot = &slots->table[index];
    return slot->state == HV_SLOT_IN_FLIGHT && slot->generation == (uint32_t)(ticket >> 32) ? index : HV_NO_SLOT;
}
