/* See harvest_parts.h: the part that says when we lead, and how that ends. What a role is, and what a lease, is leading's. */
#include "core/harvest_parts.h"

#include <assert.h>
#include <string.h>

#define LEAVE_LIMIT HV_SECONDS(10)

bool hv_tenure_leads(const struct hv_harvest *h) {
    return h->leading.role == HV_LEADER && h->stop == HV_RUNNING;
}

/* ---- the leader's id ---- */

void hv_tenure_take_spare_id(struct hv_harvest *h) {
    memcpy(h->leader_id, h->spare_id, HV_UUID_BYTES);
    h->spare = false;
}

static void want_spare_id(struct hv_harvest *h, struct hv_actions *out) {
    if (!h->spare && !h->spare_asked) {
        h->spare_asked = true;
        hv_actions_add(out, HV_ACT_NEED_LEADER_ID);
    }
}

static void on_leader_id(struct hv_harvest *h, const uint8_t *uuid) {
    memcpy(h->spare_id, uuid, HV_UUID_BYTES);
    h->spare = true;
    h->spare_asked = false;
}

/* ---- the end of leadership ---- */

void hv_tenure_forget_unsent(struct hv_harvest *h, struct hv_actions *out) {
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
    hv_tenure_forget_unsent(h, out);
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

void hv_tenure_check_lease(struct hv_harvest *h, struct hv_actions *out) {
    if (hv_leading_lease(&h->leading, h->now)) {
        return;
    }
    if (h->leading.role == HV_LEADER) {
        fence(h, out);
    } else if (h->leading.role == HV_REVOKING) {
        lose_while_revoking(h, "no heartbeat came back within heartbeat_timeout", out);
    }
}

/* ---- what the group says ---- */

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
        if (h->stop == HV_RUNNING) {
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

/* ---- promotion ---- */

static bool promote_if_due(struct hv_harvest *h, struct hv_actions *out) {
    bool waiting = h->leading.role == HV_CANDIDATE || h->leading.role == HV_FENCED;
    if (!waiting || h->stop != HV_RUNNING || h->handing_over || !h->spare || !hv_leading_lease(&h->leading, h->now) ||
        hv_sender_in_flight(&h->sender) > 0) {
        return false;
    }
    hv_leading_move(&h->leading, HV_LEADER);
    hv_tenure_take_spare_id(h);
    struct hv_action *action = hv_actions_notify(out, HV_NOTICE_ACQUIRED);
    memcpy(action->uuid, h->leader_id, HV_UUID_BYTES);
    return true;
}

/* ---- handing over ---- */

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
    if (h->stop != HV_RUNNING) {
        return;
    }
    h->stop = HV_DRAINING;
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
    if (h->stop == HV_DRAINING) {
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
        h->stop = HV_LEAVING;
        h->drain_until = h->now + LEAVE_LIMIT;
        hv_actions_add(out, HV_ACT_LEAVE);
    } else if (h->stop == HV_LEAVING && h->now >= h->drain_until) {
        h->stop = HV_STOPPED;
        hv_actions_add(out, HV_ACT_STOPPED);
    }
}

static void on_left(struct hv_harvest *h, struct hv_actions *out) {
    if (h->leading.role != HV_STANDBY) {
        hv_leading_move(&h->leading, HV_STANDBY);
    }
    h->leading.answer_owed = false;
    if (h->stop == HV_LEAVING) {
        h->stop = HV_STOPPED;
        hv_actions_add(out, HV_ACT_STOPPED);
    }
}

/* ---- events ---- */

void hv_tenure_event(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out) {
    switch (event->type) {
    case HV_EV_LEADER_ID:
        on_leader_id(h, event->uuid);
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
    case HV_EV_STOP:
        begin_stop(h, out);
        break;
    case HV_EV_HURRY:
        hurry(h, out);
        break;
    default:
        assert(false);
    }
}

/* ---- the turn ---- */

static void send_heartbeat(struct hv_harvest *h, struct hv_actions *out) {
    int64_t stamp;
    if (h->stop != HV_LEAVING && h->stop != HV_STOPPED && hv_leading_beat(&h->leading, h->now, &stamp)) {
        hv_actions_add(out, HV_ACT_HEARTBEAT)->stamp = stamp;
    }
}

void hv_tenure_begin_turn(struct hv_harvest *h, struct hv_actions *out) {
    want_spare_id(h, out);
    send_heartbeat(h, out);
}

bool hv_tenure_advance(struct hv_harvest *h, struct hv_actions *out) {
    check_hand_over(h, out);
    limit_hand_over(h);
    advance_hand_over(h, out);
    advance_stop(h, out);
    return promote_if_due(h, out);
}

hv_time hv_tenure_deadline(const struct hv_harvest *h) {
    bool beating = h->stop == HV_RUNNING || h->stop == HV_DRAINING;
    hv_time deadline = beating ? hv_leading_deadline(&h->leading) : HV_NEVER;
    if (h->stop == HV_DRAINING || h->stop == HV_LEAVING || h->leading.role == HV_REVOKING) {
        /* Past it, only events move things on; while the client purges, its own limit does. */
        hv_time limit = h->drain_until > h->now ? h->drain_until : HV_NEVER;
        deadline = hv_time_min(deadline, limit);
    }
    if (h->handing_over) {
        deadline = hv_time_min(deadline, h->hand_over_until);
    }
    return deadline;
}
