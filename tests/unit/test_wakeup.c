/* core/claiming with `listen`, by both strategies: what being told of rows changes, and that nothing hangs on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/claiming.h"

static const struct hv_core_config by_mark = {.listen = true,
                                              .gaps_max = 8,
                                              .list_limit = 10,
                                              .list_span = 1000,
                                              .mark_query_records = 100,
                                              .mark_query_bytes = 10000,
                                              .mark_backoff = HV_MS(10),
                                              .idle_backoff_max = HV_SECONDS(60),
                                              .io_error_backoff = HV_MS(500),
                                              .io_error_backoff_max = HV_SECONDS(5),
                                              .rescan_interval = HV_SECONDS(3600)};
static const uint8_t uuid[HV_UUID_BYTES] = {1, 2, 3};
static struct hv_random dice = {.state = 3};
static struct hv_isolation nothing_isolated;
static struct hv_actions out;

struct bed {
    struct hv_core_config config;
    struct hv_claim claim;
    hv_time now;
    int64_t last_id;
};

static int begin(void **state, bool by_cursor) {
    static struct bed bed;
    bed = (struct bed){.config = by_mark};
    bed.config.by_cursor = by_cursor;
    hv_claim_init(&bed.claim, &bed.config, &dice);
    hv_claim_restart(&bed.claim, 0);
    hv_claim_up(&bed.claim, 0);
    *state = &bed;
    return 0;
}

static int begin_by_mark(void **state) {
    return begin(state, false);
}

static int begin_by_cursor(void **state) {
    return begin(state, true);
}

static int end(void **state) {
    hv_claim_fini(&((struct bed *)*state)->claim);
    return 0;
}

/* What is sent now, or NULL; questions for writers, which are none, in between. */
static const struct hv_action *advance(struct bed *bed, uint32_t room) {
    for (;;) {
        out.count = 0;
        hv_claim_advance(&bed->claim, uuid, room, true, 1, &nothing_isolated, bed->now, &out);
        assert_true(out.count <= 1);
        if (out.count == 0 || out.list[0].type != HV_ACT_WRITERS) {
            return out.count == 0 ? NULL : &out.list[0];
        }
        hv_claim_writers(&bed->claim, NULL, 0, bed->now);
    }
}

static void expect_claim(struct bed *bed) {
    const struct hv_action *action = advance(bed, 1000);
    assert_non_null(action);
    assert_int_equal(action->type, bed->config.by_cursor ? HV_ACT_SCAN : HV_ACT_MARK);
}

static void expect_listen(bool flag) {
    assert_int_equal(out.count, 1);
    assert_int_equal(out.list[0].type, HV_ACT_LISTEN);
    assert_int_equal(out.list[0].flag, flag);
}

static void claimed(struct bed *bed, uint32_t count) {
    struct hv_claimed rows[100];
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = (struct hv_claimed){.id = ++bed->last_id, .bytes = 50};
    }
    hv_claim_marked(&bed->claim, rows, count, false, 1, bed->now);
}

/* It listens, and the wait has grown as far as it goes. */
static void be_idle(struct bed *bed) {
    advance(bed, 1000);
    expect_listen(true);
    hv_claim_listening(&bed->claim);
    do {
        bed->now = hv_time_max(bed->now, bed->claim.not_before);
        expect_claim(bed);
        claimed(bed, 0);
    } while (bed->claim.not_before - bed->now < bed->config.idle_backoff_max);
    bed->now += HV_SECONDS(1);
    assert_null(advance(bed, 1000));
}

static void a_wake_ends_the_wait_and_only_once(void **state) {
    struct bed *bed = *state;
    be_idle(bed);
    for (int i = 0; i < 3; i++) { /* many are as one */
        hv_claim_wake(&bed->claim);
    }
    assert_true(hv_claim_deadline(&bed->claim, 1000) <= bed->now);
    expect_claim(bed);
    claimed(bed, 0); /* for nothing */
    bed->now += HV_SECONDS(59);
    assert_null(advance(bed, 1000));
    assert_true(hv_claim_deadline(&bed->claim, 1000) > bed->now);
    bed->now += HV_SECONDS(2);
    expect_claim(bed); /* nobody told, all the same */
}

static void a_wake_while_a_claim_is_out_leads_to_another_one(void **state) {
    struct bed *bed = *state;
    be_idle(bed);
    hv_claim_wake(&bed->claim);
    expect_claim(bed);
    hv_claim_wake(&bed->claim); /* the claim may have begun before that row was there */
    bed->now += HV_MS(4);
    claimed(bed, 0);
    hv_time due = hv_claim_deadline(&bed->claim, 1000);
    assert_true(due <= bed->now + HV_MS(2));
    bed->now = hv_time_max(bed->now, due);
    expect_claim(bed);
}

static void a_wake_waits_for_room(void **state) {
    struct bed *bed = *state;
    be_idle(bed);
    hv_claim_wake(&bed->claim);
    assert_null(advance(bed, 3));
    bed->now += HV_SECONDS(1);
    expect_claim(bed);
}

static void under_load_claims_keep_a_pace(void **state) {
    struct bed *bed = *state;
    be_idle(bed);
    int claims = 0;
    for (hv_time until = bed->now + HV_SECONDS(1); bed->now < until; bed->now += HV_US(100)) {
        hv_claim_wake(&bed->claim);
        if (advance(bed, 1000) != NULL) {
            claims++;
            claimed(bed, 1);
        }
    }
    assert_in_range(claims, 400, 500);
}

