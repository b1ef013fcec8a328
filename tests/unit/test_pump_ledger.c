/* app/cmd_pump_ledger and app/cmd_pump_histogram: what is lost, out of order, repeated; percentiles; memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/cmd_pump_ledger.h"
#include "base/random.h"

static struct hv_ledger *ledger;

static int make(void **state) {
    (void)state;
    ledger = hv_ledger_new(3, true);
    return 0;
}

static int end(void **state) {
    (void)state;
    hv_ledger_free(ledger);
    return 0;
}

/* Issues and commits this many records of a key at time 1000. */
static void write_some(uint32_t key, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        hv_ledger_committed(ledger, key, hv_ledger_issue(ledger, key), 1000);
    }
}

static enum hv_arrival arrive(uint32_t key, uint64_t seq) {
    return hv_ledger_arrived(ledger, key, seq, false, 1000 + (hv_time)seq);
}

static void numbers_rise_by_key(void **state) {
    (void)state;
    assert_int_equal(hv_ledger_issue(ledger, 0), 1);
    assert_int_equal(hv_ledger_issue(ledger, 0), 2);
    assert_int_equal(hv_ledger_issue(ledger, 2), 1);
    assert_int_equal(hv_ledger_issue(ledger, 0), 3);
}

static void all_is_well(void **state) {
    (void)state;
    write_some(0, 100);
    write_some(1, 5);
    assert_int_equal(hv_ledger_counts(ledger)->missing, 105);
    for (unsigned i = 1; i <= 100; i++) {
        assert_int_equal(arrive(0, i), HV_ARRIVAL_FIRST);
    }
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(arrive(1, i), HV_ARRIVAL_FIRST);
    }
    const struct hv_ledger_counts *n = hv_ledger_counts(ledger);
    assert_int_equal(n->committed, 105);
    assert_int_equal(n->arrived, 105);
    assert_int_equal(n->missing + n->out_of_order + n->duplicates + n->phantoms + n->invented + n->unknown, 0);
    assert_int_equal(hv_ledger_latency(ledger)->count, 105);
    assert_int_equal(hv_ledger_latency(ledger)->max, 100);
    assert_int_equal(hv_ledger_highest(ledger, 0), 100);
}

static bool note(void *user, uint32_t key, uint64_t seq) {
    char *text = user;
    sprintf(text + strlen(text), "%u:%u ", (unsigned)key, (unsigned)seq);
    return strlen(text) < 10;
}

static void what_does_not_come_is_missing(void **state) {
    (void)state;
    char text[100] = "";
    write_some(0, 40);
    write_some(2, 40);
    for (unsigned i = 1; i <= 40; i++) {
        if (i != 17) {
            assert_int_equal(arrive(0, i), HV_ARRIVAL_FIRST);
        }
        if (i < 38) {
            assert_int_equal(arrive(2, i), HV_ARRIVAL_FIRST);
        }
    }
    assert_int_equal(hv_ledger_counts(ledger)->missing, 4);
    hv_ledger_each_missing(ledger, note, text);
    assert_string_equal(text, "0:17 2:38 "); /* until it is enough */
    assert_int_equal(arrive(0, 17), HV_ARRIVAL_OUT_OF_ORDER);
    assert_int_equal(hv_ledger_counts(ledger)->missing, 3);
}

static void order_is_judged_by_first_deliveries(void **state) {
    (void)state;
    write_some(0, 50);
    assert_int_equal(arrive(0, 1), HV_ARRIVAL_FIRST);
    assert_int_equal(arrive(0, 3), HV_ARRIVAL_FIRST); /* that 2 was overtaken shows when it comes */
    assert_int_equal(arrive(0, 1), HV_ARRIVAL_DUPLICATE);
    assert_int_equal(arrive(0, 2), HV_ARRIVAL_OUT_OF_ORDER);
    assert_int_equal(arrive(0, 3), HV_ARRIVAL_DUPLICATE);
    assert_int_equal(arrive(0, 4), HV_ARRIVAL_FIRST);
    for (unsigned i = 5; i <= 50; i++) {
        assert_int_equal(arrive(0, i), HV_ARRIVAL_FIRST);
    }
    assert_int_equal(arrive(0, 20), HV_ARRIVAL_DUPLICATE); /* long forgotten */
    assert_int_equal(arrive(0, 50), HV_ARRIVAL_DUPLICATE);
    assert_int_equal(hv_ledger_counts(ledger)->out_of_order, 1);
    assert_int_equal(hv_ledger_counts(ledger)->duplicates, 4);
    assert_int_equal(hv_ledger_counts(ledger)->arrived, 50);
}

