/* See isolation.h. */
#include "core/isolation.h"

#include <assert.h>

#include "core/backoff.h"
#include "core/removal.h"

#define TOPIC_RETRY_MAX HV_SECONDS(5) /* between two looks at a topic that is closed */

void hv_isolation_init(struct hv_isolation *iso, struct hv_slots *slots, struct hv_shards *shards, struct hv_random *dice,
                       const struct hv_core_config *config) {
    uint32_t keep = config->max_in_flight_records / (4 * config->send_concurrency);
    *iso = (struct hv_isolation){
        .slots = slots,
        .shards = shards,
        .dice = dice,
        .config = config,
        .keep = keep > 4 ? keep : 4,
        .due = HV_NEVER,
    };
    for (int policy = HV_POISON_PARK; policy <= HV_POISON_SKIP; policy++) {
        iso->removals[policy] = (struct hv_removals){.batch = HV_REMOVALS, .not_before = INT64_MIN};
        hv_backoff_init(&iso->removals[policy].backoff, config->io_error_backoff, config->blocked_backoff_max);
    }
    hv_keys_init(&iso->keys, config->blocked_keys_max, config->blocked_keys_bytes, config->send_concurrency);
}

void hv_isolation_fini(struct hv_isolation *iso) {
    hv_removal_forget_told(iso);
    hv_doubts_fini(&iso->doubts);
    hv_keys_fini(&iso->keys);
}

/* ---- queues ---- */

void hv_isolation_insert(struct hv_isolation *iso, uint32_t key, uint32_t index) {
    struct hv_list *queue = &hv_key(&iso->keys, key)->queue;
    struct hv_slot *slot = hv_slot(iso->slots, index);
    assert(slot->state == HV_SLOT_UNSENT && slot->trouble == HV_NO_KEY);
    uint32_t before = HV_NO_SLOT;
    for (uint32_t behind = queue->last; behind != HV_NO_SLOT;) {
        const struct hv_slot *other = hv_slot(iso->slots, behind);
        if (other->state != HV_SLOT_UNSENT || other->id < slot->id) {
            break;
        }
        before = behind;
        behind = other->prev;
    }
    hv_list_insert(iso->slots, queue, before, index);
    slot->trouble = key;
    iso->unsent++;
    iso->unsent_bytes += slot->bytes;
    hv_keys_wait(&iso->keys, key);
}

void hv_isolation_take_out(struct hv_isolation *iso, uint32_t index) {
    struct hv_slot *slot = hv_slot(iso->slots, index);
    assert(slot->state == HV_SLOT_UNSENT);
    hv_list_remove(iso->slots, &hv_key(&iso->keys, slot->trouble)->queue, index);
    hv_keys_wait(&iso->keys, slot->trouble);
    slot->trouble = HV_NO_KEY;
    iso->unsent--;
    iso->unsent_bytes -= slot->bytes;
}

/* A slot that is in no queue. */
static void drop(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(iso->slots, index);
    hv_actions_add(out, HV_ACT_RELEASE)->payload = slot->payload;
    slot->payload = NULL;
    hv_slots_give(iso->slots, index);
}

void hv_isolation_forget(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    hv_isolation_take_out(iso, index);
    drop(iso, index, out);
}

/* Forgets what is unsent of one key. Returns how many. */
static uint32_t forget_queue(struct hv_isolation *iso, struct hv_key *key, struct hv_actions *out) {
    uint32_t forgotten = 0;
    while (key->queue.count > 0 && hv_slot(iso->slots, key->queue.last)->state == HV_SLOT_UNSENT) {
        hv_isolation_forget(iso, key->queue.last, out);
        forgotten++;
    }
    return forgotten;
}

static struct hv_view view_of(const struct hv_isolation *iso, const void *payload) {
    struct hv_view view = {0};
    if (iso->config->view != NULL) {
        iso->config->view(iso->config->view_user, payload, &view);
    }
    return view;
}

