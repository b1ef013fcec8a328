/* What is learned of topics: when they are in doubt, for how long, that one refusal costs nothing; which records are like those that were
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/doubt.h"

static bool in_doubt(const struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    const struct hv_slot slot = {.topic = topic, .bytes = 1, .key = 1};
    return hv_doubts_way(doubts, &slot, now) == HV_WAY_APART;
}

static void refuse_alone(struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    static uint64_t key = 2; /* another each time */
    const struct hv_slot slot = {.topic = topic, .bytes = 1, .key = key++ % HV_REPUTES};
    hv_doubts_refused_alone(doubts, &slot, false, false, now);
}

static void one_refused_batch_is_no_doubt(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    for (int i = 0; i < 500; i++) { /* the reports of one client come in several turns */
        hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(5) + i * 100);
    }
    assert_false(in_doubt(&doubts, 7, HV_SECONDS(5) + 50000));
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(30));
    assert_false(in_doubt(&doubts, 7, HV_SECONDS(30)));
    refuse_alone(&doubts, 9, HV_SECONDS(40)); /* nor does one that is tried again and again make it the second */
    hv_doubts_batch_refused(&doubts, 9, HV_SECONDS(41));
    assert_false(in_doubt(&doubts, 9, HV_SECONDS(41)));
    hv_doubts_batch_refused(&doubts, 9, HV_SECONDS(42));
    assert_true(in_doubt(&doubts, 9, HV_SECONDS(42)));
    hv_doubts_fini(&doubts);
}

static void each_further_one_doubles_the_time(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    hv_time now = HV_SECONDS(1), span = 0, before = 0;
    hv_doubts_batch_refused(&doubts, 7, now);
    for (int i = 0; i < 12; i++) {
        now += HV_SECONDS(1);
        hv_doubts_batch_refused(&doubts, 7, now);
        for (span = 0; in_doubt(&doubts, 7, now); now += HV_MS(50)) {
            span += HV_MS(50);
        }
        assert_true(span == (before == 0 ? HV_MS(250) : hv_time_min(2 * before, HV_SECONDS(60))));
        assert_false(in_doubt(&doubts, 8, now - HV_MS(200)));
        before = span;
    }
    assert_int_equal(before, HV_SECONDS(60));
    hv_doubts_batch_refused(&doubts, 7, now + HV_SECONDS(11)); /* all was well meanwhile: the first again */
    assert_false(in_doubt(&doubts, 7, now + HV_SECONDS(11)));
    hv_doubts_fini(&doubts);
}

/* One bad record in thousands: batches are worth what they cost. */
static void no_doubt_while_many_pass_in_between(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    for (int i = 0; i < 20; i++) {
        hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(i));
        assert_false(in_doubt(&doubts, 7, HV_SECONDS(i)));
        for (int n = 0; n < 2000; n++) {
            hv_doubts_passed(&doubts, 7);
        }
    }
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(20));
    for (int n = 0; n < 1999; n++) {
        hv_doubts_passed(&doubts, 7);
        hv_doubts_passed(&doubts, 8);
    }
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(21));
    assert_true(in_doubt(&doubts, 7, HV_SECONDS(21)));
    hv_doubts_fini(&doubts);
}

static void it_lasts_as_long_as_records_are_refused_alone(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    refuse_alone(&doubts, 7, 0);
    assert_false(in_doubt(&doubts, 7, 0));
    hv_doubts_batch_refused(&doubts, 7, 0);
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(1));
    for (hv_time now = HV_SECONDS(1); now < HV_SECONDS(100); now += HV_MS(200)) {
        assert_true(in_doubt(&doubts, 7, now));
        refuse_alone(&doubts, 7, now);
    }
    refuse_alone(&doubts, 8, HV_SECONDS(100));
    assert_false(in_doubt(&doubts, 7, HV_SECONDS(102)));
    assert_false(in_doubt(&doubts, 8, HV_SECONDS(100)));
    hv_doubts_fini(&doubts);
}

