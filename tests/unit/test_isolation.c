/* core/keys and core/isolation: whose trouble is whose, bounded. The simulator shows the order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "core/isolation.h"
#include "core/removal.h"

#define RECORDS 64

struct bed {
    struct hv_core_config config;
    struct hv_slots slots;
    struct hv_shards shards;
    struct hv_random dice;
    struct hv_isolation iso;
    struct hv_actions out;
    hv_time now;
    enum hv_poison policy;
    char payloads[RECORDS][8]; /* the key's text */
};

static void view(void *user, const void *payload, struct hv_view *ret) {
    const struct bed *bed = user;
    *ret = (struct hv_view){.key = payload, .key_length = (uint32_t)strlen(payload), .topic = "a topic", .policy = bed->policy};
}

static int open_bed(void **state) {
    struct bed *bed = calloc(1, sizeof *bed);
    bed->config = (struct hv_core_config){.view = view,
                                          .view_user = bed,
                                          .max_in_flight_records = 8,
                                          .io_error_backoff = HV_MS(100),
                                          .blocked_backoff_max = HV_SECONDS(30),
                                          .blocked_keys_max = 4,
                                          .blocked_keys_bytes = 3 * 20,
                                          .send_concurrency = 2};
    hv_slots_init(&bed->slots, RECORDS);
    hv_shards_init(&bed->shards, &bed->slots, 2);
    hv_isolation_init(&bed->iso, &bed->slots, &bed->shards, &bed->dice, &bed->config);
    bed->now = HV_SECONDS(100);
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

static uint32_t make(struct bed *bed, int64_t id, uint64_t key) {
    uint32_t index = hv_slots_take(&bed->slots, id);
    struct hv_slot *slot = hv_slot(&bed->slots, index);
    slot->payload = bed->payloads[id];
    slot->key = key;
    slot->topic = 1;
    slot->bytes = 10;
    snprintf(bed->payloads[id], sizeof bed->payloads[id], "%d", (int)key + 100);
    return index;
}

/* A record of shard 0 that is suspect. */
static uint32_t suspect(struct bed *bed, int64_t id, uint64_t key) {
    uint32_t index = make(bed, id, key);
    hv_slot(&bed->slots, index)->way = HV_WAY_APART;
    hv_shards_insert(&bed->shards, index);
    return index;
}

/* It goes alone, and is refused. */
static void refuse(struct bed *bed, int64_t id, uint64_t key, bool because_of_topic) {
    uint32_t index = suspect(bed, id, key);
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), index);
    hv_isolation_sent(&bed->iso, index, bed->now);
    hv_isolation_refused(&bed->iso, index, &(struct hv_refusal){.because_of_topic = because_of_topic, .code = 7, .reason = "told"}, bed->now, &bed->out);
}

static struct hv_key *key_of(struct bed *bed, uint64_t key) {
    uint32_t index = hv_keys_find(&bed->iso.keys, key, 0);
    return index == HV_NO_KEY ? NULL : hv_key(&bed->iso.keys, index);
}

/* Is another row of this key taken into memory? */
static bool takes(struct bed *bed, uint64_t key) {
    uint32_t ignored;
    return hv_isolation_place(&bed->iso, key, 0, &ignored) != HV_PLACE_TABLE;
}

static size_t due(struct bed *bed, int64_t *ids) {
    return hv_isolation_due(&bed->iso, ids, RECORDS, bed->now);
}

static void nothing_of_a_blocked_key_is_held(void **state) {
    struct bed *bed = *state;
    hv_shards_insert(&bed->shards, make(bed, 5, 2));
    hv_slot(&bed->slots, suspect(bed, 1, 1))->way = HV_WAY_APART;
    hv_shards_insert(&bed->shards, make(bed, 3, 1));
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]); /* 1 and 3; 5 stays */
    assert_int_equal(bed->shards.list[0].queue.count, 1);
    assert_int_equal(bed->iso.unsent, 2);
    uint32_t index = hv_isolation_next(&bed->iso, bed->now, &bed->out);
    hv_isolation_sent(&bed->iso, index, bed->now);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT);
    hv_isolation_refused(&bed->iso, index, &(struct hv_refusal){.code = 7, .reason = "told"}, bed->now, &bed->out);
    assert_int_equal(bed->slots.used, 1);
    assert_int_equal(bed->iso.unsent + bed->iso.unsent_bytes, 0);
    assert_false(takes(bed, 1));
    assert_true(takes(bed, 2));
    uint32_t count;
    const struct hv_key_bytes *hidden = hv_keys_hidden(&bed->iso.keys, &count);
    assert_int_equal(count, 1);
    assert_int_equal(hidden->length, 3);
    assert_memory_equal(hidden->bytes, "101", 3);
}

