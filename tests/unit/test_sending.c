/* core/sending: the window, fairness, and the failure rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/sending.h"

#define RECORDS 12

struct bed {
    struct hv_core_config config;
    struct hv_slots slots;
    struct hv_shards shards;
    struct hv_isolation iso;
    struct hv_random dice;
    struct hv_sender sender;
    struct hv_actions out;
    hv_time now;
    char payloads[RECORDS + 1];
    uint64_t tickets[RECORDS + 1]; /* of the latest hand-over of an id */
    int lanes[RECORDS + 1];
    bool alone[RECORDS + 1];
    int sent[RECORDS + 1];
    int64_t order[100];
    int total;
};

static void take_down(struct bed *bed) {
    for (size_t i = 0; i < bed->out.count; i++) {
        const struct hv_action *action = &bed->out.list[i];
        if (action->type == HV_ACT_PRODUCE) {
            int64_t id = (const char *)action->payload - bed->payloads;
            bed->tickets[id] = action->ticket;
            bed->lanes[id] = action->lane;
            bed->alone[id] = action->flag;
            bed->sent[id]++;
            bed->order[bed->total++] = id;
        } else if (action->type == HV_ACT_OPEN_CLIENT) {
            hv_sender_client_ready(&bed->sender, action->lane);
        }
    }
}

static void go(struct bed *bed) {
    for (int i = 0; i < 3; i++) {
        bed->out.count = 0;
        hv_sender_advance(&bed->sender, true, bed->now, &bed->out);
        hv_sender_feed(&bed->sender, bed->now, &bed->out);
        take_down(bed);
    }
}

static bool did(const struct bed *bed, enum hv_action_type type) {
    for (size_t i = 0; i < bed->out.count; i++) {
        if (bed->out.list[i].type == type) {
            return true;
        }
    }
    return false;
}

static int open_bed(void **state) {
    struct bed *bed = calloc(1, sizeof *bed);
    bed->config = (struct hv_core_config){.max_in_flight_records = 8,
                                          .max_in_flight_bytes = 1000,
                                          .io_error_backoff = HV_MS(100),
                                          .io_error_backoff_max = HV_SECONDS(1),
                                          .blocked_backoff_max = HV_SECONDS(1),
                                          .blocked_keys_max = 4,
                                          .blocked_keys_bytes = 1000,
                                          .send_concurrency = 2};
    hv_slots_init(&bed->slots, RECORDS);
    hv_shards_init(&bed->shards, &bed->slots, 2);
    hv_isolation_init(&bed->iso, &bed->slots, &bed->shards, &bed->dice, &bed->config);
    hv_sender_init(&bed->sender, &bed->slots, &bed->shards, &bed->iso, &bed->dice, &bed->config);
    bed->now = 1;
    *state = bed;
    return 0;
}

static int close_bed(void **state) {
    struct bed *bed = *state;
    hv_actions_free(&bed->out);
    hv_isolation_fini(&bed->iso);
    hv_shards_fini(&bed->shards);
    hv_slots_fini(&bed->slots);
    free(bed);
    return 0;
}

static struct hv_slot *add(struct bed *bed, int64_t id, uint32_t shard) {
    uint32_t index = hv_slots_take(&bed->slots, id);
    struct hv_slot *slot = hv_slot(&bed->slots, index);
    slot->payload = &bed->payloads[id];
    slot->bytes = 10;
    slot->shard = shard;
    slot->key = shard; /* one key a shard, unless the test says so */
    hv_shards_insert(&bed->shards, index);
    return slot;
}

static struct hv_slot *add_large(struct bed *bed, int64_t id, uint32_t shard, uint32_t bytes) {
    struct hv_slot *slot = add(bed, id, shard);
    bed->shards.unsent_bytes += bytes - slot->bytes;
    slot->bytes = bytes;
    return slot;
}

static void report(struct bed *bed, int64_t id, enum hv_delivery delivery) {
    const struct hv_report report = {.ticket = bed->tickets[id], .delivery = delivery, .reason = "told"};
    bed->out.count = 0;
    hv_sender_report(&bed->sender, &report, bed->now, &bed->out);
}

static void one_shard_does_not_take_the_window(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 6; id++) {
        add(bed, id, 0);
    }
    add(bed, 7, 1);
    go(bed);
    assert_int_equal(bed->sent[2], 1);
    assert_int_equal(bed->sent[3], 0); /* a quarter of the window */
    assert_int_equal(bed->sent[7], 1);
    report(bed, 1, HV_DELIVERED);
    go(bed);
    assert_int_equal(bed->sent[3], 1);
    assert_int_equal(hv_sender_in_flight(&bed->sender), 3);
    assert_int_equal(bed->sender.acked.count, 1);
}

