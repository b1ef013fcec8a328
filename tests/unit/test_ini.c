/* rt/ini: what libinih makes of a file under our reader, line by line. Each case is a text and what has to
 * come of it: "line section.name=value;" for an entry, "line!part of the message;" for a trouble. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "rt/ini.h"

struct seen {
    unsigned count;
    struct {
        unsigned line;
        char what[64], *text; /* "" for a trouble, or section.name */
    } list[64];
};

static struct seen seen;

static void note(unsigned line, const char *section, const char *name, const char *text) {
    assert_true(seen.count < 64);
    snprintf(seen.list[seen.count].what, sizeof seen.list[0].what, "%s%s%s", section, *section ? "." : "",
             name);
    seen.list[seen.count].line = line;
    seen.list[seen.count++].text = strdup(text);
}

static void entry(void *user, unsigned line, const char *section, const char *name, const char *value) {
    (void)user;
    note(line, section, name, value);
}

static void trouble(void *user, unsigned line, const char *message) {
    (void)user;
    note(line, "", "", message);
}

static void forget(void) {
    for (unsigned i = 0; i < seen.count; i++) {
        free(seen.list[i].text);
    }
    seen.count = 0;
}

static void parse(const char *text, size_t length) {
    static const struct hv_ini_handler handler = {.entry = entry, .trouble = trouble};
    forget();
    /* A copy without anything behind it, for the sanitizers. */
    char *copy = malloc(length > 0 ? length : 1);
    memcpy(copy, text, length);
    hv_ini_parse(copy, length, &handler, NULL);
    free(copy);
}

static int teardown(void **state) {
    (void)state;
    forget();
    return 0;
}

static void expect_count(unsigned count) {
    if (seen.count != count) {
        for (unsigned i = 0; i < seen.count; i++) {
            print_error("%u %s %s\n", seen.list[i].line, seen.list[i].what, seen.list[i].text);
        }
    }
    assert_int_equal(seen.count, count);
}

static void expect_entry(unsigned at, unsigned line, const char *what, const char *value) {
    assert_string_equal(seen.list[at].what, what);
    assert_string_equal(seen.list[at].text, value);
    assert_int_equal(seen.list[at].line, line);
}

static void expect_trouble(unsigned at, unsigned line, const char *part) {
    assert_string_equal(seen.list[at].what, "");
    if (strstr(seen.list[at].text, part) == NULL) {
        fail_msg("'%s' is not in '%s'", part, seen.list[at].text);
    }
    assert_int_equal(seen.list[at].line, line);
}

#define PARSE(text) parse(text, sizeof(text) - 1)

static void the_usual_form(void **state) {
    (void)state;
    PARSE("; a comment\n# another\n\n[harvest]\nname = a\noutbox_table=b\n  "
          "\n[kafka.producer]\nlinger.ms:5\n[log]\nlevel =  x");
    expect_count(4);
    expect_entry(0, 5, "harvest.name", "a");
    expect_entry(1, 6, "harvest.outbox_table", "b");
    expect_entry(2, 9, "kafka.producer.linger.ms", "5");
    expect_entry(3, 11, "log.level", "x"); /* no newline at the end */
}

static void line_ends_and_the_byte_order_mark(void **state) {
    (void)state;
    PARSE("\xef\xbb\xbf[harvest]\r\nname = a b\t \r\n\r\n[log] ; said\r\nlevel=\r\n");
    expect_count(2);
    expect_entry(0, 2, "harvest.name", "a b");
    expect_entry(1, 5, "log.level", "");
    PARSE("\xef\xbb\xbf");
    expect_count(0);
    PARSE("[harvest]\nname = a\rb\n");
    expect_count(1);
    expect_trouble(0, 2, "control character");
}

