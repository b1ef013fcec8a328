/* See harvest.h. This file brings the parts together: leading decides whether, claiming feeds, sending sends, settling settles. */
#include "core/harvest.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"
#include "core/claiming.h"
#include "core/intake.h"
#include "core/meter.h"
#include "core/settling.h"

#define QUEUE_CHECK HV_SECONDS(1)   /* how often the age of queued records is looked at */
#define LEFT_REFRESH HV_SECONDS(1)  /* two refreshes for rows that were left in the table are at least that far apart */
#define LEAVE_LIMIT HV_SECONDS(10)
#define AHEAD 8                     /* reports: slots are scattered, and each would have to be waited for */

enum stop_state { RUNNING, DRAINING, LEAVING, STOPPED };

struct hv_harvest {
    struct hv_core_config config;
    struct hv_random dice;
    struct hv_slots slots;
    struct hv_shards shards;
    struct hv_isolation isolation;
    struct hv_sender sender;
    struct hv_settle settle;
    struct hv_intake intake;
    struct hv_claim claim;
    struct hv_leading leading;
    struct hv_meter meter;
    uint8_t leader_id[HV_UUID_BYTES], spare_id[HV_UUID_BYTES];
    bool spare, spare_asked;
    uint64_t term; /* rises when leadership ends: replies to marks of an earlier term are void */
    enum stop_state stop;
    hv_time drain_until; /* while draining, for a stop or a hand-over */
    bool handing_over;   /* the application was told of the revoke and is not done with it yet */
    bool abandoned;      /* ... and the group does not wait any more */
    hv_time hand_over_until;
    uint32_t given_up; /* records whose outcome stayed unknown while stopping */
    int64_t *known_ids;  /* room for those that a claim leaves out */
    hv_time queue_check, left_refresh;
    hv_time now, deadline;
};

struct hv_harvest *hv_harvest_new(const struct hv_core_config *config, hv_time now) {
    struct hv_harvest *h = hv_calloc(1, sizeof *h);
    h->config = *config;
    h->dice.state = config->seed;
    h->now = now;
    h->deadline = now;
    uint32_t capacity = 2 * config->max_in_flight_records + 2 * config->mark_query_records + 4 * config->send_concurrency;
    hv_slots_init(&h->slots, capacity);
    hv_shards_init(&h->shards, &h->slots, config->send_concurrency);
    hv_isolation_init(&h->isolation, &h->slots, &h->shards, &h->dice, &h->config);
    hv_sender_init(&h->sender, &h->slots, &h->shards, &h->isolation, &h->dice, &h->config);
    hv_settle_init(&h->settle, &h->slots, &h->sender, &h->isolation, &h->dice, &h->config);
    h->intake = (struct hv_intake){&h->slots, &h->shards, &h->isolation, &h->sender};
    hv_claim_init(&h->claim, &h->config, &h->dice);
    hv_leading_init(&h->leading, &h->config);
    hv_meter_init(&h->meter, config->min_metrics_interval, now);
    return h;
}

void hv_harvest_free(struct hv_harvest *h, void (*release)(void *user, void *payload), void *user) {
    if (h == NULL) {
        return;
    }
    for (uint32_t i = 0; i < h->slots.capacity; i++) {
        struct hv_slot *slot = hv_slot(&h->slots, i);
        if (slot->payload != NULL && release != NULL) {
            release(user, slot->payload);
        }
    }
    hv_claim_fini(&h->claim);
    free(h->known_ids);
    hv_settle_fini(&h->settle);
    hv_isolation_fini(&h->isolation);
    hv_shards_fini(&h->shards);
    hv_slots_fini(&h->slots);
    free(h);
}

/* ---- leadership ---- */

static bool leads(const struct hv_harvest *h) {
    return h->leading.role == HV_LEADER && h->stop == RUNNING;
}

static void forget_all_unsent(struct hv_harvest *h, struct hv_actions *out) {
    for (uint32_t i = 0; i < h->shards.count; i++) {
        hv_sender_forget_unsent(&h->sender, &h->shards.list[i], out);
    }
    hv_isolation_forget_all(&h->isolation, out);
}

