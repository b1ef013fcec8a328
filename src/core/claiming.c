/* See claiming.h. */
#include "core/claiming.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define FIRST_LIMIT 4           /* until we know how large rows are: a handful of huge ones must fit into memory */
#define SOON 8                  /* right after rows the wait is mark_backoff / this */
#define EMPTY_IN_A_ROW 2
#define LOOK_AGAIN HV_MS(5)
#define QUIET HV_SECONDS(1)     /* without rows, before the wait grows above mark_backoff */
#define WAKE_PACE HV_MS(2)      /* under load a claim is to find more than the one row that was told of */
#define LISTEN_AGAIN HV_SECONDS(60) /* after it was refused */

void hv_claim_init(struct hv_claim *claim, const struct hv_core_config *config, struct hv_random *dice) {
    *claim = (struct hv_claim){
        .config = config,
        .dice = dice,
        .limit = config->mark_query_records < FIRST_LIMIT ? config->mark_query_records : FIRST_LIMIT,
    };
    hv_backoff_init(&claim->backoff, config->io_error_backoff, config->io_error_backoff_max);
    hv_watermark_restart(&claim->watermark, 0);
    hv_gaps_init(&claim->gaps, config->gaps_max);
    claim->next = INT64_MIN;
}

void hv_claim_fini(struct hv_claim *claim) {
    hv_gaps_fini(&claim->gaps);
}

void hv_claim_restart(struct hv_claim *claim, hv_time now) {
    claim->empty_due = claim->config->by_cursor ? 0 : EMPTY_IN_A_ROW;
    hv_watermark_restart(&claim->watermark, now);
    hv_gaps_clear(&claim->gaps);
    claim->next = INT64_MIN;
    claim->listing = claim->regaining = false;
    claim->refresh = NULL;
    claim->not_before = now;
    claim->busy_at = now;
    claim->rescan_at = now + claim->config->rescan_interval;
}

void hv_claim_up(struct hv_claim *claim, hv_time now) {
    assert(claim->state == HV_CLAIM_DOWN);
    claim->state = HV_CLAIM_IDLE;
    claim->listens = false;
    claim->listen_at = now;
    hv_gaps_begin_anew(&claim->gaps, now);
    hv_watermark_unanswered(&claim->watermark, now);
}

static void unanswered(struct hv_claim *claim, hv_time now) {
    if (claim->config->by_cursor) {
        hv_gaps_unanswered(&claim->gaps, now);
    } else {
        hv_watermark_unanswered(&claim->watermark, now);
    }
}

void hv_claim_down(struct hv_claim *claim, bool outcome_unknown, hv_time now) {
    if (claim->state == HV_CLAIM_CLAIMING && outcome_unknown && !claim->config->by_cursor) {
        claim->refresh = "the outcome of a mark is unknown";
    }
    if (claim->state == HV_CLAIM_ASKING) {
        unanswered(claim, now);
    }
    claim->state = HV_CLAIM_DOWN;
}

void hv_claim_refused(struct hv_claim *claim, hv_time now) {
    assert(claim->state == HV_CLAIM_ASKING || claim->state == HV_CLAIM_SUBSCRIBING || hv_claim_is_reading(claim));
    if (claim->state == HV_CLAIM_SUBSCRIBING) {
        claim->state = HV_CLAIM_IDLE;
        claim->listens = false;
        claim->listen_at = now + LISTEN_AGAIN;
        return;
    }
    if (claim->state == HV_CLAIM_ASKING) {
        unanswered(claim, now);
    } else if (claim->state == HV_CLAIM_CLAIMING && claim->limit > 1) {
        claim->limit /= 2; /* if one of the rows is to blame, the others may pass */
    }
    claim->state = HV_CLAIM_IDLE;
    claim->not_before = now + hv_backoff_next(&claim->backoff, claim->dice);
    claim->wake_from = claim->not_before;
}

