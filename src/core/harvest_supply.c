/* See harvest_parts.h: the part that gets rows from the table. How to ask for them is claiming's, where a row goes is intake's. */
#include "core/harvest_parts.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"

#define QUEUE_CHECK HV_SECONDS(1)  /* how often the age of queued records is looked at */
#define LEFT_REFRESH HV_MS(100)    /* two refreshes for rows that were left in the table are at least that far apart */

/* ---- rows that come ---- */

static void on_claimed(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    if (hv_settle_pending(&h->settle) > 0) {
        hv_claim_deleting(&h->claim);
    }
    size_t claimed = hv_claim_marked(&h->claim, event->rows, event->count, event->flag, h->term, h->now);
    bool ours = hv_tenure_leads(h) && h->claim.asked_term == h->term;
    size_t took = 0, come_again = 0;
    for (size_t i = 0; i < event->count; i++) {
        const struct hv_claimed *row = &event->rows[i];
        assert(i == 0 || event->rows[i - 1].id <= row->id);
        if (!ours || i >= claimed) {
            hv_intake_release(row, out);
            continue;
        }
        switch (hv_intake_row(&h->intake, row, h->now, out)) {
        case HV_INTAKE_TOOK:
            took++;
            break;
        case HV_INTAKE_HAD:
            break;
        case HV_INTAKE_LEFT:
            come_again += hv_claim_comes_again(&h->claim, row->id);
            break;
        case HV_INTAKE_FULL: /* a server that returns more than it was asked for */
            h->claim.refresh = "a claim returned more rows than there is room for";
            break;
        }
    }
    if (ours && claimed > 0) {
        hv_claim_took(&h->claim, took, come_again, event->rows[claimed - 1].id, h->now);
    }
}

static void on_fetched(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    if (h->settle.state == HV_SETTLE_CHECKING) {
        bool take = hv_tenure_leads(h) && h->claim.refresh == NULL; /* or all is claimed from the first id on */
        hv_settle_checked(&h->settle, &h->intake, event, take, hv_claim_is_reading(&h->claim), h->now, out);
        return;
    }
    hv_settle_fetched(&h->settle); /* if leadership ended since, no key waits for these rows */
    if (!hv_intake_fetched(&h->intake, event->rows, event->count, event->flag, h->now, out)) {
        h->claim.refresh = "a row that was read again has another key, and there is no room for it";
    }
}

void hv_supply_event(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    switch (event->type) {
    case HV_EV_CLAIM_UP:
        hv_claim_up(&h->claim, h->now);
        break;
    case HV_EV_CLAIM_DOWN:
        hv_claim_down(&h->claim, event->flag, h->now);
        hv_settle_mark_answered(&h->settle);
        break;
    case HV_EV_CLAIM_REFUSED:
        hv_claim_refused(&h->claim, h->now);
        hv_settle_mark_answered(&h->settle);
        break;
    case HV_EV_CLAIMED:
        on_claimed(h, event, out);
        hv_settle_mark_answered(&h->settle);
        break;
    case HV_EV_LISTED:
        hv_claim_listed(&h->claim, event->rows, event->count, h->term, &h->slots, &h->isolation, h->now);
        hv_settle_mark_answered(&h->settle);
        break;
    case HV_EV_WRITERS:
        hv_claim_writers(&h->claim, event->hashes, event->count, h->now);
        break;
    case HV_EV_LISTENING:
        hv_claim_listening(&h->claim);
        break;
    case HV_EV_WAKE:
        hv_claim_wake(&h->claim);
        break;
    case HV_EV_FETCHED:
        on_fetched(h, event, out);
        break;
    default:
        assert(false);
    }
}

/* ---- claiming ---- */

void hv_supply_begin(struct hv_harvest *h) {
    hv_claim_restart(&h->claim, h->now);
    h->queue_check = h->now + QUEUE_CHECK;
}

/* While a refresh waits, nothing may be claimed: the rows that nobody knows of must come before newer ones. */
static bool may_claim(const struct hv_harvest *h) {
    bool its_turn = !hv_claim_takes_turns(&h->claim) || !hv_settle_is_waiting(&h->settle);
    return hv_tenure_leads(h) && h->claim.refresh == NULL && its_turn;
}

/* Gaps that had to be made one hold records that we know. Should there be many, and should they stay for long, a scan might find nothing
 * but them, again and again. (Those that were not kept: hv_claim_took.) */
static void leave_out_known(struct hv_harvest *h, struct hv_action *scan) {
    size_t count = 0;
    for (size_t i = 0; i < scan->gap_count; i++) {
        count += scan->gaps[i].merged;
    }
    if (count == 0) {
        return;
    }
    if (h->known_ids == NULL) {
        h->known_ids = hv_calloc(h->slots.capacity, sizeof *h->known_ids);
    }
    count = 0;
    for (uint32_t i = 0; i < h->slots.capacity; i++) {
        const struct hv_slot *slot = &h->slots.table[i];
        if (slot->state != HV_SLOT_FREE && hv_gaps_hold(&h->claim.gaps, slot->id)) {
            h->known_ids[count++] = slot->id;
        }
    }
    scan->ids = h->known_ids;
    scan->count = count;
}

