/* See settling.h. */
#include "core/settling.h"

#include <assert.h>

#include "base/memory.h"

#define REREAD_LIMIT HV_SECONDS(5) /* a row that was reset and is not claimed again by then is reset anew */

void hv_settle_init(struct hv_settle *settle, struct hv_slots *slots, struct hv_shards *shards, struct hv_sender *sender,
                    struct hv_random *dice, const struct hv_core_config *config) {
    uint32_t ids_max = config->purge_query_records > shards->count ? config->purge_query_records : shards->count;
    *settle = (struct hv_settle){
        .slots = slots,
        .shards = shards,
        .sender = sender,
        .dice = dice,
        .config = config,
        .purging = HV_LIST_EMPTY,
        .stuck = HV_LIST_EMPTY,
        .gone = HV_LIST_EMPTY,
        .batch = config->purge_query_records,
        .ids = hv_calloc(ids_max, sizeof(int64_t)),
        .ids_max = ids_max,
    };
    hv_backoff_init(&settle->backoff, config->io_error_backoff, config->io_error_backoff_max);
    hv_backoff_init(&settle->stuck_backoff, config->io_error_backoff, config->blocked_backoff_max);
}

void hv_settle_fini(struct hv_settle *settle) {
    free(settle->ids);
    *settle = (struct hv_settle){0};
}

uint32_t hv_settle_pending(const struct hv_settle *settle) {
    return settle->sender->acked.count + settle->purging.count;
}

void hv_settle_up(struct hv_settle *settle) {
    settle->state = HV_SETTLE_IDLE;
}

/* The rows of the statement that is out go back to where they came from, in front. */
static void put_back(struct hv_settle *settle) {
    struct hv_list *acked = &settle->sender->acked;
    while (settle->purging.count > 0) {
        uint32_t index = settle->purging.last;
        hv_list_remove(settle->slots, &settle->purging, index);
        if (settle->one_stuck) {
            hv_slot_move(hv_slot(settle->slots, index), HV_SLOT_STUCK);
            hv_list_append(settle->slots, &settle->stuck, index);
        } else {
            hv_slot_move(hv_slot(settle->slots, index), HV_SLOT_ACKED);
            hv_list_insert(settle->slots, acked, acked->first, index);
        }
    }
}

static void block_asked_shards(struct hv_settle *settle, hv_time until) {
    for (uint32_t i = 0; i < settle->shards->count; i++) {
        struct hv_shard *shard = &settle->shards->list[i];
        if (shard->mode == HV_SHARD_RESETTING && shard->reset_asked) {
            hv_shard_move(shard, HV_SHARD_BLOCKED);
            shard->reset_asked = false;
            shard->until = until;
        }
    }
}

void hv_settle_down(struct hv_settle *settle, hv_time now) {
    put_back(settle);
    block_asked_shards(settle, now + settle->config->io_error_backoff);
    settle->state = HV_SETTLE_DOWN;
}

/* One row alone was refused: it waits, the others pass. */
static void set_aside(struct hv_settle *settle, hv_time now, struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(settle->slots, settle->purging.first);
    settle->one_stuck = true;
    put_back(settle);
    settle->stuck_until = now + hv_backoff_next(&settle->stuck_backoff, settle->dice);
    struct hv_action *action = hv_actions_notify(out, HV_NOTICE_UNPURGEABLE);
    action->id = slot->id;
    action->duration = settle->stuck_until - now;
    settle->batch = 1;
}

void hv_settle_refused(struct hv_settle *settle, bool because_of_a_row, hv_time now, struct hv_actions *out) {
    bool purge = settle->state == HV_SETTLE_PURGING;
    assert(purge || settle->state == HV_SETTLE_RESETTING);
    settle->state = HV_SETTLE_IDLE;
    if (!purge || !because_of_a_row) {
        put_back(settle);
        settle->retry_at = now + hv_backoff_next(&settle->backoff, settle->dice);
        block_asked_shards(settle, settle->retry_at);
    } else if (settle->purging.count == 1) {
        set_aside(settle, now, out);
    } else {
        settle->batch = settle->purging.count / 2;
        put_back(settle);
    }
}

void hv_settle_mark_answered(struct hv_settle *settle) {
    while (settle->gone.count > 0) {
        uint32_t index = settle->gone.first;
        hv_list_remove(settle->slots, &settle->gone, index);
        hv_slots_give(settle->slots, index);
    }
}

void hv_settle_purged(struct hv_settle *settle, bool mark_is_out) {
    assert(settle->state == HV_SETTLE_PURGING);
    settle->state = HV_SETTLE_IDLE;
    hv_list_append_all(settle->slots, &settle->gone, &settle->purging);
    if (!mark_is_out) {
        hv_settle_mark_answered(settle);
    }
    hv_backoff_reset(&settle->backoff);
    if (settle->stuck.count == 0) {
        hv_backoff_reset(&settle->stuck_backoff);
    }
    if (settle->batch < settle->config->purge_query_records) {
        uint64_t twice = (uint64_t)settle->batch * 2;
        settle->batch = twice < settle->config->purge_query_records ? (uint32_t)twice : settle->config->purge_query_records;
    }
}

