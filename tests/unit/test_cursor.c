/* core/claiming and core/harvest, by cursor: what a lost, late, cut or strange reply leads to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/claiming.h"
#include "core/harvest.h"

static const struct hv_core_config config = {.by_cursor = true,
                                             .send_concurrency = 2,
                                             .blocked_keys_max = 4,
                                             .blocked_keys_bytes = 100,
                                             .gaps_max = 8,
                                             .list_limit = 3,
                                             .list_span = 1000,
                                             .mark_query_records = 4,
                                             .mark_query_bytes = 1 << 20,
                                             .mark_backoff = HV_MS(10),
                                             .idle_backoff_max = HV_MS(100),
                                             .io_error_backoff = HV_MS(500),
                                             .io_error_backoff_max = HV_SECONDS(5),
                                             .rescan_interval = HV_SECONDS(5)};
static const uint8_t uuid[HV_UUID_BYTES];
static struct hv_random dice = {.state = 3};
static struct hv_actions out;

struct bed {
    struct hv_claim claim;
    struct hv_slots slots;
    struct hv_shards shards;
    struct hv_isolation iso;
    uint64_t term;
    hv_time now;
    bool cut; /* replies end before the limit */
};

static int begin(void **state) {
    static struct bed bed;
    bed = (struct bed){.term = 1};
    hv_slots_init(&bed.slots, 100);
    hv_shards_init(&bed.shards, &bed.slots, 2);
    hv_isolation_init(&bed.iso, &bed.slots, &bed.shards, &dice, &config);
    hv_claim_init(&bed.claim, &config, &dice);
    hv_claim_restart(&bed.claim, 0);
    hv_claim_up(&bed.claim, 0);
    *state = &bed;
    return 0;
}

static int end(void **state) {
    struct bed *bed = *state;
    hv_claim_fini(&bed->claim);
    hv_isolation_fini(&bed->iso);
    hv_shards_fini(&bed->shards);
    hv_slots_fini(&bed->slots);
    return 0;
}

/* What is sent now; NULL: nothing. */
static const struct hv_action *advance(struct bed *bed) {
    out.count = 0;
    hv_claim_advance(&bed->claim, uuid, 1000, true, bed->term, &bed->iso, bed->now, &out);
    assert_true(out.count <= 1);
    return out.count == 0 ? NULL : &out.list[0];
}

static const struct hv_action *advance_to(struct bed *bed, enum hv_action_type type) {
    const struct hv_action *action = advance(bed);
    assert_non_null(action);
    assert_int_equal(action->type, type);
    return action;
}

static size_t claimed(struct bed *bed, const int64_t *ids, size_t count) {
    struct hv_claimed rows[20];
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct hv_claimed){.id = ids[i], .bytes = 10};
    }
    return hv_claim_marked(&bed->claim, rows, count, bed->cut, bed->term, bed->now);
}

static void listed(struct bed *bed, const int64_t *ids, size_t count) {
    struct hv_claimed rows[20];
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct hv_claimed){.id = ids[i], .key_hash = (uint32_t)ids[i], .key = (uint64_t)ids[i] % 2};
    }
    hv_claim_listed(&bed->claim, rows, count, bed->term, &bed->slots, &bed->iso, bed->now);
}

/* It asks who writes, and these do. */
static void writers(struct bed *bed, const uint64_t *hashes, size_t count) {
    advance_to(bed, HV_ACT_WRITERS);
    hv_claim_writers(&bed->claim, hashes, count, bed->now);
}

#define HASHES(...) (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t)
#define IDS(...) (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

/* Whatever is due until nothing is: questions for writers find none, scans and looks find nothing. */
static void settle(struct bed *bed) {
    for (int i = 0; i < 10; i++) {
        const struct hv_action *action = advance(bed);
        while (action != NULL && action->type == HV_ACT_LIST) {
            listed(bed, NULL, 0);
            action = advance(bed);
        }
        if (action != NULL && action->type == HV_ACT_WRITERS) {
            hv_claim_writers(&bed->claim, NULL, 0, bed->now);
        } else if (action != NULL && action->type == HV_ACT_SCAN) {
            claimed(bed, NULL, 0);
        } else {
            assert_null(action);
        }
        bed->now += HV_MS(20);
    }
}

