/* See sending.h. */
#include "core/sending.h"

#include <assert.h>

#include "base/fsm.h"

#define FEED_MAX 1000              /* records handed over in one turn */
#define QUANTUM 32                 /* records of one shard in a row while others wait */
#define DRAIN_LIMIT HV_SECONDS(3)  /* brokers that are well answer sooner */
#define PURGE_LIMIT HV_SECONDS(5)  /* measured: 1 ms, 90 at most */
#define SUSPECTS_IDLE HV_SECONDS(60)
#define FULL_PAUSE HV_MS(10)
#define STALL_NOTICE HV_SECONDS(5)

static const struct hv_fsm_state lane_states[] = {
    [HV_LANE_CLOSED] = {"closed", HV_TO(HV_LANE_OPENING)},
    [HV_LANE_OPENING] = {"opening", HV_TO(HV_LANE_READY) | HV_TO(HV_LANE_WAITING)},
    [HV_LANE_READY] = {"ready", HV_TO(HV_LANE_DRAINING) | HV_TO(HV_LANE_PURGING) | HV_TO(HV_LANE_CLOSED)},
    [HV_LANE_DRAINING] = {"draining", HV_TO(HV_LANE_PURGING) | HV_TO(HV_LANE_WAITING)},
    [HV_LANE_PURGING] = {"purging", HV_TO(HV_LANE_WAITING)},
    [HV_LANE_WAITING] = {"waiting", HV_TO(HV_LANE_CLOSED)},
};

static void lane_move(struct hv_lane *lane, enum hv_lane_state to) {
    lane->state = hv_fsm_move("lane", lane_states, lane->state, to);
}

void hv_sender_init(struct hv_sender *sender, struct hv_slots *slots, struct hv_shards *shards, struct hv_isolation *iso,
                    struct hv_random *dice, const struct hv_core_config *config) {
    *sender = (struct hv_sender){
        .slots = slots,
        .shards = shards,
        .iso = iso,
        .dice = dice,
        .config = config,
        .acked = HV_LIST_EMPTY,
        .shard_limit = config->max_in_flight_records / 4 > 0 ? config->max_in_flight_records / 4 : 1,
        .shard_byte_limit = config->max_in_flight_bytes / 4 > 0 ? config->max_in_flight_bytes / 4 : 1,
    };
    for (int i = 0; i < HV_LANES; i++) {
        hv_backoff_init(&sender->lanes[i].backoff, config->io_error_backoff, config->io_error_backoff_max);
    }
}

uint32_t hv_sender_in_flight(const struct hv_sender *sender) {
    return sender->lanes[HV_LANE_RECORDS].in_flight + sender->lanes[HV_LANE_SUSPECTS].in_flight;
}

static bool is_purging(const struct hv_lane *lane) {
    return lane->state == HV_LANE_DRAINING || lane->state == HV_LANE_PURGING;
}

bool hv_sender_is_purging(const struct hv_sender *sender) {
    return is_purging(&sender->lanes[HV_LANE_RECORDS]) || is_purging(&sender->lanes[HV_LANE_SUSPECTS]);
}

static void purge(struct hv_lane *lane, enum hv_lane_id id, enum hv_lane_state how, hv_time now, struct hv_actions *out) {
    lane_move(lane, how);
    lane->until = now + (how == HV_LANE_DRAINING ? DRAIN_LIMIT : PURGE_LIMIT);
    struct hv_action *action = hv_actions_add(out, HV_ACT_PURGE_CLIENT);
    action->lane = (uint8_t)id;
    action->flag = how == HV_LANE_DRAINING;
}

/* The client is finished. How: if Kafka is well and only refuses something, what it has already will be answered, and need not be sent
 * twice (HV_LANE_DRAINING). */
static void finish(struct hv_sender *sender, enum hv_lane_id id, enum hv_lane_state how, const char *reason, hv_time now,
                   struct hv_actions *out) {
    purge(&sender->lanes[id], id, how, now, out);
    if (id == HV_LANE_RECORDS) {
        hv_actions_notify(out, HV_NOTICE_REWINDING)->reason = reason;
    }
}

void hv_sender_forget(struct hv_sender *sender, uint32_t index, struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(sender->slots, index);
    if (slot->trouble != HV_NO_KEY) {
        hv_isolation_forget(sender->iso, index, out);
        return;
    }
    hv_shards_remove_unsent(sender->shards, index);
    hv_actions_add(out, HV_ACT_RELEASE)->payload = slot->payload;
    slot->payload = NULL;
    hv_slots_give(sender->slots, index);
}