void hv_isolation_keep_bytes(struct hv_isolation *iso, uint32_t key, const void *payload) {
    struct hv_view view = view_of(iso, payload);
    hv_keys_keep_bytes(&iso->keys, key, view.key, view.key_length);
}

/* ---- who is responsible ---- */

static bool is_responsible(const struct hv_isolation *iso, uint32_t key) {
    return key != HV_NO_KEY && iso->keys.table[key].state != HV_KEY_LEFT;
}

/* The key, or its shard as a whole, in whose hands a record in memory is; HV_NO_KEY: its shard's queue. Records in memory come before
 * those that were left. */
static uint32_t responsible(const struct hv_isolation *iso, const struct hv_slot *slot) {
    uint32_t key = hv_keys_find_exact(&iso->keys, slot->key, slot->shard);
    if (!is_responsible(iso, key)) {
        key = hv_keys_find_shard(&iso->keys, slot->shard);
    }
    return is_responsible(iso, key) ? key : HV_NO_KEY;
}

/* While they are a small part of memory, keys that may go on soon have all that comes: what is left in the table takes a claim from the first
 * id on to come back. */
static bool is_roomy(const struct hv_isolation *iso) {
    return iso->unsent < iso->slots->capacity / 4 && iso->unsent_bytes < iso->config->max_in_flight_bytes / 4;
}

enum hv_isolation_place hv_isolation_place_in_trouble(struct hv_isolation *iso, uint64_t key, uint32_t shard, uint32_t *ret_key) {
    *ret_key = hv_keys_find(&iso->keys, key, shard);
    if (*ret_key == HV_NO_KEY) {
        return HV_PLACE_SHARD;
    }
    const struct hv_key *entry = hv_key(&iso->keys, *ret_key);
    bool queues = entry->state == HV_KEY_SUSPECT || entry->state == HV_KEY_REMOVING;
    if (queues && !entry->left && (entry->queue.count < iso->keep || is_roomy(iso))) {
        return HV_PLACE_KEY;
    }
    hv_keys_set_left(&iso->keys, *ret_key, true);
    return HV_PLACE_TABLE;
}

bool hv_isolation_leaves(const struct hv_isolation *iso, uint64_t key, uint32_t shard) {
    uint32_t index = hv_keys_find(&iso->keys, key, shard);
    if (index == HV_NO_KEY) {
        return false;
    }
    const struct hv_key *entry = &iso->keys.table[index];
    return entry->left || entry->state == HV_KEY_BLOCKED || entry->state == HV_KEY_FETCHING;
}

/* A slot that is unsent and in no queue goes where it belongs. */
static void place(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    uint32_t key = responsible(iso, hv_slot(iso->slots, index));
    if (key == HV_NO_KEY) {
        hv_shards_insert(iso->shards, index);
    } else if (hv_key(&iso->keys, key)->state == HV_KEY_SUSPECT || hv_key(&iso->keys, key)->state == HV_KEY_REMOVING) {
        hv_isolation_insert(iso, key, index);
    } else {
        hv_keys_set_left(&iso->keys, key, true);
        drop(iso, index, out);
    }
}

/* ---- becoming suspect, and innocent again ---- */

static bool is_of(const struct hv_key *key, const struct hv_slot *slot) {
    return key->whole_shard || slot->key == key->key;
}

void hv_isolation_begin(struct hv_isolation *iso, struct hv_shard *shard) {
    const struct hv_slot *first = hv_slot(iso->slots, shard->next);
    uint32_t index = hv_keys_find(&iso->keys, first->key, first->shard);
    if (index == HV_NO_KEY) {
        index = hv_keys_add(&iso->keys, first->key, first->shard);
    } else {
        hv_key_move(&iso->keys, index, HV_KEY_SUSPECT);
    }
    struct hv_key *key = hv_key(&iso->keys, index);
    key->others = 0;
    for (uint32_t at = shard->queue.first; at != HV_NO_SLOT;) {
        const struct hv_slot *slot = hv_slot(iso->slots, at);
        uint32_t next = slot->next;
        if (is_of(key, slot) && slot->state == HV_SLOT_IN_FLIGHT) {
            key->others++;
        } else if (is_of(key, slot)) {
            hv_shards_remove_unsent(iso->shards, at);
            hv_isolation_insert(iso, index, at);
        }
        at = next;
    }
}

