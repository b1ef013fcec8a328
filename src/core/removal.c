/* See removal.h. */
#include "core/removal.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"

static struct hv_action *say(const struct hv_key *key, enum hv_notice what, void *payload, struct hv_actions *out) {
    struct hv_action *action = hv_actions_notify(out, what);
    action->id = key->id;
    action->payload = payload;
    action->reason = key->reason;
    action->code = key->code;
    action->count = key->attempts;
    return action;
}

void hv_removal_forget_told(struct hv_isolation *iso) {
    while (iso->told_count > 0) {
        free(iso->told[--iso->told_count]);
    }
}

/* A copy with a NUL behind it. */
static const void *keep(struct hv_isolation *iso, const void *bytes, size_t length) {
    if (bytes == NULL) {
        return NULL;
    }
    assert(iso->told_count < 2 * HV_REMOVALS);
    void *copy = hv_calloc(1, length + 1);
    memcpy(copy, bytes, length);
    return iso->told[iso->told_count++] = copy;
}

static void say_parked(struct hv_isolation *iso, const struct hv_key *key, struct hv_actions *out) {
    struct hv_action *action = say(key, HV_NOTICE_PARKED, NULL, out);
    action->topic = keep(iso, key->topic_name, key->topic_name != NULL ? strlen(key->topic_name) : 0);
    action->key = (struct hv_key_bytes){.bytes = keep(iso, key->bytes, key->length), .length = key->length};
}

void hv_removal_begin(struct hv_isolation *iso, uint32_t key, enum hv_poison policy, struct hv_actions *out) {
    struct hv_key *entry = hv_key(&iso->keys, key);
    uint32_t index = entry->queue.first;
    struct hv_slot *slot = hv_slot(iso->slots, index);
    assert(policy != HV_POISON_BLOCK && !entry->of_topic && slot->id == entry->id);
    if (policy == HV_POISON_SKIP) {
        say(entry, HV_NOTICE_SKIPPED, slot->payload, out);
    }
    hv_isolation_take_out(iso, index);
    hv_actions_add(out, HV_ACT_RELEASE)->payload = slot->payload;
    slot->payload = NULL;
    hv_slot_move(slot, HV_SLOT_REMOVING);
    entry->removing = index;
    entry->policy = (uint8_t)policy;
    entry->asked = false;
    hv_key_move(&iso->keys, key, HV_KEY_REMOVING);
    iso->removals[policy].waiting++;
}

enum hv_poison hv_removal_ask(struct hv_isolation *iso, hv_time now, const struct hv_removed **ret_rows, const int64_t **ret_ids,
                              size_t *ret_count) {
    enum hv_poison policy = iso->removals[HV_POISON_PARK].waiting > 0 ? HV_POISON_PARK : HV_POISON_SKIP;
    struct hv_removals *removals = &iso->removals[policy];
    uint32_t count = 0;
    if (removals->waiting == 0) {
        return HV_POISON_BLOCK;
    }
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY && count < removals->batch; i = hv_keys_next(&iso->keys, i)) {
        struct hv_key *key = hv_key(&iso->keys, i);
        if (key->state != HV_KEY_REMOVING || key->policy != policy) {
            continue;
        }
        assert(!key->asked); /* one statement at a time */
        struct hv_slot *slot = hv_slot(iso->slots, key->removing);
        key->asked = true;
        slot->other = false;
        iso->removed_ids[count] = key->id;
        iso->removed[count++] = (struct hv_removed){.id = key->id,
                                                    .version = slot->version,
                                                    .code = key->code,
                                                    .reason = key->reason,
                                                    .attempts = key->attempts,
                                                    .failing_for = now - key->since};
    }
    assert(count > 0);
    removals->waiting -= count;
    removals->asked = count;
    *ret_rows = iso->removed;
    *ret_ids = iso->removed_ids;
    *ret_count = count;
    return policy;
}

/* Which way was asked for? */
static enum hv_poison asked_way(const struct hv_isolation *iso) {
    enum hv_poison policy = iso->removals[HV_POISON_PARK].asked > 0 ? HV_POISON_PARK : HV_POISON_SKIP;
    assert(iso->removals[policy].asked > 0 && iso->removals[HV_POISON_PARK + HV_POISON_SKIP - policy].asked == 0);
    return policy;
}

static bool is_asked(const struct hv_key *key) {
    return key->state == HV_KEY_REMOVING && key->asked;
}

uint32_t hv_removal_asked(const struct hv_isolation *iso) {
    return iso->removals[HV_POISON_PARK].asked + iso->removals[HV_POISON_SKIP].asked;
}