static void a_wake_does_not_shorten_the_wait_after_an_error(void **state) {
    struct bed *bed = *state;
    be_idle(bed);
    hv_claim_wake(&bed->claim);
    expect_claim(bed);
    hv_claim_refused(&bed->claim, bed->now);
    hv_claim_wake(&bed->claim);
    bed->now += HV_MS(1);
    assert_null(advance(bed, 1000));
    assert_true(hv_claim_deadline(&bed->claim, 1000) > bed->now);
    bed->now += HV_SECONDS(1); /* more than the first wait after an error */
    expect_claim(bed);
}

static void each_session_listens_before_it_claims(void **state) {
    struct bed *bed = *state;
    be_idle(bed);
    hv_claim_down(&bed->claim, false, bed->now);
    hv_claim_up(&bed->claim, bed->now);
    assert_true(hv_claim_deadline(&bed->claim, 1000) <= bed->now);
    assert_non_null(advance(bed, 1000));
    expect_listen(true);
    assert_null(advance(bed, 1000));
    hv_claim_listening(&bed->claim);
    expect_claim(bed); /* of what was written meanwhile nobody told */
}

static void when_it_may_not_listen_it_claims(void **state) {
    struct bed *bed = *state;
    assert_non_null(advance(bed, 1000));
    expect_listen(true);
    hv_claim_refused(&bed->claim, bed->now);
    expect_claim(bed);
    claimed(bed, 0);
    bool asked_again = false;
    for (int i = 0; i < 1000 && !asked_again; i++) {
        bed->now = hv_claim_deadline(&bed->claim, 1000);
        const struct hv_action *action = advance(bed, 1000);
        asked_again = action != NULL && action->type == HV_ACT_LISTEN;
        if (action != NULL && !asked_again) {
            claimed(bed, 0);
        }
    }
    assert_true(asked_again);
    assert_true(bed->now >= HV_SECONDS(60)); /* each time it is told to the log */
}

static void who_rests_listens_no_more(void **state) {
    struct bed *bed = *state;
    out.count = 0;
    hv_claim_rest(&bed->claim, &out);
    assert_int_equal(out.count, 0);
    be_idle(bed);
    hv_claim_wake(&bed->claim);
    expect_claim(bed);
    out.count = 0;
    hv_claim_rest(&bed->claim, &out); /* a statement is out */
    assert_int_equal(out.count, 0);
    claimed(bed, 0);
    hv_claim_rest(&bed->claim, &out);
    expect_listen(false);
    hv_claim_listening(&bed->claim);
    out.count = 0;
    hv_claim_rest(&bed->claim, &out);
    assert_int_equal(out.count, 0);
    hv_claim_restart(&bed->claim, bed->now); /* it leads again */
    assert_non_null(advance(bed, 1000));
    expect_listen(true);
}

static void who_is_told_of_rows_looks_less_often(void **state) {
    struct bed *bed = *state;
    be_idle(bed);
    hv_claim_wake(&bed->claim);
    expect_claim(bed);
    claimed(bed, 1);
    int claims = 0;
    for (hv_time until = bed->now + HV_SECONDS(10); bed->now < until; bed->now += HV_US(500)) {
        if (advance(bed, 1000) != NULL) {
            claims++;
            claimed(bed, 0);
        }
    }
    assert_in_range(claims, 5, 60); /* 10 ms after the row, then after longer and longer waits */
}

static void looking_at_all_rows_again_is_not_put_off(void **state) {
    struct bed *bed = *state;
    bed->config.rescan_interval = HV_SECONDS(5);
    hv_claim_restart(&bed->claim, 0);
    advance(bed, 1000);
    hv_claim_listening(&bed->claim);
    bed->claim.next = 10;
    for (hv_time looked = 0; bed->now < HV_SECONDS(500); bed->now = hv_time_max(bed->now, hv_claim_deadline(&bed->claim, 1000))) {
        const struct hv_action *action = advance(bed, 1000);
        if (action != NULL && action->type == HV_ACT_LIST) {
            looked = bed->now;
            hv_claim_listed(&bed->claim, NULL, 0, 1, NULL, NULL, bed->now);
        } else if (action != NULL) {
            claimed(bed, 0);
        }
        assert_true(bed->now - looked <= HV_SECONDS(6));
    }
}

#define BOTH(test)                                                                                               \
    {#test " (mark)", test, begin_by_mark, end, NULL}, {#test " (cursor)", test, begin_by_cursor, end, NULL}

int main(void) {
    const struct CMUnitTest tests[] = {
        BOTH(a_wake_ends_the_wait_and_only_once),
        BOTH(a_wake_while_a_claim_is_out_leads_to_another_one),
        BOTH(a_wake_waits_for_room),
        BOTH(under_load_claims_keep_a_pace),
        BOTH(a_wake_does_not_shorten_the_wait_after_an_error),
        BOTH(each_session_listens_before_it_claims),
        BOTH(when_it_may_not_listen_it_claims),
        BOTH(who_rests_listens_no_more),
        BOTH(who_is_told_of_rows_looks_less_often),
        cmocka_unit_test_setup_teardown(looking_at_all_rows_again_is_not_put_off, begin_by_mark, end),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    hv_actions_free(&out);
    return failed;
}
