/* core/claiming: when to mark, how much, and what an unknown outcome leads to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/claiming.h"

static const struct hv_core_config config = {.gaps_max = 8,
                                             .list_limit = 100,
                                             .list_span = 1000,
                                             .mark_query_records = 100,
                                             .mark_query_bytes = 10000,
                                             .mark_backoff = HV_MS(10),
                                             .idle_backoff_max = HV_MS(100),
                                             .io_error_backoff = HV_MS(500),
                                             .io_error_backoff_max = HV_SECONDS(5),
                                             .rescan_interval = HV_SECONDS(3600)};
static const uint8_t uuid[HV_UUID_BYTES] = {1, 2, 3};
static struct hv_random dice = {.state = 3};
static struct hv_isolation nothing_isolated;
static struct hv_actions out;

static void begin(struct hv_claim *claim) {
    hv_claim_init(claim, &config, &dice);
    hv_claim_restart(claim, 0);
    hv_claim_up(claim, 0);
}

/* What is sent now; NULL: nothing. */
static const struct hv_action *advance(struct hv_claim *claim, uint32_t room, hv_time now) {
    out.count = 0;
    hv_claim_advance(claim, uuid, room, true, 1, &nothing_isolated, now, &out);
    assert_true(out.count <= 1);
    return out.count == 0 ? NULL : &out.list[0];
}

/* ... after the question for writers, which finds none. */
static const struct hv_action *advance_past_writers(struct hv_claim *claim, hv_time now) {
    const struct hv_action *action = advance(claim, 1000, now);
    if (action != NULL && action->type == HV_ACT_WRITERS) {
        hv_claim_writers(claim, NULL, 0, now);
        action = advance(claim, 1000, now);
    }
    return action;
}

static void reply(struct hv_claim *claim, uint32_t count, uint32_t bytes, hv_time now) {
    static int64_t id;
    struct hv_claimed rows[100];
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = (struct hv_claimed){.id = ++id, .bytes = bytes};
    }
    hv_claim_marked(claim, rows, count, false, 1, now);
}

static void one_statement_at_a_time(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_int_equal(advance(&claim, 1000, 0)->type, HV_ACT_MARK);
    assert_memory_equal(out.list[0].uuid, uuid, HV_UUID_BYTES);
    assert_null(advance(&claim, 1000, HV_SECONDS(100)));
    assert_int_equal(hv_claim_deadline(&claim, 1000), HV_NEVER);
    hv_claim_fini(&claim);
}

static void a_full_mark_goes_on_at_once_and_the_limit_follows_the_bytes(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    for (uint32_t limit = 4; limit < 100; limit *= 2) {
        assert_int_equal(advance_past_writers(&claim, 5)->limit, limit);
        reply(&claim, limit, 50, 5);
    }
    assert_int_equal(advance(&claim, 1000, 5)->limit, 100);
    reply(&claim, 100, 5000, 10); /* large rows: two of them fill a mark */
    const struct hv_action *next = advance(&claim, 1000, 10);
    assert_non_null(next);
    assert_true(next->limit <= 4);
    hv_claim_fini(&claim);
}

static void without_room_for_a_whole_mark_nothing_is_claimed(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_null(advance(&claim, 3, 0));
    assert_non_null(advance(&claim, 4, 0));
    hv_claim_fini(&claim);
}

static void while_no_rows_come_the_wait_grows(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    hv_time now = 0, last = 0, longest = 0;
    for (int i = 0; i < 500; i++) {
        const struct hv_action *action = advance(&claim, 1000, now);
        if (action != NULL && action->type == HV_ACT_WRITERS) {
            hv_claim_writers(&claim, NULL, 0, now);
        } else if (action != NULL) {
            longest = hv_time_max(longest, now - last);
            last = now;
            reply(&claim, 0, 0, now);
        }
        assert_true(hv_claim_deadline(&claim, 1000) > now);
        now = hv_claim_deadline(&claim, 1000);
        if (now < HV_SECONDS(1)) {
            assert_true(longest <= HV_MS(10));
        }
    }
    assert_int_equal(longest, HV_MS(100));
    hv_claim_fini(&claim);
}