static void note_other_back(struct hv_isolation *iso, uint32_t index) {
    if (index == HV_NO_KEY) {
        return;
    }
    struct hv_key *key = hv_key(&iso->keys, index);
    if (key->state == HV_KEY_SUSPECT && key->others > 0) {
        key->others--;
        hv_keys_wait(&iso->keys, index);
    }
}

void hv_isolation_other_back_in_trouble(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    const struct hv_slot *slot = hv_slot(iso->slots, index);
    note_other_back(iso, hv_keys_find_exact(&iso->keys, slot->key, slot->shard));
    note_other_back(iso, hv_keys_find_shard(&iso->keys, slot->shard));
    if (slot->state == HV_SLOT_UNSENT && responsible(iso, slot) != HV_NO_KEY) {
        hv_shards_remove_unsent(iso->shards, index);
        place(iso, index, out);
    }
}

/* ---- topics that take nothing ---- */

/* The key does not probe its topic any more: it went through, or something else is wrong now. All that wait for it are due. */
static void open_topic_of(struct hv_isolation *iso, uint32_t probe) {
    for (uint32_t i = 0; i < iso->closed_count; i++) {
        if (iso->closed[i].probe != probe) {
            continue;
        }
        uint32_t topic = iso->closed[i].topic;
        iso->closed[i] = iso->closed[--iso->closed_count];
        for (uint32_t at = hv_keys_next(&iso->keys, HV_NO_KEY); at != HV_NO_KEY; at = hv_keys_next(&iso->keys, at)) {
            struct hv_key *key = hv_key(&iso->keys, at);
            if (key->state == HV_KEY_BLOCKED && key->of_topic && key->topic == topic) {
                iso->due = key->until = INT64_MIN;
            }
        }
        return; /* a key probes one topic */
    }
}

/* The first record of the key goes to a topic that takes nothing. Does another key try it already? */
static bool wait_for_topic(struct hv_isolation *iso, uint32_t index, uint32_t topic, const struct hv_refusal *why, hv_time now) {
    const struct hv_closed_topic *closed = hv_isolation_closed(iso, topic);
    if (closed == NULL && iso->closed_count < HV_CLOSED_TOPICS) {
        iso->closed[iso->closed_count++] = (struct hv_closed_topic){topic, index, now, *why};
    }
    return closed != NULL && closed->probe != index;
}

/* ---- becoming suspect, and innocent again, continued ---- */

static void end_trial(struct hv_isolation *iso, struct hv_key *key) {
    iso->trials -= key->trial;
    key->trial = false;
}

static void say_unblocked(struct hv_isolation *iso, uint32_t index, bool gone, struct hv_actions *out) {
    struct hv_key *key = hv_key(&iso->keys, index);
    end_trial(iso, key);
    open_topic_of(iso, index);
    if (key->attempts > 0) {
        struct hv_action *action = hv_actions_notify(out, HV_NOTICE_UNBLOCKED);
        action->id = key->id;
        action->flag = gone;
        key->attempts = 0;
    }
}

/* Nothing is wrong with the key: what it has in memory is the shard's again. */
static void end(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    struct hv_key *key = hv_key(&iso->keys, index);
    struct hv_list rest = HV_LIST_EMPTY;
    say_unblocked(iso, index, true, out);
    while (key->queue.count > 0) {
        uint32_t slot = key->queue.first;
        hv_isolation_take_out(iso, slot);
        hv_list_append(iso->slots, &rest, slot);
    }
    if (key->left) {
        hv_key_move(&iso->keys, index, HV_KEY_LEFT);
    } else {
        hv_keys_remove(&iso->keys, index);
    }
    while (rest.count > 0) {
        uint32_t slot = rest.first;
        hv_list_remove(iso->slots, &rest, slot);
        place(iso, slot, out);
    }
}

