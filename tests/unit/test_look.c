/* core/look: all ids, in pages that take about as long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/look.h"

#define SPAN 999
#define WAY HV_MS(30) /* of any statement: the server is far away */

struct table {
    int64_t lo, hi;  /* ids of dead rows, none missing */
    int64_t per_ms;  /* of them that are walked in a millisecond */
    struct hv_look look;
    hv_time now, longest;
    int pages;
};

static void begin(struct table *t, int64_t highest) {
    t->longest = t->pages = 0;
    hv_look_begin(&t->look, highest, t->now + HV_SECONDS(100));
}

/* One page; returns where it began. Every id is looked at once. */
static int64_t page(struct table *t) {
    int64_t to = t->look.to;
    hv_look_ask(&t->look, t->now);
    assert_int_equal(t->look.to, to);
    int64_t from = t->look.from > t->lo ? t->look.from : t->lo, until = to < t->hi ? to : t->hi;
    hv_time took = WAY + (until >= from ? HV_MS(1) * (until - from + 1) / t->per_ms : 0);
    t->now += took;
    t->longest = hv_time_max(t->longest, took);
    t->pages++;
    from = t->look.from;
    hv_look_turn(&t->look, false, 0, t->now);
    if (from > INT64_MIN) {
        assert_true(t->look.under_way);
        assert_int_equal(t->look.to, from - 1);
    } else {
        assert_false(t->look.under_way);
    }
    return from;
}

static void all(struct table *t, int64_t highest) {
    for (begin(t, highest); t->look.under_way; page(t)) {
        assert_true(t->pages < 2000);
    }
}

static void a_million_dead_rows_take_many_short_pages(void **state) {
    (void)state;
    struct table t = {.lo = 1, .hi = 1000000, .per_ms = 1000};
    hv_look_init(&t.look, SPAN);
    for (int i = 0; i < 3; i++) {
        all(&t, 1000000);
        assert_true(t.pages > 20);
        assert_true(t.longest < WAY + HV_MS(25));
    }
}

static void a_small_table_takes_one_page_once_that_is_known(void **state) {
    (void)state;
    struct table t = {.lo = 1, .hi = 500, .per_ms = 1000};
    hv_look_init(&t.look, SPAN);
    all(&t, 500);
    assert_true(t.pages > 10 && t.pages < 40);
    all(&t, 500);
    assert_int_equal(t.pages, 1);
    hv_look_seen(&t.look, SPAN); /* rows came: they may be dead now */
    all(&t, 2000);
    assert_true(t.pages > 10);
    t.hi = 2000000;
    all(&t, 2000);
    assert_int_equal(t.pages, 1);
    t.hi = 40000; /* slow, although few came */
    all(&t, 40000);
    all(&t, 40000);
    assert_true(t.pages > 10);
    hv_look_restart(&t.look);
    begin(&t, 100);
    page(&t);
    assert_true(t.look.under_way);
}

static void a_look_that_is_late_comes_to_its_end(void **state) {
    (void)state;
    struct table t = {.lo = INT64_MIN / 4, .hi = INT64_MAX, .per_ms = 100}; /* every page is slow */
    hv_look_init(&t.look, SPAN);
    hv_look_begin(&t.look, INT64_MAX, HV_SECONDS(2));
    while (t.now < HV_SECONDS(2)) {
        hv_look_ask(&t.look, t.now);
        t.now += HV_MS(30 + 20 * (t.pages++ % 2));
        hv_look_turn(&t.look, false, 0, t.now);
    }
    for (t.pages = 0; t.look.under_way; t.pages++) {
        assert_true(t.pages < 30);
        hv_look_ask(&t.look, t.now);
        t.now += HV_SECONDS(1);
        hv_look_turn(&t.look, false, 0, t.now);
    }
}

static void a_full_page_goes_on_below_its_last_row(void **state) {
    (void)state;
    struct hv_look look;
    hv_look_init(&look, SPAN);
    hv_look_begin(&look, 5000, HV_NEVER);
    hv_look_ask(&look, 0);
    assert_int_equal(look.from, 5000 - SPAN);
    assert_int_equal(look.to, 5000);
    hv_look_turn(&look, true, 4990, 0);
    hv_look_ask(&look, 0);
    assert_int_equal(look.to, 4989);
    assert_int_equal(look.from, 4989 - SPAN); /* no longer: it was full */
    hv_look_turn(&look, true, INT64_MIN, 0);
    assert_false(look.under_way);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_million_dead_rows_take_many_short_pages),
        cmocka_unit_test(a_small_table_takes_one_page_once_that_is_known),
        cmocka_unit_test(a_look_that_is_late_comes_to_its_end),
        cmocka_unit_test(a_full_page_goes_on_below_its_last_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
