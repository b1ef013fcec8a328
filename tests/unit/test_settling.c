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
    struct hv_intake intake;
    struct hv_actions out;
    hv_time now;
    enum hv_poison policy;
    char payload;
};

static void view(void *user, const void *payload, struct hv_view *ret) {
    (void)payload;
    *ret = (struct hv_view){.policy = ((const struct bed *)user)->policy};
}

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
                                          .view = view,
                                          .view_user = bed,
                                          .send_concurrency = 2};
    hv_slots_init(&bed->slots, RECORDS);
    hv_shards_init(&bed->shards, &bed->slots, 2);
    hv_isolation_init(&bed->iso, &bed->slots, &bed->shards, &bed->dice, &bed->config);
    hv_sender_init(&bed->sender, &bed->slots, &bed->shards, &bed->iso, &bed->dice, &bed->config);
    hv_settle_init(&bed->settle, &bed->slots, &bed->sender, &bed->iso, &bed->dice, &bed->config);
    hv_settle_up(&bed->settle);
    bed->intake = (struct hv_intake){&bed->slots, &bed->shards, &bed->iso, &bed->sender, &bed->settle.gone};
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

/* Of a key of its own, and to be removed; of version 5. */
static void refuse(struct bed *bed, int64_t id, enum hv_poison policy) {
    struct hv_slot *slot = hv_slot(&bed->slots, add(bed, id));
    bed->policy = policy;
    slot->key = (uint64_t)id;
    slot->version = 5;
    slot->payload = &bed->payload;
    slot->defective = true;
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT);
}

/* Rows that are there when what was not deleted is looked for. */
static void looked(struct bed *bed, const struct hv_claimed *rows, size_t count, bool cut, bool take) {
    const struct hv_event event = {.type = HV_EV_FETCHED, .rows = rows, .count = count, .flag = cut};
    hv_settle_checked(&bed->settle, &bed->intake, &event, take, false, bed->now, &bed->out);
}

static struct hv_slot *slot_of(struct bed *bed, int64_t id) {
    uint32_t index = hv_slots_find(&bed->slots, id);
    return index == HV_NO_SLOT ? NULL : hv_slot(&bed->slots, index);
}

static void expect_a_look(struct bed *bed, size_t count) {
    const struct hv_action *action = statement(bed);
    assert_non_null(action);
    assert_int_equal(action->type, HV_ACT_FETCH);
    assert_int_equal(action->count, count);
}

static void acknowledge_version(struct bed *bed, int64_t id, uint32_t version) {
    acknowledge(bed, id);
    slot_of(bed, id)->version = version;
}

/* 1 went, 2 is another row now, 3 is still there as it was, 4 was marked anew meanwhile, 5 was not looked at. */
static void what_was_not_deleted_is_read_again(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 5; id++) {
        acknowledge_version(bed, id, 10 + (uint32_t)id);
    }
    expect_purge(bed, 1, 5);
    assert_int_equal(bed->out.list[0].versions[1], 12);
    hv_settle_purged(&bed->settle, 1, false, &bed->out);
    expect_a_look(bed, 5);
    slot_of(bed, 4)->version = 24; /* as intake does */
    slot_of(bed, 4)->moved = true;
    const struct hv_claimed rows[] = {
        {.id = 2, .key = 2, .version = 22, .was = 22, .payload = &bed->payload},
        {.id = 3, .version = 13, .was = 13, .payload = &bed->payload},
        {.id = 4, .version = 24, .was = 24, .payload = &bed->payload},
    };
    looked(bed, rows, 3, true, true);
    assert_null(slot_of(bed, 1));
    assert_int_equal(slot_of(bed, 2)->state, HV_SLOT_UNSENT);
    assert_int_equal(slot_of(bed, 2)->version, 22);
    assert_int_equal(slot_of(bed, 3)->state, HV_SLOT_STUCK);
    assert_int_equal(slot_of(bed, 4)->state, HV_SLOT_ACKED);
    assert_int_equal(slot_of(bed, 5)->state, HV_SLOT_ACKED);
    expect_purge(bed, 3, 1);
    assert_true(bed->out.list[0].flag); /* nobody waits for a lock once more */
    answer(bed);
    const struct hv_action *action = statement(bed);
    assert_int_equal(action->type, HV_ACT_PURGE);
    assert_int_equal(action->count, 2);
    assert_int_equal(action->ids[1], 4);
    assert_int_equal(action->versions[1], 24);
    slot_of(bed, 2)->payload = NULL; /* the bed's */
}

