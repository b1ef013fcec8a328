/* app/cmd_stash_json, _lines and _options: what a line of JSON means and what is wrong with it, lines of any cut, and which
 * options go together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/cmd_stash_json.h"
#include "app/cmd_stash_lines.h"
#include "app/options.h"

static struct hv_error err;
static struct hv_stash_line line;

static int parse(const char *text) {
    err.text[0] = 0;
    return hv_stash_line_parse(text, strlen(text), NULL, &line, &err);
}

static void expect_bytes(struct harvest_stash_bytes bytes, const void *data, size_t length) {
    assert_int_equal(bytes.length, length);
    assert_memory_equal(bytes.data, data, length);
}

static void expect_headers(const char *headers, size_t count, const char *const texts[]) {
    char text[300];
    snprintf(text, sizeof text, "{\"topic\":\"t\",\"key\":\"k\",\"value\":null,\"headers\":%s}", headers);
    if (parse(text) != 0) {
        fail_msg("%s: %s", text, err.text);
    }
    assert_int_equal(line.record.header_count, count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(line.record.headers[i].name, texts[2 * i]);
        expect_bytes(line.record.headers[i].value, texts[2 * i + 1], strlen(texts[2 * i + 1]));
    }
    hv_stash_line_free(&line);
}

static void good_lines(void **state) {
    (void)state;
    assert_int_equal(parse("{\"topic\":\"t\",\"key\":\"k\\u0000\\\"\",\"value\":\"\\u00e9\\ud83d\\ude00\\\\\"}"), 0);
    assert_string_equal(line.record.topic, "t");
    expect_bytes(line.record.key, "k\0\"", 3);
    expect_bytes(line.record.value, "é😀\\", 7);
    assert_int_equal(line.record.header_count, 0);
    hv_stash_line_free(&line);

    assert_int_equal(parse("{\"value\":null,\"key\":\"\",\"topic\":\"t\",\"headers\":null}"), 0);
    assert_non_null(line.record.key.data);
    assert_int_equal(line.record.key.length, 0);
    assert_null(line.record.value.data);
    hv_stash_line_free(&line);

    assert_int_equal(parse("{\"topic\":\"t\",\"key_base64\":\"AP8=\",\"value_base64\":\"\"}"), 0);
    expect_bytes(line.record.key, "\0\xff", 2);
    assert_non_null(line.record.value.data); /* empty, no tombstone */
    assert_int_equal(line.record.value.length, 0);
    hv_stash_line_free(&line);

    const char *kcat = "{\"topic\":\"t\",\"partition\":0,\"offset\":7,\"tstype\":\"create\",\"ts\":1,\"broker\":1,"
                       "\"headers\":[\"a\",\"b\"],\"key\":\"k\",\"payload\":\"p\"}";
    assert_int_equal(parse(kcat), 0);
    expect_bytes(line.record.value, "p", 1);
    hv_stash_line_free(&line);

    err.text[0] = 0;
    assert_int_equal(hv_stash_line_parse("{\"key\":\"k\",\"value\":\"\"}", 22, "other", &line, &err), 0);
    assert_string_equal(line.record.topic, "other");
    hv_stash_line_free(&line);
}

static void headers_in_their_forms(void **state) {
    (void)state;
    const char *const texts[] = {"z", "1", "a", "", "z2", "3"};
    const char *const twice[] = {"a", "1", "a", "2"};
    expect_headers("{\"z\":\"1\",\"a\":\"\",\"z2\":\"3\"}", 3, texts); /* in their order */
    expect_headers("[[\"z\",\"1\"],[\"a\",\"\"],[\"z2\",\"3\"]]", 3, texts);
    expect_headers("[\"a\",\"1\",\"a\",\"2\"]", 2, twice);
    expect_headers("{}", 0, NULL);
    expect_headers("[]", 0, NULL);
}