static void a_failed_report_rewinds_everything_but_what_was_delivered(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 0);
    add(bed, 3, 1);
    add(bed, 4, 1);
    go(bed);
    report(bed, 1, HV_FAILED);
    assert_true(did(bed, HV_ACT_PURGE_CLIENT));
    go(bed);
    assert_int_equal(bed->total, 4); /* nothing is fed until all is reported */
    report(bed, 3, HV_DELIVERED);
    report(bed, 4, HV_PURGED);
    go(bed);
    assert_int_equal(bed->total, 4);
    report(bed, 2, HV_PURGED);
    go(bed);
    assert_int_equal(bed->total, 7);
    assert_int_equal(bed->order[4] + bed->order[5] + bed->order[6], 1 + 2 + 4);
    assert_int_equal(bed->sent[3], 1);
}

static void reports_that_do_not_come_are_not_waited_for(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 0);
    go(bed);
    uint64_t late = bed->tickets[2];
    report(bed, 1, HV_FAILED);
    bed->now += HV_SECONDS(4);
    go(bed);
    assert_int_equal(bed->sent[2], 1);
    bed->now += HV_SECONDS(2);
    bed->out.count = 0;
    hv_sender_advance(&bed->sender, true, bed->now, &bed->out);
    assert_true(did(bed, HV_ACT_CLOSE_CLIENT));
    take_down(bed);
    go(bed);
    assert_int_equal(bed->sent[1], 2);
    assert_int_equal(bed->sent[2], 2);
    const struct hv_report report = {.ticket = late, .delivery = HV_DELIVERED};
    assert_false(hv_sender_report(&bed->sender, &report, bed->now, &bed->out));
    assert_int_equal(hv_sender_in_flight(&bed->sender), 2);
}

static enum hv_key_state state_of(struct bed *bed, uint64_t key, uint32_t shard) {
    uint32_t index = hv_keys_find(&bed->iso.keys, key, shard);
    return index == HV_NO_KEY ? HV_KEY_FREE : hv_key(&bed->iso.keys, index)->state;
}

static void refused_records_go_alone_through_the_other_lane(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 0);
    add(bed, 3, 1);
    go(bed);
    report(bed, 1, HV_REFUSED);
    report(bed, 2, HV_REFUSED);
    report(bed, 3, HV_DELIVERED);
    go(bed);
    assert_int_equal(bed->lanes[1], HV_LANE_SUSPECTS);
    assert_int_equal(bed->sent[2], 1); /* one at a time */
    report(bed, 1, HV_DELIVERED);
    go(bed);
    assert_int_equal(bed->lanes[2], HV_LANE_SUSPECTS);
    report(bed, 2, HV_DELIVERED);
    add(bed, 4, 0);
    go(bed);
    assert_int_equal(bed->lanes[4], HV_LANE_RECORDS); /* no suspect any more */
    assert_int_equal(bed->iso.keys.used, 0);
    assert_false(did(bed, HV_ACT_NOTIFY));
}

/* Two keys of one shard: the one is blocked, the other goes on. */
static void who_is_refused_alone_blocks_its_key_only(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0)->key = 7;
    add(bed, 2, 0);
    go(bed);
    report(bed, 1, HV_REFUSED);
    report(bed, 2, HV_REFUSED);
    go(bed);
    assert_int_equal(bed->lanes[1], HV_LANE_SUSPECTS);
    assert_int_equal(bed->lanes[2], HV_LANE_SUSPECTS); /* at one time: of another key */
    assert_false(bed->alone[1] || bed->alone[2]);      /* they may share a batch */
    report(bed, 1, HV_REFUSED);
    report(bed, 2, HV_REFUSED);
    go(bed);
    assert_int_equal(bed->sent[1], 3);
    assert_true(bed->alone[1] && bed->alone[2]);
    report(bed, 1, HV_REFUSED); /* alone: it is to blame */
    assert_int_equal(state_of(bed, 7, 0), HV_KEY_BLOCKED);
    assert_int_equal(hv_slots_find(&bed->slots, 1), HV_NO_SLOT); /* it is not held in memory */
    report(bed, 2, HV_DELIVERED);
    add(bed, 4, 0);
    go(bed);
    assert_int_equal(bed->lanes[4], HV_LANE_RECORDS);
    assert_int_equal(bed->sent[4], 1);
}

