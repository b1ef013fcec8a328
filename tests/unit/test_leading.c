/* core/leading: a lease counts from the moment at which a heartbeat was sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/leading.h"

static const struct hv_core_config config = {
    .heartbeat_interval = HV_MS(100), .heartbeat_timeout = HV_SECONDS(5), .wall_offset = 1000000};

static void a_lease_counts_from_the_sending(void **state) {
    (void)state;
    struct hv_leading leading;
    int64_t stamp, second;
    hv_leading_init(&leading, &config);
    assert_false(hv_leading_beat(&leading, 0, &stamp)); /* nothing is ours yet */
    hv_leading_assigned(&leading, HV_SECONDS(1));
    assert_true(hv_leading_beat(&leading, HV_SECONDS(1), &stamp));
    assert_int_equal(stamp, 1000000 + HV_SECONDS(1) * 1000);
    assert_false(hv_leading_beat(&leading, HV_SECONDS(1) + HV_MS(99), &second));
    assert_true(hv_leading_beat(&leading, HV_SECONDS(1) + HV_MS(100), &second));
    assert_false(hv_leading_lease(&leading, HV_SECONDS(1)));
    hv_leading_heartbeat(&leading, second);
    hv_leading_heartbeat(&leading, stamp); /* late, out of order: takes nothing away */
    assert_true(hv_leading_lease(&leading, HV_SECONDS(6) + HV_MS(99)));
    assert_false(hv_leading_lease(&leading, HV_SECONDS(6) + HV_MS(100)));
}

static void heartbeats_of_an_earlier_assignment_count_no_more(void **state) {
    (void)state;
    struct hv_leading leading;
    int64_t stamp;
    hv_leading_init(&leading, &config);
    hv_leading_assigned(&leading, 0);
    hv_leading_beat(&leading, 0, &stamp);
    hv_leading_move(&leading, HV_STANDBY);
    assert_int_equal(hv_leading_deadline(&leading), HV_NEVER);
    hv_leading_heartbeat(&leading, stamp);
    assert_false(hv_leading_lease(&leading, 1));
    hv_leading_assigned(&leading, 2);
    hv_leading_heartbeat(&leading, stamp);
    hv_leading_heartbeat(&leading, stamp + 1); /* one that nobody sent */
    assert_false(hv_leading_lease(&leading, 3));
}

static void heartbeats_that_come_back_are_followed_by_fewer(void **state) {
    (void)state;
    struct hv_leading leading;
    int64_t first, second, third;
    hv_leading_init(&leading, &config);
    hv_leading_assigned(&leading, 0);
    assert_true(hv_leading_beat(&leading, 0, &first));
    assert_true(hv_leading_beat(&leading, HV_MS(100), &second)); /* the first is not back yet */
    hv_leading_heartbeat(&leading, first);
    assert_int_equal(leading.next_beat, HV_MS(200)); /* the second may be lost */
    hv_leading_heartbeat(&leading, second);
    assert_int_equal(leading.next_beat, HV_MS(350)); /* a twentieth of the lease behind it */
    assert_false(hv_leading_beat(&leading, HV_MS(349), &third));
    assert_true(hv_leading_beat(&leading, HV_MS(350), &third));
    assert_int_equal(leading.next_beat, HV_MS(450));
    hv_leading_heartbeat(&leading, second); /* once more */
    assert_int_equal(leading.next_beat, HV_MS(450));
}

static void heartbeats_are_as_rare_as_one_asks(void **state) {
    (void)state;
    struct hv_leading leading;
    int64_t stamp;
    struct hv_core_config slow = config;
    slow.heartbeat_interval = HV_SECONDS(2);
    hv_leading_init(&leading, &slow);
    hv_leading_assigned(&leading, 0);
    assert_true(hv_leading_beat(&leading, 0, &stamp));
    hv_leading_heartbeat(&leading, stamp);
    assert_int_equal(leading.next_beat, HV_SECONDS(2));
}

static void a_leader_wakes_when_its_lease_ends(void **state) {
    (void)state;
    struct hv_leading leading;
    int64_t stamp;
    struct hv_core_config slow = config;
    slow.heartbeat_interval = HV_SECONDS(60);
    hv_leading_init(&leading, &slow);
    hv_leading_assigned(&leading, 0);
    assert_int_equal(hv_leading_deadline(&leading), 0);
    hv_leading_beat(&leading, 0, &stamp);
    hv_leading_heartbeat(&leading, stamp);
    hv_leading_move(&leading, HV_LEADER);
    assert_int_equal(hv_leading_deadline(&leading), HV_SECONDS(5));
}

static void many_heartbeats_on_their_way_are_no_trouble(void **state) {
    (void)state;
    struct hv_leading leading;
    int64_t stamp = 0, first = 0;
    hv_leading_init(&leading, &config);
    hv_leading_assigned(&leading, 0);
    for (int i = 0; i < 3 * HV_BEATS; i++) {
        assert_true(hv_leading_beat(&leading, i * HV_MS(100), &stamp));
        first = i == 0 ? stamp : first;
    }
    hv_leading_heartbeat(&leading, first); /* taken as lost */
    assert_false(hv_leading_lease(&leading, HV_MS(1)));
    hv_leading_heartbeat(&leading, stamp);
    assert_true(hv_leading_lease(&leading, (3 * HV_BEATS - 1) * HV_MS(100)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_counts_from_the_sending),
        cmocka_unit_test(heartbeats_of_an_earlier_assignment_count_no_more),
        cmocka_unit_test(heartbeats_that_come_back_are_followed_by_fewer),
        cmocka_unit_test(heartbeats_are_as_rare_as_one_asks),
        cmocka_unit_test(a_leader_wakes_when_its_lease_ends),
        cmocka_unit_test(many_heartbeats_on_their_way_are_no_trouble),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