static void of_too_many_topics_the_oldest_is_forgotten(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    for (int twice = 0; twice < 2; twice++) {
        for (uint32_t topic = 0; topic <= HV_DOUBTS_MAX; topic++) {
            hv_doubts_batch_refused(&doubts, topic, HV_SECONDS(1) * twice + HV_MS(topic));
        }
    }
    assert_int_equal(doubts.count, HV_DOUBTS_MAX);
    hv_time now = HV_SECONDS(10);
    hv_doubts_batch_refused(&doubts, HV_DOUBTS_MAX, now);
    assert_true(in_doubt(&doubts, HV_DOUBTS_MAX, now));
    hv_doubts_batch_refused(&doubts, 1000, HV_SECONDS(60)); /* all others are over */
    assert_int_equal(doubts.count, 1);
    hv_doubts_fini(&doubts);
}

static enum hv_way way(const struct hv_doubts *doubts, uint32_t topic, uint32_t bytes) {
    const struct hv_slot slot = {.topic = topic, .bytes = bytes, .key = 1};
    return hv_doubts_way(doubts, &slot, HV_SECONDS(20));
}

/* Those that are as large as one that was too large go alone, until one of them passes. */
static void what_is_as_large_goes_alone(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    struct hv_slot slot = {.topic = 7, .bytes = 5000};
    hv_doubts_refused_alone(&doubts, &slot, true, false, 0);
    slot.bytes = 3000;
    hv_doubts_refused_alone(&doubts, &slot, true, true, 0);
    slot.bytes = 4000;
    hv_doubts_refused_alone(&doubts, &slot, true, false, 0);
    assert_int_equal(way(&doubts, 7, 2999), HV_WAY_OF_ALL);
    assert_int_equal(way(&doubts, 7, 3000), HV_WAY_ALONE);
    assert_int_equal(way(&doubts, 7, UINT32_MAX - 1), HV_WAY_ALONE);
    assert_int_equal(way(&doubts, 8, 5000), HV_WAY_OF_ALL);
    slot.bytes = 3500; /* the topic's limit was raised */
    hv_doubts_passed_alone(&doubts, &slot, false, HV_SECONDS(20));
    assert_int_equal(way(&doubts, 7, 3500), HV_WAY_OF_ALL);
    assert_int_equal(way(&doubts, 7, 3501), HV_WAY_ALONE);
    slot.bytes = 10;
    hv_doubts_passed_alone(&doubts, &slot, false, HV_SECONDS(20));
    assert_int_equal(way(&doubts, 7, 3501), HV_WAY_ALONE);
    hv_doubts_fini(&doubts);
}

