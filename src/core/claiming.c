/* See claiming.h. */
#include "core/claiming.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define FIRST_LIMIT 4           /* until we know how large rows are: a handful of huge ones must fit into memory */
#define SOON 10                 /* right after rows the wait is mark_backoff / this */
#define QUIET HV_SECONDS(1)     /* without rows, before the wait grows above mark_backoff */
#define WAKE_PACE HV_MS(2)      /* under load a claim is to find more than the one row that was told of */
#define LISTEN_AGAIN HV_SECONDS(60) /* after it was refused */
#define CROWDED HV_SECONDS(1)   /* while one scan after the other brings mostly rows that come again, before they are marked */
#define REMARK_PACE HV_MS(10)   /* of marks that may have missed rows because we deleted others under their hands */
#define REST_MAX HV_SECONDS(2)  /* before a refresh that can wait */
#define CROWD 100               /* rows that are too many to bring each time */

void hv_claim_init(struct hv_claim *claim, const struct hv_core_config *config, struct hv_random *dice) {
    *claim = (struct hv_claim){
        .config = config,
        .dice = dice,
        .limit = config->mark_query_records < FIRST_LIMIT ? config->mark_query_records : FIRST_LIMIT,
    };
    hv_backoff_init(&claim->backoff, config->io_error_backoff, config->io_error_backoff_max);
    hv_gaps_init(&claim->gaps, config->gaps_max);
    hv_look_init(&claim->look, config->list_span);
    claim->by_mark = !config->by_cursor;
    claim->next = claim->seen_to = claim->remark_until = INT64_MIN;
    claim->crowded_since = HV_NEVER;
}

void hv_claim_fini(struct hv_claim *claim) {
    hv_gaps_fini(&claim->gaps);
}

void hv_claim_restart(struct hv_claim *claim, hv_time now) {
    hv_gaps_clear(&claim->gaps);
    claim->by_mark = !claim->config->by_cursor || claim->crowded;
    claim->crowded = false;
    claim->crowded_since = HV_NEVER;
    int64_t seen = claim->regaining && claim->regain > claim->next ? claim->regain : claim->next;
    claim->remark_until = seen > claim->remark_until ? seen : claim->remark_until;
    claim->regaining = claim->refresh != NULL && seen > INT64_MIN; /* not in a new term: others led meanwhile */
    claim->regain = seen;
    claim->regain_since = now;
    claim->next = INT64_MIN;
    claim->empty_before = false;
    claim->remarking = claim->by_mark;
    hv_look_restart(&claim->look);
    claim->refresh = NULL;
    claim->not_before = now;
    claim->busy_at = now;
    claim->rescan_at = now + claim->config->rescan_interval;
}

/* The cursor starts from the first id again. What it sees again is held, or gone. */
static void start_again(struct hv_claim *claim, hv_time now) {
    if (!claim->regaining) {
        claim->regaining = true;
        claim->regain = claim->next;
        claim->regain_since = now;
    }
    hv_gaps_clear(&claim->gaps);
    claim->next = INT64_MIN;
    claim->empty_before = false;
    claim->look.under_way = false;
}

/* A server that crashed, or a standby that took its place, may have lost what was committed last, and give the same ids once more; and
 * prepared transactions have other names there. */
void hv_claim_up(struct hv_claim *claim, hv_time now) {
    assert(claim->state == HV_CLAIM_DOWN);
    claim->state = HV_CLAIM_IDLE;
    claim->listens = false;
    claim->listen_at = now;
    start_again(claim, now);
}

void hv_claim_down(struct hv_claim *claim, bool outcome_unknown, hv_time now) {
    if (claim->state == HV_CLAIM_CLAIMING && outcome_unknown && claim->by_mark) {
        claim->refresh = "the outcome of a mark is unknown";
    }
    if (claim->state == HV_CLAIM_ASKING) {
        hv_gaps_unanswered(&claim->gaps, now);
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
        hv_gaps_unanswered(&claim->gaps, now);
    } else if (claim->state == HV_CLAIM_CLAIMING && claim->limit > 1) {
        claim->limit /= 2; /* if one of the rows is to blame, the others may pass */
    }
    claim->state = HV_CLAIM_IDLE;
    claim->not_before = now + hv_backoff_next(&claim->backoff, claim->dice);
    claim->wake_from = claim->not_before;
}

static uint64_t bytes_of(const struct hv_claimed *rows, size_t count) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += rows[i].bytes;
    }
    return bytes;
}