static void adapt_limit(struct hv_claim *claim, const struct hv_claimed *rows, size_t count) {
    uint64_t bytes = 0, whole = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += rows[i].bytes;
        whole += !rows[i].bare;
    }
    uint64_t average = whole > 0 ? bytes / whole + 1 : claim->average > 0 ? claim->average : 1;
    claim->average = (uint32_t)(claim->average == 0 ? average : (average + claim->average) / 2 + 1);
    uint64_t by_bytes = claim->config->mark_query_bytes / claim->average + 1;
    uint64_t limit = (uint64_t)claim->limit * 2;
    limit = limit < by_bytes ? limit : by_bytes;
    claim->limit = (uint32_t)(limit < claim->config->mark_query_records ? limit : claim->config->mark_query_records);
}

/* A full claim is followed by the next at once. Otherwise the wait grows with the time since rows came last: who wrote lately may write soon.
 * A claim that took long is a sign of a busy database, which is asked less often then. Who is told of rows need not look soon. */
static void decide_wait(struct hv_claim *claim, size_t count, bool cut, hv_time now) {
    if (count > 0) {
        claim->busy_at = now;
    }
    if (count > 0 && (cut || count >= claim->asked_limit)) {
        claim->not_before = now;
        return;
    }
    if (claim->empty_due > 0) {
        /* What is deleted under a mark's hands makes its reply short; after a refresh much of what is found is about to be deleted. */
        claim->empty_due = count > 0 ? EMPTY_IN_A_ROW : claim->empty_due - 1;
        if (claim->empty_due > 0) {
            claim->not_before = now + LOOK_AGAIN;
            return;
        }
    }
    hv_time usual = claim->config->mark_backoff, quiet = now - claim->busy_at;
    hv_time shortest = hv_time_max(claim->listens ? usual : usual / SOON, (now - claim->asked_at) / 2);
    hv_time longest = quiet < QUIET && !claim->listens ? usual : hv_time_max(usual, claim->config->idle_backoff_max);
    claim->not_before = now + hv_time_min(hv_time_max(shortest, quiet / 2), longest);
    if (!claim->config->by_cursor) { /* which looks by itself */
        claim->not_before = hv_time_min(claim->not_before, hv_time_max(claim->rescan_at, now + usual));
    }
}

static void note_marked(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, hv_time now) {
    int64_t last = INT64_MIN;
    if (count > 0) {
        last = rows[count - 1].id;
        hv_watermark_saw(&claim->watermark, last);
        if (rows[0].id < claim->watermark.low) {
            hv_watermark_found_below(&claim->watermark, last, now);
        }
    }
    hv_watermark_marked(&claim->watermark, claim->asked_covering, claim->asked_from, last, claim->asked_alone, now);
}

/* What is missing between the rows above the cursor are new gaps. */
static void move_on(struct hv_claim *claim, const struct hv_claimed *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (rows[i].id < claim->next) {
            continue;
        }
        if (rows[i].id > claim->next) {
            hv_gaps_add(&claim->gaps, claim->next, rows[i].id - 1);
        }
        claim->next = rows[i].id < INT64_MAX ? rows[i].id + 1 : INT64_MAX; /* the very last id is looked at for ever */
    }
}

/* Returns how many rows count. A reply that was cut has all there was up to its last or limit-th row; what it has beyond that may have
 * predecessors that it has not. */
static size_t note_scanned(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, bool cut) {
    size_t taken = count < claim->asked_limit ? count : claim->asked_limit;
    int64_t until = cut ? rows[taken - 1].id : INT64_MAX;
    int64_t *ids = hv_calloc(taken, sizeof *ids);
    for (size_t i = 0; i < taken; i++) {
        ids[i] = rows[i].id;
    }
    hv_gaps_probed(&claim->gaps, ids, taken, until);
    free(ids);
    move_on(claim, rows, taken);
    return taken;
}

/* Has the cursor come back to where it was before it started again? A look from the first id on may wait a multiple of what that took:
 * if the table is so large that it takes long, it must not be all that is done. */
static void note_regained(struct hv_claim *claim, bool cut, hv_time now) {
    if (claim->regaining && (!cut || claim->next >= claim->regain)) {
        claim->regaining = false;
        claim->rescan_at = hv_time_max(claim->rescan_at, now + 4 * (now - claim->regain_since));
    }
}