static void a_value_may_hold_separators_and_quotes(void **state) {
    (void)state;
    PARSE("[harvest]\ndata_source = host=a password='b:c=d;e#f' \noutbox_table = \"A b\".\"C\"\nname==x\n");
    expect_count(3);
    expect_entry(0, 2, "harvest.data_source", "host=a password='b:c=d;e#f'");
    expect_entry(1, 3, "harvest.outbox_table", "\"A b\".\"C\"");
    expect_entry(2, 4, "harvest.name", "=x");
}

/* libinih by itself splits at about 197 bytes and makes the tail a key. */
static void long_lines_are_whole(void **state) {
    (void)state;
    static char text[3 * HV_INI_LINE_MAX], value[HV_INI_LINE_MAX + 1];
    static const unsigned lengths[] = {100, 180, 190, 195, 196, 197,  198,
                                       199, 200, 201, 205, 400, 4096, HV_INI_LINE_MAX - 5};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memset(value, 'v', lengths[i]);
        memcpy(value + lengths[i] - 5, " a=b ", 5); /* would look like a key of its own */
        value[lengths[i]] = '\0';
        int n = snprintf(text, sizeof text, "[harvest]\nname=%s!\nleader_topic=t\n", value);
        /* the '!' keeps the blank: n counts it */
        parse(text, (size_t)n);
        if (lengths[i] + 6 > HV_INI_LINE_MAX) {
            expect_count(2);
            expect_trouble(0, 2, "16000 are allowed");
        } else {
            expect_count(2);
            value[lengths[i]] = '!';
            value[lengths[i] + 1] = '\0';
            expect_entry(0, 2, "harvest.name", value);
        }
        expect_entry(1, 3, "harvest.leader_topic", "t");
    }
}

static void overlong_lines_are_told_and_left_out(void **state) {
    (void)state;
    static char text[5 * HV_INI_LINE_MAX];
    size_t n = (size_t)sprintf(text, "[kafka]\nsasl.username=");
    memset(text + n, 'x', 2 * HV_INI_LINE_MAX);
    n += 2 * HV_INI_LINE_MAX;
    n += (size_t)sprintf(text + n, "\n  more\nclient.id=y\n  ");
    memset(text + n, 'z', HV_INI_LINE_MAX + 1);
    n += HV_INI_LINE_MAX + 1;
    n += (size_t)sprintf(text + n, "\n  tail\n");
    parse(text, n);
    expect_count(3);
    expect_trouble(0, 2, "bytes long");
    expect_trouble(1, 5, "indented");
    expect_entry(2, 4, "kafka.client.id", "y tail"); /* its trouble is told, so nothing is used anyway */
}

static void nul_and_control_bytes(void **state) {
    (void)state;
    PARSE("[harvest]\nname = a\0b\n\0\nouter\0 = x\nleader_topic = t\n[l\0og]\nlevel = x\n[log]\nformat = "
          "\x1b[2J\n");
    expect_count(6);
    expect_trouble(0, 2, "NUL byte");
    expect_trouble(1, 3, "NUL byte");
    expect_trouble(2, 4, "NUL byte");
    expect_trouble(3, 6, "NUL byte"); /* and level is not taken for one of [harvest] */
    expect_trouble(4, 9, "control character");
    expect_entry(5, 5, "harvest.leader_topic", "t");
}

static void a_comment_behind_a_value_is_no_silent_loss(void **state) {
    (void)state;
    PARSE("[harvest]\ndata_source = host=a password=b ;c\nname = x # y\nleader_topic = ;\n[log]\nlevel = "
          "info\t; said\n");
    expect_count(4);
    expect_trouble(0, 2, "data_source: a blank followed by ; or #");
    expect_trouble(1, 3, "name:");
    expect_trouble(2, 4, "leader_topic:");
    expect_trouble(3, 6, "level:");
    PARSE(
        "[harvest]\ndata_source = host=a password='b \\;c \\#d a\\;b'\nname = \\;x\nleader_topic = a;b#c\n");
    expect_count(3);
    expect_entry(0, 2, "harvest.data_source", "host=a password='b ;c #d a\\;b'");
    expect_entry(1, 3, "harvest.name", ";x");
    expect_entry(2, 4, "harvest.leader_topic", "a;b#c");
}