const int64_t *hv_removal_asked_ids(struct hv_isolation *iso, size_t *ret_count) {
    size_t count = 0;
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        if (is_asked(hv_key(&iso->keys, i))) {
            hv_slot(iso->slots, hv_key(&iso->keys, i)->removing)->other = false;
            iso->removed_ids[count++] = hv_key(&iso->keys, i)->id;
        }
    }
    *ret_count = count;
    return iso->removed_ids;
}

bool hv_removal_sees_others(const struct hv_isolation *iso) {
    bool seen = false;
    if (hv_removal_asked(iso) == 0) {
        return false;
    }
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY && !seen; i = hv_keys_next(&iso->keys, i)) {
        const struct hv_key *key = &iso->keys.table[i];
        seen = is_asked(key) && hv_slot(iso->slots, key->removing)->other;
    }
    return seen;
}

void hv_removal_done(struct hv_isolation *iso, struct hv_list *gone, struct hv_actions *out) {
    struct hv_removals *removals = &iso->removals[asked_way(iso)];
    hv_removal_forget_told(iso); /* of the statement before: its answer came in another turn */
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        struct hv_key *key = hv_key(&iso->keys, i);
        if (is_asked(key)) {
            if (key->policy == HV_POISON_PARK) {
                say_parked(iso, key, out);
            }
            hv_slot_move(hv_slot(iso->slots, key->removing), HV_SLOT_PURGED);
            hv_list_append(iso->slots, gone, key->removing);
            key->removing = HV_NO_SLOT;
            key->asked = false;
            key->attempts = 0;
            hv_key_move(&iso->keys, i, HV_KEY_SUSPECT);
            hv_keys_wait(&iso->keys, i);
            removals->asked--;
        }
    }
    assert(removals->asked == 0);
    removals->batch = removals->batch * 2 < HV_REMOVALS ? removals->batch * 2 : HV_REMOVALS;
    hv_backoff_reset(&removals->backoff);
}

void hv_removal_again(struct hv_isolation *iso) {
    if (hv_removal_asked(iso) == 0) {
        return;
    }
    struct hv_removals *removals = &iso->removals[asked_way(iso)];
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        struct hv_key *key = hv_key(&iso->keys, i);
        if (is_asked(key)) {
            key->asked = false;
            removals->asked--;
            removals->waiting++;
        }
    }
    assert(removals->asked == 0);
}

void hv_removal_forget(struct hv_isolation *iso, uint32_t key) {
    struct hv_key *entry = hv_key(&iso->keys, key);
    struct hv_removals *removals = &iso->removals[entry->policy];
    assert(entry->state == HV_KEY_REMOVING);
    *(entry->asked ? &removals->asked : &removals->waiting) -= 1;
    entry->asked = false;
    hv_slots_give(iso->slots, entry->removing);
    entry->removing = HV_NO_SLOT;
}

/* The row stays: its key is blocked. */
static void keep_row(struct hv_isolation *iso, uint32_t key, hv_time now, struct hv_actions *out) {
    hv_removal_forget(iso, key);
    hv_isolation_block_removed(iso, key, now, out);
}

void hv_removal_stays(struct hv_isolation *iso, int64_t id, hv_time now, struct hv_actions *out) {
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        if (is_asked(hv_key(&iso->keys, i)) && hv_key(&iso->keys, i)->id == id) {
            keep_row(iso, i, now, out);
        }
    }
}

/* Those of this way that are not asked for are blocked. */
static void give_up(struct hv_isolation *iso, enum hv_poison policy, hv_time now, struct hv_actions *out) {
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        const struct hv_key *key = hv_key(&iso->keys, i);
        if (key->state == HV_KEY_REMOVING && key->policy == policy && !key->asked) {
            keep_row(iso, i, now, out);
        }
    }
}

void hv_removal_refused(struct hv_isolation *iso, bool because_of_a_row, hv_time now, struct hv_actions *out) {
    enum hv_poison policy = asked_way(iso);
    struct hv_removals *removals = &iso->removals[policy];
    uint32_t asked = removals->asked;
    if (!because_of_a_row) {
        hv_removal_again(iso);
        give_up(iso, policy, now, out);
        removals->not_before = now + hv_backoff_next(&removals->backoff, iso->dice);
    } else if (asked > 1) {
        hv_removal_again(iso);
        removals->batch = asked / 2;
    } else {
        for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
            if (is_asked(hv_key(&iso->keys, i))) {
                keep_row(iso, i, now, out);
            }
        }
        removals->batch = 1;
    }
}
