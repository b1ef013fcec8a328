/* See cmd_pump_ledger.h. */
#include "app/cmd_pump_ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { PER_BLOCK = 16 };

/* An entry is a state in its low bits, the time of the commit above them. */
enum state {
    UNISSUED,
    WRITING,
    EARLY,     /* arrived while its commit was not known here */
    COMMITTED, /* with the time */
    UNKNOWN,
    SETTLED,
    STATE_BITS = 3,
    STATE_MASK = (1 << STATE_BITS) - 1,
};

struct block {
    uint64_t number;   /* holds the entries of seq / PER_BLOCK == number */
    unsigned unsettled; /* PER_BLOCK at first: the block goes when it is 0 */
    int64_t entries[PER_BLOCK];
};
_Static_assert(sizeof(struct block) + sizeof(struct block *) <= HV_LEDGER_BLOCK_BYTES, "as the header says");

struct key {
    uint64_t next, highest;
    struct block **blocks; /* by number; those at [head, end) */
    uint32_t head, end, room;
};

struct hv_ledger {
    bool track;
    uint32_t key_count;
    size_t bytes;
    struct hv_ledger_counts counts;
    struct hv_histogram latency;
    struct key keys[];
};

struct hv_ledger *hv_ledger_new(uint32_t keys, bool track) {
    struct hv_ledger *l = hv_calloc(1, sizeof *l + keys * sizeof l->keys[0]);
    l->track = track;
    l->key_count = keys;
    for (uint32_t i = 0; i < keys; i++) {
        l->keys[i].next = 1;
    }
    return l;
}

void hv_ledger_free(struct hv_ledger *l) {
    for (uint32_t k = 0; l != NULL && k < l->key_count; k++) {
        for (uint32_t i = l->keys[k].head; i < l->keys[k].end; i++) {
            free(l->keys[k].blocks[i]);
        }
        free(l->keys[k].blocks);
    }
    free(l);
}

