/* See claiming.h. */
#include "core/claiming.h"

#include <assert.h>
#include <string.h>

#define FIRST_LIMIT 4           /* until we know how large rows are: a handful of huge ones must fit into memory */
#define QUIET HV_SECONDS(1)     /* without rows, before the wait grows */

void hv_claim_init(struct hv_claim *claim, const struct hv_core_config *config, struct hv_random *dice) {
    *claim = (struct hv_claim){
        .config = config,
        .dice = dice,
        .limit = config->mark_query_records < FIRST_LIMIT ? config->mark_query_records : FIRST_LIMIT,
        .wait = config->mark_backoff,
    };
    hv_backoff_init(&claim->backoff, config->io_error_backoff, config->io_error_backoff_max);
    hv_watermark_restart(&claim->watermark, 0);
}

void hv_claim_restart(struct hv_claim *claim, hv_time now) {
    hv_watermark_restart(&claim->watermark, now);
    claim->refresh = NULL;
    claim->not_before = now;
    claim->wait = claim->config->mark_backoff;
    claim->busy_at = now;
    claim->rescan_at = now + claim->config->rescan_interval;
}

void hv_claim_up(struct hv_claim *claim) {
    assert(claim->state == HV_CLAIM_DOWN);
    claim->state = HV_CLAIM_IDLE;
}

void hv_claim_down(struct hv_claim *claim, bool outcome_unknown, hv_time now) {
    if (claim->state == HV_CLAIM_MARKING && outcome_unknown) {
        claim->refresh = "the outcome of a mark is unknown";
    }
    if (claim->state == HV_CLAIM_ASKING) {
        hv_watermark_unanswered(&claim->watermark, now);
    }
    claim->state = HV_CLAIM_DOWN;
}

void hv_claim_refused(struct hv_claim *claim, hv_time now) {
    assert(claim->state == HV_CLAIM_MARKING || claim->state == HV_CLAIM_ASKING);
    if (claim->state == HV_CLAIM_ASKING) {
        hv_watermark_unanswered(&claim->watermark, now);
    } else if (claim->limit > 1) {
        claim->limit /= 2; /* if one of the rows is to blame, the others may pass */
    }
    claim->state = HV_CLAIM_IDLE;
    claim->not_before = now + hv_backoff_next(&claim->backoff, claim->dice);
}

static void adapt_limit(struct hv_claim *claim, const struct hv_claimed *rows, size_t count) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += rows[i].bytes;
    }
    uint64_t average = bytes / count + 1;
    claim->average = (uint32_t)(claim->average == 0 ? average : (average + claim->average) / 2 + 1);
    uint64_t by_bytes = claim->config->mark_query_bytes / claim->average + 1;
    uint64_t limit = (uint64_t)claim->limit * 2;
    limit = limit < by_bytes ? limit : by_bytes;
    claim->limit = (uint32_t)(limit < claim->config->mark_query_records ? limit : claim->config->mark_query_records);
}

/* A full mark is followed by the next at once; otherwise rows are looked for after a wait that grows while none come. */
static void decide_wait(struct hv_claim *claim, size_t count, hv_time now) {
    if (count > 0) {
        claim->busy_at = now;
        claim->wait = claim->config->mark_backoff;
        claim->not_before = count >= claim->asked_limit ? now : now + claim->wait;
        return;
    }
    if (now - claim->busy_at >= QUIET) {
        claim->wait = hv_time_min(claim->wait * 2, claim->config->idle_backoff_max);
        claim->wait = hv_time_max(claim->wait, claim->config->mark_backoff);
    }
    claim->not_before = now + claim->wait;
}

void hv_claim_marked(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, hv_time now) {
    assert(claim->state == HV_CLAIM_MARKING);
    claim->state = HV_CLAIM_IDLE;
    hv_backoff_reset(&claim->backoff);
    int64_t last = INT64_MIN;
    if (count > 0) {
        last = rows[count - 1].id;
        hv_watermark_saw(&claim->watermark, last);
        if (rows[0].id < claim->watermark.low) {
            hv_watermark_found_below(&claim->watermark, last, now);
        }
        adapt_limit(claim, rows, count);
    }
    hv_watermark_marked(&claim->watermark, claim->asked_covering, claim->asked_from, last, claim->asked_alone, now);
    decide_wait(claim, count, now);
}

void hv_claim_writers(struct hv_claim *claim, const uint64_t *hashes, size_t count, hv_time now) {
    assert(claim->state == HV_CLAIM_ASKING);
    claim->state = HV_CLAIM_IDLE;
    hv_watermark_writers(&claim->watermark, hashes, count, now);
}

void hv_claim_look_at(struct hv_claim *claim, int64_t id, hv_time now) {
    hv_watermark_lower(&claim->watermark, id);
    claim->not_before = hv_time_min(claim->not_before, now);
}

static void mark(struct hv_claim *claim, const uint8_t *leader_id, bool alone, uint64_t term, hv_time now,
                 struct hv_actions *out) {
    bool rescan = now >= claim->rescan_at;
    if (rescan) {
        claim->rescan_at = now + claim->config->rescan_interval;
    }
    struct hv_action *action = hv_actions_add(out, HV_ACT_CLAIM);
    memcpy(action->uuid, leader_id, HV_UUID_BYTES);
    action->from_id = rescan ? INT64_MIN : claim->watermark.low;
    action->limit = claim->limit;
    claim->asked_limit = action->limit;
    claim->asked_from = action->from_id;
    claim->asked_covering = hv_watermark_covering(&claim->watermark);
    claim->asked_alone = alone;
    claim->asked_term = term;
    claim->state = HV_CLAIM_MARKING;
}

void hv_claim_advance(struct hv_claim *claim, const uint8_t *leader_id, uint32_t room, bool alone, uint64_t term, hv_time now,
                      struct hv_actions *out) {
    if (claim->state != HV_CLAIM_IDLE) {
        return;
    }
    if (hv_watermark_wants_writers(&claim->watermark, now)) {
        hv_actions_add(out, HV_ACT_WRITERS);
        claim->state = HV_CLAIM_ASKING;
    } else if (now >= claim->not_before && room >= claim->limit) {
        mark(claim, leader_id, alone, term, now, out);
    }
}

hv_time hv_claim_deadline(const struct hv_claim *claim, uint32_t room) {
    if (claim->state != HV_CLAIM_IDLE) {
        return HV_NEVER;
    }
    hv_time deadline = hv_watermark_deadline(&claim->watermark);
    if (room >= claim->limit) {
        deadline = hv_time_min(deadline, claim->not_before);
    }
    return deadline;
}