void hv_sender_forget_unsent(struct hv_sender *sender, struct hv_shard *shard, struct hv_actions *out) {
    while (hv_shard_unsent(shard) > 0) {
        uint32_t index = shard->queue.last;
        while (hv_slot(sender->slots, index)->state != HV_SLOT_UNSENT) {
            index = hv_slot(sender->slots, index)->prev; /* only while failed reports are still to come */
        }
        hv_sender_forget(sender, index, out);
    }
}

/* A record of the lane of all is unsent again. */
static void back_to_shard(struct hv_sender *sender, uint32_t index, struct hv_actions *out) {
    struct hv_shard *shard = &sender->shards->list[hv_slot(sender->slots, index)->shard];
    hv_shards_failed(sender->shards, index);
    if (shard->in_flight == 0) {
        hv_shard_rewind(sender->shards, shard);
    }
    hv_isolation_other_back(sender->iso, index, out);
}

static void acknowledged(struct hv_sender *sender, uint32_t index, enum hv_lane_id lane, hv_time now,
                         struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(sender->slots, index);
    if (lane == HV_LANE_SUSPECTS) {
        hv_isolation_acked(sender->iso, index, now, out);
    } else {
        struct hv_shard *shard = &sender->shards->list[slot->shard];
        hv_doubts_passed(&sender->iso->doubts, slot->topic);
        hv_shards_acked(sender->shards, index, now);
        if (shard->in_flight == 0) {
            hv_shard_rewind(sender->shards, shard); /* earlier ones may have failed */
        }
        hv_isolation_other_back(sender->iso, index, out);
    }
    hv_list_append(sender->slots, &sender->acked, index);
    hv_actions_add(out, HV_ACT_RELEASE)->payload = slot->payload;
    slot->payload = NULL;
    hv_backoff_reset(&sender->lanes[lane].backoff);
    if (sender->stalled) {
        sender->stalled = false;
        hv_actions_notify(out, HV_NOTICE_FLOWING)->duration = now - sender->last_progress;
    }
    sender->last_progress = now;
}

static struct hv_refusal refusal(enum hv_delivery delivery, int code, const char *reason) {
    return (struct hv_refusal){
        .because_of_topic = delivery == HV_UNREACHED,
        .unknown = delivery == HV_PUZZLING,
        .by_size = delivery == HV_OVERSIZE,
        .code = code,
        .reason = reason,
    };
}

static void not_acknowledged(struct hv_sender *sender, uint32_t index, enum hv_lane_id lane, const struct hv_report *report,
                             hv_time now, struct hv_actions *out) {
    bool refused = hv_is_refusal(report->delivery);
    struct hv_slot *slot = hv_slot(sender->slots, index);
    slot->puzzles += report->delivery == HV_PUZZLING && slot->puzzles < HV_PUZZLES_MAX;
    bool puzzles = report->delivery == HV_PUZZLING && slot->puzzles >= HV_PUZZLES_MAX;
    if (slot->puzzles >= HV_PUZZLES_TOGETHER) {
        slot->way = HV_WAY_ALONE;
    }
    sender->lanes[lane].refused |= refused && lane == HV_LANE_RECORDS; /* the client of suspects goes on */
    if (lane == HV_LANE_SUSPECTS && refused && report->delivery != HV_UNREACHED && slot->way != HV_WAY_ALONE) {
        hv_isolation_refused_with_others(sender->iso, index);
        return;
    }
    if (lane == HV_LANE_SUSPECTS && (refused || puzzles)) {
        const struct hv_refusal why = refusal(report->delivery, report->code, report->reason);
        hv_isolation_refused(sender->iso, index, &why, now, out);
        return;
    }
    if (lane == HV_LANE_SUSPECTS) {
        hv_isolation_failed(sender->iso, index);
    } else {
        if (refused && slot->way == HV_WAY_OF_ALL) {
            slot->way = HV_WAY_APART;
        }
        if (refused && report->delivery != HV_UNREACHED) {
            hv_doubts_batch_refused(&sender->iso->doubts, slot->topic, now);
        }
        back_to_shard(sender, index, out);
    }
    if (sender->lanes[lane].state == HV_LANE_READY) {
        finish(sender, lane, refused || report->delivery == HV_PUZZLING ? HV_LANE_DRAINING : HV_LANE_PURGING, report->reason, now, out);
    }
}

