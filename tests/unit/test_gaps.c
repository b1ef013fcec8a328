/* core/gaps: no id leaves it that may still appear, however ranges touch, split, are merged, or wait for writers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/random.h"
#include "core/gaps.h"

#define NOW HV_SECONDS(10)
#define AGAIN HV_MS(50)

static void begin(struct hv_gaps *gaps, size_t max) {
    hv_gaps_init(gaps, max);
    hv_gaps_clear(gaps);
}

/* The bound is far unless a test takes another one. */
static int setup(void **state) {
    static struct hv_gaps gaps;
    begin(&gaps, 16);
    *state = &gaps;
    return 0;
}

static int teardown(void **state) {
    hv_gaps_fini(*state);
    return 0;
}

static void bound_by(struct hv_gaps *gaps, size_t max) {
    hv_gaps_fini(gaps);
    begin(gaps, max);
}

#define WRITERS(gaps, ...) \
    hv_gaps_writers(gaps, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t), NOW)
#define NO_WRITERS(gaps) hv_gaps_writers(gaps, NULL, 0, NOW)
#define PROBED(gaps, until, ...) \
    hv_gaps_probed(gaps, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t), until)
#define NONE_PROBED(gaps, until) hv_gaps_probed(gaps, NULL, 0, until)

static void assert_gap(const struct hv_gaps *gaps, size_t at, int64_t lo, int64_t hi, enum hv_gap_phase phase) {
    assert_true(at < gaps->count);
    if (gaps->list[at].lo != lo || gaps->list[at].hi != hi || gaps->list[at].phase != phase) {
        fail_msg("gap %zu is %lld...%lld in phase %d", at, (long long)gaps->list[at].lo, (long long)gaps->list[at].hi,
                 gaps->list[at].phase);
    }
}

static void assert_whole(const struct hv_gaps *gaps) {
    assert_true(gaps->count <= gaps->max);
    for (size_t i = 0; i < gaps->count; i++) {
        assert_true(gaps->list[i].lo <= gaps->list[i].hi);
        assert_true(i == 0 || gaps->list[i - 1].hi < gaps->list[i].lo);
    }
}

/* ---- ranges ---- */

static void what_is_found_splits_a_gap(void **state) {
    struct hv_gaps *gaps = *state;
    hv_gaps_add(gaps, 10, 20);
    PROBED(gaps, INT64_MAX, 5, 12, 13, 17, 30);
    assert_int_equal(gaps->count, 3);
    assert_gap(gaps, 0, 10, 11, HV_GAP_FRESH);
    assert_gap(gaps, 1, 14, 16, HV_GAP_FRESH);
    assert_gap(gaps, 2, 18, 20, HV_GAP_FRESH);
    PROBED(gaps, INT64_MAX, 10, 20); /* ends */
    assert_gap(gaps, 0, 11, 11, HV_GAP_FRESH);
    assert_gap(gaps, 2, 18, 19, HV_GAP_FRESH);
    PROBED(gaps, INT64_MAX, 11, 14, 15, 16); /* a gap of one, and a whole one */
    assert_int_equal(gaps->count, 1);
    assert_gap(gaps, 0, 18, 19, HV_GAP_FRESH);
    assert_false(hv_gaps_hold(gaps, 17));
    assert_true(hv_gaps_hold(gaps, 18));
    assert_true(hv_gaps_hold(gaps, 19));
    assert_false(hv_gaps_hold(gaps, 20));
}

static void ranges_that_touch_or_overlap_are_added_once(void **state) {
    struct hv_gaps *gaps = *state;
    hv_gaps_add(gaps, 10, 20);
    hv_gaps_add(gaps, 30, 40);
    NO_WRITERS(gaps); /* these are known now; what is added from here on is fresh */
    hv_gaps_add(gaps, 12, 18);
    hv_gaps_add(gaps, 10, 20);
    assert_int_equal(gaps->count, 2);
    hv_gaps_add(gaps, 21, 21); /* touches */
    hv_gaps_add(gaps, 9, 9);
    hv_gaps_add(gaps, 5, 50); /* covers all */
    assert_whole(gaps);
    for (int64_t id = 5; id <= 50; id++) {
        assert_true(hv_gaps_hold(gaps, id));
    }
    assert_false(hv_gaps_hold(gaps, 4));
    assert_false(hv_gaps_hold(gaps, 51));
    NONE_PROBED(gaps, INT64_MAX); /* only what was known before is retired */
    for (int64_t id = 5; id <= 50; id++) {
        bool old = (id >= 10 && id <= 20) || (id >= 30 && id <= 40);
        assert_true(hv_gaps_hold(gaps, id) == !old);
    }
}

