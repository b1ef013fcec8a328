/* Secrets: from the environment and from files (rt/settings_secret), their names (rt/settings), and a password that goes into
 * a data source (io/pg_dsn). */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/kafka_login.h"
#include "io/pg_dsn.h"
#include "rt/settings.h"
#include "rt/settings_secret.h"

static char path[64];

static int make_place(void **state) {
    (void)state;
    strcpy(path, "/tmp/harvestd-secret-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 || close(fd) != 0;
}

static int remove_place(void **state) {
    (void)state;
    return unlink(path);
}

static const char *written(const char *bytes, size_t length) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* ---- The environment ---- */

static void assert_expands(const char *value, const char *expected) {
    struct hv_error err = {""};
    char *got = hv_secret_expand(value, &err);
    assert_string_equal(err.text, "");
    assert_string_equal(got, expected);
    free(got);
}

static void assert_not_expanded(const char *value, const char *part) {
    struct hv_error err = {""};
    assert_null(hv_secret_expand(value, &err));
    assert_non_null(strstr(err.text, part));
}

static void variables_are_put_in(void **state) {
    (void)state;
    setenv("HV_TEST_A", "a ;b\n[log]\n${HV_TEST_A}'", 1);
    setenv("HV_TEST_EMPTY", "", 1);
    unsetenv("HV_TEST_NONE");
    assert_expands("", "");
    assert_expands("plain", "plain");
    assert_expands("${HV_TEST_A}", "a ;b\n[log]\n${HV_TEST_A}'"); /* once, and never as lines of the file */
    assert_expands("<${HV_TEST_EMPTY}|${HV_TEST_EMPTY:-x y}|${HV_TEST_NONE:-}|${HV_TEST_NONE:-$z}>", "<|x y||$z>");
    assert_expands("p$w $ $$ $1 $HV_TEST_A $(x) a$", "p$w $ $$ $1 $HV_TEST_A $(x) a$");
    assert_expands("$${HV_TEST_A} $$${x}", "${HV_TEST_A} $${x}");
}

static void what_cannot_be_put_in_is_told(void **state) {
    (void)state;
    unsetenv("HV_TEST_NONE");
    assert_not_expanded("Topsecret ${HV_TEST_NONE} x", "variable 'HV_TEST_NONE' is not set");
    static const char *const bad[] = {"Topsecret${", "Topsecret${}",   "Topsecret${HV_TEST_A",  "Topsecret${1A}",
                                      "${Top-secret}", "${HV TEST}", "${HV_TEST_A:Topsecret}", "${HV_TEST_A:-Topsecret"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hv_error err = {""};
        assert_null(hv_secret_expand(bad[i], &err));
        assert_non_null(strstr(err.text, "write $${"));
        assert_null(strstr(err.text, "secret"));
    }
}

/* ---- Files ---- */

static void assert_holds(const char *bytes, size_t length, bool lines, const char *expected) {
    struct hv_error err = {""};
    char *got = hv_secret_read_file(written(bytes, length), lines, NULL, &err);
    assert_string_equal(err.text, "");
    assert_string_equal(got, expected);
    free(got);
}

static void assert_no_secret(const char *name, bool lines, const char *part) {
    struct hv_error err = {""};
    assert_null(hv_secret_read_file(name, lines, NULL, &err));
    assert_non_null(strstr(err.text, part));
    assert_null(strstr(err.text, "Topsecret"));
}

static void files_are_read_without_their_last_line_end(void **state) {
    (void)state;
    assert_holds("s3cret", 6, false, "s3cret");
    assert_holds("s3cret\n", 7, false, "s3cret");
    assert_holds(" s'3 \\ \xc3\xa4 \r\n\n", 12, false, " s'3 \\ \xc3\xa4 ");
    assert_holds("a\nb\n", 4, true, "a\nb");
    static char large[HV_SECRET_FILE_MAX + 2];
    memset(large, 'x', sizeof large);
    large[HV_SECRET_FILE_MAX] = '\n';
    struct hv_error err;
    char *got = hv_secret_read_file(written(large, HV_SECRET_FILE_MAX + 1), false, NULL, &err);
    assert_int_equal(strlen(got), HV_SECRET_FILE_MAX);
    free(got);
}

static void files_that_hold_no_secret(void **state) {
    (void)state;
    static char large[HV_SECRET_FILE_MAX + 1];
    memset(large, 'x', sizeof large);
    assert_no_secret("", false, "no file is named");
    assert_no_secret("/nonexistent/secret", false, "'/nonexistent/secret' cannot be opened: No such file");
    assert_no_secret("/", false, "'/' is no regular file");
    assert_no_secret("/dev/zero", false, "is no regular file");
    assert_no_secret(written("", 0), false, "is empty");
    assert_no_secret(written("\n\r\n", 3), true, "is empty");
    assert_no_secret(written("Topsecret\nuser\n", 15), false, "more than one line");
    assert_no_secret(written("Topsecret\0x", 11), true, "NUL byte");
    assert_no_secret(written(large, sizeof large), true, "larger than 65536 bytes");
    if (geteuid() != 0) {
        chmod(path, 0);
        assert_no_secret(path, false, "cannot be opened: Permission denied");
        chmod(path, 0600);
    }
}

static void a_pipe_is_not_waited_for(void **state) {
    (void)state;
    char name[80];
    snprintf(name, sizeof name, "%s.pipe", path);
    assert_int_equal(mkfifo(name, 0600), 0);
    assert_no_secret(name, false, "is no regular file");
    unlink(name);
}

static void files_that_everybody_may_read_are_noted(void **state) {
    (void)state;
    struct hv_settings s;
    struct hv_error err;
    hv_settings_init(&s);
    written("s3cret\n", 7);
    assert_int_equal(hv_settings_set(&s, "harvest", "password_file", path, &err), 0);
    assert_null(s.open_files); /* mkstemp made it for its owner */
    chmod(path, 0644);
    assert_int_equal(hv_settings_set(&s, "harvest", "password_file", path, &err), 0);
    assert_int_equal(hv_settings_set(&s, "kafka", "sasl.password_file", path, &err), 0);
    assert_memory_equal(s.open_files, path, strlen(path)); /* once */
    assert_string_equal(s.open_files + strlen(path), "\n");
    chmod(path, 0600);
    hv_settings_free(&s);
}

/* ---- Settings ---- */

static void each_secret_has_a_file(void **state) {
    (void)state;
    char name[40];
    static const struct {
        const char *section, *name, *secret;
    } files[] = {{"harvest", "password_file", "password"},
                 {"harvest", "data_source_file", "data_source"},
                 {"kafka", "sasl.password_file", "sasl.password"},
                 {"kafka.producer", "ssl.key.password_file", "ssl.key.password"},
                 {"kafka.consumer", "ssl.key.pem_file", "ssl.key.pem"}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        assert_true(hv_settings_is_file_of(files[i].section, files[i].name, name, sizeof name));
        assert_string_equal(name, files[i].secret);
    }
    assert_false(hv_settings_is_file_of("harvest", "name_file", name, sizeof name));
    assert_false(hv_settings_is_file_of("kafka", "bootstrap.servers_file", name, sizeof name));
    assert_false(hv_settings_is_file_of("kafka", "sasl.password", name, sizeof name));
    assert_false(hv_settings_is_file_of("kafka", "_file", name, sizeof name));
}

static void a_file_sets_its_secret(void **state) {
    (void)state;
    struct hv_settings s;
    struct hv_error err;
    hv_settings_init(&s);
    assert_int_equal(hv_settings_set(&s, "kafka", "sasl.password", "old", &err), 0);
    assert_int_equal(hv_settings_set(&s, "kafka", "sasl.password_file", written("n ew\n", 5), &err), 0);
    assert_string_equal(s.kafka.list[1].name, "sasl.password");
    assert_string_equal(s.kafka.list[1].value, "n ew");
    assert_int_equal(s.kafka.count, 2);
    written("host=a\n user=u\n", 15);
    assert_int_equal(hv_settings_set(&s, "harvest", "data_source_file", path, &err), 0);
    assert_string_equal(s.data_source, "host=a\n user=u");
    assert_int_equal(hv_settings_set(&s, "harvest", "data_source_file", written("host=a Topsecret", 16), &err), -1);
    assert_null(strstr(err.text, "Topsecret"));
    assert_non_null(strstr(err.text, path));
    hv_settings_free(&s);
}

/* ---- A password in a data source ---- */

static void assert_password(const char *data_source, const char *password) {
    char *joined = hv_pg_dsn_with_password(data_source, password);
    PQconninfoOption *before = PQconninfoParse(data_source, NULL), *after = PQconninfoParse(joined, NULL);
    assert_non_null(before);
    assert_non_null(after);
    for (size_t i = 0; after[i].keyword != NULL; i++) {
        if (strcmp(after[i].keyword, "password") == 0) {
            assert_string_equal(after[i].val, password);
        } else if (before[i].val == NULL) {
            assert_null(after[i].val);
        } else {
            assert_string_equal(after[i].val, before[i].val);
        }
    }
    PQconninfoFree(before);
    PQconninfoFree(after);
    assert_true(hv_pg_dsn_has_password(joined));
    free(joined);
}

static void a_password_joins_a_data_source(void **state) {
    (void)state;
    static const char *const sources[] = {
        "", "host=a user=u", "host=a password= dbname=d", "host=a password='o ld'", "password=x host=a\\", "dbname='a\\\\' ",
        "service=s", "postgresql://", "postgres://u@h/d", "postgresql://u:o%40ld@h:1,i:2/d?sslmode=require",
        "postgresql://u:o?ld@h/d", "postgresql:///d?host=/tmp&", "postgresql://h?", "postgresql://h/d?password=x"};
    static const char *const passwords[] = {"x", "a b", "'", "\\", "\\'", "a\\", "%41&host=evil#?/@", "' host=evil",
                                            "\xc3\xa4\xff", "sslmode=disable"};
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        for (size_t j = 0; j < sizeof passwords / sizeof passwords[0]; j++) {
            assert_password(sources[i], passwords[j]);
        }
    }
}