/* When the next claim may be sent, after one that was sent at `now` found a row and took so long. */
static hv_time wait_after_rows(struct hv_claim *claim, hv_time now, hv_time took) {
    assert_non_null(advance_past_writers(claim, now));
    reply(claim, 1, 50, now + took);
    return claim->not_before - (now + took);
}

static void right_after_rows_the_wait_is_short(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_int_equal(wait_after_rows(&claim, 0, 0), HV_MS(10) / 10);
    hv_time now = claim.not_before, before = 0;
    while (now < HV_MS(500)) {
        assert_non_null(advance_past_writers(&claim, now));
        reply(&claim, 0, 0, now);
        hv_time wait = claim.not_before - now;
        assert_true(wait >= before && wait <= hv_time_max(HV_MS(10) / 10, now / 4) && wait <= HV_MS(10));
        before = wait;
        now = claim.not_before;
    }
    assert_int_equal(before, HV_MS(10));
    hv_claim_fini(&claim);
}

static void who_answers_slowly_is_asked_less_often(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_int_equal(wait_after_rows(&claim, 0, HV_MS(8)), HV_MS(4));
    assert_int_equal(wait_after_rows(&claim, HV_MS(20), HV_MS(100)), HV_MS(10));
    hv_claim_fini(&claim);
}

static void a_mark_of_unknown_outcome_asks_for_a_refresh(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    advance(&claim, 1000, 0);
    hv_claim_down(&claim, true, 1);
    assert_non_null(claim.refresh);
    hv_claim_up(&claim, 2);
    hv_claim_restart(&claim, 2);
    assert_null(claim.refresh);
    assert_int_equal(advance(&claim, 1000, 2)->from_id, INT64_MIN);
    hv_claim_down(&claim, false, 3); /* it was not sent */
    assert_null(claim.refresh);
    hv_claim_up(&claim, 2);
    hv_claim_down(&claim, true, 4); /* no mark was out */
    assert_null(claim.refresh);
    hv_claim_fini(&claim);
}

static void a_refused_mark_is_repeated_later_and_smaller(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    hv_time now = 0;
    for (uint32_t limit = 4; limit > 0; limit /= 2) {
        assert_int_equal(advance(&claim, 1000, now)->limit, limit);
        hv_claim_refused(&claim, now);
        assert_null(advance(&claim, 1000, now + HV_MS(200)));
        now += HV_SECONDS(5);
    }
    assert_int_equal(advance(&claim, 1000, now)->limit, 1);
    assert_null(claim.refresh);
    hv_claim_fini(&claim);
}

/* ---- what is missing ---- */

/* It marks now, what is above `from` and in so many gaps. */
static const struct hv_action *marks(struct hv_claim *claim, int64_t from, size_t gaps, bool alone, hv_time now) {
    out.count = 0;
    hv_claim_advance(claim, uuid, 1000, alone, 1, &nothing_isolated, now, &out);
    assert_int_equal(out.count, 1);
    assert_int_equal(out.list[0].type, HV_ACT_MARK);
    assert_int_equal(out.list[0].from_id, from);
    assert_int_equal(out.list[0].gap_count, gaps);
    return &out.list[0];
}

static void marked(struct hv_claim *claim, const int64_t *ids, size_t count, hv_time now) {
    struct hv_claimed rows[10];
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct hv_claimed){.id = ids[i], .bytes = 10};
    }
    assert_int_equal(hv_claim_marked(claim, rows, count, false, 1, now), count);
}

#define IDS(...) (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

static void writers(struct hv_claim *claim, uint64_t one, hv_time now) {
    assert_int_equal(advance(claim, 1000, now)->type, HV_ACT_WRITERS);
    hv_claim_writers(claim, &one, one != 0, now);
}