/* Sending ends. What is in flight is drained (give_up is NULL) or given up, for that reason. */
static void end_term(struct hv_harvest *h, const char *give_up, struct hv_actions *out) {
    h->term++;
    if (give_up != NULL) {
        hv_sender_give_up(&h->sender, give_up, h->now, out);
    }
    forget_all_unsent(h, out);
}

static void fence(struct hv_harvest *h, struct hv_actions *out) {
    hv_leading_move(&h->leading, HV_FENCED);
    hv_actions_notify(out, HV_NOTICE_FENCED)->reason = "no heartbeat came back within heartbeat_timeout";
    end_term(h, "the lease is over", out);
}

/* The application believes until now that it leads: it is not asked to wind up any more, it has to stop. */
static void lose_while_revoking(struct hv_harvest *h, const char *reason, struct hv_actions *out) {
    hv_sender_give_up(&h->sender, reason, h->now, out);
    hv_leading_move(&h->leading, HV_STANDBY);
    hv_actions_notify(out, HV_NOTICE_FENCED)->reason = reason;
}

static void check_lease(struct hv_harvest *h, struct hv_actions *out) {
    if (hv_leading_lease(&h->leading, h->now)) {
        return;
    }
    if (h->leading.role == HV_LEADER) {
        fence(h, out);
    } else if (h->leading.role == HV_REVOKING) {
        lose_while_revoking(h, "no heartbeat came back within heartbeat_timeout", out);
    }
}

static void take_spare_id(struct hv_harvest *h) {
    memcpy(h->leader_id, h->spare_id, HV_UUID_BYTES);
    h->spare = false;
}

static void want_spare_id(struct hv_harvest *h, struct hv_actions *out) {
    if (!h->spare && !h->spare_asked) {
        h->spare_asked = true;
        hv_actions_add(out, HV_ACT_NEED_LEADER_ID);
    }
}

static void promote_if_due(struct hv_harvest *h, struct hv_actions *out) {
    bool waiting = h->leading.role == HV_CANDIDATE || h->leading.role == HV_FENCED;
    if (!waiting || h->stop != RUNNING || h->handing_over || !h->spare || !hv_leading_lease(&h->leading, h->now) ||
        hv_sender_in_flight(&h->sender) > 0) {
        return;
    }
    hv_leading_move(&h->leading, HV_LEADER);
    take_spare_id(h);
    hv_claim_restart(&h->claim, h->now);
    h->queue_check = h->now + QUEUE_CHECK;
    struct hv_action *action = hv_actions_notify(out, HV_NOTICE_ACQUIRED);
    memcpy(action->uuid, h->leader_id, HV_UUID_BYTES);
}

static void begin_draining(struct hv_harvest *h) {
    h->drain_until = h->now + h->config.drain_timeout;
    if (!h->handing_over) {
        h->hand_over_until = h->now + h->config.hand_over_limit;
    }
}

static void on_revoked(struct hv_harvest *h, bool lost, struct hv_actions *out) {
    enum hv_role role = h->leading.role;
    h->leading.answer_owed = !lost;
    if (role == HV_LEADER && !lost) {
        hv_leading_move(&h->leading, HV_REVOKING);
        if (h->stop == RUNNING) {
            begin_draining(h);
        }
        end_term(h, NULL, out);
    } else if (role != HV_STANDBY && role != HV_REVOKING) {
        hv_leading_move(&h->leading, HV_STANDBY);
        if (role == HV_LEADER) {
            hv_actions_notify(out, HV_NOTICE_FENCED)->reason = "the group took the leader partition away";
            end_term(h, "leadership is lost", out);
        }
    } else if (role == HV_REVOKING && lost) {
        /* Nobody waits for us any more, and the partition may come back before all is purged. */
        lose_while_revoking(h, "the group took the leader partition away", out);
    } else if (h->handing_over && lost) {
        h->abandoned = true;
    }
}

static void on_assigned(struct hv_harvest *h, bool owns, struct hv_actions *out) {
    if (!owns) {
        on_revoked(h, true, out);
    } else if (h->leading.role == HV_STANDBY) {
        hv_leading_assigned(&h->leading, h->now);
    }
}

static bool drained(const struct hv_harvest *h) {
    bool settled = hv_settle_pending(&h->settle) == 0 || h->now >= h->drain_until;
    return hv_sender_in_flight(&h->sender) == 0 && settled;
}

