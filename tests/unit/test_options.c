/* app/options and rt/config: the command line, and the whole configuration with all its troubles at once. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/options.h"
#include "rt/config.h"

static struct hv_options options;
static struct hv_error err;

static int parse(const char *first, ...) {
    char *argv[20] = {(char *)"harvestd"};
    int argc = 1;
    va_list args;
    va_start(args, first);
    for (const char *a = first; a != NULL; a = va_arg(args, const char *)) {
        argv[argc++] = (char *)a;
    }
    va_end(args);
    err.text[0] = '\0';
    return hv_options_parse(argc, argv, &options, &err);
}

static void commands(void **state) {
    (void)state;
    assert_int_equal(parse(NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_RUN);
    assert_null(options.config);
    assert_int_equal(parse("run", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_RUN);
    assert_int_equal(parse("check", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_CHECK);
    assert_int_equal(parse("-c", "x", "schema", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_SCHEMA);
    assert_int_equal(parse("version", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_VERSION);
    assert_int_equal(parse("--version", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_VERSION);
    assert_int_equal(parse("check", "--help", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_HELP);
    assert_int_equal(options.help_of, HV_COMMAND_CHECK);
    assert_int_equal(parse("-h", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_HELP);
    assert_int_equal(options.help_of, HV_COMMAND_NONE);
    assert_int_equal(parse("--version", "--help", "run", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_HELP);
    assert_int_equal(options.help_of, HV_COMMAND_RUN);
    assert_int_equal(parse("--help-config", NULL), 0);
    assert_int_equal(options.command, HV_COMMAND_HELP_CONFIG);
}

static void files_and_settings(void **state) {
    (void)state;
    assert_int_equal(parse("--config", "a b", "run", "-s", "x.y=1", "--set=x.z=--2", "-sw.v=", NULL), 0);
    assert_string_equal(options.config, "a b");
    assert_int_equal(options.sets.count, 3);
    assert_string_equal(options.sets.list[0], "x.y=1");
    assert_string_equal(options.sets.list[1], "x.z=--2");
    assert_string_equal(options.sets.list[2], "w.v=");
    assert_int_equal(parse("--config=f", NULL), 0);
    assert_string_equal(options.config, "f");
    assert_int_equal(parse("-cf", "--", "check", NULL), 0);
    assert_string_equal(options.config, "f");
    assert_int_equal(options.command, HV_COMMAND_CHECK);
}

#define WRONG(part, ...)                                                                                     \
    do {                                                                                                     \
        assert_int_equal(parse(__VA_ARGS__, NULL), -1);                                                      \
        if (strstr(err.text, part) == NULL)                                                                  \
            fail_msg("'%s' is not in '%s'", part, err.text);                                                 \
    } while (0)

static void wrong_use(void **state) {
    (void)state;
    WRONG("unknown command 'chekc'; did you mean check?", "chekc");
    WRONG("unknown command 'frobnicate'; there are run, check, schema", "frobnicate");
    WRONG("unexpected argument 'check'", "run", "check");
    WRONG("unknown option '--confg'; did you mean --config?", "--confg", "x");
    WRONG("unknown option '-x'", "-x");
    WRONG("unknown option '-hx'", "-hx");
    WRONG("--config needs a value", "--config");
    WRONG("--set needs a value: SECTION.NAME=VALUE", "-s");
    WRONG("--config is given twice", "-c", "a", "-c", "b");
    WRONG("--config is empty; it needs a value: FILE", "--config=");
    WRONG("--help takes no value", "--help=x");
    WRONG("unknown command ''", "");
    WRONG("unknown command '-'", "-");
    WRONG("'\\x1b[2J'", "\x1b[2J");
}

static void options_of_a_command(void **state) {
    (void)state;
    assert_int_equal(parse("-c", "f", "pump", "-t", "a", "--topic=b", "-n7", "--value-size", "2KiB", "--interval=5ms",
                           "--verify", "-s", "x.y=z", NULL),
                     0);
    assert_int_equal(options.command, HV_COMMAND_PUMP);
    assert_string_equal(options.config, "f");
    assert_string_equal(options.sets.list[0], "x.y=z");
    assert_int_equal(options.pump_topics.count, 2);
    assert_string_equal(options.pump_topics.list[1], "b");
    assert_int_equal(options.pump.records, 7);
    assert_int_equal(options.pump.value_size, 2048);
    assert_int_equal(options.pump.interval, HV_MS(5));
    assert_true(options.pump.verify);
    assert_false(options.pump.json);
    assert_int_equal(options.pump.keys, 10); /* what was not given has its default */
    assert_int_equal(options.pump.verify_timeout, HV_SECONDS(30));
    assert_int_equal(options.pump.rate, 0);
    assert_int_equal(parse("pump", "--help", NULL), 0); /* though --topic is missing */
    assert_int_equal(options.help_of, HV_COMMAND_PUMP);

    WRONG("--topic is missing", "pump");
    WRONG("--records is an option of pump: write it behind that word", "--records", "5", "pump");
    WRONG("--records is an option of pump, not of check", "check", "--records=5");
    WRONG("unknown option '--recrods'; did you mean --records?", "pump", "--recrods", "5");
    WRONG("unknown option '--recrods'; harvestd check --help lists all", "check", "--recrods", "5");
    WRONG("unknown option '-n'", "check", "-n", "5");
    WRONG("--records is given twice", "pump", "-n", "5", "--records", "6");
    WRONG("--records: '0' is out of range; it is 1 to 1000000000000000", "pump", "-n", "0");
    WRONG("--records: '5s' is not a number", "pump", "-n", "5s");
    WRONG("--progress: '1ms' is out of range; it is 100ms to 24h", "pump", "--progress", "1ms");
    WRONG("--value-size: '1GiB' is out of range; it is 0 to 16MiB", "pump", "--value-size", "1GiB");
    WRONG("--verify takes no value", "pump", "--verify=1");
    WRONG("--keys needs a value: N", "pump", "-k");
}