static void waits_grow_up_to_their_bound(void **state) {
    struct bed *bed = *state;
    int64_t ids[RECORDS];
    refuse(bed, 1, 1, false);
    hv_time longest = 0;
    for (int i = 0; i < 20; i++) {
        hv_time wait = hv_isolation_deadline(&bed->iso) - bed->now;
        assert_true(wait > 0 && wait <= HV_SECONDS(30));
        assert_int_equal(due(bed, ids), 0);
        longest = hv_time_max(longest, wait);
        bed->now += wait;
        assert_int_equal(due(bed, ids), 1);
        assert_int_equal(ids[0], 1);
        uint32_t index = make(bed, 1, 1);
        hv_isolation_try(&bed->iso, hv_isolation_fetching(&bed->iso, 1), index);
        assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), index);
        hv_isolation_sent(&bed->iso, index, bed->now);
        hv_isolation_refused(&bed->iso, index, &(struct hv_refusal){.code = 7, .reason = "told"}, bed->now, &bed->out);
    }
    assert_true(longest >= HV_SECONDS(15));
    assert_int_equal(key_of(bed, 1)->attempts, 21);
}

/* The table holds four keys, the statements three: what is beyond is the shard's trouble, and then the key's own again. */
static void a_full_table_makes_it_the_shards_trouble(void **state) {
    struct bed *bed = *state;
    for (int i = 1; i <= 4; i++) {
        refuse(bed, i, (uint64_t)i, false);
    }
    assert_true(takes(bed, 9));
    refuse(bed, 5, 5, false);
    assert_true(key_of(bed, 5)->whole_shard);
    for (uint64_t key = 1; key <= 9; key++) {
        assert_false(takes(bed, key)); /* of the shard, whichever */
    }
    uint32_t ignored;
    assert_int_equal(hv_isolation_place(&bed->iso, 9, 1, &ignored), HV_PLACE_SHARD); /* of the other one */
    uint32_t count;
    hv_keys_hidden(&bed->iso.keys, &count);
    assert_int_equal(count, 3);
    int64_t ids[RECORDS];
    bed->now += HV_SECONDS(60);
    assert_int_equal(due(bed, ids), 5);
    hv_isolation_none_came(&bed->iso, INT64_MAX, bed->now, &bed->out); /* somebody deleted them all */
    assert_true(hv_isolation_wants_claim_anew(&bed->iso));
    assert_false(takes(bed, 9)); /* not before those that were left */
    hv_isolation_claimed_anew(&bed->iso);
    assert_int_equal(bed->iso.keys.used, 0);
    assert_int_equal(bed->iso.keys.bytes, 0);
    assert_true(takes(bed, 9));
}

/* Of the keys that wait for a topic one tries it, and its success lets all others go. */
static void a_closed_topic_is_tried_by_one(void **state) {
    struct bed *bed = *state;
    int64_t ids[RECORDS];
    refuse(bed, 1, 1, true);
    assert_non_null(hv_isolation_closed(&bed->iso, 1));
    suspect(bed, 2, 2);
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT); /* not even tried */
    assert_int_equal(hv_isolation_blocked(&bed->iso), 2);
    hv_slot(&bed->slots, suspect(bed, 3, 3))->topic = 2; /* another topic */
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    uint32_t other = hv_isolation_next(&bed->iso, bed->now, &bed->out);
    assert_int_equal(hv_slot(&bed->slots, other)->id, 3);
    hv_isolation_sent(&bed->iso, other, bed->now);
    for (int i = 0; i < 10; i++) {
        bed->now += HV_SECONDS(5); /* never longer than that */
        assert_int_equal(due(bed, ids), 1);
        assert_int_equal(ids[0], 1);
        uint32_t index = make(bed, 1, 1);
        hv_isolation_try(&bed->iso, hv_isolation_fetching(&bed->iso, 1), index);
        assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), index);
        hv_isolation_sent(&bed->iso, index, bed->now);
        if (i < 9) {
            hv_isolation_refused(&bed->iso, index, &(struct hv_refusal){.because_of_topic = true, .code = 7, .reason = "told"}, bed->now, &bed->out);
        } else {
            hv_isolation_acked(&bed->iso, index, bed->now, &bed->out);
        }
    }
    assert_null(hv_isolation_closed(&bed->iso, 1));
    assert_int_equal(due(bed, ids), 1);
    assert_int_equal(ids[0], 2);
}