static void who_does_not_lead_leaves_the_other_row_in_the_table(void **state) {
    struct bed *bed = *state;
    acknowledge_version(bed, 1, 5);
    expect_purge(bed, 1, 1);
    hv_settle_purged(&bed->settle, 0, false, &bed->out);
    expect_a_look(bed, 1);
    const struct hv_claimed row = {.id = 1, .version = 6, .was = 6, .payload = &bed->payload};
    bed->out.count = 0;
    looked(bed, &row, 1, false, false);
    assert_int_equal(bed->slots.used, 0);
    assert_int_equal(bed->out.count, 1);
    assert_int_equal(bed->out.list[0].type, HV_ACT_RELEASE);
}

static void a_check_that_is_lost_or_refused_begins_with_the_purge(void **state) {
    struct bed *bed = *state;
    acknowledge_version(bed, 1, 5);
    for (int i = 0; i < 3; i++) {
        expect_purge(bed, 1, 1);
        hv_settle_purged(&bed->settle, 0, false, &bed->out);
        if (i == 0) { /* before it is sent */
            hv_settle_down(&bed->settle, bed->now);
            hv_settle_up(&bed->settle);
            continue;
        }
        expect_a_look(bed, 1);
        if (i == 1) {
            hv_settle_refused(&bed->settle, false, false, bed->now, &bed->out);
        } else {
            hv_settle_down(&bed->settle, bed->now);
            hv_settle_up(&bed->settle);
        }
    }
    expect_purge(bed, 1, 1);
    hv_settle_purged(&bed->settle, 0, false, &bed->out);
    expect_a_look(bed, 1);
    looked(bed, NULL, 0, false, true); /* somebody else deleted it */
    assert_int_equal(bed->slots.used, 0);
    assert_null(statement(bed));
}

/* 2 of 4 rows is locked. */
static void rows_that_are_locked_are_left_out_next_time(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 4; id++) {
        acknowledge_version(bed, id, 5);
    }
    expect_purge(bed, 1, 4);
    assert_false(bed->out.list[0].flag);
    hv_settle_refused(&bed->settle, false, true, bed->now, &bed->out);
    expect_purge(bed, 1, 4); /* not halved */
    assert_true(bed->out.list[0].flag);
    hv_settle_purged(&bed->settle, 3, false, &bed->out);
    expect_a_look(bed, 4);
    const struct hv_claimed row = {.id = 2, .version = 5, .was = 5, .payload = &bed->payload};
    looked(bed, &row, 1, false, true);
    assert_int_equal(bed->slots.used, 1);
    acknowledge_version(bed, 7, 5);
    expect_purge(bed, 2, 1);
    assert_true(bed->out.list[0].flag);
    answer(bed);
    expect_purge(bed, 7, 1);
    assert_false(bed->out.list[0].flag);
    answer(bed);
    assert_int_equal(bed->slots.used, 0);
}

/* Somebody locks each row for a while. Returns whether the purge that is sent now asks for row 1. */
static bool is_locked_again(struct bed *bed) {
    bool first = false;
    for (int i = 0; i < 10; i++) {
        bed->out.count = 0;
        hv_settle_advance(&bed->settle, true, true, bed->now, &bed->out);
        if (bed->out.count == 0) {
            break;
        }
        const struct hv_action *action = &bed->out.list[0];
        if (action->type == HV_ACT_PURGE && !action->flag) {
            hv_settle_refused(&bed->settle, false, true, bed->now, &bed->out);
        } else if (action->type == HV_ACT_PURGE) {
            for (size_t at = 0; at < action->count; at++) {
                first = first || action->ids[at] == 1;
            }
            hv_settle_purged(&bed->settle, 0, false, &bed->out);
        } else {
            struct hv_claimed rows[RECORDS];
            size_t count = action->count;
            for (size_t at = 0; at < count; at++) {
                rows[at] = (struct hv_claimed){.id = action->ids[at], .version = 5, .was = 5, .payload = &bed->payload};
            }
            looked(bed, rows, count, false, true);
        }
    }
    return first;
}

static void rows_that_get_stuck_do_not_make_others_wait_longer(void **state) {
    struct bed *bed = *state;
    hv_time tried = bed->now;
    for (int64_t id = 1; id <= 8; id++) {
        acknowledge_version(bed, id, 5);
        for (int i = 0; i < 3; i++, bed->now += HV_MS(100)) {
            tried = is_locked_again(bed) ? bed->now : tried;
        }
        assert_true(bed->now - tried <= bed->config.blocked_backoff_max + HV_MS(100));
    }
    assert_int_equal(bed->settle.stuck.count, 8);
}

