/* Topics in doubt: when they are, for how long, and that one refusal costs nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/doubt.h"

static void one_refused_batch_is_no_doubt(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    for (int i = 0; i < 500; i++) { /* the reports of one client come in several turns */
        hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(5) + i * 100);
    }
    assert_false(hv_doubts_has(&doubts, 7, HV_SECONDS(5) + 50000));
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(30));
    assert_false(hv_doubts_has(&doubts, 7, HV_SECONDS(30)));
}

static void each_further_one_doubles_the_time(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    hv_time now = HV_SECONDS(1), span = 0, before = 0;
    hv_doubts_batch_refused(&doubts, 7, now);
    for (int i = 0; i < 12; i++) {
        now += HV_SECONDS(1);
        hv_doubts_batch_refused(&doubts, 7, now);
        for (span = 0; hv_doubts_has(&doubts, 7, now); now += HV_MS(100)) {
            span += HV_MS(100);
        }
        assert_true(span == (before == 0 ? HV_SECONDS(1) : hv_time_min(2 * before, HV_SECONDS(60))));
        assert_false(hv_doubts_has(&doubts, 8, now - HV_MS(200)));
        before = span;
    }
    assert_int_equal(before, HV_SECONDS(60));
    hv_doubts_batch_refused(&doubts, 7, now + HV_SECONDS(11)); /* all was well meanwhile: the first again */
    assert_false(hv_doubts_has(&doubts, 7, now + HV_SECONDS(11)));
}

/* One bad record in thousands: batches are worth what they cost. */
static void no_doubt_while_many_pass_in_between(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    for (int i = 0; i < 20; i++) {
        hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(i));
        assert_false(hv_doubts_has(&doubts, 7, HV_SECONDS(i)));
        for (int n = 0; n < 500; n++) {
            hv_doubts_passed(&doubts, 7);
        }
    }
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(20));
    for (int n = 0; n < 499; n++) {
        hv_doubts_passed(&doubts, 7);
        hv_doubts_passed(&doubts, 8);
    }
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(21));
    assert_true(hv_doubts_has(&doubts, 7, HV_SECONDS(21)));
}

static void it_lasts_as_long_as_records_are_refused_alone(void **state) {
    (void)state;
    struct hv_doubts doubts = {.count = 0};
    hv_doubts_refused_alone(&doubts, 7, 0);
    assert_false(hv_doubts_has(&doubts, 7, 0));
    hv_doubts_batch_refused(&doubts, 7, 0);
    hv_doubts_batch_refused(&doubts, 7, HV_SECONDS(1));
    for (hv_time now = HV_SECONDS(1); now < HV_SECONDS(100); now += HV_MS(900)) {
        assert_true(hv_doubts_has(&doubts, 7, now));
        hv_doubts_refused_alone(&doubts, 7, now);
    }
    hv_doubts_refused_alone(&doubts, 8, HV_SECONDS(100));
    assert_false(hv_doubts_has(&doubts, 7, HV_SECONDS(102)));
    assert_false(hv_doubts_has(&doubts, 8, HV_SECONDS(100)));
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
    assert_true(hv_doubts_has(&doubts, HV_DOUBTS_MAX, now));
    hv_doubts_batch_refused(&doubts, 1000, HV_SECONDS(60)); /* all others are over */
    assert_int_equal(doubts.count, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_refused_batch_is_no_doubt),
        cmocka_unit_test(each_further_one_doubles_the_time),
        cmocka_unit_test(no_doubt_while_many_pass_in_between),
        cmocka_unit_test(it_lasts_as_long_as_records_are_refused_alone),
        cmocka_unit_test(of_too_many_topics_the_oldest_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
