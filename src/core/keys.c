/* See keys.h. */
#include "core/keys.h"

#include <assert.h>
#include <string.h>

#include "base/fsm.h"
#include "base/memory.h"

#define TOPIC_MAX 249   /* of a legal name */
#define BYTES_BESIDE 16 /* what a key costs in a statement beside its own bytes, at most */

static const struct hv_fsm_state states[] = {
    [HV_KEY_FREE] = {"free", HV_TO(HV_KEY_SUSPECT)},
    [HV_KEY_SUSPECT] = {"suspect", HV_TO(HV_KEY_BLOCKED) | HV_TO(HV_KEY_REMOVING) | HV_TO(HV_KEY_LEFT) | HV_TO(HV_KEY_FREE)},
    [HV_KEY_BLOCKED] = {"blocked", HV_TO(HV_KEY_FETCHING) | HV_TO(HV_KEY_FREE)},
    [HV_KEY_FETCHING] = {"fetching", HV_TO(HV_KEY_BLOCKED) | HV_TO(HV_KEY_SUSPECT) | HV_TO(HV_KEY_LEFT) | HV_TO(HV_KEY_FREE)},
    [HV_KEY_REMOVING] = {"removing", HV_TO(HV_KEY_SUSPECT) | HV_TO(HV_KEY_BLOCKED) | HV_TO(HV_KEY_FREE)},
    [HV_KEY_LEFT] = {"left", HV_TO(HV_KEY_SUSPECT) | HV_TO(HV_KEY_FREE)},
};

void hv_keys_init(struct hv_keys *keys, uint32_t max, uint64_t bytes_max, uint32_t shards) {
    uint32_t buckets = 16;
    while (buckets < max) {
        buckets *= 2;
    }
    *keys = (struct hv_keys){
        .table = hv_calloc((size_t)max + shards, sizeof *keys->table),
        .max = max,
        .shards = shards,
        .free = HV_NO_KEY,
        .buckets = hv_calloc(buckets, sizeof *keys->buckets),
        .bucket_mask = buckets - 1,
        .first_waiting = HV_NO_KEY,
        .last_waiting = HV_NO_KEY,
        .bytes_max = bytes_max,
    };
}

void hv_keys_fini(struct hv_keys *keys) {
    for (uint32_t i = 0; i < keys->max + keys->shards; i++) {
        free(keys->table[i].bytes);
        free(keys->table[i].topic_name);
    }
    free(keys->table);
    free(keys->buckets);
    free(keys->hidden);
    *keys = (struct hv_keys){0};
}

/* ---- finding ---- */

