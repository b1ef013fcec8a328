/* core/slots: found by id, late reports find nothing, lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "core/slots.h"

#define CAPACITY 50

static void what_is_taken_is_found_until_it_is_given_back(void **state) {
    (void)state;
    struct hv_slots slots;
    hv_slots_init(&slots, CAPACITY);
    struct hv_random dice = {.state = 1};
    uint32_t where[400]; /* index + 1 of an id; 0: not held */
    memset(where, 0, sizeof where);
    for (int i = 0; i < 200000; i++) {
        uint64_t id = hv_random_below(&dice, 400);
        int64_t spread = (int64_t)id * 1597; /* with collisions */
        assert_int_equal(hv_slots_find(&slots, spread), where[id] == 0 ? HV_NO_SLOT : where[id] - 1);
        if (where[id] != 0) {
            hv_slots_give(&slots, where[id] - 1);
            where[id] = 0;
        } else if (hv_slots_left(&slots) > 0) {
            where[id] = hv_slots_take(&slots, spread) + 1;
            assert_int_equal(hv_slot(&slots, where[id] - 1)->id, spread);
        }
    }
    hv_slots_fini(&slots);
}

static void a_late_report_finds_nothing(void **state) {
    (void)state;
    struct hv_slots slots;
    hv_slots_init(&slots, CAPACITY);
    uint32_t index = hv_slots_take(&slots, 7);
    struct hv_slot *slot = hv_slot(&slots, index);
    /* not in flight */
    assert_int_equal(hv_slots_by_ticket(&slots, hv_slot_ticket(&slots, index)), HV_NO_SLOT);
    slot->generation++;
    hv_slot_move(slot, HV_SLOT_IN_FLIGHT);
    uint64_t first = hv_slot_ticket(&slots, index);
    assert_int_equal(hv_slots_by_ticket(&slots, first), index);
    hv_slot_move(slot, HV_SLOT_UNSENT);
    assert_int_equal(hv_slots_by_ticket(&slots, first), HV_NO_SLOT);
    slot->generation++;
    hv_slot_move(slot, HV_SLOT_IN_FLIGHT);
    assert_int_equal(hv_slots_by_ticket(&slots, first), HV_NO_SLOT);
    assert_int_equal(hv_slots_by_ticket(&slots, hv_slot_ticket(&slots, index)), index);
    assert_int_equal(hv_slots_by_ticket(&slots, CAPACITY), HV_NO_SLOT);
    assert_int_equal(hv_slots_by_ticket(&slots, UINT64_MAX), HV_NO_SLOT);
    hv_slots_fini(&slots);
}

static void a_slot_that_is_used_again_has_another_ticket(void **state) {
    (void)state;
    struct hv_slots slots;
    hv_slots_init(&slots, 1);
    uint64_t last = UINT64_MAX;
    for (int64_t id = 0; id < 5; id++) {
        uint32_t index = hv_slots_take(&slots, id);
        struct hv_slot *slot = hv_slot(&slots, index);
        slot->generation++;
        hv_slot_move(slot, HV_SLOT_IN_FLIGHT);
        assert_true(hv_slot_ticket(&slots, index) != last);
        last = hv_slot_ticket(&slots, index);
        hv_slot_move(slot, HV_SLOT_UNSENT);
        hv_slots_give(&slots, index);
    }
    hv_slots_fini(&slots);
}

static void lists_keep_their_order(void **state) {
    (void)state;
    struct hv_slots slots;
    hv_slots_init(&slots, CAPACITY);
    struct hv_list list = HV_LIST_EMPTY;
    uint32_t at[4];
    for (int i = 0; i < 4; i++) {
        at[i] = hv_slots_take(&slots, i);
    }
    hv_list_append(&slots, &list, at[1]);
    hv_list_append(&slots, &list, at[3]);
    hv_list_insert(&slots, &list, at[1], at[0]);
    hv_list_insert(&slots, &list, at[3], at[2]);
    uint32_t index = list.first;
    for (int i = 0; i < 4; i++, index = hv_slot(&slots, index)->next) {
        assert_int_equal(index, at[i]);
    }
    assert_int_equal(index, HV_NO_SLOT);
    hv_list_remove(&slots, &list, at[0]);
    hv_list_remove(&slots, &list, at[3]);
    assert_int_equal(list.first, at[1]);
    assert_int_equal(list.last, at[2]);
    hv_list_remove(&slots, &list, at[1]);
    hv_list_remove(&slots, &list, at[2]);
    assert_int_equal(list.count, 0);
    assert_int_equal(list.first, HV_NO_SLOT);
    hv_slots_fini(&slots);
}

/* Lists of 0 to 3 members, put together in all ways: 0 to 5 in their order, forwards and backwards. */
static void a_list_goes_behind_another(void **state) {
    (void)state;
    for (uint32_t left = 0; left <= 3; left++) {
        for (uint32_t right = 0; right <= 3; right++) {
            struct hv_slots slots;
            struct hv_list list = HV_LIST_EMPTY, from = HV_LIST_EMPTY;
            hv_slots_init(&slots, CAPACITY);
            for (uint32_t i = 0; i < left + right; i++) {
                hv_list_append(&slots, i < left ? &list : &from, hv_slots_take(&slots, i));
            }
            hv_list_append_all(&slots, &list, &from);
            assert_int_equal(from.count, 0);
            assert_int_equal(list.count, left + right);
            assert_int_equal(from.first, HV_NO_SLOT);
            int64_t id = 0;
            for (uint32_t i = list.first; i != HV_NO_SLOT; i = hv_slot(&slots, i)->next) {
                assert_int_equal(hv_slot(&slots, i)->id, id++);
            }
            assert_int_equal(id, left + right);
            for (uint32_t i = list.last; i != HV_NO_SLOT; i = hv_slot(&slots, i)->prev) {
                assert_int_equal(hv_slot(&slots, i)->id, --id);
            }
            assert_int_equal(id, 0);
            hv_slots_fini(&slots);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken_is_found_until_it_is_given_back),
        cmocka_unit_test(a_late_report_finds_nothing),
        cmocka_unit_test(a_slot_that_is_used_again_has_another_ticket),
        cmocka_unit_test(lists_keep_their_order),
        cmocka_unit_test(a_list_goes_behind_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
