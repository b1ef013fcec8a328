/* core/backoff: waits grow to a limit, with jitter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/backoff.h"

static void waits_grow_to_the_limit_and_start_anew_after_a_success(void **state) {
    (void)state;
    struct hv_random dice = {.state = 7};
    struct hv_backoff backoff;
    hv_backoff_init(&backoff, 100, 1000);
    for (int round = 0; round < 200; round++) {
        hv_time most = 100;
        for (int i = 0; i < 10; i++) {
            hv_time wait = hv_backoff_next(&backoff, &dice);
            assert_true(wait >= most / 2 && wait <= most);
            most = most * 2 < 1000 ? most * 2 : 1000;
        }
        hv_backoff_reset(&backoff);
    }
}

static void it_is_fine_with_failures_without_end(void **state) {
    (void)state;
    struct hv_random dice = {.state = 7};
    struct hv_backoff backoff = {.min = 1, .max = INT64_MAX / 2, .failures = UINT32_MAX};
    assert_true(hv_backoff_next(&backoff, &dice) > 0);
    assert_int_equal(backoff.failures, UINT32_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_grow_to_the_limit_and_start_anew_after_a_success),
        cmocka_unit_test(it_is_fine_with_failures_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