/* The application winds up what only a leader may do; the group has to wait for it. */
static void hand_over(struct hv_harvest *h, struct hv_actions *out) {
    hv_leading_move(&h->leading, HV_STANDBY);
    hv_actions_notify(out, HV_NOTICE_REVOKED);
    h->handing_over = true;
    h->abandoned = false;
}

/* The application winds up in peace while another may lead already: it has to stop. */
static void check_hand_over(struct hv_harvest *h, struct hv_actions *out) {
    if (h->handing_over && h->abandoned) {
        h->handing_over = false;
        hv_actions_notify(out, HV_NOTICE_FENCED)->reason = "the group did not wait until the application was done";
    }
}

static void limit_hand_over(struct hv_harvest *h) {
    if (h->now >= h->hand_over_until) {
        h->handing_over = false;
    }
}

/* A hand-over: once nothing is in flight and what was acknowledged is purged (or time is up), the application is told; once it is done,
 * the group gets its answer. */
static void advance_hand_over(struct hv_harvest *h, struct hv_actions *out) {
    if (h->leading.role == HV_REVOKING) {
        if (h->now >= h->drain_until) {
            hv_sender_give_up(&h->sender, "the hand-over cannot wait", h->now, out);
        }
        if (!drained(h)) {
            return;
        }
        hand_over(h, out);
    }
    bool ready = h->leading.role == HV_STANDBY && !h->handing_over && hv_sender_in_flight(&h->sender) == 0;
    if (h->leading.answer_owed && ready) {
        h->leading.answer_owed = false;
        hv_actions_add(out, HV_ACT_ANSWER);
    }
}

/* ---- stopping ---- */

static void begin_stop(struct hv_harvest *h, struct hv_actions *out) {
    if (h->stop != RUNNING) {
        return;
    }
    h->stop = DRAINING;
    if (h->leading.role != HV_REVOKING) { /* the group does not wait longer for our answer because of this */
        begin_draining(h);
    }
    end_term(h, NULL, out);
}

static void hurry(struct hv_harvest *h, struct hv_actions *out) {
    begin_stop(h, out);
    h->drain_until = h->now;
    h->hand_over_until = h->now;
}

static void advance_stop(struct hv_harvest *h, struct hv_actions *out) {
    if (h->stop == DRAINING) {
        if (h->now >= h->drain_until) {
            hv_sender_give_up(&h->sender, "stopping cannot wait", h->now, out);
        }
        if (!drained(h)) {
            return;
        }
        if (h->leading.role == HV_LEADER || h->leading.role == HV_REVOKING) {
            hand_over(h, out);
            limit_hand_over(h);
        }
        if (h->handing_over) {
            return;
        }
        h->stop = LEAVING;
        h->drain_until = h->now + LEAVE_LIMIT;
        hv_actions_add(out, HV_ACT_LEAVE);
    } else if (h->stop == LEAVING && h->now >= h->drain_until) {
        h->stop = STOPPED;
        hv_actions_add(out, HV_ACT_STOPPED);
    }
}

static void on_left(struct hv_harvest *h, struct hv_actions *out) {
    if (h->leading.role != HV_STANDBY) {
        hv_leading_move(&h->leading, HV_STANDBY);
    }
    h->leading.answer_owed = false;
    if (h->stop == LEAVING) {
        h->stop = STOPPED;
        hv_actions_add(out, HV_ACT_STOPPED);
    }
}

/* While stopping nothing is sent again: what was not acknowledged is left to the next leader. */
static void on_report(struct hv_harvest *h, const struct hv_report *report, struct hv_actions *out) {
    uint32_t in_flight = hv_sender_in_flight(&h->sender);
    if (hv_sender_report(&h->sender, report, h->now, out)) {
        hv_meter_count(&h->meter);
    } else if (h->stop != RUNNING && report->delivery != HV_REFUSED && report->delivery != HV_UNREACHED &&
               hv_sender_in_flight(&h->sender) < in_flight) {
        h->given_up++;
    }
}

static void on_reports(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    for (size_t i = 0; i < event->count; i++) {
        if (i + AHEAD < event->count) {
            hv_slots_prefetch(&h->slots, event->reports[i + AHEAD].ticket);
        }
        on_report(h, &event->reports[i], out);
    }
}