size_t hv_claim_marked(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, bool cut, uint64_t term, hv_time now) {
    assert(claim->state == HV_CLAIM_CLAIMING && !(cut && count == 0));
    claim->state = HV_CLAIM_IDLE;
    claim->wake_from = now + hv_time_max(WAKE_PACE, (now - claim->asked_at) / 2);
    hv_backoff_reset(&claim->backoff);
    if (claim->asked_term != term) {
        return 0; /* what we know now does not go with it */
    }
    if (claim->config->by_cursor) {
        cut = cut || count >= claim->asked_limit;
        count = note_scanned(claim, rows, count, cut);
        note_regained(claim, cut, now);
    } else {
        note_marked(claim, rows, count, now);
    }
    if (count > 0) {
        adapt_limit(claim, rows, count);
    }
    decide_wait(claim, count, cut, now);
    return count;
}

void hv_claim_writers(struct hv_claim *claim, const uint64_t *hashes, size_t count, hv_time now) {
    assert(claim->state == HV_CLAIM_ASKING);
    claim->state = HV_CLAIM_IDLE;
    if (claim->config->by_cursor) {
        hv_gaps_writers(&claim->gaps, hashes, count, now);
    } else {
        hv_watermark_writers(&claim->watermark, hashes, count, now);
    }
}

int64_t hv_claim_low(const struct hv_claim *claim) {
    if (!claim->config->by_cursor) {
        return claim->watermark.low;
    }
    return claim->gaps.count > 0 ? claim->gaps.list[0].lo : claim->next;
}

/* ---- looking from the first id on (by cursor) ---- */

static bool wants_list(struct hv_claim *claim, hv_time now) {
    if (!claim->config->by_cursor) {
        return false;
    }
    if (!claim->listing && !claim->regaining && now >= claim->rescan_at) {
        claim->rescan_at = now + claim->config->rescan_interval;
        claim->listing = claim->next > INT64_MIN;
        claim->list_from = INT64_MIN;
    }
    return claim->listing;
}

static void list(struct hv_claim *claim, uint64_t term, struct hv_actions *out) {
    struct hv_action *action = hv_actions_add(out, HV_ACT_LIST);
    action->from_id = claim->list_from;
    action->to_id = claim->next - 1;
    action->limit = claim->config->list_limit;
    claim->asked_term = term;
    claim->state = HV_CLAIM_LISTING;
    claim->listed = true;
}

/* Was this id neither seen nor expected? */
static bool is_strange(const struct hv_claim *claim, const struct hv_claimed *row, const struct hv_slots *slots,
                       const struct hv_isolation *iso) {
    return row->id < claim->next && !hv_isolation_leaves(iso, row->key, row->key_hash % iso->shards->count) &&
           !hv_gaps_hold(&claim->gaps, row->id) && hv_slots_find(slots, row->id) == HV_NO_SLOT;
}

void hv_claim_listed(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, uint64_t term,
                     const struct hv_slots *slots, const struct hv_isolation *iso, hv_time now) {
    assert(claim->state == HV_CLAIM_LISTING);
    claim->state = HV_CLAIM_IDLE;
    if (claim->asked_term != term) {
        return;
    }
    claim->listing = count == claim->config->list_limit;
    claim->list_from = count > 0 ? rows[count - 1].id + 1 : INT64_MIN;
    bool strange = false;
    for (size_t i = 0; i < count && !strange; i++) {
        strange = is_strange(claim, &rows[i], slots, iso);
    }
    if (strange) {
        /* It was drawn long before it was written, or the sequence began anew: then any id below may still come. What the cursor
         * sees again is held, or gone. */
        hv_gaps_clear(&claim->gaps);
        claim->regaining = true;
        claim->regain = claim->next;
        claim->regain_since = now;
        claim->next = INT64_MIN;
        claim->listing = false;
        claim->not_before = hv_time_min(claim->not_before, now);
    }
}

/* ---- being told ---- */

static void subscribe(struct hv_claim *claim, bool listen, struct hv_actions *out) {
    hv_actions_add(out, HV_ACT_LISTEN)->flag = listen;
    claim->asked_listen = listen;
    claim->state = HV_CLAIM_SUBSCRIBING;
}