static void the_ends_of_int8(void **state) {
    struct hv_gaps *gaps = *state;
    hv_gaps_add(gaps, INT64_MIN, INT64_MAX);
    hv_gaps_add(gaps, INT64_MIN, INT64_MIN);
    hv_gaps_add(gaps, INT64_MAX, INT64_MAX);
    assert_int_equal(gaps->count, 1);
    PROBED(gaps, INT64_MAX, INT64_MIN, 0, INT64_MAX);
    assert_int_equal(gaps->count, 2);
    assert_gap(gaps, 0, INT64_MIN + 1, -1, HV_GAP_FRESH);
    assert_gap(gaps, 1, 1, INT64_MAX - 1, HV_GAP_FRESH);
    hv_gaps_add(gaps, INT64_MIN, INT64_MAX);
    assert_int_equal(gaps->count, 5);
    assert_whole(gaps);
    assert_gap(gaps, 4, INT64_MAX, INT64_MAX, HV_GAP_FRESH);
    NO_WRITERS(gaps);
    NONE_PROBED(gaps, INT64_MIN); /* looked at nothing but the lowest id */
    assert_int_equal(gaps->count, 5);
    assert_gap(gaps, 0, INT64_MIN, INT64_MIN, HV_GAP_LAST);
    NONE_PROBED(gaps, INT64_MAX - 1);
    assert_int_equal(gaps->count, 5);
    assert_gap(gaps, 4, INT64_MAX, INT64_MAX, HV_GAP_LAST);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 0);
}

static void the_bound_joins_the_closest_also_at_the_ends_of_int8(void **state) {
    struct hv_gaps *gaps = *state;
    bound_by(gaps, 2);
    hv_gaps_add(gaps, INT64_MIN, INT64_MIN);
    hv_gaps_add(gaps, INT64_MAX, INT64_MAX);
    hv_gaps_add(gaps, 0, 0);
    assert_int_equal(gaps->count, 2);
    assert_whole(gaps);
    assert_gap(gaps, 0, INT64_MIN, INT64_MIN, HV_GAP_FRESH);
    assert_gap(gaps, 1, 0, INT64_MAX, HV_GAP_FRESH);
    assert_true(gaps->list[1].merged);
    assert_false(gaps->list[0].merged);
}

static void at_the_bound_the_two_closest_become_one_that_is_as_young_as_the_younger(void **state) {
    struct hv_gaps *gaps = *state;
    bound_by(gaps, 3);
    hv_gaps_add(gaps, 10, 10);
    hv_gaps_add(gaps, 20, 20);
    NO_WRITERS(gaps);
    hv_gaps_add(gaps, 23, 23);
    hv_gaps_add(gaps, 40, 40);
    assert_int_equal(gaps->count, 3);
    assert_gap(gaps, 0, 10, 10, HV_GAP_LAST);
    assert_gap(gaps, 1, 20, 23, HV_GAP_FRESH);
    assert_true(gaps->list[1].merged);
    assert_gap(gaps, 2, 40, 40, HV_GAP_FRESH);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 2);
    PROBED(gaps, INT64_MAX, 21); /* its pieces hold ids that were seen, too */
    assert_int_equal(gaps->count, 3);
    assert_true(gaps->list[0].merged && gaps->list[1].merged);
    PROBED(gaps, INT64_MAX, 22);
    assert_int_equal(gaps->count, 3);
    assert_gap(gaps, 1, 23, 23, HV_GAP_FRESH);
}