/* ---- blocking ---- */

/* How long until it is tried again. */
static hv_time wait_after(struct hv_isolation *iso, struct hv_key *key) {
    hv_time max = iso->config->blocked_backoff_max;
    max = key->of_topic ? hv_time_min(max, TOPIC_RETRY_MAX) : max;
    struct hv_backoff wait = {.min = hv_time_min(iso->config->io_error_backoff, max), .max = max, .failures = key->attempts};
    hv_time span = hv_backoff_next(&wait, iso->dice);
    key->attempts = wait.failures;
    return span;
}

/* A record of the key was refused. */
static void note_refusal(struct hv_isolation *iso, uint32_t index, const struct hv_slot *slot, const struct hv_refusal *why, hv_time now) {
    struct hv_key *key = hv_key(&iso->keys, index);
    struct hv_view view = view_of(iso, slot->payload);
    if (key->attempts == 0 || key->id != slot->id) {
        key->since = now;
        key->attempts = 0;
    }
    key->id = slot->id;
    key->of_topic = why->because_of_topic;
    key->topic = slot->topic;
    key->code = why->code;
    key->reason = slot->defective && view.defect != NULL ? view.defect : why->reason;
    hv_keys_keep_bytes(&iso->keys, index, view.key, view.key_length);
    hv_keys_keep_topic(&iso->keys, index, view.topic);
}

/* It is tried again after a while. */
static void set_wait(struct hv_isolation *iso, struct hv_key *key, hv_time now) {
    key->until = now + wait_after(iso, key);
    iso->due = hv_time_min(iso->due, key->until);
}

/* The first record of the queue cannot go: its key waits. */
static void wait_for_mending(struct hv_isolation *iso, uint32_t index, const struct hv_refusal *why, hv_time now, struct hv_actions *out) {
    struct hv_key *key = hv_key(&iso->keys, index);
    const struct hv_slot *slot = hv_slot(iso->slots, key->queue.first);
    set_wait(iso, key, now);
    if (why->because_of_topic && wait_for_topic(iso, index, slot->topic, why, now)) {
        key->until = HV_NEVER;
    }
    struct hv_action *action = hv_actions_notify(out, HV_NOTICE_BLOCKED);
    action->id = slot->id;
    action->payload = slot->payload;
    action->reason = key->reason;
    action->duration = key->until == HV_NEVER ? TOPIC_RETRY_MAX : key->until - now;
    action->count = key->attempts;
    if (forget_queue(iso, key, out) > 1) {
        hv_keys_set_left(&iso->keys, index, true);
    }
    hv_key_move(&iso->keys, index, HV_KEY_BLOCKED);
}

/* The first record of the queue cannot go: what becomes of it? */
static void block(struct hv_isolation *iso, uint32_t index, const struct hv_refusal *why, hv_time now, struct hv_actions *out) {
    struct hv_key *key = hv_key(&iso->keys, index);
    const struct hv_slot *slot = hv_slot(iso->slots, key->queue.first);
    if (key->of_topic && !(why->because_of_topic && key->topic == slot->topic)) {
        open_topic_of(iso, index);
    }
    end_trial(iso, key);
    enum hv_poison policy = why->because_of_topic || why->unknown ? HV_POISON_BLOCK : view_of(iso, slot->payload).policy;
    note_refusal(iso, index, slot, why, now);
    key->policy = (uint8_t)policy;
    if (hv_removal_is_possible(iso, policy, now)) {
        key->attempts++;
        hv_removal_begin(iso, index, policy, out);
    } else {
        wait_for_mending(iso, index, why, now, out);
    }
}

