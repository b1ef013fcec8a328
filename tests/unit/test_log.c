/* base/log: the text of a line in both formats, cutting, and the limit on repeats. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/text.h"

#define NOON 1767323045678000 /* 2026-01-02T03:04:05.678Z */

static const char *line_of(enum hv_log_format format, const char *message, const struct hv_field *fields) {
    static char out[HV_LOG_LINE_MAX + 1];
    size_t n = hv_log_format_line(out, sizeof out, format, NOON, HV_INFO, "leader", message, fields, 0);
    assert_int_equal(n, strlen(out));
    assert_int_equal(out[n - 1], '\n');
    return out;
}

static const uint8_t uuid[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 1, 2, 3, 4, 5, 6, 0xff};

static void a_line_in_logfmt(void **state) {
    (void)state;
    assert_string_equal(line_of(HV_LOGFMT, "acquired",
                                HV_FIELDS(HV_STR("name", "host_1_2"), HV_UUID("leader_id", uuid),
                                          HV_INT("n", -7), HV_REAL("rate", 1234.5), HV_STR("none", NULL))),
                        "time=2026-01-02T03:04:05.678Z level=info component=leader msg=\"acquired\" "
                        "name=host_1_2 leader_id=01234567-89ab-cdef-0001-0203040506ff n=-7 rate=1234.5\n");
}

static void a_line_in_json(void **state) {
    (void)state;
    assert_string_equal(
        line_of(HV_JSON, "acquired",
                HV_FIELDS(HV_STR("name", "a b"), HV_UUID("leader_id", uuid), HV_INT("n", -7),
                          HV_REAL("rate", 0.25), HV_REAL("bad", NAN), HV_STR("none", NULL))),
        "{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"info\",\"component\":\"leader\",\"msg\":"
        "\"acquired\",\"name\":\"a "
        "b\",\"leader_id\":\"01234567-89ab-cdef-0001-0203040506ff\",\"n\":-7,\"rate\":0.25,\"bad\":null}\n");
}

static void no_fields_at_all(void **state) {
    (void)state;
    assert_non_null(strstr(line_of(HV_LOGFMT, "stopped", NULL), "msg=\"stopped\"\n"));
    assert_non_null(strstr(line_of(HV_JSON, "stopped", NULL), "\"msg\":\"stopped\"}\n"));
}

static void values_are_quoted_when_they_have_to_be(void **state) {
    (void)state;
    static const struct {
        const char *value, *logfmt, *json;
    } cases[] = {
        {"plain", " k=plain\n", "\"plain\"}"},
        {"", " k=\"\"\n", "\"\"}"},
        {"a b", " k=\"a b\"\n", "\"a b\"}"},
        {"a=b", " k=\"a=b\"\n", "\"a=b\"}"},
        {"a\"b", " k=\"a\\\"b\"\n", "\"a\\\"b\"}"},
        {"a\\b", " k=\"a\\\\b\"\n", "\"a\\\\b\"}"},
        {"a\nb\r\t", " k=\"a\\nb\\r\\t\"\n", "\"a\\nb\\r\\t\"}"},
        {"\x1b[31m\x7f", " k=\"\\u001b[31m\\u007f\"\n", "\"\\u001b[31m\\u007f\"}"},
        {"\xc2\x9b", " k=\"\\u009b\"\n", "\"\\u009b\"}"}, /* a C1 control character, which terminals obey */
        {"\xc3\xa4\xe2\x82\xac", " k=\"\xc3\xa4\xe2\x82\xac\"\n", "\"\xc3\xa4\xe2\x82\xac\"}"},
        {"a\xff\xc3", " k=\"a\xef\xbf\xbd\xef\xbf\xbd\"\n", "\"a\xef\xbf\xbd\xef\xbf\xbd\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_non_null(
            strstr(line_of(HV_LOGFMT, "m", HV_FIELDS(HV_STR("k", cases[i].value))), cases[i].logfmt));
        assert_non_null(strstr(line_of(HV_JSON, "m", HV_FIELDS(HV_STR("k", cases[i].value))), cases[i].json));
    }
}

static void real_numbers(void **state) {
    (void)state;
    static const struct {
        double real;
        const char *text;
    } cases[] = {{0, " k=0\n"},          {-0.0001, " k=0\n"},      {1.0006, " k=1.001\n"},
                 {-2.05, " k=-2.05\n"},  {0.001, " k=0.001\n"},    {1e15, " k=1000000000000000\n"},
                 {INFINITY, " k=Inf\n"}, {-INFINITY, " k=-Inf\n"}, {NAN, " k=NaN\n"},
                 {999.9999, " k=1000\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_non_null(
            strstr(line_of(HV_LOGFMT, "m", HV_FIELDS(HV_REAL("k", cases[i].real))), cases[i].text));
    }
    line_of(HV_JSON, "m", HV_FIELDS(HV_REAL("k", 1.7e308)));
}