static uint32_t *bucket_of(const struct hv_keys *keys, uint64_t key) {
    return &keys->buckets[(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & keys->bucket_mask];
}

uint32_t hv_keys_find_exact(const struct hv_keys *keys, uint64_t key, uint32_t shard) {
    if (keys->used == 0) {
        return HV_NO_KEY;
    }
    for (uint32_t at = *bucket_of(keys, key); at != 0; at = keys->table[at - 1].next_in_bucket) {
        const struct hv_key *entry = &keys->table[at - 1];
        if (entry->key == key && entry->shard == shard) {
            return at - 1;
        }
    }
    return HV_NO_KEY;
}

uint32_t hv_keys_find_shard(const struct hv_keys *keys, uint32_t shard) {
    uint32_t index = keys->max + shard;
    return keys->used > 0 && keys->table[index].state != HV_KEY_FREE ? index : HV_NO_KEY;
}

uint32_t hv_keys_find(const struct hv_keys *keys, uint64_t key, uint32_t shard) {
    uint32_t exact = hv_keys_find_exact(keys, key, shard);
    return exact != HV_NO_KEY ? exact : hv_keys_find_shard(keys, shard);
}

/* ---- coming and going ---- */

static uint32_t take_entry(struct hv_keys *keys) {
    uint32_t index = keys->free;
    if (index != HV_NO_KEY) {
        keys->free = keys->table[index].next_free;
    } else if (keys->top < keys->max) {
        index = keys->top++;
    }
    return index;
}

uint32_t hv_keys_add(struct hv_keys *keys, uint64_t key, uint32_t shard) {
    assert(hv_keys_find(keys, key, shard) == HV_NO_KEY);
    uint32_t index = take_entry(keys);
    bool whole = index == HV_NO_KEY;
    if (whole) {
        index = keys->max + shard;
    }
    struct hv_key *entry = &keys->table[index];
    assert(entry->state == HV_KEY_FREE && !entry->waiting);
    *entry = (struct hv_key){.key = key, .shard = shard, .whole_shard = whole, .queue = HV_LIST_EMPTY};
    if (!whole) {
        uint32_t *bucket = bucket_of(keys, key);
        entry->next_in_bucket = *bucket;
        *bucket = index + 1;
    }
    keys->used++;
    hv_key_move(keys, index, HV_KEY_SUSPECT);
    return index;
}

static void forget_bytes(struct hv_keys *keys, struct hv_key *entry) {
    if (entry->bytes != NULL) {
        keys->bytes -= entry->length + BYTES_BESIDE;
        keys->hidden_changed = true;
        free(entry->bytes);
        entry->bytes = NULL;
        entry->length = 0;
    }
}

static void leave_line(struct hv_keys *keys, uint32_t index) {
    uint32_t before = HV_NO_KEY;
    for (uint32_t at = keys->first_waiting; at != index; at = keys->table[at].next_waiting) {
        before = at;
    }
    uint32_t next = keys->table[index].next_waiting;
    *(before == HV_NO_KEY ? &keys->first_waiting : &keys->table[before].next_waiting) = next;
    if (keys->last_waiting == index) {
        keys->last_waiting = before;
    }
    keys->table[index].waiting = false;
}

void hv_keys_remove(struct hv_keys *keys, uint32_t index) {
    struct hv_key *entry = &keys->table[index];
    assert(entry->queue.count == 0);
    if (entry->waiting) {
        leave_line(keys, index);
    }
    forget_bytes(keys, entry);
    hv_keys_keep_topic(keys, index, NULL);
    hv_key_move(keys, index, HV_KEY_FREE);
    keys->used--;
    if (entry->whole_shard) {
        return;
    }
    uint32_t *at = bucket_of(keys, entry->key);
    while (*at != index + 1) {
        at = &keys->table[*at - 1].next_in_bucket;
    }
    *at = entry->next_in_bucket;
    entry->next_free = keys->free;
    keys->free = index;
}

void hv_key_move(struct hv_keys *keys, uint32_t index, enum hv_key_state to) {
    struct hv_key *entry = &keys->table[index];
    if (entry->state != HV_KEY_FREE) {
        keys->count[entry->state]--;
    }
    entry->state = (uint8_t)hv_fsm_move("key", states, entry->state, to);
    if (to != HV_KEY_FREE) {
        keys->count[to]++;
    }
}

/* ---- what is left in the table ---- */

void hv_keys_set_left(struct hv_keys *keys, uint32_t index, bool left) {
    struct hv_key *entry = &keys->table[index];
    keys->hidden_changed = keys->hidden_changed || (left != entry->left && entry->bytes != NULL);
    entry->left = left;
}

void hv_keys_keep_bytes(struct hv_keys *keys, uint32_t index, const void *bytes, uint32_t length) {
    struct hv_key *entry = &keys->table[index];
    if (entry->bytes != NULL || entry->whole_shard || bytes == NULL || keys->bytes + length + BYTES_BESIDE > keys->bytes_max) {
        return;
    }
    entry->bytes = hv_calloc(1, length + 1u);
    if (length > 0) {
        memcpy(entry->bytes, bytes, length);
    }
    entry->length = length;
    keys->bytes += length + BYTES_BESIDE;
    keys->hidden_changed = true;
}

void hv_keys_keep_topic(struct hv_keys *keys, uint32_t index, const char *name) {
    struct hv_key *entry = &keys->table[index];
    if (entry->topic_name != NULL && name != NULL && strncmp(entry->topic_name, name, TOPIC_MAX) == 0) {
        return;
    }
    free(entry->topic_name);
    size_t length = name == NULL ? 0 : strnlen(name, TOPIC_MAX);
    entry->topic_name = name == NULL ? NULL : hv_calloc(1, length + 1);
    if (name != NULL) {
        memcpy(entry->topic_name, name, length);
    }
}

const struct hv_key_bytes *hv_keys_hidden(struct hv_keys *keys, uint32_t *ret_count) {
    if (keys->hidden_changed) {
        keys->hidden_changed = false;
        keys->hidden_count = 0;
        if (keys->hidden == NULL) {
            keys->hidden = hv_calloc(keys->max, sizeof *keys->hidden);
        }
        for (uint32_t i = 0; i < keys->top; i++) {
            const struct hv_key *entry = &keys->table[i];
            if (entry->state != HV_KEY_FREE && hv_keys_is_hidden(keys, i)) {
                keys->hidden[keys->hidden_count++] = (struct hv_key_bytes){entry->bytes, entry->length};
            }
        }
    }
    *ret_count = keys->hidden_count;
    return keys->hidden;
}

/* ---- the line ---- */

void hv_keys_wait(struct hv_keys *keys, uint32_t index) {
    struct hv_key *entry = &keys->table[index];
    if (entry->waiting) {
        return;
    }
    entry->waiting = true;
    entry->next_waiting = HV_NO_KEY;
    if (keys->first_waiting == HV_NO_KEY) {
        keys->first_waiting = index;
    } else {
        keys->table[keys->last_waiting].next_waiting = index;
    }
    keys->last_waiting = index;
}

void hv_keys_leave_line(struct hv_keys *keys) {
    leave_line(keys, keys->first_waiting);
}