/* ... and so does its end in any other way. */
static void a_probe_that_is_gone_closes_nothing(void **state) {
    struct bed *bed = *state;
    int64_t ids[RECORDS];
    refuse(bed, 1, 1, true);
    suspect(bed, 2, 2);
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    hv_isolation_next(&bed->iso, bed->now, &bed->out);
    bed->now += HV_SECONDS(5);
    assert_int_equal(due(bed, ids), 1);
    hv_isolation_none_came(&bed->iso, INT64_MAX, bed->now, &bed->out);
    assert_null(hv_isolation_closed(&bed->iso, 1));
    assert_int_equal(due(bed, ids), 1);
    assert_int_equal(ids[0], 2);
}

/* ---- rows that leave the table ---- */

static size_t asked(struct bed *bed, enum hv_poison policy, const struct hv_removed **rows) {
    const int64_t *ids;
    size_t count;
    enum hv_poison way = hv_removal_ask(&bed->iso, bed->now, rows, &ids, &count);
    assert_int_equal(way, policy);
    return way == HV_POISON_BLOCK ? 0 : count;
}

/* Record 1 of key 1 is refused alone, with code 7, and goes to be parked; record 3 waits behind it. */
static void park_first_of_two(struct bed *bed) {
    bed->policy = HV_POISON_PARK;
    suspect(bed, 1, 1);
    hv_shards_insert(&bed->shards, make(bed, 3, 1));
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    uint32_t index = hv_isolation_next(&bed->iso, bed->now, &bed->out);
    hv_isolation_sent(&bed->iso, index, bed->now);
    hv_isolation_refused(&bed->iso, index, &(struct hv_refusal){.code = 7, .reason = "told"}, bed->now, &bed->out);
}

/* What waits behind it stays in memory, and goes on when it is gone; its slot is known until no claim can bring it. */
static void a_key_goes_on_once_its_row_is_parked(void **state) {
    struct bed *bed = *state;
    const struct hv_removed *rows;
    struct hv_list gone = HV_LIST_EMPTY;
    park_first_of_two(bed);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT);
    assert_true(takes(bed, 1));
    assert_int_equal(bed->iso.unsent, 1);
    assert_true(hv_removal_waits(&bed->iso));
    bed->now += HV_MS(5);
    assert_int_equal(asked(bed, HV_POISON_PARK, &rows), 1);
    assert_int_equal(rows[0].id, 1);
    assert_int_equal(rows[0].code, 7);
    assert_int_equal(rows[0].attempts, 1);
    assert_int_equal(rows[0].failing_for, HV_MS(5));
    assert_string_equal(rows[0].reason, "told");
    assert_false(hv_removal_waits(&bed->iso));
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT);
    hv_removal_again(&bed->iso); /* the connection was lost */
    assert_int_equal(asked(bed, HV_POISON_PARK, &rows), 1);
    hv_isolation_forget_all(&bed->iso, &bed->out); /* so is leadership, for a moment */
    assert_int_equal(bed->iso.keys.used, 1);
    assert_int_not_equal(hv_slots_find(&bed->slots, 1), HV_NO_SLOT);
    hv_shards_insert(&bed->shards, make(bed, 9, 2));
    hv_removal_done(&bed->iso, &gone, &bed->out);
    assert_int_equal(gone.count, 1);
    assert_int_equal(gone.first, hv_slots_find(&bed->slots, 1));
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT);
    assert_int_equal(bed->iso.keys.used, 0);
    const struct hv_action *said = NULL; /* the key is forgotten, what is told of it is not */
    for (size_t i = 0; i < bed->out.count; i++) {
        said = bed->out.list[i].type == HV_ACT_NOTIFY && bed->out.list[i].notice == HV_NOTICE_PARKED ? &bed->out.list[i] : said;
    }
    assert_non_null(said);
    assert_int_equal(said->id, 1);
    assert_int_equal(said->code, 7);
    assert_string_equal(said->topic, "a topic");
    assert_int_equal(said->key.length, 3);
    assert_string_equal(said->key.bytes, "101");
}