static void a_probe_that_splits_stays_within_the_bound(void **state) {
    struct hv_gaps *gaps = *state;
    bound_by(gaps, 2);
    hv_gaps_add(gaps, 0, 100);
    PROBED(gaps, INT64_MAX, 10, 20, 30, 32, 34, 90);
    assert_whole(gaps);
    assert_int_equal(gaps->count, 2);
    for (int64_t id = 0; id <= 100; id++) {
        bool found = id == 10 || id == 20 || id == 30 || id == 32 || id == 34 || id == 90;
        assert_true(found || hv_gaps_hold(gaps, id));
    }
}

/* ---- epochs ---- */

static void a_gap_is_retired_by_a_probe_after_its_writers_are_gone(void **state) {
    struct hv_gaps *gaps = *state;
    assert_false(hv_gaps_want_writers(gaps, NOW));
    assert_int_equal(hv_gaps_deadline(gaps), HV_NEVER);
    hv_gaps_add(gaps, 5, 6);
    assert_true(hv_gaps_want_writers(gaps, NOW));
    WRITERS(gaps, 1, 2);
    assert_gap(gaps, 0, 5, 6, HV_GAP_EPOCH);
    assert_false(hv_gaps_want_writers(gaps, NOW + AGAIN - 1));
    assert_int_equal(hv_gaps_deadline(gaps), NOW + AGAIN);
    NONE_PROBED(gaps, INT64_MAX);
    WRITERS(gaps, 2, 3);
    NONE_PROBED(gaps, INT64_MAX);
    assert_gap(gaps, 0, 5, 6, HV_GAP_EPOCH);
    WRITERS(gaps, 3, 1); /* 1 was gone already: whoever has its name now drew higher ids */
    assert_gap(gaps, 0, 5, 6, HV_GAP_LAST);
    assert_false(hv_gaps_want_writers(gaps, NOW + HV_SECONDS(100)));
    assert_int_equal(hv_gaps_deadline(gaps), HV_NEVER);
    NONE_PROBED(gaps, 4); /* truncated below it */
    assert_gap(gaps, 0, 5, 6, HV_GAP_LAST);
    NONE_PROBED(gaps, 5); /* ... within it: all that waits is retired at one time */
    assert_gap(gaps, 0, 5, 6, HV_GAP_LAST);
    NONE_PROBED(gaps, 6);
    assert_int_equal(gaps->count, 0);
}

static void what_was_looked_at_for_the_last_time_can_be_given_up(void **state) {
    struct hv_gaps *gaps = *state;
    hv_gaps_add(gaps, 1, 3);
    hv_gaps_add(gaps, 5, 9);
    hv_gaps_add(gaps, 11, 12);
    NO_WRITERS(gaps);
    hv_gaps_add(gaps, 20, 21);
    hv_gaps_retire(gaps, 5);
    assert_int_equal(gaps->count, 3);
    assert_gap(gaps, 0, 6, 9, HV_GAP_LAST);
    hv_gaps_retire(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 1);
    assert_gap(gaps, 0, 20, 21, HV_GAP_FRESH);
}

static void fresh_gaps_wait_for_the_epoch_that_runs(void **state) {
    struct hv_gaps *gaps = *state;
    hv_gaps_add(gaps, 1, 1);
    WRITERS(gaps, 7);
    hv_gaps_add(gaps, 3, 3);
    WRITERS(gaps, 7, 8);
    assert_gap(gaps, 0, 1, 1, HV_GAP_EPOCH);
    assert_gap(gaps, 1, 3, 3, HV_GAP_FRESH);
    hv_gaps_add(gaps, 5, 5);
    WRITERS(gaps, 8, 9); /* 7 is gone; these are the epoch of the next */
    assert_gap(gaps, 0, 1, 1, HV_GAP_LAST);
    assert_gap(gaps, 1, 3, 3, HV_GAP_EPOCH);
    assert_gap(gaps, 2, 5, 5, HV_GAP_EPOCH);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 2);
    WRITERS(gaps, 9, 10);
    assert_gap(gaps, 0, 3, 3, HV_GAP_EPOCH);
    WRITERS(gaps, 10);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 0);
}