/* Its scan finds these, and what is due after it finds nothing. */
static void scanned(struct bed *bed, const int64_t *ids, size_t count) {
    advance_to(bed, HV_ACT_SCAN);
    claimed(bed, ids, count);
    settle(bed);
}

static void assert_gap(const struct hv_action *scan, size_t at, int64_t lo, int64_t hi) {
    assert_true(at < scan->gap_count);
    assert_int_equal(scan->gaps[at].lo, lo);
    assert_int_equal(scan->gaps[at].hi, hi);
}

/* ---- replies ---- */

static void it_moves_on_and_remembers_what_is_missing(void **state) {
    struct bed *bed = *state;
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->from_id, INT64_MIN);
    assert_int_equal(scan->gap_count, 0);
    assert_int_equal(claimed(bed, IDS(10, 12, 15, 16)), 4);
    writers(bed, HASHES(1));
    scan = advance_to(bed, HV_ACT_SCAN); /* the reply was full: at once */
    assert_int_equal(scan->from_id, 17);
    assert_int_equal(scan->gap_count, 3);
    assert_gap(scan, 0, INT64_MIN, 9);
    assert_gap(scan, 1, 11, 11);
    assert_gap(scan, 2, 13, 14);
    assert_int_equal(claimed(bed, IDS(11, 20)), 2);
    assert_int_equal(hv_claim_low(&bed->claim), INT64_MIN);
    bed->now += HV_MS(60);
    writers(bed, NULL, 0); /* the epoch is over, and the next has no writers */
    scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->gap_count, 3);
    assert_gap(scan, 2, 17, 19);
    claimed(bed, NULL, 0);
    bed->now += HV_MS(20);
    scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->gap_count, 0);
    assert_int_equal(hv_claim_low(&bed->claim), 21);
}

static void a_lost_reply_costs_nothing(void **state) {
    struct bed *bed = *state;
    advance_to(bed, HV_ACT_SCAN);
    claimed(bed, IDS(10, 12));
    writers(bed, HASHES(1));
    bed->now += HV_MS(20);
    advance_to(bed, HV_ACT_SCAN);
    hv_claim_down(&bed->claim, true, bed->now);
    assert_null(bed->claim.refresh);
    assert_null(advance(bed));
    hv_claim_up(&bed->claim, bed->now);
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN); /* it may be another server, on which ids below were not given yet */
    assert_int_equal(scan->from_id, INT64_MIN);
    assert_int_equal(scan->gap_count, 0);
    assert_int_equal(claimed(bed, IDS(10, 12)), 2);
    writers(bed, HASHES(2)); /* who wrote has another name there */
    bed->now += HV_MS(20);
    scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->from_id, 13);
    assert_gap(scan, 0, INT64_MIN, 9);
    assert_gap(scan, 1, 11, 11);
    hv_claim_refused(&bed->claim, bed->now);
    assert_null(bed->claim.refresh);
    bed->now += HV_SECONDS(6);
    advance_to(bed, HV_ACT_WRITERS);
    hv_claim_down(&bed->claim, true, bed->now);
    assert_null(bed->claim.refresh);
    assert_int_equal(bed->claim.gaps.count, 2);
}

static void a_lost_probe_does_not_retire_a_gap(void **state) {
    struct bed *bed = *state;
    advance_to(bed, HV_ACT_SCAN);
    claimed(bed, IDS(10));
    writers(bed, NULL, 0);
    bed->now += HV_MS(20);
    advance_to(bed, HV_ACT_SCAN); /* the last look */
    hv_claim_refused(&bed->claim, bed->now);
    bed->now += HV_SECONDS(1);
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN);
    assert_gap(scan, 0, INT64_MIN, 9);
    claimed(bed, IDS(9));
    assert_int_equal(bed->claim.gaps.count, 0);
}