/* ---- claimed rows ---- */

static void on_claimed(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    if (hv_settle_pending(&h->settle) > 0) {
        hv_claim_deleting(&h->claim);
    }
    size_t claimed = hv_claim_marked(&h->claim, event->rows, event->count, event->flag, h->term, h->now);
    bool ours = leads(h) && h->claim.asked_term == h->term;
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
    hv_settle_fetched(&h->settle); /* if leadership ended since, no key waits for these rows */
    if (!hv_intake_fetched(&h->intake, event->rows, event->count, event->flag, h->now, out)) {
        h->claim.refresh = "a row that was read again has another key, and there is no room for it";
    }
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

/* ---- refreshing ---- */

static void refresh_if_due(struct hv_harvest *h, struct hv_actions *out) {
    if (h->claim.refresh == NULL || h->claim.state != HV_CLAIM_IDLE || !h->spare) {
        return;
    }
    struct hv_action *action = hv_actions_notify(out, HV_NOTICE_REFRESHED);
    action->reason = h->claim.refresh;
    take_spare_id(h);
    memcpy(action->uuid, h->leader_id, HV_UUID_BYTES);
    hv_claim_restart(&h->claim, h->now);
    hv_isolation_claimed_anew(&h->isolation);
}

static bool queued_too_long(const struct hv_harvest *h, const struct hv_shard *shard) {
    return shard->next != HV_NO_SLOT && h->now - h->slots.table[shard->next].since >= h->config.queue_timeout;
}

/* A record that waited for long is not sent from an old copy: what is unsent is forgotten and marked anew. */
static void check_queues(struct hv_harvest *h, struct hv_actions *out) {
    if (h->now < h->queue_check || hv_claim_is_waiting(&h->claim)) {
        return; /* as soon as it is answered, and before the next one is sent */
    }
    h->queue_check = h->now + QUEUE_CHECK;
    /* Not while a mark is out: its rows would come before those that are forgotten here. Nor while failed reports are to come: a
     * record that is in flight would come before an earlier one of its key that failed already and was forgotten. */
    if (h->claim.refresh != NULL || h->claim.state != HV_CLAIM_IDLE || hv_sender_is_purging(&h->sender)) {
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
    } else if (hv_isolation_wants_claim_anew(&h->isolation) && h->now >= h->left_refresh) {
        h->left_refresh = h->now + LEFT_REFRESH;
        h->claim.refresh = "a key moves again of which rows were left in the table";
    }
}

/* ---- the turn ---- */

static void send_heartbeat(struct hv_harvest *h, struct hv_actions *out) {
    int64_t stamp;
    if (h->stop != LEAVING && h->stop != STOPPED && hv_leading_beat(&h->leading, h->now, &stamp)) {
        hv_actions_add(out, HV_ACT_HEARTBEAT)->stamp = stamp;
    }
}

static void read_meter(struct hv_harvest *h, struct hv_actions *out) {
    struct hv_meter_reading reading;
    if (hv_meter_read(&h->meter, h->now, &reading)) {
        hv_actions_notify(out, HV_NOTICE_METER)->meter = reading;
    }
}

/* While a refresh waits, nothing may be claimed: the rows that nobody knows of must come before newer ones. */
static bool may_claim(const struct hv_harvest *h) {
    return leads(h) && h->claim.refresh == NULL;
}

static hv_time next_deadline(const struct hv_harvest *h, bool more) {
    if (more) {
        return h->now;
    }
    bool leading = leads(h);
    bool beating = h->stop == RUNNING || h->stop == DRAINING;
    hv_time deadline = beating ? hv_leading_deadline(&h->leading) : HV_NEVER;
    deadline = hv_time_min(deadline, hv_sender_deadline(&h->sender, leading));
    deadline = hv_time_min(deadline, hv_settle_deadline(&h->settle));
    if (leading && !hv_claim_is_waiting(&h->claim)) {
        deadline = hv_time_min(deadline, h->queue_check);
    }
    if (may_claim(h)) {
        deadline = hv_time_min(deadline, hv_claim_deadline(&h->claim, claim_room(h)));
    }
    if (h->stop == DRAINING || h->stop == LEAVING || h->leading.role == HV_REVOKING) {
        /* Past it, only events move things on; while the client purges, its own limit does. */
        hv_time limit = h->drain_until > h->now ? h->drain_until : HV_NEVER;
        deadline = hv_time_min(deadline, limit);
    }
    if (h->handing_over) {
        deadline = hv_time_min(deadline, h->hand_over_until);
    }
    return deadline;
}

static void turn(struct hv_harvest *h, struct hv_actions *out) {
    want_spare_id(h, out);
    send_heartbeat(h, out);
    hv_sender_advance(&h->sender, leads(h), h->now, out);
    if (!leads(h)) {
        forget_all_unsent(h, out); /* failed reports make records unsent again */
    }
    check_hand_over(h, out);
    limit_hand_over(h);
    advance_hand_over(h, out);
    advance_stop(h, out);
    promote_if_due(h, out);
    bool more = false;
    if (leads(h)) {
        check_queues(h, out);
        refresh_if_due(h, out);
    }
    /* The statements go out first: the database works on them while records are handed over. */
    if (may_claim(h)) {
        bool alone = hv_settle_pending(&h->settle) + h->settle.stuck.count == 0;
        size_t before = out->count;
        hv_claim_advance(&h->claim, h->leader_id, claim_room(h), alone, h->term, &h->isolation, h->now, out);
        if (out->count > before && out->list[before].type == HV_ACT_SCAN) {
            leave_out_known(h, &out->list[before]);
        }
    } else if (!leads(h) && h->stop == RUNNING) {
        hv_claim_rest(&h->claim, out);
    }
    hv_settle_advance(&h->settle, leads(h), h->stop != RUNNING || h->leading.role == HV_REVOKING, h->now, out);
    if (leads(h)) {
        more = hv_sender_feed(&h->sender, h->now, out);
        /* Feeding may have found suspects, or blocked what purging could go on with. */
        hv_sender_advance(&h->sender, true, h->now, out);
    }
    read_meter(h, out);
    h->deadline = next_deadline(h, more);
}

static void dispatch(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    switch (event->type) {
    case HV_EV_TURN:
        turn(h, out);
        break;
    case HV_EV_LEADER_ID:
        memcpy(h->spare_id, event->uuid, HV_UUID_BYTES);
        h->spare = true;
        h->spare_asked = false;
        break;
    case HV_EV_ASSIGNED:
        on_assigned(h, event->flag, out);
        break;
    case HV_EV_REVOKED:
        on_revoked(h, event->flag, out);
        break;
    case HV_EV_HEARTBEAT:
        hv_leading_heartbeat(&h->leading, event->stamp);
        break;
    case HV_EV_HANDED_OVER:
        h->handing_over = false;
        break;
    case HV_EV_LEFT:
        on_left(h, out);
        break;
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
    case HV_EV_SETTLE_UP:
        hv_settle_up(&h->settle);
        break;
    case HV_EV_SETTLE_DOWN:
        hv_settle_down(&h->settle, h->now);
        break;
    case HV_EV_SETTLE_REFUSED:
        hv_settle_refused(&h->settle, event->flag, h->now, out);
        break;
    case HV_EV_PURGED:
        hv_settle_purged(&h->settle, hv_claim_is_reading(&h->claim), out);
        hv_claim_deleting(&h->claim);
        break;
    case HV_EV_PARKED:
        hv_settle_parked(&h->settle, hv_claim_is_reading(&h->claim), out);
        hv_claim_deleting(&h->claim);
        break;
    case HV_EV_FETCHED:
        on_fetched(h, event, out);
        break;
    case HV_EV_CLIENT_READY:
        hv_sender_client_ready(&h->sender, event->lane);
        break;
    case HV_EV_CLIENT_FAILED:
        hv_sender_client_failed(&h->sender, event->lane, event->reason, h->now, out);
        break;
    case HV_EV_REPORTS:
        on_reports(h, event, out);
        break;
    case HV_EV_BOUNCED:
        hv_sender_bounced(&h->sender, event, h->now, out);
        break;
    case HV_EV_RETRY:
        hv_isolation_retry_all(&h->isolation, h->now);
        break;
    case HV_EV_STOP:
        begin_stop(h, out);
        break;
    case HV_EV_HURRY:
        hurry(h, out);
        break;
    }
}

void hv_harvest_step(struct hv_harvest *h, const struct hv_event *event, hv_time now, struct hv_actions *out) {
    assert(now >= h->now);
    h->now = now;
    check_lease(h, out);
    dispatch(h, event, out);
}

hv_time hv_harvest_deadline(const struct hv_harvest *h) {
    return h->deadline;
}

void hv_harvest_look(const struct hv_harvest *h, struct hv_harvest_figures *ret) {
    *ret = (struct hv_harvest_figures){
        .role = h->leading.role,
        .lease = hv_leading_lease(&h->leading, h->now),
        .lease_end = h->leading.lease_end,
        .held = h->slots.used - h->settle.gone.count,
        .unsent = h->shards.unsent + h->isolation.unsent,
        .in_flight = hv_sender_in_flight(&h->sender),
        .unpurged = hv_settle_pending(&h->settle) + h->settle.stuck.count,
        .removing = h->isolation.removals[HV_POISON_PARK].waiting + h->isolation.removals[HV_POISON_PARK].asked +
                    h->isolation.removals[HV_POISON_SKIP].waiting + h->isolation.removals[HV_POISON_SKIP].asked,
        .given_up = h->given_up,
        .blocked_keys = hv_isolation_blocked(&h->isolation),
        .watermark = hv_claim_low(&h->claim),
        .acknowledged = h->meter.total,
        .stopping = h->stop != RUNNING,
        .stopped = h->stop == STOPPED,
    };
    memcpy(ret->leader_id, h->leader_id, HV_UUID_BYTES);
}

void hv_harvest_each_in_flight(const struct hv_harvest *h, void (*visit)(void *user, void *payload), void *user) {
    for (uint32_t i = 0; i < h->slots.capacity; i++) {
        const struct hv_slot *slot = &h->slots.table[i];
        if (slot->state == HV_SLOT_IN_FLIGHT) {
            visit(user, slot->payload);
        }
    }
}

/* ---- what waits ---- */

bool hv_harvest_next_blocked(const struct hv_harvest *h, uint32_t *at, struct hv_blocked *ret) {
    const struct hv_keys *keys = &h->isolation.keys;
    for (uint32_t index = hv_keys_next(keys, *at - 1); index != HV_NO_KEY; index = hv_keys_next(keys, index)) {
        const struct hv_key *key = &keys->table[index];
        if (key->state == HV_KEY_FREE || key->attempts == 0) {
            continue;
        }
        *at = index + 1;
        *ret = (struct hv_blocked){
            .key = key->bytes,
            .key_length = key->length,
            .whole_shard = key->whole_shard,
            .shard = key->shard,
            .id = key->id,
            .topic = key->topic_name,
            .code = key->code,
            .reason = key->reason,
            .policy = (enum hv_poison)key->policy,
            .of_topic = key->of_topic,
            .since = key->since,
            .attempts = key->attempts,
            .next_try = key->state == HV_KEY_BLOCKED ? key->until : INT64_MIN,
        };
        return true;
    }
    return false;
}

static uint32_t keys_that_wait_for(const struct hv_keys *keys, uint32_t topic) {
    uint32_t count = 0;
    for (uint32_t index = hv_keys_next(keys, HV_NO_KEY); index != HV_NO_KEY; index = hv_keys_next(keys, index)) {
        const struct hv_key *key = &keys->table[index];
        count += key->state != HV_KEY_FREE && key->attempts > 0 && key->of_topic && key->topic == topic;
    }
    return count;
}

bool hv_harvest_next_closed(const struct hv_harvest *h, uint32_t *at, struct hv_closed *ret) {
    const struct hv_isolation *iso = &h->isolation;
    if (*at >= iso->closed_count) {
        return false;
    }
    const struct hv_closed_topic *closed = &iso->closed[(*at)++];
    *ret = (struct hv_closed){
        .topic = iso->keys.table[closed->probe].topic_name,
        .code = closed->why.code,
        .reason = closed->why.reason,
        .since = closed->since,
        .keys = keys_that_wait_for(&iso->keys, closed->topic),
    };
    return true;
}