static void without_writers_gaps_are_looked_at_once_more_and_retired(void **state) {
    struct hv_gaps *gaps = *state;
    hv_gaps_add(gaps, 1, 1);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 1);
    NO_WRITERS(gaps);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 0);
}

static void more_writers_than_can_be_remembered(void **state) {
    struct hv_gaps *gaps = *state;
    static uint64_t crowd[HV_EPOCH_MAX + 1];
    for (size_t i = 0; i <= HV_EPOCH_MAX; i++) {
        crowd[i] = i + 1;
    }
    hv_gaps_add(gaps, 1, 1);
    hv_gaps_writers(gaps, crowd, HV_EPOCH_MAX + 1, NOW);
    assert_gap(gaps, 0, 1, 1, HV_GAP_FRESH);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 1);
    assert_false(hv_gaps_want_writers(gaps, NOW + AGAIN)); /* not so soon */
    assert_true(hv_gaps_want_writers(gaps, NOW + HV_SECONDS(2)));
    hv_gaps_writers(gaps, crowd, HV_EPOCH_MAX, NOW); /* just as many as fit */
    assert_gap(gaps, 0, 1, 1, HV_GAP_EPOCH);
    hv_gaps_writers(gaps, crowd, HV_EPOCH_MAX + 1, NOW); /* more while it runs: the epoch's own count only */
    assert_gap(gaps, 0, 1, 1, HV_GAP_EPOCH);
    hv_gaps_writers(gaps, &crowd[HV_EPOCH_MAX], 1, NOW);
    assert_gap(gaps, 0, 1, 1, HV_GAP_LAST);
}

static void an_epoch_that_never_ends_keeps_everything(void **state) {
    struct hv_gaps *gaps = *state;
    bound_by(gaps, 4);
    hv_gaps_add(gaps, 0, 0);
    WRITERS(gaps, 1);
    for (int64_t i = 1; i < 1000; i++) {
        hv_gaps_add(gaps, 10 * i, 10 * i + 1);
        WRITERS(gaps, 1, (uint64_t)i + 1);
        PROBED(gaps, INT64_MAX, 10 * i + 5);
        assert_whole(gaps);
    }
    for (int64_t i = 0; i < 1000; i++) {
        assert_true(hv_gaps_hold(gaps, 10 * i));
    }
    WRITERS(gaps, 2000);
    WRITERS(gaps, 2001);
    NONE_PROBED(gaps, INT64_MAX);
    assert_int_equal(gaps->count, 0);
}

static void an_unanswered_question_is_put_again(void **state) {
    struct hv_gaps *gaps = *state;
    hv_gaps_add(gaps, 1, 1);
    WRITERS(gaps, 9);
    hv_gaps_unanswered(gaps, NOW);
    assert_false(hv_gaps_want_writers(gaps, NOW));
    assert_true(hv_gaps_want_writers(gaps, NOW + AGAIN));
    hv_gaps_clear(gaps);
    assert_int_equal(gaps->count, 0);
    assert_int_equal(hv_gaps_deadline(gaps), HV_NEVER);
}

/* ---- against a naive model: each id by itself ---- */

#define IDS 120
enum { ABSENT = -1 };

#define STEPS 60

struct model {
    int phase[IDS];
    uint64_t writers[8];
    size_t writer_count;
    bool waiting;
    /* Whatever epochs there are: those who wrote at each answer since the id was added, and were there at every answer since (a bit for each).
     * An id may go when one of these sets is empty, and a claim has looked at it after that. */
    uint8_t since[IDS][STEPS], sets[IDS];
    bool needed[IDS];
};

static void model_add(struct model *m, const struct hv_gaps *gaps, int64_t lo, int64_t hi) {
    for (int64_t id = lo; id <= hi; id++) {
        if (m->phase[id] == ABSENT) {
            m->phase[id] = HV_GAP_FRESH;
        }
        if (!m->needed[id] && !hv_gaps_hold(gaps, id)) { /* what is in a gap already is as old as that */
            m->needed[id] = true;
            m->sets[id] = 0;
        }
    }
}