static void values_go_on_in_indented_lines(void **state) {
    (void)state;
    PARSE("[harvest]\ndata_source = host=a\n    port=1 ; no\n");
    expect_trouble(0, 3, "data_source: a blank followed by ;");
    PARSE("[harvest]\ndata_source = host=a\n    port=1\n\n; a comment\n\t; another\n\tuser=[u]\nname = n\n"
          "[kafka]\nbootstrap.servers =\n a:1,\n b:2\nssl.ca.pem =\n  -----BEGIN-----\n  QUJD==\n  "
          "-----END-----\n");
    expect_count(4);
    expect_entry(0, 2, "harvest.data_source", "host=a port=1 user=[u]");
    expect_entry(1, 8, "harvest.name", "n");
    expect_entry(2, 10, "kafka.bootstrap.servers", "a:1, b:2");
    expect_entry(3, 13, "kafka.ssl.ca.pem", "-----BEGIN-----\nQUJD==\n-----END-----");
}

static void an_indented_file_is_not_one_long_value(void **state) {
    (void)state;
    PARSE("[harvest]\n  name = a\n  data_source = host=a\n    port=1\n  leader_topic = t\n\t[log]\n\tlevel = "
          "info\n\tformat = json\n");
    expect_count(5);
    expect_entry(0, 2, "harvest.name", "a");
    expect_entry(1, 3, "harvest.data_source", "host=a port=1");
    expect_entry(2, 5, "harvest.leader_topic", "t");
    expect_entry(3, 7, "log.level", "info");
    expect_entry(4, 8, "log.format", "json");
}

static void indentation_by_accident_is_told(void **state) {
    (void)state;
    PARSE("[harvest]\ndata_source = host=a\n name = b\nname = c\n  leader_topic = d\n[kafka]\nclient.id = "
          "x\n  linger.ms = 5\n");
    expect_count(6);
    expect_trouble(0, 3, "indented more than line 2, this line would continue the value of data_source");
    expect_entry(1, 2, "harvest.data_source", "host=a");
    expect_trouble(2, 5, "continue the value of name");
    expect_entry(3, 4, "harvest.name", "c");
    expect_trouble(4, 8, "continue the value of client.id");
    expect_entry(5, 7, "kafka.client.id", "x");
}

static void the_continuation_of_a_refused_line_goes_the_same_way(void **state) {
    (void)state;
    PARSE("[harvest]\nname = a\ndata_source = host=a ;b\n  port=1\nbroken\n  more\n= x\n  more\n");
    expect_count(4);
    expect_trouble(0, 3, "data_source");
    expect_trouble(1, 5, "there is no '='");
    expect_trouble(2, 7, "no name before");
    expect_entry(3, 2, "harvest.name", "a");
}

static void a_broken_header_takes_nothing_astray(void **state) {
    (void)state;
    PARSE("[harvest]\nname = a\n[limits\nqueue_timeout = 1s\n  x\n[log] level\nlevel = "
          "info\n[]\nx=1\n[kafak]\ny=2\n[log]\nformat = json\n");
    expect_count(6);
    expect_trouble(0, 3, "no ']'");
    expect_trouble(1, 6, "text follows");
    expect_trouble(2, 8, "unknown section ''");
    expect_trouble(3, 10, "did you mean [kafka]?");
    expect_entry(4, 2, "harvest.name", "a");
    expect_entry(5, 13, "log.format", "json");
}

static void keys_before_any_section(void **state) {
    (void)state;
    PARSE("name = a\nfoo = 1\n  bar\n[harvest]\nname = b\n");
    expect_count(3);
    expect_trouble(0, 1, "put it below [harvest]");
    expect_trouble(1, 2, "'foo' stands before any section");
    expect_entry(2, 5, "harvest.name", "b");
}

