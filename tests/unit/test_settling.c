/* core/settling: every acknowledged row is purged, whatever becomes of the statements. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/settling.h"

#define RECORDS 20

struct bed {
    struct hv_core_config config;
    struct hv_slots slots;
    struct hv_shards shards;
    struct hv_isolation iso;
    struct hv_random dice;
    struct hv_sender sender;
    struct hv_settle settle;
    struct hv_actions out;
    hv_time now;
    char payload;
};

static int open_bed(void **state) {
    struct bed *bed = calloc(1, sizeof *bed);
    bed->config = (struct hv_core_config){.max_in_flight_records = 8,
                                          .max_in_flight_bytes = 1000,
                                          .purge_query_records = 8,
                                          .mark_backoff = HV_MS(10),
                                          .io_error_backoff = HV_MS(100),
                                          .io_error_backoff_max = HV_SECONDS(1),
                                          .blocked_backoff_max = HV_SECONDS(1),
                                          .blocked_keys_max = 4,
                                          .send_concurrency = 2};
    hv_slots_init(&bed->slots, RECORDS);
    hv_shards_init(&bed->shards, &bed->slots, 2);
    hv_isolation_init(&bed->iso, &bed->slots, &bed->shards, &bed->dice, &bed->config);
    hv_sender_init(&bed->sender, &bed->slots, &bed->shards, &bed->iso, &bed->dice, &bed->config);
    hv_settle_init(&bed->settle, &bed->slots, &bed->sender, &bed->iso, &bed->dice, &bed->config);
    hv_settle_up(&bed->settle);
    *state = bed;
    return 0;
}

static int close_bed(void **state) {
    struct bed *bed = *state;
    hv_actions_free(&bed->out);
    hv_settle_fini(&bed->settle);
    hv_isolation_fini(&bed->iso);
    hv_shards_fini(&bed->shards);
    hv_slots_fini(&bed->slots);
    free(bed);
    return 0;
}

static uint32_t add(struct bed *bed, int64_t id) {
    uint32_t index = hv_slots_take(&bed->slots, id);
    hv_shards_insert(&bed->shards, index);
    return index;
}

static void acknowledge(struct bed *bed, int64_t id) {
    uint32_t index = add(bed, id);
    hv_shards_sent(&bed->shards, &bed->shards.list[0], bed->now);
    hv_shards_acked(&bed->shards, index, bed->now);
    hv_list_append(&bed->slots, &bed->sender.acked, index);
}

/* The statement that is sent now, after some time; NULL: none. */
static const struct hv_action *statement(struct bed *bed) {
    bed->now += HV_SECONDS(2);
    bed->out.count = 0;
    hv_settle_advance(&bed->settle, true, false, bed->now, &bed->out);
    assert_true(bed->out.count <= 1);
    return bed->out.count == 0 ? NULL : &bed->out.list[0];
}

static void expect_purge(struct bed *bed, int64_t first, size_t count) {
    const struct hv_action *action = statement(bed);
    assert_non_null(action);
    assert_int_equal(action->type, HV_ACT_PURGE);
    assert_int_equal(action->count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(action->ids[i], first + (int64_t)i);
    }
}

/* All rows of the purge that is out are deleted. */
static void answer(struct bed *bed) {
    hv_settle_purged(&bed->settle, bed->settle.purging.count, false, &bed->out);
}

static void rows_are_gathered_for_a_moment(void **state) {
    struct bed *bed = *state;
    acknowledge(bed, 1);
    hv_settle_advance(&bed->settle, true, false, bed->now + HV_MS(9), &bed->out);
    assert_int_equal(bed->out.count, 0);
    assert_int_equal(hv_settle_deadline(&bed->settle), bed->now + HV_MS(10));
    hv_settle_advance(&bed->settle, true, true, bed->now + HV_MS(9), &bed->out); /* unless in a hurry */
    assert_int_equal(bed->out.count, 1);
}

static void what_was_out_when_the_connection_went_is_purged_again(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 10; id++) {
        acknowledge(bed, id);
    }
    expect_purge(bed, 1, 8);
    hv_settle_down(&bed->settle, bed->now);
    assert_null(statement(bed));
    assert_int_equal(hv_settle_pending(&bed->settle), 10);
    hv_settle_up(&bed->settle);
    expect_purge(bed, 1, 8);
    answer(bed);
    assert_int_equal(bed->slots.used, 2);
    expect_purge(bed, 9, 2);
    answer(bed);
    assert_int_equal(bed->slots.used, 0);
    assert_null(statement(bed));
}

