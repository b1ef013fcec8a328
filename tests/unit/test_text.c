/* base/text: bounded building, durations and sizes, nearest names, UTF-8. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"

static void building_never_goes_beyond_the_memory(void **state) {
    (void)state;
    char out[8];
    memset(out, 'X', sizeof out);
    struct hv_text t;
    hv_text_init(&t, out, 7);
    hv_text_puts(&t, "abc");
    hv_text_int(&t, -12);
    assert_string_equal(out, "abc-12");
    assert_false(t.cut);
    hv_text_puts(&t, "d");
    assert_true(t.cut);
    assert_string_equal(out, "abc-12");
    assert_int_equal(out[7], 'X');
}

static void an_addition_is_whole_or_not_at_all(void **state) {
    (void)state;
    char out[6];
    struct hv_text t;
    hv_text_init(&t, out, sizeof out);
    hv_text_puts(&t, "abc");
    hv_text_printf(&t, "%d", 123);
    assert_string_equal(out, "abc");
    assert_true(t.cut);
    hv_text_puts(&t, "x"); /* would fit, but the text has a hole already */
    assert_string_equal(out, "abc");
}

static void integers_at_the_ends_of_their_range(void **state) {
    (void)state;
    char out[64];
    struct hv_text t;
    hv_text_init(&t, out, sizeof out);
    hv_text_int(&t, INT64_MIN);
    hv_text_puts(&t, " ");
    hv_text_int(&t, INT64_MAX);
    hv_text_puts(&t, " ");
    hv_text_int(&t, 0);
    assert_string_equal(out, "-9223372036854775808 9223372036854775807 0");
}

static void durations_that_can_be_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        hv_time micros;
    } cases[] = {
        {"0s", 0},         {"250us", 250},     {"100ms", 100000},  {"5s", 5000000},
        {"2m", 120000000}, {"1h", 3600000000}, {"0005s", 5000000}, {"9223372036854775807us", INT64_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hv_time t = -1;
        struct hv_error err = {""};
        assert_int_equal(hv_parse_duration(cases[i].text, &t, &err), 0);
        assert_int_equal(t, cases[i].micros);
    }
}

static void durations_that_cannot_be_read(void **state) {
    (void)state;
    static const char *const cases[] = {"",
                                        "5",
                                        "s",
                                        "ms",
                                        "-5s",
                                        "+5s",
                                        " 5s",
                                        "5s ",
                                        "5 s",
                                        "5S",
                                        "5sec",
                                        "1.5s",
                                        "1m30s",
                                        "0x5s",
                                        "1e3s",
                                        "5\n",
                                        "5s\n",
                                        "ten",
                                        "5days",
                                        "9223372036854775808us",
                                        "99999999999999999999s",
                                        "9223372036854775807h"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hv_time t = -1;
        struct hv_error err = {""};
        assert_int_equal(hv_parse_duration(cases[i], &t, &err), -1);
        assert_int_equal(t, -1);
        assert_true(strlen(err.text) > 0);
    }
}

static void a_bad_duration_is_shown_with_what_was_expected(void **state) {
    (void)state;
    hv_time t;
    struct hv_error err;
    hv_parse_duration("5 seconds", &t, &err);
    assert_non_null(strstr(err.text, "'5 seconds' is not a duration"));
    assert_non_null(strstr(err.text, "100ms"));
}

static void sizes_and_counts(void **state) {
    (void)state;
    uint64_t n = 7;
    assert_int_equal(hv_parse_size("8MiB", &n, NULL), 0);
    assert_int_equal(n, 8 << 20);
    assert_int_equal(hv_parse_size("64KiB", &n, NULL), 0);
    assert_int_equal(n, 65536);
    assert_int_equal(hv_parse_size("123", &n, NULL), 0);
    assert_int_equal(n, 123);
    assert_int_equal(hv_parse_size("1GiB", &n, NULL), 0);
    assert_int_equal(n, 1 << 30);
    static const char *const bad[] = {
        "", "8MB", "8M", "8mib", "8 MiB", "-1", "KiB", "1.5MiB", "9223372036854775807GiB"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(hv_parse_size(bad[i], &n, NULL), -1);
    }
    assert_int_equal(hv_parse_count("5000", &n, NULL), 0);
    assert_int_equal(n, 5000);
    static const char *const no_count[] = {"", "5k", "-1", "1,000", "1_000", "18446744073709551616", " 1"};
    for (size_t i = 0; i < sizeof no_count / sizeof no_count[0]; i++) {
        assert_int_equal(hv_parse_count(no_count[i], &n, NULL), -1);
    }
}