static void replies_of_an_earlier_term_are_void(void **state) {
    struct bed *bed = *state;
    advance_to(bed, HV_ACT_SCAN);
    bed->term++;
    assert_int_equal(claimed(bed, IDS(10, 12)), 0);
    assert_int_equal(bed->claim.next, INT64_MIN);
    assert_int_equal(bed->claim.gaps.count, 0);
    scanned(bed, IDS(10));
    bed->now = HV_SECONDS(6);
    advance_to(bed, HV_ACT_LIST);
    bed->term++;
    listed(bed, IDS(3, 4)); /* strange, but of another time */
    assert_int_equal(bed->claim.next, 11);
}

static void a_reply_of_more_than_was_asked_for_counts_up_to_the_limit(void **state) {
    struct bed *bed = *state;
    scanned(bed, IDS(10, 30));
    bed->now += HV_MS(50);
    hv_gaps_add(&bed->claim.gaps, 11, 20);
    hv_gaps_writers(&bed->claim.gaps, NULL, 0, bed->now);
    advance_to(bed, HV_ACT_SCAN);
    /* The first four count: what lies between 14 and 31 was not read as a whole. */
    assert_int_equal(claimed(bed, IDS(11, 12, 13, 14, 31, 32, 33, 34)), 4);
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->from_id, 31);
    assert_int_equal(scan->gap_count, 1);
    assert_gap(scan, 0, 15, 20);
    assert_int_equal(claimed(bed, IDS(15, 31)), 2);
    assert_int_equal(bed->claim.gaps.count, 0);
}

static void a_reply_that_was_cut_counts_up_to_its_last_row(void **state) {
    struct bed *bed = *state;
    scanned(bed, IDS(10, 30));
    hv_gaps_add(&bed->claim.gaps, 11, 20);
    hv_gaps_writers(&bed->claim.gaps, NULL, 0, bed->now);
    advance_to(bed, HV_ACT_SCAN);
    bed->cut = true;
    assert_int_equal(claimed(bed, IDS(11, 14)), 2);
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN); /* at once */
    assert_int_equal(scan->gap_count, 2);
    assert_gap(scan, 0, 12, 13); /* retired with the rest of the gap */
    assert_gap(scan, 1, 15, 20);
    assert_int_equal(claimed(bed, IDS(31)), 1);
    assert_int_equal(bed->claim.gaps.count, 0);
    assert_int_equal(bed->claim.next, 32);
}

/* ---- looking from the first id on ---- */

static void what_is_held_or_expected_or_left_is_not_strange(void **state) {
    struct bed *bed = *state;
    scanned(bed, IDS(10, 11));
    hv_slots_take(&bed->slots, 10);
    hv_gaps_add(&bed->claim.gaps, 4, 4);
    hv_gaps_writers(&bed->claim.gaps, (const uint64_t[]){1}, 1, HV_SECONDS(6));
    hv_keys_set_left(&bed->iso.keys, hv_keys_add(&bed->iso.keys, 1, 1), true);
    bed->now = HV_SECONDS(6);
    const struct hv_action *list = advance_to(bed, HV_ACT_LIST);
    assert_int_equal(list->from_id, 11 - 1000);
    assert_int_equal(list->to_id, 11);
    listed(bed, IDS(5, 7, 10)); /* two of the key of which rows were left, and one that is held: a full page */
    advance_to(bed, HV_ACT_SCAN); /* claims are not held up by a long list */
    claimed(bed, NULL, 0);
    list = advance_to(bed, HV_ACT_LIST);
    assert_int_equal(list->to_id, 4);
    listed(bed, IDS(4)); /* a gap */
    assert_int_equal(bed->claim.next, 12);
    list = advance_to(bed, HV_ACT_LIST);
    assert_int_equal(list->to_id, 4 - 1001);
    listed(bed, NULL, 0);
    bed->now = HV_SECONDS(10);
    settle(bed);
    bed->now = HV_SECONDS(12);
    advance_to(bed, HV_ACT_SCAN); /* that look took seconds, and so does the rest after it */
    claimed(bed, NULL, 0);
    bed->now = HV_SECONDS(16);
    advance_to(bed, HV_ACT_LIST);
    listed(bed, IDS(5, 6)); /* 6 is of another key: drawn long before it was written */
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->from_id, INT64_MIN);
    assert_int_equal(scan->gap_count, 0);
}