static void quicker_than_the_commits_reply(void **state) {
    (void)state;
    uint64_t seq = hv_ledger_issue(ledger, 1);
    assert_int_equal(arrive(1, seq), HV_ARRIVAL_FIRST);
    assert_int_equal(arrive(1, seq), HV_ARRIVAL_DUPLICATE);
    assert_int_equal(hv_ledger_latency(ledger)->count, 0);
    hv_ledger_committed(ledger, 1, seq, 5000);
    assert_int_equal(hv_ledger_counts(ledger)->missing, 0);
    assert_int_equal(hv_ledger_latency(ledger)->count, 1);
    assert_int_equal(hv_ledger_latency(ledger)->max, 0);
}

static void an_unknown_outcome_is_neither_lost_nor_wrong(void **state) {
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        hv_ledger_issue(ledger, 0);
    }
    assert_int_equal(arrive(0, 1), HV_ARRIVAL_FIRST);
    for (unsigned i = 1; i <= 3; i++) {
        hv_ledger_unknown(ledger, 0, i);
    }
    assert_int_equal(hv_ledger_counts(ledger)->missing, 0);
    assert_int_equal(arrive(0, 3), HV_ARRIVAL_FIRST);
    assert_int_equal(arrive(0, 3), HV_ARRIVAL_DUPLICATE);
    assert_int_equal(arrive(0, 2), HV_ARRIVAL_OUT_OF_ORDER);
    assert_int_equal(hv_ledger_counts(ledger)->unknown, 3);
    assert_int_equal(hv_ledger_counts(ledger)->arrived, 3);
}

static void what_was_rolled_back_is_a_phantom(void **state) {
    (void)state;
    uint64_t doomed = hv_ledger_issue(ledger, 0);
    hv_ledger_not_committed(ledger, 0, doomed);
    write_some(0, 30);
    assert_int_equal(hv_ledger_counts(ledger)->missing, 30);
    for (unsigned i = 2; i <= 31; i++) {
        assert_int_equal(arrive(0, i), HV_ARRIVAL_FIRST);
    }
    assert_int_equal(hv_ledger_arrived(ledger, 0, doomed, true, 0), HV_ARRIVAL_PHANTOM);
    assert_int_equal(hv_ledger_counts(ledger)->phantoms, 1);
    uint64_t early = hv_ledger_issue(ledger, 0);
    assert_int_equal(arrive(0, early), HV_ARRIVAL_FIRST);
    hv_ledger_not_committed(ledger, 0, early);
    assert_int_equal(hv_ledger_counts(ledger)->phantoms, 2);
    assert_int_equal(hv_ledger_counts(ledger)->arrived, 30);
    assert_int_equal(hv_ledger_counts(ledger)->missing, 0);
}

static void what_was_never_written_is_invented(void **state) {
    (void)state;
    write_some(0, 2);
    assert_int_equal(arrive(0, 0), HV_ARRIVAL_INVENTED);
    assert_int_equal(arrive(0, 3), HV_ARRIVAL_INVENTED);
    assert_int_equal(arrive(1, 1), HV_ARRIVAL_INVENTED);
    assert_int_equal(arrive(3, 1), HV_ARRIVAL_INVENTED);
    assert_int_equal(arrive(UINT32_MAX, 1), HV_ARRIVAL_INVENTED);
    assert_int_equal(hv_ledger_counts(ledger)->invented, 5);
    assert_int_equal(hv_ledger_counts(ledger)->missing, 2);
}