/* A batch of several keys was refused; a healthy record of the shard goes on at once in the lane of all. */
static void a_suspect_does_not_hold_up_its_shard(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0)->key = 7;
    go(bed);
    report(bed, 1, HV_REFUSED);
    add(bed, 2, 0)->key = 7;
    add(bed, 3, 0)->key = 8;
    go(bed);
    assert_int_equal(bed->lanes[1], HV_LANE_SUSPECTS);
    assert_int_equal(bed->sent[2], 0);
    assert_int_equal(bed->sent[3], 1);
    assert_int_equal(bed->lanes[3], HV_LANE_RECORDS);
    report(bed, 1, HV_DELIVERED);
    go(bed);
    assert_int_equal(bed->lanes[2], HV_LANE_RECORDS);
    assert_int_equal(bed->sent[2], 1);
}

static void a_defective_record_blocks_once_all_before_it_are_through(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 0)->defective = true;
    add(bed, 3, 0);
    go(bed);
    assert_int_equal(state_of(bed, 0, 0), HV_KEY_SUSPECT);
    report(bed, 1, HV_DELIVERED);
    go(bed);
    assert_int_equal(state_of(bed, 0, 0), HV_KEY_BLOCKED);
    assert_int_equal(bed->total, 1);
    assert_int_equal(bed->slots.used, 1); /* what comes behind it is left in the table */
    assert_true(hv_key(&bed->iso.keys, hv_keys_find(&bed->iso.keys, 0, 0))->left);
}

static void what_bounces_is_sent_again_in_its_place(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 0);
    add(bed, 3, 1);
    go(bed);
    for (int64_t id = 2; id <= 3; id++) {
        struct hv_event event = {.type = HV_EV_BOUNCED, .ticket = bed->tickets[id]};
        hv_sender_bounced(&bed->sender, &event, bed->now, &bed->out);
    }
    go(bed);
    assert_int_equal(bed->total, 3); /* not at once */
    assert_true(hv_sender_deadline(&bed->sender, true) > bed->now);
    bed->now += HV_MS(10);
    go(bed);
    assert_int_equal(bed->total, 5);
    assert_int_equal(bed->sent[1], 1);
}

/* A later record is acknowledged last, while an earlier one was refused. */
static void an_acknowledgement_does_not_hide_an_earlier_refusal(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 0);
    add(bed, 3, 0);
    add(bed, 4, 1);
    go(bed);
    report(bed, 1, HV_REFUSED);
    report(bed, 2, HV_DELIVERED);
    go(bed); /* 4 is not reported yet: the lane is still being purged */
    assert_int_equal(state_of(bed, 0, 0), HV_KEY_SUSPECT);
    assert_int_equal(bed->sent[1], 2);
    assert_int_equal(bed->lanes[1], HV_LANE_SUSPECTS);
    assert_int_equal(bed->sent[3], 0);
}

/* Each refusal may end the client: the wait for the next one must not grow by that. */
static void a_client_that_ended_by_a_refusal_is_followed_at_once(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 8; id++) {
        add(bed, id, 0)->key = (uint64_t)id;
        go(bed);
        report(bed, id, HV_REFUSED);
        assert_true(did(bed, HV_ACT_PURGE_CLIENT));
        go(bed);
        assert_int_equal(bed->lanes[id], HV_LANE_SUSPECTS); /* without a wait */
        report(bed, id, HV_DELIVERED);
        go(bed);
    }
    assert_int_equal(bed->sender.acked.count, 8);
    add(bed, 9, 0)->key = 9; /* another reason */
    go(bed);
    report(bed, 9, HV_FAILED);
    go(bed);
    assert_int_equal(bed->sent[9], 2);
    report(bed, 9, HV_FAILED);
    go(bed);
    assert_int_equal(bed->sent[9], 2);
}

static const struct hv_action *purge_of(const struct bed *bed) {
    for (size_t i = 0; i < bed->out.count; i++) {
        if (bed->out.list[i].type == HV_ACT_PURGE_CLIENT) {
            return &bed->out.list[i];
        }
    }
    return NULL;
}

