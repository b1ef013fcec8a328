/* See harvest.h. This file brings the parts together: tenure says whether, supply gets rows, sending sends them, settling settles. */
#include "core/harvest_parts.h"

#include <assert.h>

#include "base/memory.h"

#define AHEAD 8 /* reports: slots are scattered, and each would have to be waited for */

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
    h->intake = (struct hv_intake){&h->slots, &h->shards, &h->isolation, &h->sender, &h->settle.gone};
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

/* ---- reports ---- */

/* While stopping nothing is sent again: what was not acknowledged is left to the next leader. */
static void on_report(struct hv_harvest *h, const struct hv_report *report, struct hv_actions *out) {
    uint32_t in_flight = hv_sender_in_flight(&h->sender);
    if (hv_sender_report(&h->sender, report, h->now, out)) {
        hv_meter_count(&h->meter);
    } else if (h->stop != HV_RUNNING && !hv_is_refusal(report->delivery) &&
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

/* ---- the turn ---- */

static void read_meter(struct hv_harvest *h, struct hv_actions *out) {
    struct hv_meter_reading reading;
    if (hv_meter_read(&h->meter, h->now, &reading)) {
        hv_actions_notify(out, HV_NOTICE_METER)->meter = reading;
    }
}

/* While rows that are held are being marked anew, none of them is deleted: it would be of another version then. */
static bool may_settle(const struct hv_harvest *h) {
    return !(hv_claim_takes_turns(&h->claim) && hv_claim_is_claiming(&h->claim));
}

static hv_time next_deadline(const struct hv_harvest *h, bool more) {
    if (more) {
        return h->now;
    }
    hv_time deadline = hv_time_min(hv_tenure_deadline(h), hv_supply_deadline(h));
    deadline = hv_time_min(deadline, hv_sender_deadline(&h->sender, hv_tenure_leads(h)));
    return may_settle(h) ? hv_time_min(deadline, hv_settle_deadline(&h->settle)) : deadline;
}

static void settle(struct hv_harvest *h, struct hv_actions *out) {
    if (may_settle(h)) {
        hv_settle_advance(&h->settle, hv_tenure_leads(h), h->stop != HV_RUNNING || h->leading.role == HV_REVOKING, h->now, out);
    }
}

static void turn(struct hv_harvest *h, struct hv_actions *out) {
    hv_tenure_begin_turn(h, out);
    hv_sender_advance(&h->sender, hv_tenure_leads(h), h->now, out);
    if (!hv_tenure_leads(h)) {
        hv_tenure_forget_unsent(h, out); /* failed reports make records unsent again */
    }
    if (hv_tenure_advance(h, out)) {
        hv_supply_begin(h);
    }
    /* The statements go out first: the database works on them while records are handed over. */
    bool leads = hv_tenure_leads(h), more = false;
    if (hv_claim_takes_turns(&h->claim)) {
        settle(h, out);
        hv_supply_advance(h, out);
    } else {
        hv_supply_advance(h, out);
        settle(h, out);
    }
    if (leads) {
        more = hv_sender_feed(&h->sender, h->now, out);
        /* Feeding may have found suspects, or blocked what purging could go on with. */
        hv_sender_advance(&h->sender, true, h->now, out);
    }
    read_meter(h, out);
    h->deadline = next_deadline(h, more);
}

/* ---- events ---- */

static void sender_event(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    switch (event->type) {
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
    default:
        assert(false);
    }
}

static void settle_event(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    switch (event->type) {
    case HV_EV_SETTLE_UP:
        hv_settle_up(&h->settle);
        break;
    case HV_EV_SETTLE_DOWN:
        hv_settle_down(&h->settle, h->now);
        break;
    case HV_EV_SETTLE_REFUSED:
        hv_settle_refused(&h->settle, event->flag, event->code != 0, h->now, out);
        break;
    case HV_EV_PURGED:
        hv_settle_purged(&h->settle, event->count, hv_claim_is_reading(&h->claim), out);
        hv_claim_deleting(&h->claim);
        break;
    case HV_EV_PARKED:
        hv_settle_parked(&h->settle, event->count, hv_claim_is_reading(&h->claim), out);
        hv_claim_deleting(&h->claim);
        break;
    default:
        assert(false);
    }
}

/* Every event, by the part that it is for. */
static void dispatch(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    switch (event->type) {
    case HV_EV_TURN:
        turn(h, out);
        break;
    case HV_EV_RETRY:
        hv_isolation_retry_all(&h->isolation, h->now);
        break;
    case HV_EV_LEADER_ID:
    case HV_EV_ASSIGNED:
    case HV_EV_REVOKED:
    case HV_EV_HEARTBEAT:
    case HV_EV_HANDED_OVER:
    case HV_EV_LEFT:
    case HV_EV_STOP:
    case HV_EV_HURRY:
        hv_tenure_event(h, event, out);
        break;
    case HV_EV_CLAIM_UP:
    case HV_EV_CLAIM_DOWN:
    case HV_EV_CLAIM_REFUSED:
    case HV_EV_CLAIMED:
    case HV_EV_LISTED:
    case HV_EV_WRITERS:
    case HV_EV_LISTENING:
    case HV_EV_WAKE:
    case HV_EV_FETCHED:
        hv_supply_event(h, event, out);
        break;
    case HV_EV_CLIENT_READY:
    case HV_EV_CLIENT_FAILED:
    case HV_EV_REPORTS:
    case HV_EV_BOUNCED:
        sender_event(h, event, out);
        break;
    case HV_EV_SETTLE_UP:
    case HV_EV_SETTLE_DOWN:
    case HV_EV_SETTLE_REFUSED:
    case HV_EV_PURGED:
    case HV_EV_PARKED:
        settle_event(h, event, out);
        break;
    }
}

void hv_harvest_step(struct hv_harvest *h, const struct hv_event *event, hv_time now, struct hv_actions *out) {
    assert(now >= h->now);
    h->now = now;
    hv_tenure_check_lease(h, out);
    dispatch(h, event, out);
}

hv_time hv_harvest_deadline(const struct hv_harvest *h) {
    return h->deadline;
}
