/* rt/poison: which policy a topic has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rt/poison.h"

static void patterns_are_of_whole_names_and_the_first_that_fits_counts(void **state) {
    (void)state;
    static const char rules[] = " audit.*=park,metrics-? = skip , *.eu=block,a*b*c=skip,x=park";
    static const struct {
        const char *topic;
        enum hv_poison policy;
    } cases[] = {
        {"audit.", HV_POISON_PARK}, {"audit.eu", HV_POISON_PARK}, {"audit", HV_POISON_BLOCK}, {"my.audit.x", HV_POISON_BLOCK},
        {"metrics-1", HV_POISON_SKIP}, {"metrics-", HV_POISON_BLOCK}, {"metrics-12", HV_POISON_BLOCK}, {"a.eu", HV_POISON_BLOCK},
        {"abc", HV_POISON_SKIP}, {"a-b-b-c-c", HV_POISON_SKIP}, {"a-b-c-", HV_POISON_BLOCK}, {"acb", HV_POISON_BLOCK}, {"x", HV_POISON_PARK},
        {"xx", HV_POISON_BLOCK}, {"no topic", HV_POISON_BLOCK}, {"", HV_POISON_BLOCK},
    };
    assert_int_equal(hv_poison_check(rules, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(hv_poison_of(rules, HV_POISON_BLOCK, cases[i].topic), cases[i].policy);
    }
    assert_int_equal(hv_poison_of(rules, HV_POISON_SKIP, "a.eu"), HV_POISON_BLOCK);
    assert_int_equal(hv_poison_of(rules, HV_POISON_SKIP, "other"), HV_POISON_SKIP);
    assert_int_equal(hv_poison_of(rules, HV_POISON_PARK, NULL), HV_POISON_PARK);
    assert_int_equal(hv_poison_of("", HV_POISON_PARK, "x"), HV_POISON_PARK);
    assert_int_equal(hv_poison_of("*=skip", HV_POISON_PARK, "no topic"), HV_POISON_SKIP);
}

static void what_is_no_rule_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"x", "x=", "=park", "x=parked", "x=par", "x=PARK", "x=park;y=skip", "x=park,,y=skip", "a b=park", "x=park y=skip", "[ab]=park"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct hv_error err = {""};
        assert_int_equal(hv_poison_check(wrong[i], &err), -1);
        assert_non_null(strstr(err.text, "PATTERN=POLICY"));
    }
    assert_int_equal(hv_poison_check("", NULL), 0);
    assert_int_equal(hv_poison_check("x=park,", NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_are_of_whole_names_and_the_first_that_fits_counts),
        cmocka_unit_test(what_is_no_rule_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
