/* core/meter: totals and laps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/meter.h"

static void laps_begin_anew_and_totals_go_on(void **state) {
    (void)state;
    struct hv_meter meter;
    struct hv_meter_reading reading;
    hv_meter_init(&meter, HV_SECONDS(5), HV_SECONDS(100));
    assert_false(hv_meter_read(&meter, HV_SECONDS(200), &reading)); /* nothing was delivered */
    hv_meter_count(&meter);
    hv_meter_count(&meter);
    assert_false(hv_meter_read(&meter, HV_SECONDS(104), &reading));
    assert_true(hv_meter_read(&meter, HV_SECONDS(110), &reading));
    assert_int_equal(reading.total_count, 2);
    assert_int_equal(reading.lap_count, 2);
    assert_true(reading.total_rate > 0.199 && reading.total_rate < 0.201);
    hv_meter_count(&meter);
    assert_false(hv_meter_read(&meter, HV_SECONDS(114), &reading));
    assert_true(hv_meter_read(&meter, HV_SECONDS(120), &reading));
    assert_int_equal(reading.total_count, 3);
    assert_int_equal(reading.lap_count, 1);
    assert_true(reading.lap_rate > 0.099 && reading.lap_rate < 0.101);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(laps_begin_anew_and_totals_go_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