static void what_is_missing_is_in_gaps_until_its_writers_are_gone(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    marks(&claim, INT64_MIN, 0, false, 0);
    marked(&claim, IDS(10, 12, 13), 0);
    writers(&claim, 7, 0);
    const struct hv_action *mark = marks(&claim, 14, 2, false, HV_MS(20));
    assert_int_equal(mark->gaps[0].lo, INT64_MIN);
    assert_int_equal(mark->gaps[0].hi, 9);
    assert_int_equal(mark->gaps[1].lo, 11);
    assert_int_equal(mark->gaps[1].hi, 11);
    marked(&claim, IDS(14), HV_MS(20));
    marks(&claim, 15, 2, false, HV_MS(40)); /* it still writes */
    marked(&claim, IDS(15), HV_MS(40));
    writers(&claim, 0, HV_MS(60));
    marks(&claim, 16, 2, false, HV_MS(80));
    marked(&claim, IDS(11), HV_MS(80)); /* what is behind that was looked at as far as 11 only */
    assert_int_equal(hv_claim_low(&claim), 16);
    hv_claim_fini(&claim);
}

/* A mark that finds nothing may have found what was deleted under its hands: its limit was used up, and others are left. */
static void an_empty_mark_decides_when_it_was_alone_twice(void **state) {
    (void)state;
    static const bool alone[] = {true, false, true, true};
    struct hv_claim claim;
    begin(&claim);
    marks(&claim, INT64_MIN, 0, true, 0);
    marked(&claim, IDS(10, 12), 0);
    writers(&claim, 7, 0);
    marks(&claim, 13, 2, true, HV_MS(20));
    marked(&claim, NULL, 0, HV_MS(20)); /* that was before */
    writers(&claim, 0, HV_MS(60));
    for (int i = 0; i < 4; i++) {
        marks(&claim, 13, 2, alone[i], HV_MS(80 + 20 * i));
        marked(&claim, NULL, 0, HV_MS(80 + 20 * i));
    }
    marks(&claim, 13, 0, true, HV_MS(180));
    hv_claim_fini(&claim);
}

/* After a refresh what we hold is not marked anew yet. If it is deleted meanwhile, a mark may have used up its limit for that. */
static void after_a_refresh_a_mark_counts_when_nothing_was_deleted(void **state) {
    (void)state;
    struct hv_core_config patient = config;
    struct hv_claim claim;
    patient.mark_backoff = patient.idle_backoff_max = HV_SECONDS(60);
    hv_claim_init(&claim, &patient, &dice);
    hv_claim_restart(&claim, 0);
    hv_claim_up(&claim, 0);
    hv_time now = 0;
    for (int i = 0; i < 4; i++) {
        marks(&claim, INT64_MIN, 0, i != 1, now); /* of a purge that is out, or comes, or... */
        if (i == 0) {
            hv_claim_deleting(&claim);
        }
        marked(&claim, NULL, 0, now);
        assert_true(claim.not_before <= now + HV_MS(10) || i >= 2);
        now = claim.not_before;
    }
    assert_true(now > HV_SECONDS(1)); /* ... nothing: then it was all there is */
    hv_claim_fini(&claim);
}

