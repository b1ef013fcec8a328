/* See settling.h. */
#include "core/settling.h"

#include <assert.h>

#include "base/memory.h"
#include "core/removal.h"

void hv_settle_init(struct hv_settle *settle, struct hv_slots *slots, struct hv_sender *sender, struct hv_isolation *iso,
                    struct hv_random *dice, const struct hv_core_config *config) {
    *settle = (struct hv_settle){
        .slots = slots,
        .sender = sender,
        .iso = iso,
        .dice = dice,
        .config = config,
        .purging = HV_LIST_EMPTY,
        .stuck = HV_LIST_EMPTY,
        .gone = HV_LIST_EMPTY,
        .batch = config->purge_query_records,
        .stuck_batch = config->purge_query_records,
        .ids = hv_calloc(config->purge_query_records, sizeof(int64_t)),
        .versions = hv_calloc(config->purge_query_records, sizeof(uint32_t)),
    };
    hv_backoff_init(&settle->backoff, config->io_error_backoff, config->io_error_backoff_max);
    hv_backoff_init(&settle->stuck_backoff, config->io_error_backoff, config->blocked_backoff_max);
}

void hv_settle_fini(struct hv_settle *settle) {
    free(settle->ids);
    free(settle->versions);
    *settle = (struct hv_settle){0};
}

uint32_t hv_settle_pending(const struct hv_settle *settle) {
    return settle->sender->acked.count + settle->purging.count;
}

void hv_settle_up(struct hv_settle *settle) {
    settle->state = HV_SETTLE_IDLE;
}

static void set_stuck(struct hv_settle *settle, uint32_t index) {
    hv_list_remove(settle->slots, &settle->purging, index);
    hv_slot_move(hv_slot(settle->slots, index), HV_SLOT_STUCK);
    hv_list_append(settle->slots, &settle->stuck, index);
}

static void purge_again(struct hv_settle *settle, uint32_t index) {
    struct hv_list *acked = &settle->sender->acked;
    hv_list_remove(settle->slots, &settle->purging, index);
    hv_slot_move(hv_slot(settle->slots, index), HV_SLOT_ACKED);
    hv_list_insert(settle->slots, acked, acked->first, index);
}

/* The rows of the statement that is out go back to where they came from, in front. */
static void put_back(struct hv_settle *settle) {
    while (settle->purging.count > 0) {
        if (settle->of_stuck) {
            set_stuck(settle, settle->purging.last);
        } else {
            purge_again(settle, settle->purging.last);
        }
    }
    settle->check = false;
}

void hv_settle_down(struct hv_settle *settle, hv_time now) {
    put_back(settle);
    hv_isolation_not_fetched(settle->iso, now + settle->config->io_error_backoff);
    hv_removal_again(settle->iso);
    settle->state = HV_SETTLE_DOWN;
}

/* Rows are stuck now, of which this is one. Those that wait already do not wait longer because of it. */
static void say_stuck(struct hv_settle *settle, int64_t id, hv_time now, struct hv_actions *out) {
    if (now >= settle->stuck_until) {
        settle->stuck_until = now + hv_backoff_next(&settle->stuck_backoff, settle->dice);
    }
    struct hv_action *action = hv_actions_notify(out, HV_NOTICE_UNPURGEABLE);
    action->id = id;
    action->duration = settle->stuck_until - now;
}

/* A purge was refused because of a row. If it stands alone it waits, the others pass. */
static void halve(struct hv_settle *settle, hv_time now, struct hv_actions *out) {
    uint32_t count = settle->purging.count, *batch = settle->of_stuck ? &settle->stuck_batch : &settle->batch;
    *batch = count > 1 ? count / 2 : 1;
    if (count == 1) {
        int64_t id = hv_slot(settle->slots, settle->purging.first)->id;
        settle->of_stuck = true;
        say_stuck(settle, id, now, out);
    }
    put_back(settle);
}