static void times(void **state) {
    (void)state;
    static const struct {
        int64_t micros;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {951782400000000, "2000-02-29T00:00:00.000Z"},
        {951868799999999, "2000-02-29T23:59:59.999Z"},
        {4107542400000000, "2100-03-01T00:00:00.000Z"}, /* 2100 is no leap year */
        {1735689599123456, "2024-12-31T23:59:59.123Z"},
        {253402300799999999, "9999-12-31T23:59:59.999Z"},
    };
    char out[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hv_log_format_line(out, sizeof out, HV_LOGFMT, cases[i].micros, HV_WARN, "c", "m", NULL, 0);
        out[5 + 24] = '\0';
        assert_string_equal(out + 5, cases[i].text);
    }
    hv_log_format_line(out, sizeof out, HV_LOGFMT, INT64_MAX, HV_WARN, "c", "m", NULL, 0);
    hv_log_format_line(out, sizeof out, HV_LOGFMT, INT64_MIN, HV_WARN, "c", "m", NULL, 0);
}

/* Is it a well-formed line: quotes closed, valid UTF-8, one newline at the end? */
static void check_form(const char *line, size_t length, enum hv_log_format format) {
    assert_int_equal(length, strlen(line));
    assert_ptr_equal(strchr(line, '\n'), line + length - 1);
    int quoted = 0;
    for (size_t i = 0; i < length;) {
        size_t n = hv_utf8_length(line + i, length - i, NULL);
        assert_int_not_equal(n, 0);
        if (quoted && line[i] == '\\') {
            n = line[i + 1] == 'u' ? 6 : 2;
        } else if (line[i] == '"') {
            quoted = !quoted;
        }
        i += n;
    }
    assert_false(quoted);
    if (format == HV_JSON) {
        assert_int_equal(line[0], '{');
        assert_int_equal(line[length - 2], '}');
    }
}

static void a_cut_line_is_still_a_line(void **state) {
    (void)state;
    char value[300], out[512];
    size_t at = 0;
    static const char *const pieces[] = {"\xe2\x82\xac", "\n", "a", "\xff", "\""};
    for (int i = 0; at < sizeof value - 4; i++) {
        memcpy(value + at, pieces[i % 5], strlen(pieces[i % 5]));
        at += strlen(pieces[i % 5]);
    }
    value[at] = '\0';
    unsigned cut = 0, whole = 0;
    for (size_t size = 128; size <= sizeof out; size++) {
        for (int format = HV_LOGFMT; format <= HV_JSON; format++) {
            memset(out, '#', sizeof out);
            size_t n = hv_log_format_line(out, size, (enum hv_log_format)format, NOON, HV_INFO, "c", "m",
                                          HV_FIELDS(HV_INT("first", 1), HV_STR("v", value + 150),
                                                    HV_INT("last", 123), HV_STR("w", value + 280)),
                                          3);
            assert_true(n <= size - 1);
            assert_true(size == sizeof out || out[size] == '#');
            check_form(out, n, (enum hv_log_format)format);
            if (strstr(out, format == HV_JSON ? ",\"cut\":true}\n" : " cut=true\n") != NULL) {
                cut++;
            } else {
                whole++;
            }
        }
    }
    assert_true(cut > 100);
    assert_true(whole > 50);
}

static void a_long_message_keeps_to_the_limit(void **state) {
    (void)state;
    static char message[3 * HV_LOG_LINE_MAX];
    memset(message, 'x', sizeof message - 1);
    const char *line = line_of(HV_LOGFMT, message, HV_FIELDS(HV_STR("k", "v")));
    assert_true(strlen(line) <= HV_LOG_LINE_MAX);
    assert_non_null(strstr(line, "xx\" cut=true\n"));
}

/* ---- the logger ---- */

static struct {
    int64_t now;
    unsigned lines;
    char last[HV_LOG_LINE_MAX + 1];
} seen;

static void take(void *user, enum hv_log_level level, const char *line, size_t length) {
    (void)user, (void)level;
    seen.lines++;
    memcpy(seen.last, line, length);
    seen.last[length] = '\0';
}

static int64_t seen_clock(void *user) {
    (void)user;
    return seen.now;
}

static struct hv_logger logger_at(enum hv_log_level level) {
    memset(&seen, 0, sizeof seen);
    seen.now = NOON;
    return (struct hv_logger){.level = level, .format = HV_LOGFMT, .sink = take, .wall_clock = seen_clock};
}

static void levels_below_are_left_out(void **state) {
    (void)state;
    struct hv_logger logger = logger_at(HV_INFO);
    hv_log(&logger, HV_DEBUG, "c", "m", NULL);
    assert_int_equal(seen.lines, 0);
    hv_log(&logger, HV_INFO, "c", "m", NULL);
    hv_log(&logger, HV_ERROR, "c", "m", NULL);
    assert_int_equal(seen.lines, 2);
    assert_non_null(strstr(seen.last, "level=error"));
}