static void base64(void **state) {
    (void)state;
    static const struct {
        const char *text, *bytes;
    } good[] = {{"", ""}, {"Zg==", "f"}, {"Zm8=", "fo"}, {"Zm9v", "foo"}, {"Zm9vYmFy", "foobar"}, {"++//", "\xfb\xef\xff"}};
    static const char *const bad[] = {"Z", "Zg", "Zg=", "Zm9v=", "====", "=", "Zm 9", "Zm9-", "Z===", "Zg==Zg==", "Zm=v"};
    char text[100];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(text, sizeof text, "{\"topic\":\"t\",\"key\":\"\",\"value_base64\":\"%s\"}", good[i].text);
        assert_int_equal(parse(text), 0);
        expect_bytes(line.record.value, good[i].bytes, strlen(good[i].bytes));
        hv_stash_line_free(&line);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "{\"topic\":\"t\",\"key\":\"\",\"value_base64\":\"%s\"}", bad[i]);
        if (parse(text) == 0) {
            fail_msg("%s was taken", bad[i]);
        }
        assert_non_null(strstr(err.text, "base64"));
    }
}

static void bad_lines(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"", "no JSON"},
        {"{\"topic\":\"t\"", "no JSON"},
        {"{} {}", "no JSON"},
        {"[1]", "it is an array; it has to be an object"},
        {"{\"topic\":\"t\",\"key\":\"\xff\",\"value\":\"\"}", "no JSON"},
        {"{\"topic\":\"t\",\"topic\":\"t\",\"key\":\"\",\"value\":\"\"}", "duplicate"},
        {"{\"key\":\"\",\"value\":\"\"}", "topic is missing"},
        {"{\"topic\":null,\"key\":\"\",\"value\":\"\"}", "topic is null"},
        {"{\"topic\":\"a\\u0000b\",\"key\":\"\",\"value\":\"\"}", "zero byte"},
        {"{\"topic\":\"t\",\"value\":\"\"}", "key is missing"},
        {"{\"topic\":\"t\",\"key\":null,\"value\":\"\"}", "key is null"},
        {"{\"topic\":\"t\",\"key\":\"\"}", "value is missing; null makes a tombstone"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":{}}", "value is an object; it has to be a string"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"payload\":null}", "value and payload are both given"},
        {"{\"topic\":\"t\",\"key\":\"\",\"key_base64\":\"\",\"value\":\"\"}", "key and key_base64 are both given"},
        {"{\"topic\":\"t\",\"kye\":\"\",\"value\":\"\"}", "unknown member 'kye'; did you mean key?"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"x\\ny\":1}", "unknown member 'x\\x0ay'"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"headers\":\"a\"}", "headers is a string"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"headers\":{\"a\":1}}", "the value of header 0 is a number"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"headers\":{\"a\":null}}", "the value of header 0 is null"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"headers\":[\"a\"]}", "1 elements"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"headers\":[[\"a\"]]}", "array of another size"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"headers\":[[\"a\",\"b\"],\"c\"]}", "header 1 is a string"},
        {"{\"topic\":\"t\",\"key\":\"\",\"value\":\"\",\"headers\":[[1,\"b\"]]}", "the name of header 0 is a number"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i][0]) == 0) {
            fail_msg("%s was taken", bad[i][0]);
        }
        if (strstr(err.text, bad[i][1]) == NULL) {
            fail_msg("%s: no '%s' in '%s'", bad[i][0], bad[i][1], err.text);
        }
    }
}