static void a_statement_that_is_refused_is_halved_or_blocks(void **state) {
    struct bed *bed = *state;
    const struct hv_removed *rows;
    struct hv_list gone = HV_LIST_EMPTY;
    bed->policy = HV_POISON_SKIP;
    for (int i = 1; i <= 4; i++) {
        refuse(bed, i, (uint64_t)i, false);
    }
    assert_int_equal(asked(bed, HV_POISON_SKIP, &rows), 4);
    hv_removal_refused(&bed->iso, true, bed->now, &bed->out);
    assert_int_equal(asked(bed, HV_POISON_SKIP, &rows), 2);
    hv_removal_done(&bed->iso, &gone, &bed->out);
    assert_int_equal(asked(bed, HV_POISON_SKIP, &rows), 2);
    hv_removal_refused(&bed->iso, true, bed->now, &bed->out);
    assert_int_equal(asked(bed, HV_POISON_SKIP, &rows), 1);
    hv_removal_refused(&bed->iso, true, bed->now, &bed->out); /* it stands alone */
    assert_int_equal(hv_isolation_blocked(&bed->iso), 1);
    assert_int_equal(asked(bed, HV_POISON_SKIP, &rows), 1);
    hv_removal_refused(&bed->iso, false, bed->now, &bed->out); /* any would be */
    assert_int_equal(hv_isolation_blocked(&bed->iso), 2);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), HV_NO_SLOT); /* those that are gone are forgotten */
    refuse(bed, 5, 5, false); /* for a while it is not even asked for */
    assert_int_equal(asked(bed, HV_POISON_BLOCK, &rows), 0);
    assert_int_equal(hv_isolation_blocked(&bed->iso), 3);
    hv_isolation_retry_all(&bed->iso, bed->now);
    refuse(bed, 6, 6, false);
    assert_int_equal(asked(bed, HV_POISON_SKIP, &rows), 1);
    hv_removal_done(&bed->iso, &gone, &bed->out);
}

/* ... and then what waits behind the row is left in the table, and known to be. */
static void rows_behind_one_that_stays_are_left(void **state) {
    struct bed *bed = *state;
    const struct hv_removed *rows;
    park_first_of_two(bed);
    assert_int_equal(asked(bed, HV_POISON_PARK, &rows), 1);
    hv_removal_refused(&bed->iso, false, bed->now, &bed->out);
    assert_int_equal(bed->slots.used, 0);
    assert_true(key_of(bed, 1)->left);
    assert_int_equal(key_of(bed, 1)->state, HV_KEY_BLOCKED);
    assert_false(takes(bed, 1));
}

/* Neither a topic that takes nothing nor what nobody understands is known to be the record's fault. */
static void what_may_be_another_trouble_stays(void **state) {
    struct bed *bed = *state;
    const struct hv_removed *rows;
    bed->policy = HV_POISON_PARK;
    refuse(bed, 1, 1, true);
    uint32_t index = suspect(bed, 2, 2);
    hv_slot(&bed->slots, index)->topic = 2;
    hv_isolation_begin(&bed->iso, &bed->shards.list[0]);
    assert_int_equal(hv_isolation_next(&bed->iso, bed->now, &bed->out), index);
    hv_isolation_sent(&bed->iso, index, bed->now);
    hv_isolation_refused(&bed->iso, index, &(struct hv_refusal){.unknown = true, .code = 7, .reason = "told"}, bed->now, &bed->out);
    assert_int_equal(hv_isolation_blocked(&bed->iso), 2);
    assert_int_equal(asked(bed, HV_POISON_BLOCK, &rows), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_bed, close_bed)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(nothing_of_a_blocked_key_is_held),
        TEST(waits_grow_up_to_their_bound),
        TEST(a_full_table_makes_it_the_shards_trouble),
        TEST(a_closed_topic_is_tried_by_one),
        TEST(a_probe_that_is_gone_closes_nothing),
        TEST(a_key_goes_on_once_its_row_is_parked),
        TEST(a_statement_that_is_refused_is_halved_or_blocks),
        TEST(rows_behind_one_that_stays_are_left),
        TEST(what_may_be_another_trouble_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