static void a_row_that_is_stuck_is_tried_again_however_busy_it_is(void **state) {
    struct bed *bed = *state;
    acknowledge(bed, 1);
    expect_purge(bed, 1, 1);
    hv_settle_refused(&bed->settle, true, false, bed->now, &bed->out);
    bool tried = false;
    for (int64_t id = 2; id < 6; id++) { /* there is always something to purge */
        acknowledge(bed, id);
        const struct hv_action *action = statement(bed);
        assert_int_equal(action->type, HV_ACT_PURGE);
        tried = tried || action->ids[0] == 1;
        answer(bed);
    }
    assert_true(tried);
}

/* A purge is out, or done; claims bring another row with its id. */
static void another_row_with_the_id_is_not_taken_for_the_first(void **state) {
    struct bed *bed = *state;
    acknowledge_version(bed, 1, 5);
    expect_purge(bed, 1, 1);
    const struct hv_claimed row = {.id = 1, .version = 6, .was = 6, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &row, bed->now, &bed->out), HV_INTAKE_HAD);
    assert_int_equal(slot_of(bed, 1)->version, 5);
    const struct hv_claimed marked = {.id = 1, .version = 7, .was = 5, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &marked, bed->now, &bed->out), HV_INTAKE_HAD);
    assert_int_equal(slot_of(bed, 1)->version, 7);
    assert_true(slot_of(bed, 1)->moved);
    hv_settle_purged(&bed->settle, 1, true, &bed->out); /* the first one is gone, so the other is there, or was */
    expect_a_look(bed, 1);
    looked(bed, &row, 1, false, true);
    assert_int_equal(slot_of(bed, 1)->state, HV_SLOT_UNSENT);
    assert_int_equal(slot_of(bed, 1)->version, 6);
    slot_of(bed, 1)->payload = NULL;
}

static void another_row_that_comes_after_the_purge_is_taken_at_once(void **state) {
    struct bed *bed = *state;
    acknowledge_version(bed, 1, 5);
    expect_purge(bed, 1, 1);
    hv_settle_purged(&bed->settle, 1, true, &bed->out);
    assert_int_equal(slot_of(bed, 1)->state, HV_SLOT_PURGED);
    const struct hv_claimed first = {.id = 1, .version = 5, .was = 5, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &first, bed->now, &bed->out), HV_INTAKE_HAD);
    const struct hv_claimed row = {.id = 1, .version = 6, .was = 6, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &row, bed->now, &bed->out), HV_INTAKE_TOOK);
    assert_int_equal(slot_of(bed, 1)->state, HV_SLOT_UNSENT);
    assert_int_equal(bed->settle.gone.count, 0);
    slot_of(bed, 1)->payload = NULL;
}

/* The look's own snapshot may be older than what a claim brought meanwhile. */
static void a_look_that_came_too_early_is_repeated(void **state) {
    struct bed *bed = *state;
    acknowledge_version(bed, 1, 5);
    expect_purge(bed, 1, 1);
    hv_settle_purged(&bed->settle, 0, false, &bed->out);
    expect_a_look(bed, 1);
    const struct hv_claimed row = {.id = 1, .version = 6, .was = 6, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &row, bed->now, &bed->out), HV_INTAKE_HAD);
    looked(bed, NULL, 0, false, true);
    expect_a_look(bed, 1);
    looked(bed, NULL, 0, false, true); /* it is gone as well */
    assert_int_equal(bed->slots.used, 0);
}

/* ... also if it found another row: a mark gave that one a new version since then. */
static void a_look_that_found_an_older_row_is_repeated(void **state) {
    struct bed *bed = *state;
    acknowledge_version(bed, 1, 5);
    expect_purge(bed, 1, 1);
    hv_settle_purged(&bed->settle, 0, false, &bed->out);
    expect_a_look(bed, 1);
    const struct hv_claimed older = {.id = 1, .version = 6, .was = 6, .payload = &bed->payload};
    const struct hv_claimed marked = {.id = 1, .version = 7, .was = 6, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &marked, bed->now, &bed->out), HV_INTAKE_HAD);
    bed->out.count = 0;
    looked(bed, &older, 1, false, true);
    assert_int_equal(bed->out.count, 1);
    assert_int_equal(bed->out.list[0].type, HV_ACT_RELEASE);
    expect_a_look(bed, 1);
    looked(bed, &marked, 1, false, true);
    assert_int_equal(slot_of(bed, 1)->state, HV_SLOT_UNSENT);
    assert_int_equal(slot_of(bed, 1)->version, 7);
    slot_of(bed, 1)->payload = NULL;
}