static void it_starts_again_once_and_comes_back_before_it_looks_again(void **state) {
    struct bed *bed = *state;
    scanned(bed, IDS(100));
    bed->now = HV_SECONDS(6);
    advance_to(bed, HV_ACT_LIST);
    listed(bed, IDS(50));
    hv_time since = bed->now;
    for (int64_t id = 50; id < 90; id += 4) { /* a large table: full replies, each takes its time */
        bed->now += HV_SECONDS(1);
        const struct hv_action *action = advance(bed);
        if (action != NULL && action->type == HV_ACT_WRITERS) {
            hv_claim_writers(&bed->claim, NULL, 0, bed->now);
            action = advance(bed);
        }
        assert_non_null(action);
        assert_int_equal(action->type, HV_ACT_SCAN);
        claimed(bed, IDS(id, id + 1, id + 2, id + 3));
        if (id > 50) { /* without room, no statement is due again and again */
            assert_true(hv_claim_deadline(&bed->claim, 0) > bed->now);
        }
    }
    bed->now += HV_MS(20);
    settle(bed); /* nothing more: it is back */
    hv_time back = bed->now;
    bed->now = since + 3 * (back - since);
    const struct hv_action *action = advance(bed);
    assert_true(action != NULL && action->type == HV_ACT_SCAN);
    claimed(bed, NULL, 0);
    bed->now = since + 6 * (back - since);
    advance_to(bed, HV_ACT_LIST);
}

static void a_new_term_is_not_bound_by_where_the_cursor_was(void **state) {
    struct bed *bed = *state;
    scanned(bed, IDS(100));
    bed->now = HV_SECONDS(6);
    advance_to(bed, HV_ACT_LIST);
    listed(bed, IDS(50));
    hv_claim_restart(&bed->claim, bed->now);
    advance_to(bed, HV_ACT_SCAN);
    claimed(bed, IDS(1, 2, 3, 4));
    bed->now += HV_SECONDS(5);
    writers(bed, NULL, 0);
    advance_to(bed, HV_ACT_LIST);
}

/* To come back to where it was takes the time of others. */
static void a_refresh_that_can_wait_rests_after_one_that_took_long(void **state) {
    struct bed *bed = *state;
    scanned(bed, IDS(1, 2, 3, 4, 5, 6));
    bed->claim.refresh = "a test";
    hv_claim_restart(&bed->claim, bed->now);
    hv_time begin = bed->now;
    bed->claim.limit = 3;
    advance_to(bed, HV_ACT_SCAN);
    claimed(bed, IDS(1, 2, 3));
    assert_true(bed->claim.regaining);
    bed->now += HV_MS(100);
    writers(bed, NULL, 0);
    advance_to(bed, HV_ACT_SCAN);
    claimed(bed, IDS(4, 5, 6));
    assert_false(bed->claim.regaining);
    assert_true(bed->claim.rest_until == bed->now + 4 * (bed->now - begin));
}

/* ---- the ends of int8 ---- */

static void ids_at_the_ends_of_int8(void **state) {
    struct bed *bed = *state;
    advance_to(bed, HV_ACT_SCAN);
    claimed(bed, IDS(INT64_MIN, INT64_MAX - 1, INT64_MAX));
    assert_int_equal(bed->claim.next, INT64_MAX); /* which is looked at for ever */
    assert_int_equal(bed->claim.gaps.count, 1);
    assert_int_equal(bed->claim.gaps.list[0].lo, INT64_MIN + 1);
    assert_int_equal(bed->claim.gaps.list[0].hi, INT64_MAX - 2);
    settle(bed);
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->from_id, INT64_MAX);
    claimed(bed, IDS(INT64_MAX)); /* it is still there */
    assert_int_equal(bed->claim.next, INT64_MAX);
    bed->now = HV_SECONDS(6);
    const struct hv_action *list = advance_to(bed, HV_ACT_LIST);
    assert_int_equal(list->to_id, INT64_MAX - 1);
    listed(bed, IDS(1)); /* the sequence began anew */
    scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->from_id, INT64_MIN);
    claimed(bed, IDS(1, 2));
    assert_int_equal(bed->claim.next, 3);
}