static void lines_of_any_cut(void **state) {
    (void)state;
    const char *const pieces[] = {"on", "e\ntwo\n\nfo", "ur", "\nlast"};
    const char *const expected[] = {"one", "two", "", "four", "last"};
    int fds[2];
    const char *text;
    size_t length, piece = 0;
    assert_int_equal(pipe(fds), 0);
    struct hv_stash_lines lines = {.fd = fds[0]};
    for (size_t i = 0; i < 5;) {
        enum hv_stash_got got = hv_stash_lines_next(&lines, 0, &text, &length, &err);
        if (got == HV_STASH_PAUSE) { /* what was read so far is kept */
            assert_true(piece < 4);
            assert_true(write(fds[1], pieces[piece], strlen(pieces[piece])) > 0);
            if (++piece == 4) {
                close(fds[1]);
            }
            continue;
        }
        assert_int_equal(got, HV_STASH_LINE);
        assert_int_equal(length, strlen(expected[i]));
        assert_memory_equal(text, expected[i], length);
        assert_int_equal(lines.number, ++i);
    }
    assert_int_equal(hv_stash_lines_next(&lines, -1, &text, &length, &err), HV_STASH_END);
    hv_stash_lines_free(&lines);
    close(fds[0]);
}

static void lines_are_bounded(void **state) {
    (void)state;
    FILE *file = tmpfile();
    const char *text;
    size_t length;
    fputs("short\n", file);
    assert_int_equal(fflush(file), 0);
    assert_int_equal(ftruncate(fileno(file), (off_t)HV_STASH_LINE_MAX + (1 << 20)), 0);
    rewind(file);
    assert_int_equal(lseek(fileno(file), 0, SEEK_SET), 0);
    struct hv_stash_lines lines = {.fd = fileno(file)};
    assert_int_equal(hv_stash_lines_next(&lines, -1, &text, &length, &err), HV_STASH_LINE);
    assert_int_equal(hv_stash_lines_next(&lines, -1, &text, &length, &err), HV_STASH_BROKEN);
    assert_non_null(strstr(err.text, "32 MiB"));
    assert_int_equal(lines.number, 2);
    hv_stash_lines_free(&lines);
    fclose(file);

    struct hv_stash_lines closed = {.fd = 1000};
    assert_int_equal(hv_stash_lines_next(&closed, -1, &text, &length, &err), HV_STASH_BROKEN);
    assert_non_null(strstr(err.text, "cannot be read"));
    hv_stash_lines_free(&closed);
}

static int parse_options(const char *first, ...) {
    static struct hv_options options;
    char *argv[20] = {(char *)"harvestd", (char *)"stash"};
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

#define WRONG(expected, ...)                                 \
    do {                                                     \
        assert_int_equal(parse_options(__VA_ARGS__, NULL), -1); \
        if (strstr(err.text, expected) == NULL)              \
            fail_msg("no '%s' in '%s'", expected, err.text); \
    } while (0)

static void options_that_go_together(void **state) {
    (void)state;
    assert_int_equal(parse_options(NULL), 0);
    assert_int_equal(parse_options("--topic", "t", "--batch", "5", "--dry-run", NULL), 0);
    assert_int_equal(parse_options("-t", "t", "-k", "", "--value", "", NULL), 0);
    assert_int_equal(parse_options("-t", "t", "-k", "k", "--null", "-H", "a=", "-H", "=", NULL), 0);
    assert_int_equal(parse_options("-t", "t", "-k", "k", "--value-file", "-", NULL), 0);
    WRONG("--topic and --key", "--value", "x");
    WRONG("--topic and --key", "-t", "t", "--null");
    WRONG("given twice", "-t", "t", "-k", "a", "-k", "b", "--null");
    WRONG("given twice", "-t", "t", "-k", "a", "--value", "a", "--value", "b");
    WRONG("one of --value", "-t", "t", "-k", "k");
    WRONG("one of --value", "-t", "t", "-k", "k", "--null", "--value", "");
    WRONG("NAME=VALUE", "-t", "t", "-k", "k", "--null", "-H", "a");
    WRONG("--batch", "-t", "t", "-k", "k", "--null", "--batch", "5");
    WRONG("--batch", "--batch", "0");
    WRONG("unexpected argument", "x");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_lines),       cmocka_unit_test(headers_in_their_forms),
        cmocka_unit_test(base64),           cmocka_unit_test(bad_lines),
        cmocka_unit_test(lines_of_any_cut), cmocka_unit_test(lines_are_bounded),
        cmocka_unit_test(options_that_go_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