static uint32_t told(const struct bed *bed, enum hv_notice notice) {
    uint32_t count = 0;
    for (size_t i = 0; i < bed->out.count; i++) {
        count += bed->out.list[i].type == HV_ACT_NOTIFY && bed->out.list[i].notice == notice;
    }
    return count;
}

/* 1 was parked, and another row came in its place before we were told. */
static void another_row_in_the_place_of_one_that_is_parked_stays(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 3; id++) {
        refuse(bed, id, HV_POISON_PARK);
    }
    const struct hv_action *park = statement(bed);
    assert_int_equal(park->type, HV_ACT_PARK);
    assert_int_equal(park->count, 3);
    assert_int_equal(park->removed[2].version, 5);
    const struct hv_claimed row = {.id = 1, .key = 1, .version = 6, .was = 6, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &row, bed->now, &bed->out), HV_INTAKE_HAD);
    hv_settle_parked(&bed->settle, 3, false, &bed->out);
    expect_a_look(bed, 3);
    looked(bed, &row, 1, false, true);
    assert_int_equal(hv_isolation_blocked(&bed->iso), 1); /* until it is read, and tried */
    assert_int_equal(told(bed, HV_NOTICE_PARKED), 2);
    assert_int_equal(bed->slots.used, 0);
}

static void rows_parked_while_a_mark_is_out_stay_known(void **state) {
    struct bed *bed = *state;
    refuse(bed, 1, HV_POISON_PARK);
    assert_int_equal(statement(bed)->type, HV_ACT_PARK);
    hv_settle_parked(&bed->settle, 1, true, &bed->out);
    assert_int_equal(told(bed, HV_NOTICE_PARKED), 1);
    const struct hv_claimed row = {.id = 1, .key = 1, .version = 5, .was = 5, .payload = &bed->payload};
    assert_int_equal(hv_intake_row(&bed->intake, &row, bed->now, &bed->out), HV_INTAKE_HAD);
    hv_settle_mark_answered(&bed->settle);
    assert_int_equal(bed->slots.used, 0);
}

/* 1 was not deleted; 2 and 3 were not looked at, since 1 is large. */
static void what_was_not_skipped_is_read_again(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 3; id++) {
        refuse(bed, id, HV_POISON_SKIP);
    }
    for (int i = 0; i < 2; i++) {
        expect_purge(bed, 1, 3);
        assert_int_equal(bed->out.list[0].versions[2], 5);
        hv_settle_purged(&bed->settle, 2, false, &bed->out);
        expect_a_look(bed, 3);
        if (i == 0) {
            hv_settle_refused(&bed->settle, false, false, bed->now, &bed->out);
        }
    }
    const struct hv_claimed row = {.id = 1, .key = 1, .version = 6, .was = 6, .payload = &bed->payload};
    looked(bed, &row, 1, true, true);
    assert_int_equal(hv_isolation_blocked(&bed->iso), 1);
    const struct hv_action *action = statement(bed); /* 1, since it is blocked */
    assert_int_equal(action->type, HV_ACT_FETCH);
    hv_settle_down(&bed->settle, bed->now);
    hv_settle_up(&bed->settle);
    bed->now -= HV_SECONDS(2);
    expect_purge(bed, 2, 2);
    hv_settle_down(&bed->settle, bed->now);
    hv_settle_up(&bed->settle);
    bed->now -= HV_SECONDS(2);
    expect_purge(bed, 2, 2);
    hv_settle_purged(&bed->settle, 2, false, &bed->out);
    assert_int_equal(bed->slots.used, 0);
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
        TEST(what_was_not_deleted_is_read_again),
        TEST(who_does_not_lead_leaves_the_other_row_in_the_table),
        TEST(a_check_that_is_lost_or_refused_begins_with_the_purge),
        TEST(rows_that_are_locked_are_left_out_next_time),
        TEST(rows_that_get_stuck_do_not_make_others_wait_longer),
        TEST(a_row_that_is_stuck_is_tried_again_however_busy_it_is),
        TEST(another_row_with_the_id_is_not_taken_for_the_first),
        TEST(another_row_that_comes_after_the_purge_is_taken_at_once),
        TEST(a_look_that_came_too_early_is_repeated),
        TEST(a_look_that_found_an_older_row_is_repeated),
        TEST(another_row_in_the_place_of_one_that_is_parked_stays),
        TEST(rows_parked_while_a_mark_is_out_stay_known),
        TEST(what_was_not_skipped_is_read_again),
        TEST(what_blocks_is_read_again_whatever_becomes_of_the_statement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