static void needed_writers(struct model *m, const uint64_t *hashes, size_t count) {
    uint8_t there = 0;
    for (size_t i = 0; i < count; i++) {
        there |= (uint8_t)(1 << hashes[i]);
    }
    for (int id = 0; id < IDS; id++) {
        for (int i = 0; i < m->sets[id]; i++) {
            m->since[id][i] &= there;
        }
        m->since[id][m->sets[id]++] = there;
    }
}

static void needed_probed(struct model *m, const bool *found, int64_t until) {
    for (int id = 0; id < IDS && id <= until; id++) {
        bool decided = found[id];
        for (int i = 0; i < m->sets[id]; i++) {
            decided = decided || m->since[id][i] == 0;
        }
        m->needed[id] = m->needed[id] && !decided;
    }
}

static void model_writers(struct model *m, const uint64_t *hashes, size_t count) {
    bool any = false, fresh = false;
    for (size_t i = 0; i < m->writer_count; i++) {
        bool there = false;
        for (size_t k = 0; k < count; k++) {
            there = there || hashes[k] == m->writers[i];
        }
        m->writers[i] = there ? m->writers[i] : 0;
        any = any || m->writers[i] != 0;
    }
    for (int id = 0; id < IDS; id++) {
        if (m->phase[id] == HV_GAP_EPOCH && !any) {
            m->phase[id] = HV_GAP_LAST;
        }
        fresh = fresh || m->phase[id] == HV_GAP_FRESH;
    }
    m->waiting = m->waiting && any;
    if (m->waiting || !fresh) {
        return;
    }
    for (int id = 0; id < IDS; id++) {
        if (m->phase[id] == HV_GAP_FRESH) {
            m->phase[id] = count == 0 ? HV_GAP_LAST : HV_GAP_EPOCH;
        }
    }
    m->waiting = count > 0;
    m->writer_count = count;
    if (count > 0) {
        memcpy(m->writers, hashes, count * sizeof *hashes);
    }
}

static void model_probed(struct model *m, const bool *found, int64_t until) {
    bool all = true;
    for (int id = 0; id < IDS; id++) {
        all = all && (m->phase[id] != HV_GAP_LAST || id <= until);
    }
    for (int id = 0; id < IDS && id <= until; id++) {
        if (found[id] || (m->phase[id] == HV_GAP_LAST && all)) {
            m->phase[id] = ABSENT;
        }
    }
}

static int phase_of(const struct hv_gaps *gaps, int64_t id) {
    for (size_t i = 0; i < gaps->count; i++) {
        if (gaps->list[i].lo <= id && id <= gaps->list[i].hi) {
            return gaps->list[i].phase;
        }
    }
    return ABSENT;
}

static int between(struct hv_random *dice, int low, int high) {
    return low + (int)hv_random_below(dice, (uint64_t)(high - low + 1));
}

static void probe_both(struct hv_gaps *gaps, struct model *m, struct hv_random *dice, int share) {
    bool found[IDS] = {false};
    int64_t ids[IDS];
    size_t count = 0;
    int64_t until = between(dice, 0, 3) == 0 ? between(dice, 0, IDS - 1) : INT64_MAX;
    for (int id = 0; id < IDS && id <= until; id++) {
        /* Also ids that nobody waits for. */
        found[id] = between(dice, 0, 99) < share;
        if (found[id]) {
            ids[count++] = id;
        }
    }
    hv_gaps_probed(gaps, ids, count, until);
    model_probed(m, found, until);
    needed_probed(m, found, until);
}

static void writers_both(struct hv_gaps *gaps, struct model *m, struct hv_random *dice) {
    uint64_t hashes[8];
    size_t count = (size_t)between(dice, 0, 4);
    for (size_t i = 0; i < count; i++) {
        hashes[i] = 1 + hv_random_below(dice, 6);
    }
    hv_gaps_writers(gaps, hashes, count, NOW);
    model_writers(m, hashes, count);
    needed_writers(m, hashes, count);
}

/* Exact: with so many gaps that none are joined. Otherwise epochs may run at other times, but no id leaves before it may. */
static void compare(const struct hv_gaps *gaps, const struct model *m, bool exact) {
    assert_whole(gaps);
    for (int id = 0; id < IDS; id++) {
        int real = phase_of(gaps, id);
        assert_true(hv_gaps_hold(gaps, id) == (real != ABSENT));
        if (exact) {
            assert_int_equal(real, m->phase[id]);
        }
        assert_true(real != ABSENT || !m->needed[id]);
    }
}