static void keys_of_which_rows_were_left_are_named(void **state) {
    struct bed *bed = *state;
    uint32_t key = hv_keys_add(&bed->iso.keys, 1, 1);
    hv_keys_keep_bytes(&bed->iso.keys, key, "one", 3);
    assert_int_equal(advance_to(bed, HV_ACT_SCAN)->key_count, 0);
    claimed(bed, NULL, 0);
    hv_keys_set_left(&bed->iso.keys, key, true);
    bed->now += HV_MS(20);
    const struct hv_action *scan = advance_to(bed, HV_ACT_SCAN);
    assert_int_equal(scan->key_count, 1);
    assert_int_equal(scan->keys[0].length, 3);
    assert_memory_equal(scan->keys[0].bytes, "one", 3);
    claimed(bed, NULL, 0);
    hv_isolation_claimed_anew(&bed->iso);
    bed->now += HV_MS(20);
    assert_int_equal(advance_to(bed, HV_ACT_SCAN)->key_count, 0);
}

/* ---- the parts together ---- */

#define ROWS 64

struct core {
    struct hv_harvest *core;
    struct hv_actions out;
    hv_time now;
    uint64_t uuids;
    bool there[ROWS];    /* in the table */
    bool stuck[ROWS];    /* gets no report; all odd ids but those of `answered`, too */
    bool refused[ROWS];  /* by Kafka */
    bool answered[ROWS];
    bool open;           /* a transaction that writes */
    int sent[ROWS];
    char payloads[ROWS];
    uint8_t leader[ROWS][HV_UUID_BYTES]; /* marks */
    enum hv_action_type claimed_by;
};

static void tell(struct core *c, struct hv_event event) {
    hv_harvest_step(c->core, &event, c->now, &c->out);
}

/* All odd ids are of one key, and all even ones of another. */
static struct hv_claimed row_of(struct core *c, int64_t id) {
    return (struct hv_claimed){.id = id, .key_hash = (uint32_t)id & 1, .key = (uint64_t)id & 1, .bytes = 10, .payload = &c->payloads[id]};
}

/* As the database would: up to the limit above and out of each gap, without those left out, or marked. */
static void claim_table(struct core *c, const struct hv_action *claim) {
    struct hv_claimed rows[ROWS];
    uint32_t count = 0, limit = claim->limit;
    bool marks = claim->type == HV_ACT_MARK;
    for (int64_t id = 1; id < ROWS && count < limit; id++) {
        bool wanted = id >= claim->from_id;
        for (size_t i = 0; i < claim->gap_count; i++) {
            bool left_out = false;
            for (size_t k = 0; k < claim->count; k++) {
                left_out = left_out || claim->ids[k] == id;
            }
            wanted = wanted || (claim->gaps[i].lo <= id && id <= claim->gaps[i].hi && !left_out);
        }
        if (wanted && c->there[id] && !(marks && memcmp(c->leader[id], claim->uuid, HV_UUID_BYTES) == 0)) {
            if (marks) {
                memcpy(c->leader[id], claim->uuid, HV_UUID_BYTES);
            }
            rows[count++] = row_of(c, id);
        }
    }
    tell(c, (struct hv_event){.type = HV_EV_CLAIMED, .rows = rows, .count = count});
}