static void names_that_libinih_would_cut(void **state) {
    (void)state;
    PARSE("[harvest]\naaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeef = 1\n"
          "[harvestaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeef]\nname = x\n[harvest ]\nna ;me = x\n");
    expect_count(3);
    expect_trouble(0, 2, "no setting has such a name");
    expect_trouble(1, 3, "unknown section");
    expect_trouble(2, 6, "no setting has such a name");
}

static void nothing_in_the_file(void **state) {
    (void)state;
    PARSE("");
    expect_count(0);
    PARSE("\n\n;\n#\n   \n");
    expect_count(0);
    PARSE("[harvest]");
    expect_count(0);
}

/* Any bytes: no crash, and entries only with names from the text. */
static void noise(void **state) {
    (void)state;
    static const char letters[] = "[]=:;# \t\n\n\n\nab.\0\r\\\"'\x80h";
    uint64_t x = 88172645463325252u;
    char text[400];
    for (int round = 0; round < 20000; round++) {
        size_t n = 0;
        if (round % 2) {
            n = (size_t)sprintf(text, "[kafka]\n");
        }
        for (size_t length = (size_t)(round % 60) + n; n < length; n++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            text[n] = letters[x % (sizeof letters - 1)];
        }
        parse(text, n);
    }
}

static void files(void **state) {
    (void)state;
    char directory[] = "/tmp/harvestd-ini-XXXXXX", path[100], *text;
    size_t length;
    struct hv_error err;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/x.ini", directory);
    assert_int_equal(hv_ini_read_file(path, &text, &length, &err), -1);
    assert_non_null(strstr(err.text, "No such file"));
    assert_int_equal(hv_ini_read_file(directory, &text, &length, &err), -1);
    assert_non_null(strstr(err.text, "is a directory"));
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(hv_ini_read_file(path, &text, &length, &err), -1);
    assert_non_null(strstr(err.text, "is empty"));
    assert_int_equal(write(fd, "[log]\n\0x", 8), 8);
    assert_int_equal(hv_ini_read_file(path, &text, &length, &err), 0);
    assert_int_equal(length, 8);
    assert_memory_equal(text, "[log]\n\0x", 8);
    free(text);
    assert_int_equal(ftruncate(fd, HV_INI_FILE_MAX), 0);
    assert_int_equal(hv_ini_read_file(path, &text, &length, &err), 0);
    free(text);
    assert_int_equal(ftruncate(fd, HV_INI_FILE_MAX + 1), 0);
    assert_int_equal(hv_ini_read_file(path, &text, &length, &err), -1);
    assert_non_null(strstr(err.text, "larger than 1 MiB"));
    close(fd);
    if (geteuid() != 0) {
        assert_int_equal(chmod(path, 0), 0);
        assert_int_equal(hv_ini_read_file(path, &text, &length, &err), -1);
        assert_non_null(strstr(err.text, "Permission denied"));
    }
    unlink(path);
    rmdir(directory);
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_usual_form),
        TEST(line_ends_and_the_byte_order_mark),
        TEST(a_value_may_hold_separators_and_quotes),
        TEST(long_lines_are_whole),
        TEST(overlong_lines_are_told_and_left_out),
        TEST(nul_and_control_bytes),
        TEST(a_comment_behind_a_value_is_no_silent_loss),
        TEST(values_go_on_in_indented_lines),
        TEST(an_indented_file_is_not_one_long_value),
        TEST(indentation_by_accident_is_told),
        TEST(the_continuation_of_a_refused_line_goes_the_same_way),
        TEST(a_broken_header_takes_nothing_astray),
        TEST(keys_before_any_section),
        TEST(names_that_libinih_would_cut),
        TEST(nothing_in_the_file),
        TEST(noise),
        TEST(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