bool hv_sender_report(struct hv_sender *sender, const struct hv_report *report, hv_time now, struct hv_actions *out) {
    uint32_t index = hv_slots_by_ticket(sender->slots, report->ticket);
    if (index == HV_NO_SLOT) {
        return false;
    }
    const struct hv_slot *slot = hv_slot(sender->slots, index);
    enum hv_lane_id id = slot->lane;
    struct hv_lane *lane = &sender->lanes[id];
    assert(lane->in_flight > 0 && lane->in_flight_bytes >= slot->bytes);
    lane->in_flight--;
    lane->in_flight_bytes -= slot->bytes;
    lane->last_used = now;
    if (report->delivery == HV_DELIVERED) {
        acknowledged(sender, index, id, now, out);
        return true;
    }
    not_acknowledged(sender, index, id, report, now, out);
    return false;
}

void hv_sender_bounced(struct hv_sender *sender, const struct hv_event *event, hv_time now, struct hv_actions *out) {
    uint32_t index = hv_slots_by_ticket(sender->slots, event->ticket);
    if (index == HV_NO_SLOT) {
        return;
    }
    struct hv_slot *slot = hv_slot(sender->slots, index);
    enum hv_lane_id id = slot->lane;
    struct hv_lane *lane = &sender->lanes[id];
    lane->in_flight--;
    lane->in_flight_bytes -= slot->bytes;
    if (!event->flag) {
        sender->pause_until = now + FULL_PAUSE; /* the client is full or finished: again later, without spinning */
    }
    if (id == HV_LANE_RECORDS) {
        if (event->flag) {
            slot->way = HV_WAY_ALONE;
        }
        hv_shards_failed(sender->shards, index);
        hv_shard_rewind(sender->shards, &sender->shards->list[slot->shard]); /* those behind it bounce as well */
        hv_isolation_other_back(sender->iso, index, out);
    } else if (event->flag) {
        const struct hv_refusal why = refusal(event->delivery, event->code, event->reason);
        hv_isolation_refused(sender->iso, index, &why, now, out);
    } else {
        hv_isolation_failed(sender->iso, index);
    }
}

void hv_sender_client_ready(struct hv_sender *sender, enum hv_lane_id lane) {
    if (sender->lanes[lane].state == HV_LANE_OPENING) {
        lane_move(&sender->lanes[lane], HV_LANE_READY);
    }
}

static void wait_and_reopen(struct hv_sender *sender, struct hv_lane *lane, hv_time now) {
    lane_move(lane, HV_LANE_WAITING);
    lane->until = now;
    if (lane->refused) {
        lane->refused = false; /* Kafka is well, the record is not: that is no failure of the client */
        return;
    }
    /* The first failure in a row goes on at once: making a client takes 2 ms and Kafka may be well. */
    bool first = lane->backoff.failures == 0;
    hv_time wait = hv_backoff_next(&lane->backoff, sender->dice);
    lane->until = first ? now : now + wait;
}

void hv_sender_client_failed(struct hv_sender *sender, enum hv_lane_id id, const char *reason, hv_time now,
                             struct hv_actions *out) {
    struct hv_lane *lane = &sender->lanes[id];
    if (lane->state == HV_LANE_OPENING) {
        wait_and_reopen(sender, lane, now);
    } else if (lane->state == HV_LANE_READY) {
        finish(sender, id, HV_LANE_DRAINING, reason, now, out);
    }
}

void hv_sender_give_up(struct hv_sender *sender, const char *reason, hv_time now, struct hv_actions *out) {
    for (int id = 0; id < HV_LANES; id++) {
        struct hv_lane *lane = &sender->lanes[id];
        if (lane->state == HV_LANE_READY && lane->in_flight > 0) {
            finish(sender, id, HV_LANE_PURGING, reason, now, out);
        } else if (lane->state == HV_LANE_DRAINING) {
            purge(lane, id, HV_LANE_PURGING, now, out);
        }
    }
}