/* The position of the block with this number, or of the first one behind it. */
static uint32_t find_block(const struct key *key, uint64_t number) {
    uint32_t low = key->head, high = key->end;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (key->blocks[middle]->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct block *block_at(const struct key *key, uint32_t at, uint64_t number) {
    return at < key->end && key->blocks[at]->number == number ? key->blocks[at] : NULL;
}

static void add_block(struct hv_ledger *l, struct key *key, uint64_t number) {
    if (key->end == key->room && key->head > key->room / 2) {
        memmove(key->blocks, key->blocks + key->head, (key->end - key->head) * sizeof key->blocks[0]);
        key->end -= key->head;
        key->head = 0;
    } else if (key->end == key->room) {
        uint32_t room = key->room == 0 ? 2 : key->room * 2;
        key->blocks = hv_realloc(key->blocks, room, sizeof key->blocks[0]);
        l->bytes += (room - key->room) * sizeof key->blocks[0];
        key->room = room;
    }
    struct block *block = hv_calloc(1, sizeof *block);
    block->number = number;
    block->unsettled = PER_BLOCK;
    if (number == 0) {
        block->entries[0] = SETTLED; /* numbers begin with 1 */
        block->unsettled--;
    }
    key->blocks[key->end++] = block;
    l->bytes += sizeof *block;
}

static void drop_block(struct hv_ledger *l, struct key *key, uint32_t at) {
    free(key->blocks[at]);
    l->bytes -= sizeof(struct block);
    if (at == key->head) {
        key->head++;
    } else {
        memmove(key->blocks + at, key->blocks + at + 1, (key->end - at - 1) * sizeof key->blocks[0]);
        key->end--;
    }
    if (key->head == key->end) {
        key->head = key->end = 0;
    }
}

/* The entry is settled by this: nothing more is expected of it. */
static void settle(struct hv_ledger *l, struct key *key, uint32_t at, int64_t *entry) {
    *entry = SETTLED;
    if (--key->blocks[at]->unsettled == 0) {
        drop_block(l, key, at);
    }
}

uint64_t hv_ledger_issue(struct hv_ledger *l, uint32_t k) {
    assert(k < l->key_count);
    struct key *key = &l->keys[k];
    uint64_t seq = key->next++;
    if (!l->track) {
        return seq;
    }
    if (block_at(key, find_block(key, seq / PER_BLOCK), seq / PER_BLOCK) == NULL) {
        add_block(l, key, seq / PER_BLOCK);
    }
    key->blocks[key->end - 1]->entries[seq % PER_BLOCK] = WRITING;
    return seq;
}

/* The entry of a number whose writing has not ended yet, and where its block is. */
static int64_t *writing_entry(struct hv_ledger *l, uint32_t k, uint64_t seq, uint32_t *at) {
    assert(k < l->key_count && seq < l->keys[k].next);
    struct key *key = &l->keys[k];
    *at = find_block(key, seq / PER_BLOCK);
    struct block *block = block_at(key, *at, seq / PER_BLOCK);
    assert(block != NULL);
    int64_t *entry = &block->entries[seq % PER_BLOCK];
    assert(*entry == WRITING || *entry == EARLY);
    return entry;
}

void hv_ledger_committed(struct hv_ledger *l, uint32_t k, uint64_t seq, hv_time now) {
    uint32_t at;
    l->counts.committed++;
    if (!l->track) {
        return;
    }
    int64_t *entry = writing_entry(l, k, seq, &at);
    if (*entry == EARLY) {
        hv_histogram_add(&l->latency, 0);
        settle(l, &l->keys[k], at, entry);
    } else {
        *entry = now << STATE_BITS | COMMITTED;
        l->counts.missing++;
    }
}

void hv_ledger_unknown(struct hv_ledger *l, uint32_t k, uint64_t seq) {
    uint32_t at;
    l->counts.unknown++;
    if (!l->track) {
        return;
    }
    int64_t *entry = writing_entry(l, k, seq, &at);
    if (*entry == EARLY) {
        settle(l, &l->keys[k], at, entry);
    } else {
        *entry = UNKNOWN;
    }
}

void hv_ledger_not_committed(struct hv_ledger *l, uint32_t k, uint64_t seq) {
    uint32_t at;
    if (l->track) {
        int64_t *entry = writing_entry(l, k, seq, &at);
        if (*entry == EARLY) {
            l->counts.arrived--;
            l->counts.phantoms++;
        }
        settle(l, &l->keys[k], at, entry);
    }
}

/* For the first time: true when it is in order. */
static bool note_first(struct hv_ledger *l, struct key *key, uint64_t seq) {
    l->counts.arrived++;
    if (seq > key->highest) {
        key->highest = seq;
        return true;
    }
    l->counts.out_of_order++;
    return false;
}

static bool take_first(struct hv_ledger *l, struct key *key, uint32_t at, uint64_t seq, hv_time now) {
    int64_t *entry = &key->blocks[at]->entries[seq % PER_BLOCK];
    switch ((enum state)(*entry & STATE_MASK)) {
    case WRITING:
        *entry = EARLY;
        return true;
    case COMMITTED:
        hv_histogram_add(&l->latency, now - (*entry >> STATE_BITS));
        l->counts.missing--;
        settle(l, key, at, entry);
        return true;
    case UNKNOWN:
        settle(l, key, at, entry);
        return true;
    default:
        return false;
    }
}

enum hv_arrival hv_ledger_arrived(struct hv_ledger *l, uint32_t k, uint64_t seq, bool doomed, hv_time now) {
    if (k >= l->key_count || seq == 0 || seq >= l->keys[k].next) {
        l->counts.invented++;
        return HV_ARRIVAL_INVENTED;
    }
    if (doomed) {
        l->counts.phantoms++;
        return HV_ARRIVAL_PHANTOM;
    }
    struct key *key = &l->keys[k];
    uint32_t at = find_block(key, seq / PER_BLOCK);
    if (block_at(key, at, seq / PER_BLOCK) == NULL || !take_first(l, key, at, seq, now)) {
        l->counts.duplicates++;
        return HV_ARRIVAL_DUPLICATE;
    }
    return note_first(l, key, seq) ? HV_ARRIVAL_FIRST : HV_ARRIVAL_OUT_OF_ORDER;
}

const struct hv_ledger_counts *hv_ledger_counts(const struct hv_ledger *l) {
    return &l->counts;
}

const struct hv_histogram *hv_ledger_latency(const struct hv_ledger *l) {
    return &l->latency;
}

uint64_t hv_ledger_highest(const struct hv_ledger *l, uint32_t key) {
    assert(key < l->key_count);
    return l->keys[key].highest;
}

size_t hv_ledger_bytes(const struct hv_ledger *l) {
    return l->bytes;
}

void hv_ledger_each_missing(const struct hv_ledger *l, bool (*found)(void *user, uint32_t key, uint64_t seq), void *user) {
    for (uint32_t k = 0; k < l->key_count; k++) {
        const struct key *key = &l->keys[k];
        for (uint32_t i = key->head; i < key->end; i++) {
            for (unsigned e = 0; e < PER_BLOCK; e++) {
                if ((key->blocks[i]->entries[e] & STATE_MASK) == COMMITTED &&
                    !found(user, k, key->blocks[i]->number * PER_BLOCK + e)) {
                    return;
                }
            }
        }
    }
}