/* Rows that are held get another version by being marked: while that may happen, nobody may delete them in the version that they had. */
static void until_all_that_is_held_was_marked_it_takes_turns_with_the_other_connection(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_false(hv_claim_takes_turns(&claim)); /* nothing is held */
    marks(&claim, INT64_MIN, 0, true, 0);
    marked(&claim, IDS(10, 11, 12, 13), 0);
    assert_false(hv_claim_takes_turns(&claim));
    for (int i = 0; i < 2; i++) {
        hv_claim_restart(&claim, i); /* another leader id */
        assert_true(hv_claim_takes_turns(&claim));
        assert_non_null(advance_past_writers(&claim, HV_SECONDS(i + 1)));
        claim.asked_limit = 2;
        marked(&claim, IDS(10, 11), HV_SECONDS(i + 1));
        assert_true(hv_claim_takes_turns(&claim)); /* there is more */
    }
    hv_claim_down(&claim, false, 2);
    hv_claim_up(&claim, 2);
    hv_claim_restart(&claim, 2); /* 12 and 13 are still to come */
    assert_non_null(advance_past_writers(&claim, HV_SECONDS(3)));
    claim.asked_limit = 1;
    marked(&claim, IDS(12), HV_SECONDS(3));
    assert_true(hv_claim_takes_turns(&claim));
    assert_non_null(advance_past_writers(&claim, HV_SECONDS(3)));
    marked(&claim, IDS(13), HV_SECONDS(3));
    assert_false(hv_claim_takes_turns(&claim));
    hv_claim_down(&claim, false, HV_SECONDS(4));
    hv_claim_up(&claim, HV_SECONDS(4));
    assert_false(hv_claim_takes_turns(&claim)); /* all carries the leader id */
    hv_claim_restart(&claim, HV_SECONDS(4));
    assert_true(hv_claim_takes_turns(&claim));
    assert_non_null(advance_past_writers(&claim, HV_SECONDS(4)));
    const struct hv_claimed large = {.id = 10, .bytes = 10000};
    assert_int_equal(hv_claim_marked(&claim, &large, 1, false, 1, HV_SECONDS(4)), 1);
    assert_true(hv_claim_takes_turns(&claim)); /* what else there is may have been too much for one reply */
    assert_non_null(advance_past_writers(&claim, HV_SECONDS(5)));
    marked(&claim, IDS(11), HV_SECONDS(5));
    assert_false(hv_claim_takes_turns(&claim)); /* that was all; the others are gone */
    hv_claim_fini(&claim);
}

/* Ids drawn long before they were written, and a sequence that starts again. */
static void a_row_that_nobody_knows_of_makes_it_mark_from_the_first_id_on(void **state) {
    (void)state;
    struct hv_claim claim;
    struct hv_slots slots;
    struct hv_shards shards = {.count = 2};
    struct hv_isolation iso = {.shards = &shards};
    hv_slots_init(&slots, 10);
    begin(&claim);
    marks(&claim, INT64_MIN, 0, true, 0);
    marked(&claim, IDS(10, 11), 0);
    writers(&claim, 0, 0);
    marks(&claim, 12, 1, true, HV_MS(20));
    marked(&claim, IDS(12), HV_MS(20));
    const struct hv_action *list = advance(&claim, 1000, HV_SECONDS(3600));
    assert_int_equal(list->type, HV_ACT_LIST);
    assert_int_equal(list->to_id, 12);
    struct hv_claimed row = {.id = 3};
    hv_claim_listed(&claim, &row, 1, 1, &slots, &iso, HV_SECONDS(3600));
    marks(&claim, INT64_MIN, 0, true, HV_SECONDS(3600));
    marked(&claim, IDS(3, 4), HV_SECONDS(3600)); /* those that were marked do not come again */
    assert_int_equal(claim.next, 5);
    hv_claim_fini(&claim);
    hv_slots_fini(&slots);
}

/* Of rows that nobody holds the version before need not be told. */
static void above_all_that_was_ever_seen_rows_are_new(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_true(advance(&claim, 1000, 0)->flag);
    marked(&claim, IDS(1, 2, 3, 4), 0);
    assert_true(advance_past_writers(&claim, 0)->flag);
    marked(&claim, IDS(5, 6, 7, 8, 9), 0);
    hv_claim_restart(&claim, 0);
    assert_false(advance_past_writers(&claim, 0)->flag);
    marked(&claim, IDS(1, 2, 3, 4, 5, 6, 7, 8), HV_MS(1));
    assert_false(advance_past_writers(&claim, HV_SECONDS(1))->flag);
    marked(&claim, IDS(9), HV_SECONDS(1));
    assert_true(advance_past_writers(&claim, HV_SECONDS(2))->flag);
    marked(&claim, IDS(INT64_MAX), HV_SECONDS(2));
    assert_false(advance_past_writers(&claim, HV_SECONDS(3))->flag);
    hv_claim_fini(&claim);
}