static void a_row_that_cannot_be_deleted_is_found_and_the_others_pass(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 8; id++) {
        acknowledge(bed, id);
    }
    bool deleted[9] = {false};
    bool told = false;
    for (int i = 0; i < 60; i++) { /* row 6 is refused */
        const struct hv_action *action = statement(bed);
        bool refused = false;
        for (size_t k = 0; action != NULL && k < action->count; k++) {
            refused = refused || action->ids[k] == 6;
        }
        if (action == NULL) {
            continue;
        }
        for (size_t k = 0; k < action->count && !refused; k++) {
            deleted[action->ids[k]] = true;
        }
        if (refused) {
            hv_settle_refused(&bed->settle, true, false, bed->now, &bed->out);
            told = told || bed->out.list[bed->out.count - 1].notice == HV_NOTICE_UNPURGEABLE;
        } else {
            answer(bed);
        }
    }
    for (int id = 1; id <= 8; id++) {
        assert_int_equal(deleted[id], id != 6);
    }
    assert_true(told);
    assert_int_equal(bed->settle.stuck.count, 1);
    assert_int_equal(hv_settle_pending(&bed->settle), 0); /* a stop does not wait for it */
    expect_purge(bed, 6, 1);
    answer(bed);
    assert_int_equal(bed->slots.used, 0);
}

static void a_refusal_of_the_table_is_waited_out(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 4; id++) {
        acknowledge(bed, id);
    }
    expect_purge(bed, 1, 4);
    hv_settle_refused(&bed->settle, false, false, bed->now, &bed->out);
    assert_true(hv_settle_deadline(&bed->settle) > bed->now);
    expect_purge(bed, 1, 4); /* not halved: no row is to blame */
}

static void rows_purged_while_a_mark_is_out_stay_known(void **state) {
    struct bed *bed = *state;
    acknowledge(bed, 1);
    expect_purge(bed, 1, 1);
    hv_settle_purged(&bed->settle, bed->settle.purging.count, true, &bed->out);
    assert_int_not_equal(hv_slots_find(&bed->slots, 1), HV_NO_SLOT);
    assert_int_equal(hv_settle_pending(&bed->settle), 0);
    hv_settle_mark_answered(&bed->settle);
    assert_int_equal(hv_slots_find(&bed->slots, 1), HV_NO_SLOT);
}

static void what_blocks_is_read_again_whatever_becomes_of_the_statement(void **state) {
    struct bed *bed = *state;
    uint32_t index = add(bed, 1);
    hv_slot(&bed->slots, index)->payload = &bed->payload;
    hv_slot(&bed->slots, index)->defective = true;
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT);
    assert_int_equal(hv_isolation_blocked(&bed->iso), 1);
    assert_true(hv_settle_deadline(&bed->settle) > bed->now);
    for (int i = 0; i < 3; i++) {
        const struct hv_action *action = statement(bed);
        assert_int_equal(action->type, HV_ACT_FETCH);
        assert_int_equal(action->count, 1);
        assert_int_equal(action->ids[0], 1);
        assert_int_equal(hv_settle_deadline(&bed->settle), HV_NEVER);
        if (i == 0) {
            hv_settle_down(&bed->settle, bed->now);
            hv_settle_up(&bed->settle);
        } else if (i == 1) {
            hv_settle_refused(&bed->settle, false, false, bed->now, &bed->out);
        }
    }
    hv_settle_fetched(&bed->settle);
    hv_isolation_none_came(&bed->iso, INT64_MAX, bed->now, &bed->out);
    assert_int_equal(bed->iso.keys.used, 0);
    assert_null(statement(bed));
}

static void who_does_not_lead_reads_nothing(void **state) {
    struct bed *bed = *state;
    uint32_t index = add(bed, 1);
    hv_slot(&bed->slots, index)->payload = &bed->payload;
    hv_slot(&bed->slots, index)->defective = true;
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    hv_isolation_next(&bed->iso, bed->now, &bed->out);
    bed->out.count = 0;
    hv_settle_advance(&bed->settle, false, false, bed->now + HV_SECONDS(10), &bed->out);
    assert_int_equal(bed->out.count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_bed, close_bed)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(rows_are_gathered_for_a_moment),
        TEST(what_was_out_when_the_connection_went_is_purged_again),
        TEST(a_row_that_cannot_be_deleted_is_found_and_the_others_pass),
        TEST(a_refusal_of_the_table_is_waited_out),
        TEST(rows_purged_while_a_mark_is_out_stay_known),
        TEST(who_does_not_lead_reads_nothing),
        TEST(what_blocks_is_read_again_whatever_becomes_of_the_statement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