void hv_settle_refused(struct hv_settle *settle, bool because_of_a_row, bool locked, hv_time now, struct hv_actions *out) {
    bool purge = settle->state == HV_SETTLE_PURGING;
    bool removal = settle->state == HV_SETTLE_PARKING || settle->state == HV_SETTLE_SKIPPING;
    assert(purge || removal || settle->state == HV_SETTLE_FETCHING || settle->state == HV_SETTLE_CHECKING);
    settle->state = HV_SETTLE_IDLE;
    if (removal) {
        hv_removal_refused(settle->iso, because_of_a_row || locked, now, out);
        return;
    }
    bool may_leave_out = purge && locked && !settle->but_locked;
    settle->but_locked = may_leave_out;
    if (may_leave_out) {
        put_back(settle);
    } else if (purge && because_of_a_row) {
        halve(settle, now, out);
    } else {
        put_back(settle);
        hv_removal_again(settle->iso);
        settle->retry_at = now + hv_backoff_next(&settle->backoff, settle->dice);
        hv_isolation_not_fetched(settle->iso, settle->retry_at);
    }
}

void hv_settle_mark_answered(struct hv_settle *settle) {
    while (settle->gone.count > 0) {
        uint32_t index = settle->gone.first;
        hv_list_remove(settle->slots, &settle->gone, index);
        hv_slots_give(settle->slots, index);
    }
}

/* A claim brought another row with the id of one that is leaving: it was deleted, and its id given again, before we were told. */
static bool others_were_seen(const struct hv_settle *settle) {
    bool seen = hv_removal_sees_others(settle->iso);
    for (uint32_t index = settle->purging.first; index != HV_NO_SLOT && !seen; index = hv_slot(settle->slots, index)->next) {
        seen = hv_slot(settle->slots, index)->other;
    }
    return seen;
}

/* The rows that were to be removed are gone. */
static void removed(struct hv_settle *settle, bool mark_is_out, struct hv_actions *out) {
    hv_removal_done(settle->iso, &settle->gone, out);
    if (!mark_is_out) {
        hv_settle_mark_answered(settle);
    }
    hv_backoff_reset(&settle->backoff);
}

/* The rows that are being purged are gone. */
static void purged(struct hv_settle *settle, bool mark_is_out) {
    for (uint32_t index = settle->purging.first; index != HV_NO_SLOT; index = hv_slot(settle->slots, index)->next) {
        hv_slot_move(hv_slot(settle->slots, index), HV_SLOT_PURGED);
    }
    hv_list_append_all(settle->slots, &settle->gone, &settle->purging);
    if (!mark_is_out) {
        hv_settle_mark_answered(settle);
    }
    hv_backoff_reset(&settle->backoff);
    if (settle->stuck.count == 0) {
        hv_backoff_reset(&settle->stuck_backoff);
    }
    settle->but_locked = false;
}

static void grow(const struct hv_settle *settle, uint32_t *batch) {
    uint64_t twice = (uint64_t)*batch * 2;
    *batch = twice < settle->config->purge_query_records ? (uint32_t)twice : settle->config->purge_query_records;
}

void hv_settle_parked(struct hv_settle *settle, size_t parked, bool mark_is_out, struct hv_actions *out) {
    assert(settle->state == HV_SETTLE_PARKING);
    settle->state = HV_SETTLE_IDLE;
    settle->check = parked < hv_removal_asked(settle->iso) || others_were_seen(settle);
    if (!settle->check) {
        removed(settle, mark_is_out, out);
    }
}

void hv_settle_purged(struct hv_settle *settle, size_t deleted, bool mark_is_out, struct hv_actions *out) {
    assert(settle->state == HV_SETTLE_PURGING || settle->state == HV_SETTLE_SKIPPING);
    bool removal = settle->state == HV_SETTLE_SKIPPING;
    settle->state = HV_SETTLE_IDLE;
    settle->check = deleted < (removal ? hv_removal_asked(settle->iso) : settle->purging.count) || others_were_seen(settle);
    if (!removal) {
        grow(settle, settle->of_stuck ? &settle->stuck_batch : &settle->batch);
    }
    if (!settle->check && removal) {
        removed(settle, mark_is_out, out);
    } else if (!settle->check) {
        purged(settle, mark_is_out);
    }
}

