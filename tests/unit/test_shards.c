/* core/shards: order within a shard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/shards.h"

struct bed {
    struct hv_slots slots;
    struct hv_shards shards;
    struct hv_shard *shard;
};

static int open_bed(void **state) {
    struct bed *bed = calloc(1, sizeof *bed);
    hv_slots_init(&bed->slots, 20);
    hv_shards_init(&bed->shards, &bed->slots, 1);
    bed->shard = &bed->shards.list[0];
    *state = bed;
    return 0;
}

static int close_bed(void **state) {
    struct bed *bed = *state;
    hv_shards_fini(&bed->shards);
    hv_slots_fini(&bed->slots);
    free(bed);
    return 0;
}

static uint32_t insert(struct bed *bed, int64_t id) {
    uint32_t index = hv_slots_take(&bed->slots, id);
    hv_slot(&bed->slots, index)->bytes = 10;
    hv_shards_insert(&bed->shards, index);
    return index;
}

static void expect(struct bed *bed, const int64_t *ids, size_t count, int64_t next) {
    uint32_t index = bed->shard->queue.first;
    for (size_t i = 0; i < count; i++, index = hv_slot(&bed->slots, index)->next) {
        assert_int_equal(hv_slot(&bed->slots, index)->id, ids[i]);
    }
    assert_int_equal(index, HV_NO_SLOT);
    assert_int_equal(bed->shard->next == HV_NO_SLOT ? -1 : hv_slot(&bed->slots, bed->shard->next)->id, next);
}

#define IDS(...) (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / 8
#define EXPECT(bed, next, ...) expect(bed, IDS(__VA_ARGS__), next)

static void unsent_records_stand_by_id_behind_those_in_flight(void **state) {
    struct bed *bed = *state;
    insert(bed, 20);
    insert(bed, 30);
    hv_shards_sent(&bed->shards, bed->shard, 0);
    insert(bed, 10); /* a late commit, of another key than 20: it was claimed before */
    insert(bed, 25);
    EXPECT(bed, 10, 20, 10, 25, 30);
    assert_int_equal(bed->shards.unsent, 3);
    assert_int_equal(bed->shards.unsent_bytes, 30);
}

static void a_failure_sets_next_back_and_skips_what_was_acknowledged(void **state) {
    struct bed *bed = *state;
    uint32_t at[5];
    for (int i = 0; i < 5; i++) {
        at[i] = insert(bed, i + 1);
    }
    for (int i = 0; i < 4; i++) {
        hv_shards_sent(&bed->shards, bed->shard, 0);
    }
    hv_shards_acked(&bed->shards, at[0], 0);
    hv_shards_failed(&bed->shards, at[1]);
    /* reported failed, or purged, does not mean that it was not written */
    hv_shards_acked(&bed->shards, at[2], 0);
    hv_shards_failed(&bed->shards, at[3]);
    hv_shard_rewind(&bed->shards, bed->shard);
    EXPECT(bed, 2, 2, 4, 5);
    assert_int_equal(bed->shards.unsent, 3);
    assert_int_equal(bed->shard->in_flight, 0);
}

static void removing_the_next_one_moves_on(void **state) {
    struct bed *bed = *state;
    uint32_t one = insert(bed, 1), two = insert(bed, 2);
    insert(bed, 3);
    hv_shards_remove_unsent(&bed->shards, one);
    EXPECT(bed, 2, 2, 3);
    hv_shards_sent(&bed->shards, bed->shard, 0);
    hv_shards_sent(&bed->shards, bed->shard, 0);
    hv_shards_failed(&bed->shards, two); /* 3 is still in flight */
    hv_shard_rewind(&bed->shards, bed->shard);
    hv_shards_remove_unsent(&bed->shards, two);
    EXPECT(bed, -1, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_bed, close_bed)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(unsent_records_stand_by_id_behind_those_in_flight),
        TEST(a_failure_sets_next_back_and_skips_what_was_acknowledged),
        TEST(removing_the_next_one_moves_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