static void adapt_limit(struct hv_claim *claim, const struct hv_claimed *rows, size_t count) {
    uint64_t average = bytes_of(rows, count) / count + 1; /* those that come bare weigh nothing, and come in great numbers */
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
    if (claim->remarking) {
        claim->not_before = now + hv_time_min(REMARK_PACE, claim->config->mark_backoff);
        return;
    }
    hv_time usual = claim->config->mark_backoff, quiet = now - claim->busy_at;
    hv_time shortest = hv_time_max(claim->listens ? usual : usual / SOON, (now - claim->asked_at) / 2);
    hv_time longest = quiet < QUIET && !claim->listens ? usual : hv_time_max(usual, claim->config->idle_backoff_max);
    claim->not_before = now + hv_time_min(hv_time_max(shortest, quiet / 4), longest);
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
    claim->seen_to = claim->next > claim->seen_to ? claim->next : claim->seen_to;
}

/* Everything up to `until` was looked at, and these rows were there. */
static void note_seen(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, int64_t until) {
    int64_t *ids = hv_calloc(count, sizeof *ids);
    for (size_t i = 0; i < count; i++) {
        ids[i] = rows[i].id;
    }
    hv_gaps_probed(&claim->gaps, ids, count, until);
    free(ids);
    move_on(claim, rows, count);
}

/* A reply has all there was up to its last row, but rows that were deleted under its hands: these count for its limit, and nobody can tell
 * how many they were. When it has none at all, nothing is left, unless all that it found was deleted: by us (not alone), or by others,
 * which nobody does twice in a row. */
static void note_marked(struct hv_claim *claim, const struct hv_claimed *rows, size_t count) {
    bool empty = count == 0 && claim->asked_alone;
    if (count > 0 || (empty && claim->empty_before)) {
        note_seen(claim, rows, count, count > 0 ? rows[count - 1].id : INT64_MAX);
    }
    claim->empty_before = empty;
    claim->remarking = claim->remarking && (claim->was_cut || !claim->asked_alone);
    if (!claim->was_cut || claim->next >= claim->remark_until) {
        claim->remark_until = INT64_MIN;
    }
}

/* Returns how many rows count. A reply that was cut has all there was up to its last or limit-th row; what it has beyond that may have
 * predecessors that it has not. */
static size_t note_scanned(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, bool cut) {
    size_t taken = count < claim->asked_limit ? count : claim->asked_limit;
    note_seen(claim, rows, taken, cut ? rows[taken - 1].id : INT64_MAX);
    return taken;
}

/* Has the cursor come back to where it was before it started again? What does so once more, or looks from the first id on, may wait a
 * multiple of what that took: if the table is so large that it takes long, it must not be all that is done. */
static void note_regained(struct hv_claim *claim, bool cut, hv_time now) {
    if (claim->regaining && (!cut || claim->next >= claim->regain)) {
        hv_time rest = 4 * (now - claim->regain_since);
        claim->regaining = false;
        claim->rescan_at = hv_time_max(claim->rescan_at, now + rest);
        claim->rest_until = now + hv_time_min(rest, REST_MAX);
    }
}

/* A mark does not tell whether there were too many bytes for more rows; what they are for the database is not quite what they are here. */
static bool is_bounded_in_bytes(const struct hv_claim *claim, const struct hv_claimed *rows, size_t count) {
    return claim->by_mark && bytes_of(rows, count) >= claim->config->mark_query_bytes / 2;
}

size_t hv_claim_marked(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, bool cut, uint64_t term, hv_time now) {
    assert(claim->state == HV_CLAIM_CLAIMING && !(cut && count == 0));
    claim->state = HV_CLAIM_IDLE;
    claim->wake_from = now + hv_time_max(WAKE_PACE, (now - claim->asked_at) / 2);
    hv_backoff_reset(&claim->backoff);
    if (claim->asked_term != term) {
        return 0; /* what we know now does not go with it */
    }
    claim->was_cut = cut = cut || count >= claim->asked_limit || is_bounded_in_bytes(claim, rows, count);
    if (claim->by_mark) {
        note_marked(claim, rows, count);
    } else {
        count = note_scanned(claim, rows, count, cut);
    }
    note_regained(claim, cut, now);
    hv_look_seen(&claim->look, count);
    if (count > 0) {
        adapt_limit(claim, rows, count);
    }
    decide_wait(claim, count, cut, now);
    return count;
}

void hv_claim_took(struct hv_claim *claim, size_t kept, size_t come_again, int64_t last, hv_time now) {
    bool crowded = come_again > kept && (claim->was_cut || come_again >= CROWD);
    if (crowded) {
        hv_gaps_retire(&claim->gaps, last);
    }
    if (!crowded) {
        claim->crowded_since = HV_NEVER;
    } else if (claim->crowded_since == HV_NEVER) {
        claim->crowded_since = now; /* the gaps may be gone soon */
    } else if (now - claim->crowded_since >= CROWDED && claim->refresh == NULL) {
        claim->crowded = true;
        claim->refresh = "too many rows of keys that wait lie between ids that may still come: they are marked";
    }
}