static void every_help_can_be_printed(void **state) {
    (void)state;
    for (int c = 0; c <= HV_COMMAND_COUNT; c++) {
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        hv_options_help(c == HV_COMMAND_COUNT ? HV_COMMAND_NONE : (enum hv_command)c, out);
        fclose(out);
        const struct hv_option_table *table = c == HV_COMMAND_COUNT ? &hv_options_of_all : hv_command_rows[c].options;
        for (size_t i = 0; table != NULL && i < table->count; i++) {
            assert_non_null(strstr(text, table->rows[i].name));
        }
        for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            assert_true(strlen(line) <= 100);
        }
        free(text);
    }
}

static void a_flood_of_settings_is_bounded(void **state) {
    (void)state;
    static char *argv[HV_OPTION_TEXTS_MAX + 2];
    argv[0] = (char *)"harvestd";
    for (int i = 1; i < HV_OPTION_TEXTS_MAX + 2; i++) {
        argv[i] = (char *)"-sa.b=c";
    }
    assert_int_equal(hv_options_parse(HV_OPTION_TEXTS_MAX + 1, argv, &options, &err), 0);
    assert_int_equal(hv_options_parse(HV_OPTION_TEXTS_MAX + 2, argv, &options, &err), -1);
}

/* ---- the configuration ---- */

static char path[] = "/tmp/harvestd-config-XXXXXX";
static char said[65536];

static int create_file(void **state) {
    (void)state;
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path);
}

/* Loads a file of this content, with these --set (NULL-terminated). What was said, without the path, is in
 * `said`. */
static int load(struct hv_settings *settings, const char *content, const char *const *sets) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(content, 1, strlen(content), file), strlen(content));
    assert_int_equal(fclose(file), 0);
    struct hv_config_source source = {.path = path, .sets = sets};
    while (sets != NULL && sets[source.set_count] != NULL) {
        source.set_count++;
    }
    char *text = NULL;
    size_t size = 0;
    FILE *errors = open_memstream(&text, &size);
    hv_settings_init(settings);
    int bad = hv_config_load(&source, settings, errors);
    if (bad != 0) {
        hv_settings_free(settings);
    }
    fclose(errors);
    said[0] = '\0';
    size_t at = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        at += (size_t)snprintf(said + at, sizeof said - at, "%s\n",
                               strncmp(line, path, strlen(path)) == 0 ? line + strlen(path) : line);
    }
    free(text);
    return bad;
}

static void a_good_file(void **state) {
    (void)state;
    struct hv_settings s;
    static const char *const sets[] = {"limits.send_buffer=7", "kafka.producer.linger.ms=4",
                                       "kafka.client.id=x=y", "limits.send_buffer=8", NULL};
    assert_int_equal(load(&s, "[limits]\nsend_buffer = 5\nmark_backoff = 20ms\n[harvest]\nname = n\n", sets),
                     0);
    assert_string_equal(said, "");
    assert_int_equal(s.send_buffer, 8); /* the command line goes over the file, the last over the first */
    assert_int_equal(s.mark_backoff, HV_MS(20));
    assert_string_equal(s.name, "n");
    assert_string_equal(s.leader_topic, "harvestd.neli");
    assert_string_equal(s.kafka_producer.list[0].name, "linger.ms");
    assert_string_equal(s.kafka.list[1].value, "x=y");
    hv_settings_free(&s);
}

