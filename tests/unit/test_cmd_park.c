/* app/cmd_park_select and _options: which records are meant, and which options go together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/cmd_park_select.h"
#include "app/options.h"

static struct hv_options options;
static struct hv_error err;

static int parse(const char *first, ...) {
    char *argv[20] = {(char *)"harvestd", (char *)"park"};
    int argc = 2;
    va_list args;
    va_start(args, first);
    for (const char *a = first; a != NULL; a = va_arg(args, const char *)) {
        argv[argc++] = (char *)a;
    }
    va_end(args);
    err.text[0] = 0;
    return hv_options_parse(argc, argv, &options, &err);
}

/* ---- ids ---- */

static void expect_ids(const char *text, const char *lo, const char *hi) {
    const struct hv_option_texts texts = {.list = {text}, .count = 1};
    struct hv_park_ranges ranges;
    err.text[0] = 0;
    if (hv_park_parse_ids(&texts, &ranges, &err) != 0) {
        if (lo != NULL) {
            fail_msg("%s: %s", text, err.text);
        }
        assert_true(strncmp(err.text, "--id: ", 6) == 0);
        assert_int_equal(ranges.count, 0);
        return;
    }
    if (lo == NULL) {
        fail_msg("%s is taken", text);
    }
    char *array = hv_park_id_array(ranges.lo, ranges.count);
    assert_string_equal(array, lo);
    free(array);
    array = hv_park_id_array(ranges.hi, ranges.count);
    assert_string_equal(array, hi);
    free(array);
    hv_park_ranges_free(&ranges);
}

static void ids(void **state) {
    (void)state;
    expect_ids("7", "{7}", "{7}");
    expect_ids("10-20", "{10}", "{20}");
    expect_ids("7,10-20,3", "{7,10,3}", "{7,20,3}");
    expect_ids("30-", "{30}", "{9223372036854775807}");
    expect_ids("30-,1", "{30,1}", "{9223372036854775807,1}");
    expect_ids("-5", "{-5}", "{-5}");
    expect_ids("-5--2", "{-5}", "{-2}");
    expect_ids("-9223372036854775808-9223372036854775807", "{-9223372036854775808}", "{9223372036854775807}");
    expect_ids("5-5", "{5}", "{5}");
    static const char *const bad[] = {"",   "x",   "7x",    "7,",   ",7",  "7,,8", "7 8", " 7", "+7", "5-2", "--", "-", "1-2-3", "0x10",
                                      "1.5", "9223372036854775808", "1-9223372036854775808", "1-x", "7-,", "1..2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_ids(bad[i], NULL, NULL);
    }
}

static void one_id(void **state) {
    (void)state;
    int64_t id = 0;
    assert_int_equal(hv_park_parse_id("-12", &id), 0);
    assert_true(id == -12);
    assert_int_equal(hv_park_parse_id("12-", &id), -1);
    assert_int_equal(hv_park_parse_id("", &id), -1);
    assert_int_equal(hv_park_parse_id("99999999999999999999", &id), -1);
}

/* ---- parameters ---- */

static void parameters(void **state) {
    (void)state;
    struct hv_park_selection s;
    assert_int_equal(parse("list", NULL), 0);
    hv_park_select(&options, 0, &s);
    for (int i = 0; i < HV_PARK_SELECTION; i++) {
        assert_null(s.values[i]);
    }
    hv_park_selection_free(&s);
    assert_int_equal(parse("list", "--id", "1-3", "--id=9", "-k", "", "--key", "a\"b\\c,{} ", "-t", "t", "--class", "too large", "--older-than",
                           "1h", "--newer-than", "2ms", "--after", "-4", NULL), 0);
    hv_park_select(&options, 6, &s);
    assert_string_equal(s.values[HV_PARK_LO], "{1,9}");
    assert_string_equal(s.values[HV_PARK_HI], "{3,9}");
    assert_string_equal(s.values[HV_PARK_KEYS], "{\"\",\"a\\\"b\\\\c,{} \"}");
    assert_string_equal(s.values[HV_PARK_TOPICS], "{\"t\"}");
    assert_string_equal(s.values[HV_PARK_CLASSES], "{\"too large\"}");
    assert_string_equal(s.values[HV_PARK_OLDER], "3600000000");
    assert_string_equal(s.values[HV_PARK_NEWER], "2000");
    assert_string_equal(s.values[HV_PARK_AFTER], "-4");
    assert_string_equal(s.values[HV_PARK_MOST], "6");
    hv_park_selection_free(&s);
    assert_string_not_equal(hv_park_condition(true), hv_park_condition(false));
}

/* ---- options ---- */

#define WRONG(part, ...)                                                                                     \
    do {                                                                                                     \
        assert_int_equal(parse(__VA_ARGS__, NULL), -1);                                                      \
        if (strstr(err.text, part) == NULL)                                                                  \
            fail_msg("'%s' is not in '%s'", part, err.text);                                                 \
    } while (0)

static void actions(void **state) {
    (void)state;
    assert_int_equal(parse("--all", "drop", "--yes", NULL), 0); /* options may stand before the action */
    assert_int_equal(options.command, HV_COMMAND_PARK);
    assert_int_equal(options.action, HV_PARK_DROP);
    assert_int_equal(parse("show", "--id", "5", "--raw", NULL), 0);
    assert_int_equal(options.action, HV_PARK_SHOW);
    assert_int_equal(parse("replay", "--key", "k", "--dry-run", "--json", "--limit", "5", NULL), 0);
    assert_int_equal(parse("--help", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_HELP);
    assert_int_equal(options.help_of, HV_COMMAND_PARK);
    WRONG("list, show, replay and drop", "--all");
    WRONG("did you mean replay?", "repaly");
    WRONG("--help tells", "xxxxxxxxxx");
    WRONG("one command at most", "list", "show");
}

static void what_goes_together(void **state) {
    (void)state;
    WRONG("--id ID", "show");
    WRONG("--id ID", "show", "--id", "1,2");
    WRONG("--id ID", "show", "--id", "1", "--key", "k");
    WRONG("leave one", "show", "--id", "1", "--raw", "--json");
    WRONG("nothing is chosen", "replay");
    WRONG("nothing is chosen", "drop", "--yes", "--limit", "3");
    WRONG("leave one", "drop", "--all", "--topic", "t");
    WRONG("--all is for replay and drop", "list", "--all");
    WRONG("--keep-id is for replay", "drop", "--all", "--keep-id");
    WRONG("--yes is for drop", "replay", "--all", "--yes");
    WRONG("--limit is for", "show", "--id", "1", "--limit", "2");
    WRONG("--after", "list", "--after", "1-");
    WRONG("--older-than", "list", "--older-than", "1000000h");
    WRONG("no list of ids", "list", "--id", "seven");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),     cmocka_unit_test(one_id),           cmocka_unit_test(parameters),
        cmocka_unit_test(actions), cmocka_unit_test(what_goes_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