/* Reports that did not come in time will not be waited for: the client goes, so they cannot come any more. */
static void force_unsent(struct hv_sender *sender, enum hv_lane_id id, struct hv_actions *out) {
    struct hv_lane *lane = &sender->lanes[id];
    for (uint32_t i = 0; i < sender->slots->capacity && lane->in_flight > 0; i++) {
        struct hv_slot *slot = hv_slot(sender->slots, i);
        if (slot->state != HV_SLOT_IN_FLIGHT || slot->lane != id) {
            continue;
        }
        lane->in_flight--;
        lane->in_flight_bytes -= slot->bytes;
        if (id == HV_LANE_SUSPECTS) {
            hv_isolation_failed(sender->iso, i);
        } else {
            back_to_shard(sender, i, out);
        }
    }
    assert(lane->in_flight == 0 && lane->in_flight_bytes == 0);
}

static void end_purge(struct hv_sender *sender, enum hv_lane_id id, hv_time now, struct hv_actions *out) {
    struct hv_lane *lane = &sender->lanes[id];
    if (lane->in_flight > 0) {
        force_unsent(sender, id, out);
    }
    hv_actions_add(out, HV_ACT_CLOSE_CLIENT)->lane = (uint8_t)id;
    for (uint32_t i = 0; i < sender->shards->count; i++) {
        hv_shard_rewind(sender->shards, &sender->shards->list[i]);
    }
    wait_and_reopen(sender, lane, now);
}

static void watch_for_stall(struct hv_sender *sender, hv_time now, struct hv_actions *out) {
    if (hv_sender_in_flight(sender) == 0) {
        sender->last_progress = now;
        sender->stalled = false;
    } else if (!sender->stalled && now - sender->last_progress >= STALL_NOTICE) {
        sender->stalled = true;
        hv_actions_notify(out, HV_NOTICE_STALLED)->duration = now - sender->last_progress;
    }
}

void hv_sender_advance(struct hv_sender *sender, bool leading, hv_time now, struct hv_actions *out) {
    hv_doubts_forget_old(&sender->iso->doubts, now);
    for (int id = 0; id < HV_LANES; id++) {
        struct hv_lane *lane = &sender->lanes[id];
        if (is_purging(lane) && (lane->in_flight == 0 || (lane->state == HV_LANE_PURGING && now >= lane->until))) {
            end_purge(sender, id, now, out);
        } else if (lane->state == HV_LANE_DRAINING && now >= lane->until) {
            purge(lane, id, HV_LANE_PURGING, now, out);
        }
        if (lane->state == HV_LANE_WAITING && now >= lane->until) {
            lane_move(lane, HV_LANE_CLOSED);
        }
        if (lane->state == HV_LANE_CLOSED && leading && (id == HV_LANE_RECORDS || sender->iso->unsent > 0)) {
            lane_move(lane, HV_LANE_OPENING);
            lane->last_used = now;
            hv_actions_add(out, HV_ACT_OPEN_CLIENT)->lane = (uint8_t)id;
        }
    }
    struct hv_lane *suspects = &sender->lanes[HV_LANE_SUSPECTS];
    if (suspects->state == HV_LANE_READY && suspects->in_flight == 0 && now - suspects->last_used >= SUSPECTS_IDLE) {
        lane_move(suspects, HV_LANE_CLOSED);
        hv_actions_add(out, HV_ACT_CLOSE_CLIENT)->lane = HV_LANE_SUSPECTS;
    }
    watch_for_stall(sender, now, out);
}

static bool window_full(const struct hv_sender *sender) {
    const struct hv_lane *records = &sender->lanes[HV_LANE_RECORDS], *suspects = &sender->lanes[HV_LANE_SUSPECTS];
    return records->in_flight + suspects->in_flight >= sender->config->max_in_flight_records ||
           records->in_flight_bytes + suspects->in_flight_bytes >= sender->config->max_in_flight_bytes;
}

static void hand_over(struct hv_sender *sender, uint32_t index, enum hv_lane_id id, hv_time now, struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(sender->slots, index);
    struct hv_lane *lane = &sender->lanes[id];
    assert(!slot->defective && lane->state == HV_LANE_READY);
    if (id == HV_LANE_SUSPECTS) {
        hv_isolation_sent(sender->iso, index, now);
    } else {
        hv_shards_sent(sender->shards, &sender->shards->list[slot->shard], now);
    }
    slot->lane = (uint8_t)id;
    lane->in_flight++;
    lane->in_flight_bytes += slot->bytes;
    lane->last_used = now;
    struct hv_action *action = hv_actions_add(out, HV_ACT_PRODUCE);
    action->lane = (uint8_t)id;
    action->ticket = hv_slot_ticket(sender->slots, index);
    action->flag = slot->way == HV_WAY_ALONE;
    action->payload = slot->payload;
}