void hv_isolation_block_removed(struct hv_isolation *iso, uint32_t key, hv_time now, struct hv_actions *out) {
    struct hv_key *entry = hv_key(&iso->keys, key);
    set_wait(iso, entry, now);
    if (forget_queue(iso, entry, out) > 0) {
        hv_keys_set_left(&iso->keys, key, true);
    }
    hv_key_move(&iso->keys, key, HV_KEY_BLOCKED);
}

/* ---- sending ---- */

/* What is due with the first in line; returns a record that is to go, or HV_NO_SLOT, when it is not in the line any more. */
static uint32_t advance(struct hv_isolation *iso, uint32_t index, hv_time now, struct hv_actions *out) {
    struct hv_key *key = hv_key(&iso->keys, index);
    hv_keys_leave_line(&iso->keys);
    if (key->state != HV_KEY_SUSPECT || key->others > 0) {
        return HV_NO_SLOT;
    }
    const struct hv_slot *slot = key->queue.count > 0 ? hv_slot(iso->slots, key->queue.first) : NULL;
    const struct hv_closed_topic *closed = slot == NULL ? NULL : hv_isolation_closed(iso, slot->topic);
    if (closed != NULL && closed->probe != index && slot->state == HV_SLOT_UNSENT && !slot->defective) {
        block(iso, index, &(struct hv_refusal){.because_of_topic = true, .code = closed->why.code, .reason = closed->why.reason}, now, out);
    } else if (slot == NULL || (slot->state == HV_SLOT_UNSENT && key->attempts == 0 && !hv_isolation_is_due(iso, slot, now))) {
        end(iso, index, out);
    } else if (slot->state == HV_SLOT_UNSENT && slot->defective) {
        block(iso, index, &(struct hv_refusal){0}, now, out);
    } else if (slot->state == HV_SLOT_UNSENT) {
        hv_keys_wait(&iso->keys, index);
        return key->queue.first;
    }
    return HV_NO_SLOT;
}

uint32_t hv_isolation_next(struct hv_isolation *iso, hv_time now, struct hv_actions *out) {
    uint32_t found = HV_NO_SLOT;
    while (found == HV_NO_SLOT && iso->keys.first_waiting != HV_NO_KEY) {
        found = advance(iso, iso->keys.first_waiting, now, out);
    }
    return found;
}

void hv_isolation_sent(struct hv_isolation *iso, uint32_t index, hv_time now) {
    struct hv_slot *slot = hv_slot(iso->slots, index);
    slot->way = hv_isolation_way(iso, slot, now);
    hv_slot_sent(slot, now);
    iso->unsent--;
    iso->unsent_bytes -= slot->bytes;
}

void hv_isolation_acked(struct hv_isolation *iso, uint32_t index, hv_time now, struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(iso->slots, index);
    struct hv_key *key = hv_key(&iso->keys, slot->trouble);
    if (slot->way == HV_WAY_ALONE) {
        hv_doubts_passed_alone(&iso->doubts, slot, key->trial, now);
    }
    hv_slot_move(slot, HV_SLOT_ACKED);
    slot->since = now;
    hv_list_remove(iso->slots, &key->queue, index);
    hv_keys_wait(&iso->keys, slot->trouble);
    if (slot->id == key->id) {
        say_unblocked(iso, slot->trouble, false, out);
    }
    slot->trouble = HV_NO_KEY;
}

void hv_isolation_failed(struct hv_isolation *iso, uint32_t index) {
    struct hv_slot *slot = hv_slot(iso->slots, index);
    hv_slot_move(slot, HV_SLOT_UNSENT);
    iso->unsent++;
    iso->unsent_bytes += slot->bytes;
    hv_keys_wait(&iso->keys, slot->trouble);
}