static void repeats_are_held_back_and_counted(void **state) {
    (void)state;
    struct hv_logger logger = logger_at(HV_INFO);
    for (int i = 0; i < 100; i++) {
        hv_log(&logger, HV_WARN, "c", "m", NULL);
    }
    assert_int_equal(seen.lines, HV_LOG_BURST);
    hv_log(&logger, HV_WARN, "c", "other", NULL); /* another message is not concerned */
    hv_log(&logger, HV_WARN, "other", "m", NULL);
    assert_int_equal(seen.lines, HV_LOG_BURST + 2);
    seen.now += HV_LOG_WINDOW_US - 1;
    hv_log(&logger, HV_WARN, "c", "m", NULL);
    assert_int_equal(seen.lines, HV_LOG_BURST + 2);
    seen.now += 1;
    hv_log(&logger, HV_WARN, "c", "m", NULL);
    assert_int_equal(seen.lines, HV_LOG_BURST + 3);
    assert_non_null(strstr(seen.last, "repeats=96"));
    hv_log(&logger, HV_WARN, "c", "m", NULL);
    assert_null(strstr(seen.last, "repeats"));
}

static void more_lines_about_single_records_pass(void **state) {
    (void)state;
    struct hv_logger logger = logger_at(HV_INFO);
    for (int i = 0; i < 200; i++) {
        hv_log(&logger, HV_WARN, "record", "blocked", HV_FIELDS(HV_STR("topic", "t"), HV_INT("id", i)));
    }
    assert_int_equal(seen.lines, HV_LOG_BURST_OF_RECORDS);
    assert_non_null(strstr(seen.last, "id=63"));
}

static void lines_that_must_be_there_all_pass(void **state) {
    (void)state;
    struct hv_logger logger = logger_at(HV_WARN);
    for (int i = 0; i < 1000; i++) {
        hv_log_each(&logger, HV_ERROR, "record", "skipped", HV_FIELDS(HV_INT("id", i)));
    }
    assert_int_equal(seen.lines, 1000);
    assert_non_null(strstr(seen.last, "level=error component=record msg=\"skipped\" id=999\n"));
    hv_log_each(&logger, HV_INFO, "record", "skipped", NULL); /* the level counts */
    assert_int_equal(seen.lines, 1000);
    for (int i = 0; i < 100; i++) { /* and others have their limit as ever */
        hv_log(&logger, HV_ERROR, "record", "skipped", NULL);
    }
    assert_int_equal(seen.lines, 1000 + HV_LOG_BURST);
    assert_null(strstr(seen.last, "repeats"));
}

static void info_is_never_held_back(void **state) {
    (void)state;
    struct hv_logger logger = logger_at(HV_DEBUG);
    for (int i = 0; i < 100; i++) {
        hv_log(&logger, i % 2 ? HV_INFO : HV_DEBUG, "c", "m", NULL);
    }
    assert_int_equal(seen.lines, 100);
}

static void a_clock_set_back_does_not_silence(void **state) {
    (void)state;
    struct hv_logger logger = logger_at(HV_INFO);
    for (int i = 0; i < 10; i++) {
        hv_log(&logger, HV_ERROR, "c", "m", NULL);
    }
    seen.now -= 3600000000;
    hv_log(&logger, HV_ERROR, "c", "m", NULL);
    assert_int_equal(seen.lines, HV_LOG_BURST + 1);
}

static void many_messages_do_not_disturb_the_table(void **state) {
    (void)state;
    struct hv_logger logger = logger_at(HV_INFO);
    char message[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(message, sizeof message, "message %d", i);
        hv_log(&logger, HV_WARN, "c", message, NULL);
        seen.now++;
    }
    assert_int_equal(seen.lines, 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_in_logfmt),
        cmocka_unit_test(a_line_in_json),
        cmocka_unit_test(no_fields_at_all),
        cmocka_unit_test(values_are_quoted_when_they_have_to_be),
        cmocka_unit_test(real_numbers),
        cmocka_unit_test(times),
        cmocka_unit_test(a_cut_line_is_still_a_line),
        cmocka_unit_test(a_long_message_keeps_to_the_limit),
        cmocka_unit_test(levels_below_are_left_out),
        cmocka_unit_test(repeats_are_held_back_and_counted),
        cmocka_unit_test(more_lines_about_single_records_pass),
        cmocka_unit_test(lines_that_must_be_there_all_pass),
        cmocka_unit_test(info_is_never_held_back),
        cmocka_unit_test(a_clock_set_back_does_not_silence),
        cmocka_unit_test(many_messages_do_not_disturb_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