/* How many rows may be claimed now: none while enough wait to be sent, a shard is full, or memory for them is. */
static uint32_t claim_room(const struct hv_harvest *h) {
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < h->shards.count; i++) {
        uint32_t unsent = hv_shard_unsent(&h->shards.list[i]);
        if (unsent >= h->config.send_buffer) {
            return 0;
        }
        waiting += unsent;
    }
    uint32_t enough = h->config.max_in_flight_records / 2;
    if (waiting > 0 && waiting >= enough) {
        return 0;
    }
    uint64_t bytes = h->shards.unsent_bytes + h->isolation.unsent_bytes;
    if (waiting + h->isolation.unsent > 0 && bytes >= h->config.max_in_flight_bytes) {
        return 0;
    }
    return hv_slots_left(&h->slots);
}

static void claim(struct hv_harvest *h, struct hv_actions *out) {
    bool alone = hv_settle_pending(&h->settle) == 0; /* stuck rows are among these when they are tried again */
    size_t before = out->count;
    hv_claim_advance(&h->claim, h->leader_id, claim_room(h), alone, h->term, &h->isolation, h->now, out);
    if (out->count > before && out->list[before].type == HV_ACT_SCAN) {
        leave_out_known(h, &out->list[before]);
    }
}

/* ---- claiming anew ---- */

static const char rows_were_left[] = "a key moves again of which rows were left in the table";

static void refresh_if_due(struct hv_harvest *h, struct hv_actions *out) {
    if (h->claim.refresh == NULL || h->claim.state != HV_CLAIM_IDLE || !h->spare) {
        return;
    }
    struct hv_action *action = hv_actions_notify(out, HV_NOTICE_REFRESHED);
    action->reason = h->claim.refresh;
    action->flag = h->claim.refresh == rows_were_left;
    hv_tenure_take_spare_id(h);
    memcpy(action->uuid, h->leader_id, HV_UUID_BYTES);
    hv_claim_restart(&h->claim, h->now);
    hv_isolation_claimed_anew(&h->isolation);
}

static bool queued_too_long(const struct hv_harvest *h, const struct hv_shard *shard) {
    return shard->next != HV_NO_SLOT && h->now - h->slots.table[shard->next].since >= h->config.queue_timeout;
}

/* Not while a mark is out: its rows would come before those that are forgotten. Nor while failed reports are to come: a record that is in
 * flight would come before an earlier one of its key that failed already and was forgotten. */
static bool may_begin_anew(const struct hv_harvest *h) {
    return h->claim.refresh == NULL && h->claim.state == HV_CLAIM_IDLE && !hv_sender_is_purging(&h->sender);
}

/* A record that waited for long is not sent from an old copy: what is unsent is forgotten and marked anew. */
static void check_queues(struct hv_harvest *h, struct hv_actions *out) {
    if (h->now < h->queue_check || hv_claim_is_waiting(&h->claim)) {
        return; /* as soon as it is answered, and before the next one is sent */
    }
    h->queue_check = h->now + QUEUE_CHECK;
    if (!may_begin_anew(h)) {
        return;
    }
    bool any = hv_isolation_holds_since(&h->isolation, h->now - h->config.queue_timeout);
    for (uint32_t i = 0; i < h->shards.count; i++) {
        any = any || queued_too_long(h, &h->shards.list[i]);
    }
    if (any) {
        for (uint32_t i = 0; i < h->shards.count; i++) {
            hv_sender_forget_unsent(&h->sender, &h->shards.list[i], out);
        }
        hv_isolation_forget_unsent(&h->isolation, out);
        h->claim.refresh = "a record was queued for longer than queue_timeout";
    }
}

/* Rows that were left in the table are wanted, from this time on. To come to them all rows before have to be passed over, which must not be
 * all that is done while there are others. */
static hv_time left_is_due(const struct hv_harvest *h) {
    if (!hv_isolation_wants_claim_anew(&h->isolation) || !may_begin_anew(h) || h->claim.regaining) {
        return HV_NEVER;
    }
    bool others = h->claim.was_cut || h->shards.unsent > 0;
    return others ? hv_time_max(h->left_refresh, h->claim.rest_until) : h->left_refresh;
}

static void fetch_what_was_left(struct hv_harvest *h) {
    if (h->now >= left_is_due(h)) {
        h->left_refresh = h->now + LEFT_REFRESH;
        h->claim.refresh = rows_were_left;
    }
}

/* ---- the turn ---- */

void hv_supply_advance(struct hv_harvest *h, struct hv_actions *out) {
    bool leads = hv_tenure_leads(h);
    if (leads) {
        check_queues(h, out);
        fetch_what_was_left(h);
        refresh_if_due(h, out);
    }
    if (may_claim(h)) {
        claim(h, out);
    } else if (!leads && h->stop == HV_RUNNING) {
        hv_claim_rest(&h->claim, out);
    }
}

hv_time hv_supply_deadline(const struct hv_harvest *h) {
    hv_time deadline = HV_NEVER;
    if (hv_tenure_leads(h) && !hv_claim_is_waiting(&h->claim)) {
        deadline = hv_time_min(h->queue_check, left_is_due(h));
    }
    if (may_claim(h)) {
        deadline = hv_time_min(deadline, hv_claim_deadline(&h->claim, claim_room(h)));
    }
    return deadline;
}
