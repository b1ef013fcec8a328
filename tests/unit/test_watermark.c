/* core/watermark: it never passes an id that may still appear. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/watermark.h"

static hv_time now;

/* Seen up to 100, and the first question asked. */
static void begin(struct hv_watermark *mark) {
    now = 0;
    hv_watermark_restart(mark, now);
    hv_watermark_saw(mark, 100);
    assert_false(hv_watermark_wants_writers(mark, now));
    now = HV_SECONDS(2);
    assert_true(hv_watermark_wants_writers(mark, now));
    assert_false(hv_watermark_wants_writers(mark, now)); /* one question at a time */
}

static void answer(struct hv_watermark *mark, const uint64_t *hashes, size_t count) {
    hv_watermark_writers(mark, hashes, count, now);
    now += HV_SECONDS(2);
}

static void it_waits_until_the_writers_of_the_epoch_are_gone(void **state) {
    (void)state;
    struct hv_watermark mark;
    begin(&mark);
    answer(&mark, (const uint64_t[]){1, 2}, 2);
    hv_watermark_saw(&mark, 500); /* later ids do not move the candidate */
    assert_false(hv_watermark_covering(&mark));
    assert_true(hv_watermark_wants_writers(&mark, now));
    answer(&mark, (const uint64_t[]){2, 3, 4}, 3); /* 3 and 4 came later: they draw higher ids */
    assert_false(hv_watermark_covering(&mark));
    assert_true(hv_watermark_wants_writers(&mark, now));
    answer(&mark, (const uint64_t[]){3, 4}, 2);
    assert_true(hv_watermark_covering(&mark));
    assert_int_equal(mark.low, INT64_MIN);
    hv_watermark_marked(&mark, true, INT64_MIN, 700, false, now);
    assert_int_equal(mark.low, 101);
}

static void only_a_mark_that_was_sent_afterwards_counts(void **state) {
    (void)state;
    struct hv_watermark mark;
    begin(&mark);
    hv_watermark_marked(&mark, hv_watermark_covering(&mark), INT64_MIN, 100, true, now);
    answer(&mark, NULL, 0);
    hv_watermark_marked(&mark, false, INT64_MIN, 100, true, now);
    assert_int_equal(mark.low, INT64_MIN);
    hv_watermark_marked(&mark, true, INT64_MIN, 100, true, now);
    assert_int_equal(mark.low, 101);
}

static void a_mark_covers_when_it_went_past_or_found_nothing_twice(void **state) {
    (void)state;
    struct hv_watermark mark;
    begin(&mark);
    answer(&mark, NULL, 0);
    /* there may be more behind, whatever its limit was */
    hv_watermark_marked(&mark, true, INT64_MIN, 40, true, now);
    hv_watermark_marked(&mark, true, 50, 100, true, now);       /* did not look at all of them */
    assert_int_equal(mark.low, INT64_MIN);
    /* what it found may have been deleted by us */
    hv_watermark_marked(&mark, true, INT64_MIN, INT64_MIN, false, now);
    hv_watermark_marked(&mark, true, INT64_MIN, INT64_MIN, true, now);
    hv_watermark_marked(&mark, true, INT64_MIN, INT64_MIN, false, now);
    hv_watermark_marked(&mark, true, INT64_MIN, INT64_MIN, true, now);
    assert_int_equal(mark.low, INT64_MIN);
    hv_watermark_marked(&mark, true, INT64_MIN, INT64_MIN, true, now); /* nothing twice in a row */
    assert_int_equal(mark.low, 101);
    assert_false(hv_watermark_covering(&mark));
}

/* A sequence that started again, or one with a cache. */
static void rows_found_below_begin_it_anew(void **state) {
    (void)state;
    struct hv_watermark mark;
    begin(&mark);
    answer(&mark, NULL, 0);
    hv_watermark_marked(&mark, true, INT64_MIN, 100, true, now);
    assert_int_equal(mark.low, 101);
    hv_watermark_found_below(&mark, 7, now);
    assert_int_equal(mark.low, INT64_MIN);
    hv_watermark_saw(&mark, 9);
    now += HV_SECONDS(2);
    assert_true(hv_watermark_wants_writers(&mark, now));
    answer(&mark, NULL, 0);
    hv_watermark_marked(&mark, true, INT64_MIN, 12, true, now);
    assert_int_equal(mark.low, 10);
}

static void without_an_answer_or_with_too_many_it_stays(void **state) {
    (void)state;
    struct hv_watermark mark;
    begin(&mark);
    hv_watermark_unanswered(&mark, now);
    assert_false(hv_watermark_covering(&mark));
    now += HV_SECONDS(2);
    assert_true(hv_watermark_wants_writers(&mark, now));
    static uint64_t many[HV_EPOCH_MAX + 1];
    answer(&mark, many, HV_EPOCH_MAX + 1);
    assert_false(hv_watermark_covering(&mark));
    assert_true(hv_watermark_wants_writers(&mark, now));
    hv_watermark_restart(&mark, now);
    hv_watermark_writers(&mark, NULL, 0, now); /* the answer to a question of before */
    assert_false(hv_watermark_covering(&mark));
    assert_int_equal(mark.low, INT64_MIN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_waits_until_the_writers_of_the_epoch_are_gone),
        cmocka_unit_test(only_a_mark_that_was_sent_afterwards_counts),
        cmocka_unit_test(a_mark_covers_when_it_went_past_or_found_nothing_twice),
        cmocka_unit_test(rows_found_below_begin_it_anew),
        cmocka_unit_test(without_an_answer_or_with_too_many_it_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