static void all_troubles_at_once_in_the_order_of_lines(void **state) {
    (void)state;
    struct hv_settings s;
    static const char *const sets[] = {"limits.mark_bakcoff=1s", "limits.send_buffer=0", "nonsense",
                                       "lmits.x=1", NULL};
    assert_int_equal(
        load(&s,
             "[harvest]\nnme = x\nname = a\nname = b\n[limits]\nqueue_timeout = 5\n"
             "min_poll_interval = 9s\nsend_buffer = 1\n[limits]\nsend_buffer = 2\nmark_backoff\n",
             sets),
        -1);
    assert_string_equal(said, ":2: unknown setting 'nme' in [harvest]; did you mean name?\n"
                              ":4: name: it is set in line 3 already; leave one of the two\n"
                              ":6: queue_timeout: '5' is not a duration; write digits and a unit (us, ms, s, "
                              "m or h), such as 100ms or 5s\n"
                              ":7: min_poll_interval: 9s has to be less than heartbeat_timeout, which is 5s\n"
                              ":10: send_buffer: it is set in line 8 already; leave one of the two\n"
                              ":11: 'mark_backoff': there is no '='; a line is name = value, [section] or a "
                              "comment that begins with ; or #\n"
                              "--set unknown setting 'mark_bakcoff' in [limits]; did you mean mark_backoff?\n"
                              "--set send_buffer: '0' is out of range; it is 1 to 1000000\n"
                              "--set: write SECTION.NAME=VALUE, such as limits.queue_timeout=1m\n"
                              "--set unknown section 'lmits'; did you mean [limits]?\n");
}

static void a_conflict_is_told_where_it_was_made(void **state) {
    (void)state;
    struct hv_settings s;
    static const char *const sets[] = {"limits.heartbeat_timeout=100ms", NULL};
    assert_int_equal(load(&s, "[limits]\nheartbeat_timeout = 5s\n", sets), -1);
    assert_string_equal(
        said, "--set heartbeat_timeout: 100ms has to be more than min_poll_interval, which is 100ms\n");
    assert_int_equal(load(&s, "[limits]\n\nheartbeat_timeout = 100ms\n", NULL), -1);
    assert_string_equal(
        said, ":3: heartbeat_timeout: 100ms has to be more than min_poll_interval, which is 100ms\n");
}

static void passwords_are_not_told(void **state) {
    (void)state;
    struct hv_settings s;
    static const char *const sets[] = {"harvest.data_source=host=a password=b Topsecret", "Topsecret=1",
                                       "harvest.data_source host=a password=Topsecret", NULL};
    assert_int_equal(
        load(&s,
             "[harvest]\ndata_source = host=a password=b Topsecret\n[kafka]\nsasl.pasword=Topsecret\n"
             "ssl.key.password = Topsecret ;\n",
             sets),
        -1);
    assert_non_null(strstr(said, "--set"));
    assert_null(strstr(said, "Topsecret"));
}

static void a_flood_of_troubles_is_bounded(void **state) {
    (void)state;
    struct hv_settings s;
    static char content[20000];
    size_t n = (size_t)sprintf(content, "[limits]\n");
    for (int i = 0; i < 1000; i++) {
        n += (size_t)sprintf(content + n, "x%d = 1\n", i);
    }
    assert_int_equal(load(&s, content, NULL), -1);
    assert_non_null(strstr(said, ":101: "));
    assert_null(strstr(said, ":102: "));
    assert_non_null(strstr(said, "... and 900 more\n"));
}

static void the_file_itself(void **state) {
    (void)state;
    struct hv_settings s;
    assert_int_equal(load(&s, "", NULL), -1);
    assert_string_equal(said, ": is empty; `harvestd --help-config` lists what can be set\n");
    assert_int_equal(load(&s, "; only comments\n", NULL), 0);
    hv_settings_free(&s);
    char *text = NULL;
    size_t size = 0;
    FILE *errors = open_memstream(&text, &size);
    struct hv_config_source source = {.path = "/nonexistent/x.ini"};
    hv_settings_init(&s);
    assert_int_equal(hv_config_load(&source, &s, errors), -1);
    fclose(errors);
    free(text);
    text = NULL;
    source.optional = true;
    errors = open_memstream(&text, &size);
    assert_int_equal(hv_config_load(&source, &s, errors), 0);
    fclose(errors);
    assert_string_equal(text, "");
    free(text);
    text = NULL;
    source.optional = false;
    hv_settings_free(&s);
    hv_settings_init(&s);
    errors = open_memstream(&text, &size);
    assert_int_equal(hv_config_load(&source, &s, errors), -1);
    fclose(errors);
    hv_settings_free(&s);
    assert_string_equal(text, "/nonexistent/x.ini: cannot be opened: No such file or directory\n");
    free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, create_file, remove_file)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands),
        cmocka_unit_test(files_and_settings),
        cmocka_unit_test(wrong_use),
        cmocka_unit_test(options_of_a_command),
        cmocka_unit_test(every_help_can_be_printed),
        cmocka_unit_test(a_flood_of_settings_is_bounded),
        TEST(a_good_file),
        TEST(all_troubles_at_once_in_the_order_of_lines),
        TEST(a_conflict_is_told_where_it_was_made),
        TEST(passwords_are_not_told),
        TEST(a_flood_of_troubles_is_bounded),
        TEST(the_file_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