static void memory_goes_with_what_is_outstanding(void **state) {
    (void)state;
    size_t start = hv_ledger_bytes(ledger);
    write_some(0, 16000);
    assert_true(hv_ledger_bytes(ledger) - start < 16000 * 11);
    for (unsigned i = 1; i <= 16000; i++) {
        arrive(0, i);
    }
    for (unsigned i = 0; i < 1000000; i++) { /* one that is lost does not hold up the others' memory */
        write_some(0, 1);
        if (i > 0) {
            arrive(0, 16001 + i);
        }
    }
    assert_int_equal(hv_ledger_counts(ledger)->missing, 1);
    assert_true(hv_ledger_bytes(ledger) - start < 16000 + 3 * HV_LEDGER_BLOCK_BYTES);
}

static void without_tracking_only_numbers_and_counts(void **state) {
    (void)state;
    hv_ledger_free(ledger);
    ledger = hv_ledger_new(1, false);
    for (uint64_t i = 1; i <= 100; i++) {
        assert_int_equal(hv_ledger_issue(ledger, 0), i);
        hv_ledger_committed(ledger, 0, i, 0);
    }
    assert_int_equal(hv_ledger_counts(ledger)->committed, 100);
    assert_int_equal(hv_ledger_bytes(ledger), 0);
}

/* ---- against a model that remembers everything ---- */

enum { NUMBERS = 400, ROUNDS = 3000 };

static struct model {
    enum { NEW, WRITING, COMMITTED, UNKNOWN, GIVEN_UP } state[NUMBERS + 1];
    bool arrived[NUMBERS + 1];
    unsigned next, highest;
    uint64_t out_of_order, duplicates, arrivals;
} models[3];

static void settle_one(struct hv_random *random, uint32_t key, struct model *m, unsigned seq) {
    if (m->state[seq] != WRITING) {
        return;
    }
    switch (hv_random_below(random, 8)) {
    case 0:
        m->state[seq] = UNKNOWN;
        hv_ledger_unknown(ledger, key, seq);
        break;
    case 1:
        if (!m->arrived[seq]) {
            m->state[seq] = GIVEN_UP;
            hv_ledger_not_committed(ledger, key, seq);
            break;
        }
        /* fall through */
    default:
        m->state[seq] = COMMITTED;
        hv_ledger_committed(ledger, key, seq, 0);
    }
}

static void arrive_one(uint32_t key, struct model *m, unsigned seq) {
    if (m->state[seq] == GIVEN_UP || seq >= m->next || seq == 0) {
        return;
    }
    enum hv_arrival expected = m->arrived[seq]      ? HV_ARRIVAL_DUPLICATE
                               : seq < m->highest ? HV_ARRIVAL_OUT_OF_ORDER
                                                  : HV_ARRIVAL_FIRST;
    m->duplicates += m->arrived[seq];
    m->arrivals += !m->arrived[seq];
    m->out_of_order += expected == HV_ARRIVAL_OUT_OF_ORDER;
    m->arrived[seq] = true;
    m->highest = seq > m->highest ? seq : m->highest;
    assert_int_equal(hv_ledger_arrived(ledger, key, seq, false, 0), expected);
}

static void compare(void) {
    uint64_t missing = 0, duplicates = 0, arrivals = 0, out_of_order = 0;
    for (unsigned k = 0; k < 3; k++) {
        for (unsigned seq = 1; seq < models[k].next; seq++) {
            missing += models[k].state[seq] == COMMITTED && !models[k].arrived[seq];
        }
        duplicates += models[k].duplicates;
        arrivals += models[k].arrivals;
        out_of_order += models[k].out_of_order;
    }
    const struct hv_ledger_counts *n = hv_ledger_counts(ledger);
    assert_int_equal(n->missing, missing);
    assert_int_equal(n->duplicates, duplicates);
    assert_int_equal(n->arrived, arrivals);
    assert_int_equal(n->out_of_order, out_of_order);
}