/* Kafka refuses one record: what it has of the others it will answer, and that is waited for, but not for ever. */
static void after_a_refusal_answers_are_waited_for(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 1);
    add(bed, 3, 1)->key = 3;
    go(bed);
    report(bed, 1, HV_REFUSED);
    assert_non_null(purge_of(bed));
    assert_true(purge_of(bed)->flag);
    go(bed);
    assert_int_equal(bed->sender.lanes[HV_LANE_RECORDS].state, HV_LANE_DRAINING);
    report(bed, 2, HV_DELIVERED);
    assert_null(purge_of(bed));
    bed->now = hv_sender_deadline(&bed->sender, true);
    bed->out.count = 0;
    hv_sender_advance(&bed->sender, true, bed->now, &bed->out);
    assert_non_null(purge_of(bed));
    assert_false(purge_of(bed)->flag);
    report(bed, 3, HV_PURGED);
    go(bed);
    assert_int_equal(bed->sent[2], 1);
    assert_int_equal(bed->sent[3], 2);
}

/* Each refused batch costs all others a new client: after the second one in a row the topic's records go apart. */
static void records_of_a_topic_in_doubt_go_apart(void **state) {
    struct bed *bed = *state;
    for (int64_t id = 1; id <= 2; id++) {
        struct hv_slot *slot = add(bed, id, 0);
        slot->key = (uint64_t)id;
        slot->topic = 7;
        go(bed);
        assert_int_equal(bed->lanes[id], HV_LANE_RECORDS);
        report(bed, id, HV_REFUSED);
        go(bed);
        report(bed, id, HV_DELIVERED); /* without others it passes */
        bed->now += HV_MS(150);
    }
    add(bed, 3, 0)->topic = 7;
    add(bed, 4, 1)->topic = 8;
    go(bed);
    assert_int_equal(bed->lanes[3], HV_LANE_SUSPECTS);
    assert_false(bed->alone[3]);
    assert_int_equal(bed->lanes[4], HV_LANE_RECORDS);
    report(bed, 3, HV_DELIVERED);
    bed->now += HV_SECONDS(1);
    add(bed, 5, 0)->topic = 7;
    go(bed);
    assert_int_equal(bed->lanes[5], HV_LANE_RECORDS);
}

static void what_is_as_large_as_a_refused_one_goes_alone_at_once(void **state) {
    struct bed *bed = *state;
    add_large(bed, 1, 0, 500)->key = 1;
    for (int i = 0; i < 3; i++) { /* with all, with some, alone */
        go(bed);
        report(bed, 1, HV_OVERSIZE);
    }
    assert_int_equal(state_of(bed, 1, 0), HV_KEY_BLOCKED);
    add_large(bed, 2, 0, 499);
    add_large(bed, 3, 0, 500)->key = 3;
    go(bed);
    assert_int_equal(bed->lanes[2], HV_LANE_RECORDS);
    assert_int_equal(bed->lanes[3], HV_LANE_SUSPECTS);
    assert_true(bed->alone[3]);
    report(bed, 3, HV_DELIVERED); /* somebody raised the limit */
    add_large(bed, 4, 1, 500)->key = 4;
    go(bed);
    assert_int_equal(bed->lanes[4], HV_LANE_RECORDS);
}

/* Leadership is lost meanwhile. */
static void giving_up_does_not_wait_for_answers(void **state) {
    struct bed *bed = *state;
    add(bed, 1, 0);
    add(bed, 2, 1);
    go(bed);
    report(bed, 1, HV_REFUSED);
    bed->out.count = 0;
    hv_sender_give_up(&bed->sender, "told", bed->now, &bed->out);
    assert_non_null(purge_of(bed));
    assert_false(purge_of(bed)->flag);
    assert_int_equal(bed->sender.lanes[HV_LANE_RECORDS].state, HV_LANE_PURGING);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_bed, close_bed)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(one_shard_does_not_take_the_window),
        TEST(after_a_refusal_answers_are_waited_for),
        TEST(giving_up_does_not_wait_for_answers),
        TEST(records_of_a_topic_in_doubt_go_apart),
        TEST(what_is_as_large_as_a_refused_one_goes_alone_at_once),
        TEST(a_failed_report_rewinds_everything_but_what_was_delivered),
        TEST(reports_that_do_not_come_are_not_waited_for),
        TEST(refused_records_go_alone_through_the_other_lane),
        TEST(who_is_refused_alone_blocks_its_key_only),
        TEST(a_suspect_does_not_hold_up_its_shard),
        TEST(a_client_that_ended_by_a_refusal_is_followed_at_once),
        TEST(a_defective_record_blocks_once_all_before_it_are_through),
        TEST(what_bounces_is_sent_again_in_its_place),
        TEST(an_acknowledgement_does_not_hide_an_earlier_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
