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
    claim->empty_due = 0; /* as if two marks had found nothing */
    hv_claim_up(claim, 0);
}

/* What is sent now; NULL: nothing. */
static const struct hv_action *advance(struct hv_claim *claim, uint32_t room, hv_time now) {
    out.count = 0;
    hv_claim_advance(claim, uuid, room, true, 1, &nothing_isolated, now, &out);
    assert_true(out.count <= 1);
    return out.count == 0 ? NULL : &out.list[0];
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
}

static void a_full_mark_goes_on_at_once_and_the_limit_follows_the_bytes(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    for (uint32_t limit = 4; limit < 100; limit *= 2) {
        assert_int_equal(advance(&claim, 1000, 5)->limit, limit);
        reply(&claim, limit, 50, 5);
    }
    assert_int_equal(advance(&claim, 1000, 5)->limit, 100);
    reply(&claim, 100, 5000, 10); /* large rows: two of them fill a mark */
    const struct hv_action *next = advance(&claim, 1000, 10);
    assert_non_null(next);
    assert_true(next->limit <= 4);
}

static void without_room_for_a_whole_mark_nothing_is_claimed(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_null(advance(&claim, 3, 0));
    assert_non_null(advance(&claim, 4, 0));
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
}

/* When the next claim may be sent, after one that was sent at `now` found a row and took so long. */
static hv_time wait_after_rows(struct hv_claim *claim, hv_time now, hv_time took) {
    assert_non_null(advance(claim, 1000, now));
    reply(claim, 1, 50, now + took);
    return claim->not_before - (now + took);
}

static void right_after_rows_the_wait_is_short(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_int_equal(wait_after_rows(&claim, 0, 0), HV_MS(10) / 8);
    hv_time now = claim.not_before, before = 0;
    while (now < HV_MS(500)) {
        assert_non_null(advance(&claim, 1000, now));
        reply(&claim, 0, 0, now);
        hv_time wait = claim.not_before - now;
        assert_true(wait >= before && wait <= hv_time_max(HV_MS(10) / 8, now / 2) && wait <= HV_MS(10));
        before = wait;
        now = claim.not_before;
    }
    assert_int_equal(before, HV_MS(10));
}

static void who_answers_slowly_is_asked_less_often(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    assert_int_equal(wait_after_rows(&claim, 0, HV_MS(8)), HV_MS(4));
    assert_int_equal(wait_after_rows(&claim, HV_MS(20), HV_MS(100)), HV_MS(10));
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
        if (hv_watermark_wants_writers(&claim.watermark, now)) {
            fail_msg("nothing was seen yet");
        }
    }
    assert_int_equal(advance(&claim, 1000, now)->limit, 1);
    assert_null(claim.refresh);
}

static void rows_below_the_watermark_are_found_by_a_rescan(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    claim.watermark.low = 1000;
    assert_int_equal(advance(&claim, 1000, HV_MS(1))->from_id, 1000);
    reply(&claim, 0, 0, HV_MS(1));
    assert_int_equal(advance(&claim, 1000, HV_SECONDS(3600))->from_id, INT64_MIN);
    reply(&claim, 0, 0, HV_SECONDS(3600));
    assert_int_equal(advance(&claim, 1000, HV_SECONDS(3601))->from_id, 1000);
}

/* Rows that were found again are deleted under the mark's hands: its reply is short, and says nothing of what is behind them. */
static void after_a_refresh_a_short_reply_is_not_the_end(void **state) {
    (void)state;
    struct hv_claim claim;
    begin(&claim);
    hv_claim_restart(&claim, HV_SECONDS(1));
    hv_time now = HV_SECONDS(1);
    static const uint32_t counts[] = {3, 0, 2, 0, 0};
    for (int i = 0; i < 5; i++) {
        const struct hv_action *action = advance(&claim, 1000, now);
        assert_non_null(action);
        assert_int_equal(action->type, HV_ACT_MARK);
        reply(&claim, counts[i], 10, now);
        now += HV_MS(5);
    }
    assert_int_equal(claim.empty_due, 0);
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
        cmocka_unit_test(after_a_refresh_a_short_reply_is_not_the_end),
        cmocka_unit_test(rows_below_the_watermark_are_found_by_a_rescan),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    hv_actions_free(&out);
    return failed;
}