/* Those that do not go the way of all: each as soon as it may, but they leave most of the window to all others. */
static void feed_suspects(struct hv_sender *sender, hv_time now, struct hv_actions *out) {
    struct hv_lane *lane = &sender->lanes[HV_LANE_SUSPECTS];
    for (;;) {
        uint32_t index = hv_isolation_next(sender->iso, now, out); /* it may have other things to do, too */
        if (index == HV_NO_SLOT || lane->state != HV_LANE_READY || lane->in_flight >= sender->shard_limit || window_full(sender)) {
            return;
        }
        hand_over(sender, index, HV_LANE_SUSPECTS, now, out);
    }
}

/* The first unsent record of the shard cannot go the way of all. Until those before it are known to be in flight or through (they may be
 * about to fail), it stays where it is. */
static bool needs_isolation(const struct hv_sender *sender, const struct hv_shard *shard, hv_time now) {
    const struct hv_slot *slot = hv_slot(sender->slots, shard->next);
    bool in_order = sender->lanes[HV_LANE_RECORDS].state == HV_LANE_READY || shard->in_flight == 0;
    return (hv_isolation_is_due(sender->iso, slot, now) || hv_isolation_closed(sender->iso, slot->topic) != NULL) && in_order;
}

static bool is_full(const struct hv_sender *sender, const struct hv_shard *shard) {
    return shard->in_flight >= sender->shard_limit || shard->in_flight_bytes >= sender->shard_byte_limit;
}

/* Sends up to `limit` records of one shard. Returns how many. */
static uint32_t feed_shard(struct hv_sender *sender, struct hv_shard *shard, uint32_t limit, hv_time now,
                           struct hv_actions *out) {
    uint32_t sent = 0;
    while (sent < limit && shard->next != HV_NO_SLOT) {
        if (needs_isolation(sender, shard, now)) {
            hv_isolation_begin(sender->iso, shard);
            continue;
        }
        if (sender->lanes[HV_LANE_RECORDS].state != HV_LANE_READY || window_full(sender) || is_full(sender, shard)) {
            break;
        }
        hand_over(sender, shard->next, HV_LANE_RECORDS, now, out);
        sent++;
    }
    return sent;
}

bool hv_sender_feed(struct hv_sender *sender, hv_time now, struct hv_actions *out) {
    struct hv_shards *shards = sender->shards;
    uint32_t total = 0, idle_in_a_row = 0;
    if (now < sender->pause_until) {
        return false;
    }
    sender->pause_until = 0;
    feed_suspects(sender, now, out);
    while (total < FEED_MAX && idle_in_a_row < shards->count && shards->unsent > 0) {
        uint32_t sent = feed_shard(sender, &shards->list[shards->cursor], QUANTUM, now, out);
        idle_in_a_row = sent > 0 ? 0 : idle_in_a_row + 1;
        total += sent;
        shards->cursor = (shards->cursor + 1) % shards->count;
    }
    uint32_t unsent = shards->unsent;
    feed_suspects(sender, now, out);                          /* those that were found just now, */
    return total >= FEED_MAX || shards->unsent > unsent; /* some of which may be no suspects any more */
}

hv_time hv_sender_deadline(const struct hv_sender *sender, bool leading) {
    hv_time deadline = HV_NEVER;
    for (int id = 0; id < HV_LANES; id++) {
        const struct hv_lane *lane = &sender->lanes[id];
        if (is_purging(lane) || (lane->state == HV_LANE_WAITING && leading)) {
            deadline = hv_time_min(deadline, lane->until);
        }
    }
    const struct hv_lane *suspects = &sender->lanes[HV_LANE_SUSPECTS];
    if (suspects->state == HV_LANE_READY && suspects->in_flight == 0) {
        deadline = hv_time_min(deadline, suspects->last_used + SUSPECTS_IDLE);
    }
    if (leading && sender->pause_until != 0 && (sender->shards->unsent > 0 || sender->iso->keys.first_waiting != HV_NO_KEY)) {
        deadline = hv_time_min(deadline, sender->pause_until);
    }
    if (hv_sender_in_flight(sender) > 0 && !sender->stalled) {
        deadline = hv_time_min(deadline, sender->last_progress + STALL_NOTICE);
    }
    return deadline;
}