static bool contains(const int64_t *ids, size_t count, int64_t id) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && ids[low] == id;
}

void hv_settle_was_reset(struct hv_settle *settle, const int64_t *ids, size_t count, hv_time now,
                         struct hv_actions *out) {
    assert(settle->state == HV_SETTLE_RESETTING);
    settle->state = HV_SETTLE_IDLE;
    hv_backoff_reset(&settle->backoff);
    for (uint32_t i = 0; i < settle->shards->count; i++) {
        struct hv_shard *shard = &settle->shards->list[i];
        if (shard->mode != HV_SHARD_RESETTING || !shard->reset_asked) {
            continue;
        }
        int64_t id = hv_slot(settle->slots, shard->next)->id;
        shard->reset_asked = false;
        if (contains(ids, count, id)) {
            hv_shard_move(shard, HV_SHARD_REREADING);
            shard->until = now + REREAD_LIMIT;
        } else {
            struct hv_action *action = hv_actions_notify(out, HV_NOTICE_UNBLOCKED);
            action->id = id;
            action->flag = true;
            hv_sender_unblock(settle->sender, shard);
            shard->failures = 0;
            hv_sender_forget(settle->sender, shard->next, out);
        }
    }
}

static bool reset_due_shards(struct hv_settle *settle, hv_time now, struct hv_actions *out) {
    uint32_t count = 0;
    if (settle->sender->blocked == 0) {
        return false;
    }
    for (uint32_t i = 0; i < settle->shards->count && count < settle->ids_max; i++) {
        struct hv_shard *shard = &settle->shards->list[i];
        if ((shard->mode == HV_SHARD_BLOCKED || shard->mode == HV_SHARD_REREADING) && now >= shard->until) {
            if (shard->mode == HV_SHARD_REREADING) {
                hv_shard_move(shard, HV_SHARD_BLOCKED);
            }
            hv_shard_move(shard, HV_SHARD_RESETTING);
            shard->reset_asked = true;
            settle->ids[count++] = hv_slot(settle->slots, shard->next)->id;
        }
    }
    if (count == 0) {
        return false;
    }
    struct hv_action *action = hv_actions_add(out, settle->by_mark ? HV_ACT_RESET : HV_ACT_LOOK);
    action->ids = settle->ids;
    action->count = count;
    settle->state = HV_SETTLE_RESETTING;
    return true;
}

static void purge(struct hv_settle *settle, struct hv_list *from, uint32_t limit, struct hv_actions *out) {
    uint32_t count = 0;
    settle->one_stuck = from == &settle->stuck;
    while (from->count > 0 && count < limit) {
        uint32_t index = from->first;
        struct hv_slot *slot = hv_slot(settle->slots, index);
        hv_list_remove(settle->slots, from, index);
        if (slot->state == HV_SLOT_STUCK) {
            hv_slot_move(slot, HV_SLOT_ACKED);
        }
        hv_slot_move(slot, HV_SLOT_PURGING);
        hv_list_append(settle->slots, &settle->purging, index);
        settle->ids[count++] = slot->id;
    }
    struct hv_action *action = hv_actions_add(out, HV_ACT_PURGE);
    action->ids = settle->ids;
    action->count = count;
    settle->state = HV_SETTLE_PURGING;
}

/* Acknowledged rows are gathered for a moment, so that a trickle does not cost a statement each. */
static hv_time purge_due(const struct hv_settle *settle) {
    const struct hv_list *acked = &settle->sender->acked;
    if (acked->count == 0) {
        return HV_NEVER;
    }
    if (acked->count >= settle->batch / 4) {
        return 0;
    }
    return hv_slot(settle->slots, acked->first)->since + settle->config->mark_backoff;
}

void hv_settle_advance(struct hv_settle *settle, bool hurry, hv_time now, struct hv_actions *out) {
    if (settle->state != HV_SETTLE_IDLE || now < settle->retry_at) {
        return;
    }
    if (reset_due_shards(settle, now, out)) {
        return;
    }
    if (now >= purge_due(settle) || (hurry && settle->sender->acked.count > 0)) {
        purge(settle, &settle->sender->acked, settle->batch, out);
    } else if (settle->stuck.count > 0 && now >= settle->stuck_until) {
        purge(settle, &settle->stuck, 1, out);
    }
}

hv_time hv_settle_deadline(const struct hv_settle *settle) {
    if (settle->state != HV_SETTLE_IDLE) {
        return HV_NEVER;
    }
    hv_time deadline = purge_due(settle);
    if (settle->stuck.count > 0) {
        deadline = hv_time_min(deadline, settle->stuck_until);
    }
    for (uint32_t i = 0; settle->sender->blocked > 0 && i < settle->shards->count; i++) {
        const struct hv_shard *shard = &settle->shards->list[i];
        if (shard->mode == HV_SHARD_BLOCKED || shard->mode == HV_SHARD_REREADING) {
            deadline = hv_time_min(deadline, shard->until);
        }
    }
    return hv_time_max(deadline, settle->retry_at);
}