/* What they compress to may be what counts. */
static void likeness_that_misleads_is_given_up(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    const struct hv_slot slot = {.topic = 7, .bytes = 5000};
    for (int i = 0; i < 3; i++) { /* a raised limit is learned from */
        hv_doubts_refused_alone(&doubts, &slot, true, false, 0);
        assert_int_equal(way(&doubts, 7, 5000), HV_WAY_ALONE);
        hv_doubts_passed_alone(&doubts, &slot, false, 0);
        assert_int_equal(way(&doubts, 7, 5000), HV_WAY_OF_ALL);
        assert_int_equal(way(&doubts, 7, 5001), HV_WAY_ALONE);
    }
    for (int i = 0; i < 6; i++) { /* ... and restored by what is refused */
        hv_doubts_refused_alone(&doubts, &slot, true, false, 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(way(&doubts, 7, 5000), HV_WAY_ALONE);
        hv_doubts_passed_alone(&doubts, &slot, false, 0);
        assert_int_equal(way(&doubts, 7, 6000), i < 3 ? HV_WAY_ALONE : HV_WAY_OF_ALL);
        hv_doubts_refused_alone(&doubts, &slot, true, false, 0);
    }
    assert_int_equal(way(&doubts, 7, 5000), HV_WAY_OF_ALL);
    hv_doubts_forget_old(&doubts, HV_SECONDS(599));
    hv_doubts_refused_alone(&doubts, &slot, true, false, HV_SECONDS(599));
    assert_int_equal(way(&doubts, 7, 5000), HV_WAY_OF_ALL);
    hv_doubts_forget_old(&doubts, HV_SECONDS(620));
    hv_doubts_refused_alone(&doubts, &slot, true, false, HV_SECONDS(620)); /* it begins anew */
    assert_int_equal(way(&doubts, 7, 5000), HV_WAY_ALONE);
    hv_doubts_fini(&doubts);
}

static enum hv_way way_of_key(const struct hv_doubts *doubts, uint64_t key, hv_time now) {
    const struct hv_slot slot = {.topic = 7, .bytes = 1, .key = key};
    return hv_doubts_way(doubts, &slot, now);
}

/* After one of its records was refused a key goes alone, until enough of it passed, or the record itself, or ten seconds did. */
static void a_key_loses_its_repute_for_a_while(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    struct hv_slot slot = {.topic = 7, .bytes = 1, .key = 5};
    hv_doubts_refused_alone(&doubts, &slot, false, false, 0);
    assert_int_equal(way_of_key(&doubts, 5, 1), HV_WAY_ALONE);
    assert_int_equal(way_of_key(&doubts, 5 + HV_REPUTES, 1), HV_WAY_OF_ALL);
    assert_int_equal(way_of_key(&doubts, 5, HV_SECONDS(10)), HV_WAY_OF_ALL);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(way_of_key(&doubts, 5, 1), HV_WAY_ALONE);
        hv_doubts_passed_alone(&doubts, &slot, false, 1);
    }
    assert_int_equal(way_of_key(&doubts, 5, 1), HV_WAY_OF_ALL);
    hv_doubts_refused_alone(&doubts, &slot, false, true, 2);
    hv_doubts_passed_alone(&doubts, &slot, true, 3);
    assert_int_equal(way_of_key(&doubts, 5, 3), HV_WAY_OF_ALL);
    hv_doubts_fini(&doubts);
}

/* What was foreseen took no batch with it: no reason to hold up all others for longer. */
static void what_was_foretold_is_no_reason_for_doubt(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    struct hv_slot slot = {.topic = 7, .bytes = 5000};
    hv_doubts_batch_refused(&doubts, 7, 0);
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(1));
    for (hv_time now = HV_SECONDS(1); now < HV_SECONDS(5); now += HV_MS(50)) {
        assert_true(in_doubt(&doubts, 7, now) == (now < HV_MS(1250)));
        hv_doubts_refused_alone(&doubts, &slot, true, false, now);
    }
    hv_doubts_fini(&doubts);
}

/* ... for ten minutes, while doubts come and go. */
static void likeness_is_forgotten_after_a_while(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    const struct hv_slot slot = {.topic = 7, .bytes = 5000};
    hv_doubts_refused_alone(&doubts, &slot, true, false, 0);
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(100));
    assert_false(in_doubt(&doubts, 7, HV_SECONDS(100)));
    hv_doubts_forget_old(&doubts, HV_SECONDS(599));
    assert_int_equal(hv_doubts_way(&doubts, &slot, HV_SECONDS(599)), HV_WAY_ALONE);
    hv_doubts_refused_alone(&doubts, &slot, true, true, HV_SECONDS(599));
    hv_doubts_forget_old(&doubts, HV_SECONDS(1198));
    assert_int_equal(doubts.count, 1);
    hv_doubts_forget_old(&doubts, HV_SECONDS(1200));
    assert_int_equal(doubts.count, 0);
    hv_doubts_fini(&doubts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_refused_batch_is_no_doubt),
        cmocka_unit_test(each_further_one_doubles_the_time),
        cmocka_unit_test(no_doubt_while_many_pass_in_between),
        cmocka_unit_test(it_lasts_as_long_as_records_are_refused_alone),
        cmocka_unit_test(what_is_as_large_goes_alone),
        cmocka_unit_test(likeness_that_misleads_is_given_up),
        cmocka_unit_test(a_key_loses_its_repute_for_a_while),
        cmocka_unit_test(what_was_foretold_is_no_reason_for_doubt),
        cmocka_unit_test(likeness_is_forgotten_after_a_while),
        cmocka_unit_test(of_too_many_topics_the_oldest_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