void hv_claim_listening(struct hv_claim *claim) {
    assert(claim->state == HV_CLAIM_SUBSCRIBING);
    claim->state = HV_CLAIM_IDLE;
    claim->listens = claim->asked_listen;
    claim->woken = true; /* nobody told us of what came before */
}

void hv_claim_wake(struct hv_claim *claim) {
    claim->woken = true;
}

void hv_claim_rest(struct hv_claim *claim, struct hv_actions *out) {
    if (claim->state == HV_CLAIM_IDLE && claim->listens) {
        subscribe(claim, false, out);
    }
}

/* ---- what is due ---- */

static hv_time due_at(const struct hv_claim *claim) {
    return claim->woken ? hv_time_min(claim->not_before, claim->wake_from) : claim->not_before;
}

static bool wants_to_listen(const struct hv_claim *claim) {
    return claim->config->listen && !claim->listens;
}

static void note_asked(struct hv_claim *claim, uint64_t term, hv_time now) {
    claim->asked_at = now;
    claim->asked_limit = claim->limit;
    claim->asked_term = term;
    claim->state = HV_CLAIM_CLAIMING;
    claim->listed = false;
    claim->woken = false;
}

static void mark(struct hv_claim *claim, const uint8_t *leader_id, bool alone, hv_time now, struct hv_actions *out) {
    bool rescan = now >= claim->rescan_at;
    if (rescan) {
        claim->rescan_at = now + claim->config->rescan_interval;
    }
    struct hv_action *action = hv_actions_add(out, HV_ACT_MARK);
    memcpy(action->uuid, leader_id, HV_UUID_BYTES);
    action->from_id = rescan ? INT64_MIN : claim->watermark.low;
    action->limit = claim->limit;
    claim->asked_from = action->from_id;
    claim->asked_covering = hv_watermark_covering(&claim->watermark);
    claim->asked_alone = alone;
}

static void scan(struct hv_claim *claim, struct hv_actions *out) {
    struct hv_action *action = hv_actions_add(out, HV_ACT_SCAN);
    action->from_id = claim->next;
    action->limit = claim->limit;
    action->gaps = claim->gaps.list;
    action->gap_count = claim->gaps.count;
}

static bool wants_writers(struct hv_claim *claim, hv_time now) {
    return claim->config->by_cursor ? hv_gaps_want_writers(&claim->gaps, now)
                                    : hv_watermark_wants_writers(&claim->watermark, now);
}

void hv_claim_advance(struct hv_claim *claim, const uint8_t *leader_id, uint32_t room, bool alone, uint64_t term,
                      struct hv_isolation *iso, hv_time now, struct hv_actions *out) {
    if (claim->state != HV_CLAIM_IDLE) {
        return;
    }
    bool due = now >= due_at(claim) && room >= claim->limit;
    if (wants_to_listen(claim) && now >= claim->listen_at) {
        subscribe(claim, true, out);
    } else if (wants_writers(claim, now)) {
        hv_actions_add(out, HV_ACT_WRITERS);
        claim->state = HV_CLAIM_ASKING;
    } else if (wants_list(claim, now) && !(claim->listed && due)) { /* a long list does not hold up the claims */
        list(claim, term, out);
    } else if (due) {
        if (claim->config->by_cursor) {
            scan(claim, out);
        } else {
            mark(claim, leader_id, alone, now, out);
        }
        struct hv_action *action = &out->list[out->count - 1];
        action->keys = hv_keys_hidden(&iso->keys, &action->key_count);
        note_asked(claim, term, now);
    }
}

hv_time hv_claim_deadline(const struct hv_claim *claim, uint32_t room) {
    if (claim->state != HV_CLAIM_IDLE) {
        return HV_NEVER;
    }
    hv_time deadline;
    if (claim->config->by_cursor) {
        hv_time list_at = claim->listing ? 0 : claim->regaining ? HV_NEVER : claim->rescan_at;
        deadline = hv_time_min(hv_gaps_deadline(&claim->gaps), list_at);
    } else {
        deadline = hv_watermark_deadline(&claim->watermark);
    }
    if (wants_to_listen(claim)) {
        deadline = hv_time_min(deadline, claim->listen_at);
    }
    if (room >= claim->limit) {
        deadline = hv_time_min(deadline, due_at(claim));
    }
    return deadline;
}