static void complain(void *user, const char *section, const char *name, const char *message) {
    snprintf(user, HV_ERROR_MAX, "[%s] %s: %s", section, name, message);
}

static void the_password_reaches_the_data_source(void **state) {
    (void)state;
    struct hv_settings s;
    struct hv_error err;
    char said[HV_ERROR_MAX] = "";
    hv_settings_init(&s);
    assert_false(hv_pg_dsn_has_password(s.data_source));
    assert_int_equal(hv_settings_set(&s, "harvest", "password", "a 'b'", &err), 0);
    assert_int_equal(hv_settings_finish(&s, complain, said), 0);
    assert_true(hv_pg_dsn_has_password(s.data_source));
    assert_non_null(strstr(s.data_source, "password='a \\'b\\''"));
    assert_int_equal(hv_settings_set(&s, "harvest", "password", "", &err), -1);
    hv_settings_free(&s);
}

/* ---- Logging in to Kafka ---- */

static void tokens_that_nobody_renews_are_refused(void **state) {
    (void)state;
    struct hv_settings s;
    struct hv_error err;
    char said[HV_ERROR_MAX] = "";
    hv_settings_init(&s);
    assert_int_equal(hv_settings_set(&s, "kafka", "sasl.mechanism", "OAUTHBEARER", &err), 0); /* an alias */
    assert_int_equal(hv_settings_finish(&s, complain, said), 0); /* not in force: no SASL */
    assert_int_equal(hv_settings_set(&s, "kafka.producer", "security.protocol", "sasl_ssl", &err), 0);
    assert_int_equal(hv_settings_finish(&s, complain, said), 1);
    assert_memory_equal(said, "[kafka.producer] sasl.mechanisms: ", 34);
    assert_non_null(strstr(said, "nobody would get tokens"));
    assert_int_equal(hv_settings_set(&s, "kafka.producer", "sasl.mechanisms", "SCRAM-SHA-512", &err), 0);
    assert_int_equal(hv_settings_finish(&s, complain, said), 0);
    hv_settings_free(&s);
}