/* ---- rows that may be there still, or others in their place ---- */

static void check(struct hv_settle *settle, struct hv_actions *out) {
    size_t count = 0;
    for (uint32_t index = settle->purging.first; index != HV_NO_SLOT; index = hv_slot(settle->slots, index)->next) {
        hv_slot(settle->slots, index)->other = false;
        settle->ids[count++] = hv_slot(settle->slots, index)->id;
    }
    struct hv_action *action = hv_actions_add(out, HV_ACT_FETCH);
    action->ids = count > 0 ? settle->ids : hv_removal_asked_ids(settle->iso, &count);
    action->count = count;
    settle->state = HV_SETTLE_CHECKING;
    settle->check = false;
}

/* A row that was to be purged is there, in one version or another. If a claim brought another one meanwhile, nobody knows which is the
 * latest: it is read again. */
static bool check_row(struct hv_settle *settle, struct hv_intake *intake, uint32_t index, const struct hv_claimed *row, bool take,
                      hv_time now, struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(settle->slots, index);
    bool same = row->version == slot->version;
    if (!same && slot->other) {
        hv_intake_release(row, out);
        return false;
    }
    if (!same) {
        hv_list_remove(settle->slots, &settle->purging, index);
        hv_slots_give(settle->slots, index);
    } else if (slot->moved) {
        purge_again(settle, index);
    } else {
        set_stuck(settle, index);
    }
    if (!same && take) {
        hv_intake_row(intake, row, now, out);
    } else {
        hv_intake_release(row, out);
    }
    return same && slot->state == HV_SLOT_STUCK;
}

void hv_settle_checked(struct hv_settle *settle, struct hv_intake *intake, const struct hv_event *event, bool take, bool mark_is_out,
                       hv_time now, struct hv_actions *out) {
    assert(settle->state == HV_SETTLE_CHECKING);
    settle->state = HV_SETTLE_IDLE;
    int64_t stuck = 0, last = event->flag && event->count > 0 ? event->rows[event->count - 1].id : INT64_MAX;
    bool any_stuck = false, removal = settle->purging.count == 0;
    for (size_t i = 0; i < event->count; i++) {
        const struct hv_claimed *row = &event->rows[i];
        uint32_t index = hv_slots_find(settle->slots, row->id);
        if (index != HV_NO_SLOT && hv_slot(settle->slots, index)->state == HV_SLOT_PURGING) {
            bool is_stuck = check_row(settle, intake, index, row, take, now, out);
            stuck = is_stuck ? row->id : stuck;
            any_stuck = any_stuck || is_stuck;
        } else {
            hv_removal_stays(settle->iso, row->id, now, out);
            hv_intake_release(row, out);
        }
    }
    for (uint32_t index = settle->purging.first, next; index != HV_NO_SLOT; index = next) {
        next = hv_slot(settle->slots, index)->next;
        if (hv_slot(settle->slots, index)->id > last) {
            purge_again(settle, index);
        }
    }
    if (any_stuck) {
        say_stuck(settle, stuck, now, out);
    }
    if (removal && last < INT64_MAX) {
        hv_removal_again(settle->iso);
    } else if (others_were_seen(settle)) { /* after this was read */
        settle->check = true;
        return;
    } else if (removal && hv_removal_asked(settle->iso) > 0) {
        removed(settle, mark_is_out, out);
    }
    purged(settle, mark_is_out);
}

void hv_settle_fetched(struct hv_settle *settle) {
    assert(settle->state == HV_SETTLE_FETCHING);
    settle->state = HV_SETTLE_IDLE;
    hv_backoff_reset(&settle->backoff);
}