/* ---- crowded gaps ---- */

static void took(struct hv_claim *claim, size_t kept, size_t come_again, bool cut, hv_time now) {
    claim->was_cut = cut;
    hv_claim_took(claim, kept, come_again, 100, now);
}

static void scans_that_bring_little_else_lead_to_marks_until_the_next_refresh(void **state) {
    (void)state;
    struct hv_claim claim;
    struct hv_core_config by_cursor = config;
    by_cursor.by_cursor = true;
    hv_claim_init(&claim, &by_cursor, &dice);
    hv_claim_restart(&claim, 0);
    hv_claim_up(&claim, 0);
    assert_int_equal(advance(&claim, 1000, 0)->type, HV_ACT_SCAN);
    took(&claim, 1, 3, true, HV_MS(1));
    took(&claim, 2, 2, true, HV_MS(900)); /* as much of use: it moves on */
    took(&claim, 0, 4, true, HV_MS(1000));
    took(&claim, 0, 4, false, HV_MS(1500)); /* the rest came too, and they are few */
    took(&claim, 0, 150, false, HV_MS(2000)); /* many each time */
    took(&claim, 1, 0, false, HV_MS(2100));
    took(&claim, 0, 4, true, HV_MS(3000));
    took(&claim, 0, 1, true, HV_MS(3900));
    assert_null(claim.refresh);
    took(&claim, 124, 126, false, HV_MS(4000));
    assert_non_null(claim.refresh);
    claim.state = HV_CLAIM_IDLE;
    hv_claim_restart(&claim, HV_MS(4000));
    assert_null(claim.refresh);
    assert_int_equal(advance(&claim, 1000, HV_MS(4000))->type, HV_ACT_MARK);
    assert_false(hv_claim_comes_again(&claim, 5));
    hv_claim_down(&claim, true, HV_MS(4000));
    assert_non_null(claim.refresh); /* a mark's outcome counts */
    hv_claim_up(&claim, HV_MS(4000));
    hv_claim_restart(&claim, HV_MS(4000));
    assert_int_equal(advance(&claim, 1000, HV_MS(4000))->type, HV_ACT_SCAN);
    hv_claim_fini(&claim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_statement_at_a_time),
        cmocka_unit_test(a_full_mark_goes_on_at_once_and_the_limit_follows_the_bytes),
        cmocka_unit_test(without_room_for_a_whole_mark_nothing_is_claimed),
        cmocka_unit_test(while_no_rows_come_the_wait_grows),
        cmocka_unit_test(right_after_rows_the_wait_is_short),
        cmocka_unit_test(who_answers_slowly_is_asked_less_often),
        cmocka_unit_test(a_mark_of_unknown_outcome_asks_for_a_refresh),
        cmocka_unit_test(a_refused_mark_is_repeated_later_and_smaller),
        cmocka_unit_test(what_is_missing_is_in_gaps_until_its_writers_are_gone),
        cmocka_unit_test(an_empty_mark_decides_when_it_was_alone_twice),
        cmocka_unit_test(after_a_refresh_a_mark_counts_when_nothing_was_deleted),
        cmocka_unit_test(until_all_that_is_held_was_marked_it_takes_turns_with_the_other_connection),
        cmocka_unit_test(a_row_that_nobody_knows_of_makes_it_mark_from_the_first_id_on),
        cmocka_unit_test(above_all_that_was_ever_seen_rows_are_new),
        cmocka_unit_test(scans_that_bring_little_else_lead_to_marks_until_the_next_refresh),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    hv_actions_free(&out);
    return failed;
}