void hv_claim_deleting(struct hv_claim *claim) {
    claim->asked_alone = false;
}

void hv_claim_writers(struct hv_claim *claim, const uint64_t *hashes, size_t count, hv_time now) {
    assert(claim->state == HV_CLAIM_ASKING);
    claim->state = HV_CLAIM_IDLE;
    claim->empty_before = false; /* only what was sent after this decides */
    hv_gaps_writers(&claim->gaps, hashes, count, now);
}

int64_t hv_claim_low(const struct hv_claim *claim) {
    return claim->gaps.count > 0 ? claim->gaps.list[0].lo : claim->next;
}

/* ---- looking at all ids ---- */

static bool wants_list(struct hv_claim *claim, hv_time now) {
    if (!claim->look.under_way && !claim->regaining && now >= claim->rescan_at) {
        claim->rescan_at = now + claim->config->rescan_interval;
        if (claim->next > INT64_MIN) {
            claim->look_since = now;
            hv_look_begin(&claim->look, claim->next - 1, claim->rescan_at);
        }
    }
    return claim->look.under_way;
}

static void list(struct hv_claim *claim, uint64_t term, hv_time now, struct hv_actions *out) {
    struct hv_action *action = hv_actions_add(out, HV_ACT_LIST);
    hv_look_ask(&claim->look, now);
    action->from_id = claim->look.from;
    action->to_id = claim->look.to;
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
    hv_look_turn(&claim->look, count == claim->config->list_limit, count > 0 ? rows[0].id : 0, now);
    if (!claim->look.under_way) { /* looking is not all that is done */
        claim->rescan_at = hv_time_max(claim->rescan_at, now + (now - claim->look_since));
    }
    bool strange = false;
    for (size_t i = 0; i < count && !strange; i++) {
        strange = is_strange(claim, &rows[i], slots, iso);
    }
    if (strange) {
        /* It was drawn long before it was written, or the sequence began anew: then any id below may still come. */
        start_again(claim, now);
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

static void claim_rows(struct hv_claim *claim, const uint8_t *leader_id, bool alone, struct hv_isolation *iso, struct hv_actions *out) {
    struct hv_action *action = hv_actions_add(out, claim->by_mark ? HV_ACT_MARK : HV_ACT_SCAN);
    memcpy(action->uuid, leader_id, HV_UUID_BYTES);
    action->from_id = claim->next;
    action->limit = claim->limit;
    action->gaps = claim->gaps.list;
    action->gap_count = (uint32_t)claim->gaps.count;
    action->keys = hv_keys_hidden(&iso->keys, &action->key_count);
    action->flag = claim->next == claim->seen_to && claim->next < INT64_MAX;
    claim->asked_alone = alone;
}

void hv_claim_advance(struct hv_claim *claim, const uint8_t *leader_id, uint32_t room, bool alone, uint64_t term,
                      struct hv_isolation *iso, hv_time now, struct hv_actions *out) {
    if (claim->state != HV_CLAIM_IDLE) {
        return;
    }
    bool due = now >= due_at(claim) && room >= claim->limit;
    if (wants_to_listen(claim) && now >= claim->listen_at) {
        subscribe(claim, true, out);
    } else if (hv_gaps_want_writers(&claim->gaps, now)) {
        hv_actions_add(out, HV_ACT_WRITERS);
        claim->state = HV_CLAIM_ASKING;
    } else if (wants_list(claim, now) && !(claim->listed && due)) { /* a long list does not hold up the claims */
        list(claim, term, now, out);
    } else if (due) {
        claim_rows(claim, leader_id, alone, iso, out);
        note_asked(claim, term, now);
    }
}

hv_time hv_claim_deadline(const struct hv_claim *claim, uint32_t room) {
    if (claim->state != HV_CLAIM_IDLE) {
        return HV_NEVER;
    }
    hv_time list_at = claim->look.under_way ? 0 : claim->regaining ? HV_NEVER : claim->rescan_at;
    hv_time deadline = hv_time_min(hv_gaps_deadline(&claim->gaps), list_at);
    if (wants_to_listen(claim)) {
        deadline = hv_time_min(deadline, claim->listen_at);
    }
    if (room >= claim->limit) {
        deadline = hv_time_min(deadline, due_at(claim));
    }
    return deadline;
}