static void act(struct core *c, const struct hv_action *action) {
    uint64_t id[2] = {0, ++c->uuids};
    struct hv_claimed none;
    switch (action->type) {
    case HV_ACT_NEED_LEADER_ID:
        tell(c, (struct hv_event){.type = HV_EV_LEADER_ID, .uuid = (const uint8_t *)id});
        break;
    case HV_ACT_HEARTBEAT:
        tell(c, (struct hv_event){.type = HV_EV_HEARTBEAT, .stamp = action->stamp});
        break;
    case HV_ACT_OPEN_CLIENT:
        tell(c, (struct hv_event){.type = HV_EV_CLIENT_READY, .lane = action->lane});
        break;
    case HV_ACT_WRITERS:
        tell(c, (struct hv_event){.type = HV_EV_WRITERS, .hashes = (const uint64_t[]){7}, .count = c->open ? 1 : 0});
        break;
    case HV_ACT_MARK:
    case HV_ACT_SCAN:
        c->claimed_by = action->type;
        claim_table(c, action);
        break;
    case HV_ACT_LIST:
        tell(c, (struct hv_event){.type = HV_EV_LISTED, .rows = &none, .count = 0});
        break;
    case HV_ACT_PRODUCE: {
        /* Odd ids are never answered: their shard stands still. */
        int64_t row = (char *)action->payload - c->payloads;
        c->sent[row]++;
        bool silent = c->stuck[row] || (row % 2 != 0 && !c->answered[row]);
        if (!silent || c->refused[row]) {
            const struct hv_report report = {.ticket = action->ticket, .delivery = c->refused[row] ? HV_REFUSED : HV_DELIVERED};
            tell(c, (struct hv_event){.type = HV_EV_REPORTS, .reports = &report, .count = 1});
        }
        break;
    }
    case HV_ACT_FETCH: {
        struct hv_claimed rows[ROWS];
        size_t count = 0;
        for (size_t i = 0; i < action->count; i++) {
            if (c->there[action->ids[i]]) {
                rows[count++] = row_of(c, action->ids[i]);
            }
        }
        tell(c, (struct hv_event){.type = HV_EV_FETCHED, .rows = rows, .count = count});
        break;
    }
    case HV_ACT_PURGE:
        for (size_t i = 0; i < action->count; i++) {
            c->there[action->ids[i]] = false;
        }
        tell(c, (struct hv_event){.type = HV_EV_PURGED, .count = action->count});
        break;
    default:
        break;
    }
}

static void pass(struct core *c, hv_time span) {
    for (hv_time until = c->now + span; c->now < until; c->now += HV_MS(5)) {
        for (int i = 0; i < 5; i++) {
            tell(c, (struct hv_event){.type = HV_EV_TURN});
            struct hv_actions actions = c->out;
            c->out = (struct hv_actions){0};
            for (size_t k = 0; k < actions.count; k++) {
                act(c, &actions.list[k]);
            }
            hv_actions_free(&actions);
        }
    }
}

static struct hv_core_config whole(void) {
    struct hv_core_config with = config;
    with.gaps_max = 2;
    with.list_limit = 100;
    with.send_concurrency = 2;
    with.max_in_flight_records = 50;
    with.max_in_flight_bytes = 1 << 20;
    with.send_buffer = 40;
    with.purge_query_records = 10;
    with.blocked_backoff_max = HV_SECONDS(1);
    with.queue_timeout = HV_SECONDS(3000);
    with.rescan_interval = HV_SECONDS(3000);
    with.heartbeat_interval = HV_MS(100);
    with.heartbeat_timeout = HV_SECONDS(5);
    with.drain_timeout = HV_SECONDS(10);
    with.hand_over_limit = HV_SECONDS(60);
    with.min_metrics_interval = HV_SECONDS(3000);
    return with;
}

static void open_core(struct core *c, const struct hv_core_config *with) {
    c->core = hv_harvest_new(with, 0);
    tell(c, (struct hv_event){.type = HV_EV_CLAIM_UP});
    tell(c, (struct hv_event){.type = HV_EV_SETTLE_UP});
    tell(c, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = true});
}

static void close_core(struct core *c) {
    hv_actions_free(&c->out);
    hv_harvest_free(c->core, NULL, NULL);
}

/* At the bound, gaps become one over rows that are in flight for long, more of them than a scan takes. They are left out, so that the rows
 * above are found. */
static void known_rows_in_a_merged_gap_do_not_hide_those_above(void **state) {
    (void)state;
    struct hv_core_config with = whole();
    struct core c = {.open = true};
    open_core(&c, &with);
    for (int64_t id = 1; id <= 41; id += 4) { /* odd, with gaps between: 11 rows, and 4 a scan */
        c.there[id] = true;
        pass(&c, HV_MS(100));
        assert_int_equal(c.sent[id], 1);
    }
    for (int64_t id = 50; id <= 60; id += 2) {
        c.there[id] = true;
        pass(&c, HV_MS(100));
        assert_int_equal(c.sent[id], 1);
    }
    c.there[6] = c.there[30] = true; /* and what commits in the merged gaps is found, too */
    pass(&c, HV_MS(100));
    assert_int_equal(c.sent[6], 1);
    assert_int_equal(c.sent[30], 1);
    for (int64_t id = 1; id <= 41; id += 4) {
        assert_int_equal(c.sent[id], 1);
    }
    close_core(&c);
}