static void agrees_with_a_simple_model(void **state) {
    (void)state;
    const char *given = getenv("HV_SEED");
    struct hv_random random = {.state = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)(uintptr_t)ledger};
    print_message("HV_SEED=%llu\n", (unsigned long long)random.state);
    memset(models, 0, sizeof models);
    for (unsigned k = 0; k < 3; k++) {
        models[k].next = 1;
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t key = (uint32_t)hv_random_below(&random, 3);
        struct model *m = &models[key];
        if (m->next <= NUMBERS && hv_random_below(&random, 2) == 0) {
            assert_int_equal(hv_ledger_issue(ledger, key), m->next);
            m->state[m->next++] = WRITING;
        }
        settle_one(&random, key, m, (unsigned)hv_random_below(&random, m->next));
        arrive_one(key, m, (unsigned)hv_random_below(&random, m->next));
        if (m->next > 20) { /* mostly near the end, so that blocks come and go */
            settle_one(&random, key, m, m->next - 1 - (unsigned)hv_random_below(&random, 20));
            arrive_one(key, m, m->next - 1 - (unsigned)hv_random_below(&random, 20));
        }
        compare();
    }
}

/* ---- percentiles ---- */

static int by_value(const void *a, const void *b) {
    hv_time x = *(const hv_time *)a, y = *(const hv_time *)b;
    return x < y ? -1 : x > y;
}

static void quantiles_are_as_good_as_promised(void **state) {
    (void)state;
    enum { COUNT = 20000 };
    static struct hv_histogram h;
    static hv_time values[COUNT];
    struct hv_random random = {.state = 7};
    memset(&h, 0, sizeof h);
    for (int i = 0; i < COUNT; i++) {
        values[i] = (hv_time)(hv_random_next(&random) >> (24 + hv_random_below(&random, 39)));
        hv_histogram_add(&h, values[i]);
    }
    qsort(values, COUNT, sizeof values[0], by_value);
    for (unsigned q = 1; q <= 1000; q++) {
        hv_time exact = values[(q * COUNT + 999) / 1000 - 1], found = hv_histogram_quantile(&h, q);
        assert_true(found >= exact && found <= exact + exact / 128);
    }
    assert_int_equal(h.max, values[COUNT - 1]);
}

static void quantiles_at_the_edges(void **state) {
    (void)state;
    static struct hv_histogram h;
    assert_int_equal(hv_histogram_quantile(&h, 500), 0);
    hv_histogram_add(&h, -5);
    assert_int_equal(hv_histogram_quantile(&h, 990), 0);
    hv_histogram_add(&h, INT64_MAX);
    assert_int_equal(hv_histogram_quantile(&h, 1000), INT64_MAX);
    assert_int_equal(hv_histogram_quantile(&h, 500), 0);
    for (hv_time v = 0; v < 256; v++) { /* exact */
        memset(&h, 0, sizeof h);
        hv_histogram_add(&h, v);
        hv_histogram_add(&h, 1000);
        assert_int_equal(hv_histogram_quantile(&h, 500), v);
    }
    memset(&h, 0, sizeof h);
    hv_histogram_add(&h, ((hv_time)1 << HV_HISTOGRAM_TOP_BITS) - 1);
    hv_histogram_add(&h, (hv_time)1 << HV_HISTOGRAM_TOP_BITS);
    assert_int_equal(hv_histogram_quantile(&h, 500), ((hv_time)1 << HV_HISTOGRAM_TOP_BITS) - 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(numbers_rise_by_key),
        TEST(all_is_well),
        TEST(what_does_not_come_is_missing),
        TEST(order_is_judged_by_first_deliveries),
        TEST(quicker_than_the_commits_reply),
        TEST(an_unknown_outcome_is_neither_lost_nor_wrong),
        TEST(what_was_rolled_back_is_a_phantom),
        TEST(what_was_never_written_is_invented),
        TEST(memory_goes_with_what_is_outstanding),
        TEST(without_tracking_only_numbers_and_counts),
        TEST(agrees_with_a_simple_model),
        cmocka_unit_test(quantiles_are_as_good_as_promised),
        cmocka_unit_test(quantiles_at_the_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