void hv_isolation_refused_with_others(struct hv_isolation *iso, uint32_t index) {
    hv_slot(iso->slots, index)->way = HV_WAY_ALONE;
    hv_isolation_failed(iso, index);
}

void hv_isolation_refused(struct hv_isolation *iso, uint32_t index, const struct hv_refusal *why, hv_time now, struct hv_actions *out) {
    uint32_t key = hv_slot(iso->slots, index)->trouble;
    hv_isolation_failed(iso, index);
    assert(hv_key(&iso->keys, key)->queue.first == index);
    if (!why->because_of_topic && !why->unknown) {
        hv_doubts_refused_alone(&iso->doubts, hv_slot(iso->slots, index), why->by_size, hv_key(&iso->keys, key)->trial, now);
    }
    block(iso, key, why, now, out);
}

/* ---- forgetting ---- */

static void each_key(struct hv_isolation *iso, void (*visit)(struct hv_isolation *iso, uint32_t index, struct hv_actions *out),
                     struct hv_actions *out) {
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        if (hv_key(&iso->keys, i)->state != HV_KEY_FREE) {
            visit(iso, i, out);
        }
    }
}

static void forget_key(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    struct hv_key *key = hv_key(&iso->keys, index);
    forget_queue(iso, key, out);
    if (key->state == HV_KEY_REMOVING && key->asked) {
        return; /* until that is answered its row is known */
    }
    if (key->state == HV_KEY_REMOVING) {
        hv_removal_forget(iso, index);
    }
    if (key->queue.count == 0) {
        end_trial(iso, key);
        hv_keys_remove(&iso->keys, index);
    }
}

void hv_isolation_forget_all(struct hv_isolation *iso, struct hv_actions *out) {
    iso->closed_count = 0;
    each_key(iso, forget_key, out);
    iso->due = HV_NEVER;
}

bool hv_isolation_holds_since(const struct hv_isolation *iso, hv_time before) {
    if (iso->unsent == 0) {
        return false;
    }
    for (uint32_t i = 0; i < iso->slots->capacity; i++) {
        const struct hv_slot *slot = &iso->slots->table[i];
        if (slot->state == HV_SLOT_UNSENT && slot->trouble != HV_NO_KEY && slot->since <= before) {
            return true;
        }
    }
    return false;
}

static void forget_unsent_of_key(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    struct hv_key *key = hv_key(&iso->keys, index);
    bool was_in_flight = key->queue.count > 0 && hv_slot(iso->slots, key->queue.first)->state == HV_SLOT_IN_FLIGHT;
    bool blocked_before = key->attempts > 0 && !was_in_flight && key->state != HV_KEY_REMOVING;
    uint32_t forgotten = forget_queue(iso, key, out);
    if (forgotten > (blocked_before ? 1u : 0u)) {
        hv_keys_set_left(&iso->keys, index, true);
    }
    if (forgotten > 0 && blocked_before) { /* it was to be tried again: from the beginning */
        end_trial(iso, key);
        hv_key_move(&iso->keys, index, HV_KEY_BLOCKED);
        iso->due = key->until = INT64_MIN;
    }
}

void hv_isolation_forget_unsent(struct hv_isolation *iso, struct hv_actions *out) {
    each_key(iso, forget_unsent_of_key, out);
}

void hv_isolation_gone(struct hv_isolation *iso, uint32_t key, struct hv_actions *out) {
    end(iso, key, out);
}

static void come_again(struct hv_isolation *iso, uint32_t index, struct hv_actions *out) {
    (void)out;
    enum hv_key_state state = hv_key(&iso->keys, index)->state;
    if (state == HV_KEY_LEFT) {
        hv_keys_remove(&iso->keys, index);
    } else if (state == HV_KEY_SUSPECT || state == HV_KEY_REMOVING) {
        hv_keys_set_left(&iso->keys, index, false);
    }
}

void hv_isolation_claimed_anew(struct hv_isolation *iso) {
    each_key(iso, come_again, NULL);
}