/* ... with what an operator made of it. */
static void a_blocked_record_is_read_again(void **state) {
    (void)state;
    struct hv_core_config with = whole();
    struct core c = {.open = true};
    open_core(&c, &with);
    for (int64_t id = 10; id <= 40; id += 10) {
        c.there[id] = true;
        c.stuck[id] = true; /* none of them is answered */
        pass(&c, HV_MS(100));
        assert_int_equal(c.sent[id], 1);
    }
    c.there[25] = true;
    c.refused[25] = true;
    pass(&c, HV_SECONDS(4)); /* tried on both clients, blocked, read again and tried: again and again */
    int before = c.sent[25];
    assert_true(before > 2);
    c.refused[25] = false;
    c.stuck[25] = false;
    c.answered[25] = true;
    pass(&c, HV_SECONDS(2));
    assert_false(c.there[25]);
    close_core(&c);
}

/* At the bound, gaps become one over rows of a shard that is blocked, which are not kept in memory: nobody can tell any more that they were
 * seen. They are marked then, until the shard moves again. */
static void rows_of_a_blocked_shard_in_a_merged_gap_do_not_hide_those_above(void **state) {
    (void)state;
    struct hv_core_config with = whole();
    struct core c = {.open = true};
    open_core(&c, &with);
    c.there[1] = c.refused[1] = true;
    pass(&c, HV_MS(100));
    for (int64_t id = 3; id <= 57; id += 2) {
        c.there[id] = true;
        pass(&c, HV_MS(20));
    }
    c.there[60] = true;
    pass(&c, HV_SECONDS(3));
    assert_int_equal(c.sent[60], 1);
    assert_int_equal(c.claimed_by, HV_ACT_MARK);
    int before = c.sent[1];
    pass(&c, HV_SECONDS(3)); /* it is read and tried again all the while */
    assert_true(c.sent[1] > before);
    c.there[4] = true; /* between them */
    pass(&c, HV_MS(100));
    assert_int_equal(c.sent[4], 1);
    c.refused[1] = false;
    for (int64_t id = 1; id <= 57; id += 2) {
        c.answered[id] = true;
    }
    c.open = false;
    pass(&c, HV_SECONDS(5));
    for (int64_t id = 1; id <= 57; id += 2) {
        assert_false(c.there[id]);
    }
    assert_int_equal(c.claimed_by, HV_ACT_SCAN);
    close_core(&c);
}

#define WITH_BED(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_BED(it_moves_on_and_remembers_what_is_missing),
        WITH_BED(a_lost_reply_costs_nothing),
        WITH_BED(a_lost_probe_does_not_retire_a_gap),
        WITH_BED(replies_of_an_earlier_term_are_void),
        WITH_BED(a_reply_of_more_than_was_asked_for_counts_up_to_the_limit),
        WITH_BED(a_reply_that_was_cut_counts_up_to_its_last_row),
        WITH_BED(what_is_held_or_expected_or_left_is_not_strange),
        WITH_BED(it_starts_again_once_and_comes_back_before_it_looks_again),
        WITH_BED(a_new_term_is_not_bound_by_where_the_cursor_was),
        WITH_BED(a_refresh_that_can_wait_rests_after_one_that_took_long),
        WITH_BED(ids_at_the_ends_of_int8),
        WITH_BED(keys_of_which_rows_were_left_are_named),
        cmocka_unit_test(a_blocked_record_is_read_again),
        cmocka_unit_test(known_rows_in_a_merged_gap_do_not_hide_those_above),
        cmocka_unit_test(rows_of_a_blocked_shard_in_a_merged_gap_do_not_hide_those_above),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    hv_actions_free(&out);
    return failed;
}