static void oidc_is_refused_where_librdkafka_lacks_it(void **state) {
    (void)state;
    char why[200];
    struct hv_settings s;
    struct hv_error err = {""};
    hv_settings_init(&s);
    bool lacks = hv_kafka_lacks_oidc(why, sizeof why);
    assert_int_equal(hv_settings_set(&s, "kafka", "sasl.oauthbearer.method", "oidc", &err), lacks ? -1 : 0);
    if (lacks) {
        assert_non_null(strstr(err.text, "was built without OIDC"));
        assert_non_null(strstr(err.text, "sasl.oauthbearer.method"));
    }
    hv_settings_free(&s);
}

#define TEST(name) cmocka_unit_test(name)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(variables_are_put_in),
        TEST(what_cannot_be_put_in_is_told),
        TEST(files_are_read_without_their_last_line_end),
        TEST(files_that_hold_no_secret),
        TEST(a_pipe_is_not_waited_for),
        TEST(files_that_everybody_may_read_are_noted),
        TEST(each_secret_has_a_file),
        TEST(a_file_sets_its_secret),
        TEST(a_password_joins_a_data_source),
        TEST(the_password_reaches_the_data_source),
        TEST(tokens_that_nobody_renews_are_refused),
        TEST(oidc_is_refused_where_librdkafka_lacks_it),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