/* Reads again what blocks its key and is due. */
static bool fetch(struct hv_settle *settle, hv_time now, struct hv_actions *out) {
    size_t count = hv_isolation_due(settle->iso, settle->ids, settle->config->purge_query_records, now);
    if (count == 0) {
        return false;
    }
    struct hv_action *action = hv_actions_add(out, HV_ACT_FETCH);
    action->ids = settle->ids;
    action->count = count;
    settle->state = HV_SETTLE_FETCHING;
    return true;
}

static bool remove_poison(struct hv_settle *settle, hv_time now, struct hv_actions *out) {
    const struct hv_removed *rows;
    const int64_t *ids;
    size_t count;
    enum hv_poison policy = hv_removal_ask(settle->iso, now, &rows, &ids, &count);
    if (policy == HV_POISON_BLOCK) {
        return false;
    }
    struct hv_action *action = hv_actions_add(out, policy == HV_POISON_PARK ? HV_ACT_PARK : HV_ACT_PURGE);
    action->count = count;
    if (policy == HV_POISON_PARK) {
        action->removed = rows;
    } else {
        for (size_t i = 0; i < count; i++) {
            settle->removed_versions[i] = rows[i].version;
        }
        action->ids = ids;
        action->versions = settle->removed_versions;
    }
    settle->state = policy == HV_POISON_PARK ? HV_SETTLE_PARKING : HV_SETTLE_SKIPPING;
    return true;
}

static void purge(struct hv_settle *settle, struct hv_list *from, uint32_t limit, struct hv_actions *out) {
    uint32_t count = 0;
    settle->of_stuck = from == &settle->stuck;
    while (from->count > 0 && count < limit) {
        uint32_t index = from->first;
        struct hv_slot *slot = hv_slot(settle->slots, index);
        hv_list_remove(settle->slots, from, index);
        if (slot->state == HV_SLOT_STUCK) {
            hv_slot_move(slot, HV_SLOT_ACKED);
        }
        hv_slot_move(slot, HV_SLOT_PURGING);
        hv_list_append(settle->slots, &settle->purging, index);
        slot->moved = slot->other = false;
        settle->versions[count] = slot->version;
        settle->ids[count++] = slot->id;
    }
    struct hv_action *action = hv_actions_add(out, HV_ACT_PURGE);
    action->ids = settle->ids;
    action->versions = settle->versions;
    action->count = count;
    action->flag = settle->but_locked = settle->but_locked || settle->of_stuck;
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

void hv_settle_advance(struct hv_settle *settle, bool leading, bool hurry, hv_time now, struct hv_actions *out) {
    if (settle->state != HV_SETTLE_IDLE || now < settle->retry_at) {
        return;
    }
    if (settle->check && settle->purging.count + hv_removal_asked(settle->iso) > 0) {
        check(settle, out);
        return;
    }
    settle->check = false;
    bool purge_now = now >= purge_due(settle) || (hurry && settle->sender->acked.count > 0);
    if (leading && !(purge_now && settle->purge_next) && (fetch(settle, now, out) || remove_poison(settle, now, out))) {
        settle->purge_next = true;
        return;
    }
    settle->purge_next = false;
    bool stuck_now = settle->stuck.count > 0 && now >= settle->stuck_until;
    if (stuck_now && !(purge_now && settle->of_stuck)) { /* they take turns, too */
        purge(settle, &settle->stuck, settle->stuck_batch, out);
    } else if (purge_now) {
        purge(settle, &settle->sender->acked, settle->batch, out);
    }
}

hv_time hv_settle_deadline(const struct hv_settle *settle) {
    if (settle->state != HV_SETTLE_IDLE) {
        return HV_NEVER;
    }
    hv_time deadline = settle->check ? 0 : purge_due(settle);
    if (settle->stuck.count > 0) {
        deadline = hv_time_min(deadline, settle->stuck_until);
    }
    deadline = hv_time_min(deadline, hv_removal_waits(settle->iso) ? 0 : hv_isolation_deadline(settle->iso));
    return hv_time_max(deadline, settle->retry_at);
}