static void what_is_shown_is_read_back(void **state) {
    (void)state;
    char out[32];
    assert_string_equal(hv_show_duration(HV_MS(100), out, sizeof out), "100ms");
    assert_string_equal(hv_show_duration(HV_SECONDS(3600), out, sizeof out), "1h");
    assert_string_equal(hv_show_duration(HV_SECONDS(90), out, sizeof out), "90s");
    assert_string_equal(hv_show_duration(HV_MS(1500), out, sizeof out), "1500ms");
    assert_string_equal(hv_show_duration(0, out, sizeof out), "0s");
    assert_string_equal(hv_show_size(8 << 20, out, sizeof out), "8MiB");
    assert_string_equal(hv_show_size(1000, out, sizeof out), "1000");
    assert_string_equal(hv_show_size(0, out, sizeof out), "0");
    static const hv_time durations[] = {0, 1, 999, 1000, 1001, 60000000, 86400000000, INT64_MAX};
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        hv_time t = -1;
        assert_int_equal(hv_parse_duration(hv_show_duration(durations[i], out, sizeof out), &t, NULL), 0);
        assert_int_equal(t, durations[i]);
    }
}

static void distances(void **state) {
    (void)state;
    assert_int_equal(hv_text_distance("mark_backoff", "mark_backoff"), 0);
    assert_int_equal(hv_text_distance("markbackoff", "mark_backoff"), 1);
    assert_int_equal(hv_text_distance("mark-Backoff", "mark_backoff"), 0);
    assert_int_equal(hv_text_distance("makr_backoff", "mark_backoff"), 1);
    assert_int_equal(hv_text_distance("", "abc"), 3);
    assert_int_equal(hv_text_distance("abc", ""), 3);
    assert_int_equal(hv_text_distance("kitten", "sitting"), 3);
    char text[65];
    memset(text, 'a', 64);
    text[64] = '\0';
    assert_int_equal(hv_text_distance(text, "a"), UINT_MAX);
    assert_int_equal(hv_text_distance("a", text), UINT_MAX);
    assert_int_equal(hv_text_distance(text + 1, text + 1), 0);
}

static void the_nearest_name_is_found_if_it_is_near(void **state) {
    (void)state;
    struct hv_nearest n = {.name = "mark_bakcoff"};
    hv_nearest_try(&n, "idle_backoff_max");
    hv_nearest_try(&n, "mark_backoff");
    hv_nearest_try(&n, "mark_query_bytes");
    assert_string_equal(n.best, "mark_backoff");
    n = (struct hv_nearest){.name = "colour"};
    hv_nearest_try(&n, "mark_backoff");
    hv_nearest_try(&n, "name");
    assert_null(n.best);
}

static size_t utf8(const char *text) {
    return hv_utf8_length(text, strlen(text), NULL);
}

static void utf8_characters(void **state) {
    (void)state;
    uint32_t code = 0;
    assert_int_equal(utf8("a"), 1);
    assert_int_equal(utf8("\xc3\xa4"), 2);
    assert_int_equal(utf8("\xe2\x82\xac"), 3);
    assert_int_equal(hv_utf8_length("\xf0\x9f\x98\x80", 4, &code), 4);
    assert_int_equal(code, 0x1f600);
    assert_int_equal(hv_utf8_length("\0", 1, &code), 1);
    static const char *const bad[] = {
        "\x80",             /* a continuation alone */
        "\xc3",             /* cut */
        "\xe2\x82",         /* cut */
        "\xc0\xaf",         /* overlong */
        "\xe0\x80\xaf",     /* overlong */
        "\xf0\x80\x80\xaf", /* overlong */
        "\xed\xa0\x80",     /* surrogate */
        "\xf4\x90\x80\x80", /* beyond U+10FFFF */
        "\xff",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(utf8(bad[i]), 0);
    }
}

static void shown_text_is_safe_for_a_terminal(void **state) {
    (void)state;
    char out[100], text[400];
    assert_string_equal(hv_text_show("a b", out, sizeof out), "'a b'");
    assert_string_equal(hv_text_show("a\x1b[2J\xff", out, sizeof out), "'a\\x1b[2J\\xff'");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    hv_text_show(text, out, sizeof out);
    assert_int_equal(strlen(out), 65); /* quotes, 60 bytes, three points */
    memset(text, '\x01', sizeof text - 1);
    hv_text_show(text, out, sizeof out);
    assert_true(strlen(out) < sizeof out);
    assert_string_equal(out + strlen(out) - 4, "...'");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(building_never_goes_beyond_the_memory),
        cmocka_unit_test(an_addition_is_whole_or_not_at_all),
        cmocka_unit_test(integers_at_the_ends_of_their_range),
        cmocka_unit_test(durations_that_can_be_read),
        cmocka_unit_test(durations_that_cannot_be_read),
        cmocka_unit_test(a_bad_duration_is_shown_with_what_was_expected),
        cmocka_unit_test(sizes_and_counts),
        cmocka_unit_test(what_is_shown_is_read_back),
        cmocka_unit_test(distances),
        cmocka_unit_test(the_nearest_name_is_found_if_it_is_near),
        cmocka_unit_test(utf8_characters),
        cmocka_unit_test(shown_text_is_safe_for_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