static void run_random(uint64_t seed, size_t max) {
    struct hv_random dice = {.state = seed};
    struct hv_gaps gaps;
    struct model m = {.waiting = false};
    bool exact = max >= IDS;
    int top = 0;
    begin(&gaps, max);
    for (int id = 0; id < IDS; id++) {
        m.phase[id] = ABSENT;
    }
    for (int step = 0; step < STEPS; step++) {
        int what = between(&dice, 0, 9);
        if (what < 4) {
            /* What is added to a joined gap is as old as that. */
            int lo = exact ? between(&dice, 0, IDS - 1) : top;
            if (lo < IDS) {
                int hi = between(&dice, lo, lo + 9 < IDS - 1 ? lo + 9 : IDS - 1);
                model_add(&m, &gaps, lo, hi);
                hv_gaps_add(&gaps, lo, hi);
                top = hi + between(&dice, 1, 3);
            }
        } else if (what < 7) {
            probe_both(&gaps, &m, &dice, between(&dice, 0, 1) ? 10 : 0);
        } else {
            writers_both(&gaps, &m, &dice);
        }
        compare(&gaps, &m, exact);
    }
    hv_gaps_fini(&gaps);
}

static void like_a_naive_model(void **state) {
    (void)state;
    const char *given = getenv("HV_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003;
    print_message("HV_SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < 3000; i++) {
        run_random(seed + i, IDS);
        run_random(seed + i, 2 + i % 5);
    }
}

#define WITH_GAPS(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* A transaction that somebody forgot is not asked for 20 times a second. */
static void the_older_an_epoch_the_more_seldom_the_question(void **state) {
    struct hv_gaps *gaps = *state;
    const uint64_t one = 1;
    hv_gaps_add(gaps, 10, 20);
    hv_gaps_writers(gaps, &one, 1, NOW);
    assert_int_equal(hv_gaps_deadline(gaps), NOW + AGAIN);
    hv_gaps_writers(gaps, &one, 1, NOW + 2 * AGAIN);
    assert_int_equal(hv_gaps_deadline(gaps), NOW + 3 * AGAIN);
    hv_gaps_writers(gaps, &one, 1, NOW + 40 * AGAIN);
    assert_int_equal(hv_gaps_deadline(gaps), NOW + 50 * AGAIN);
    hv_gaps_writers(gaps, &one, 1, NOW + HV_SECONDS(3600));
    assert_int_equal(hv_gaps_deadline(gaps), NOW + HV_SECONDS(3601));
    hv_gaps_writers(gaps, NULL, 0, NOW + HV_SECONDS(3601));
    assert_gap(gaps, 0, 10, 20, HV_GAP_LAST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_GAPS(what_is_found_splits_a_gap),
        WITH_GAPS(ranges_that_touch_or_overlap_are_added_once),
        WITH_GAPS(the_ends_of_int8),
        WITH_GAPS(the_bound_joins_the_closest_also_at_the_ends_of_int8),
        WITH_GAPS(at_the_bound_the_two_closest_become_one_that_is_as_young_as_the_younger),
        WITH_GAPS(a_probe_that_splits_stays_within_the_bound),
        WITH_GAPS(a_gap_is_retired_by_a_probe_after_its_writers_are_gone),
        WITH_GAPS(what_was_looked_at_for_the_last_time_can_be_given_up),
        WITH_GAPS(fresh_gaps_wait_for_the_epoch_that_runs),
        WITH_GAPS(the_older_an_epoch_the_more_seldom_the_question),
        WITH_GAPS(without_writers_gaps_are_looked_at_once_more_and_retired),
        WITH_GAPS(more_writers_than_can_be_remembered),
        WITH_GAPS(an_epoch_that_never_ends_keeps_everything),
        WITH_GAPS(an_unanswered_question_is_put_again),
        cmocka_unit_test(like_a_naive_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
