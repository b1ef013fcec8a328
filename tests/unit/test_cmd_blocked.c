/* app/cmd_blocked_lines, _print and _options, app/cells, app/cmd_json: what a daemon tells of blocked keys, that all of it arrives in whatever pages, and
 * what of it is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/cells.h"
#include "app/cmd_blocked_lines.h"
#include "app/cmd_blocked_print.h"
#include "app/cmd_json.h"
#include "app/options.h"

/* ---- a daemon ---- */

struct scene {
    const struct hv_told_topic *topics;
    const struct hv_told_key *keys;
    uint32_t topic_count, key_count;
    bool leads;
};

static bool leads(void *user) {
    return ((struct scene *)user)->leads;
}

static bool next_topic(void *user, uint32_t *at, struct hv_told_topic *ret) {
    const struct scene *scene = user;
    if (*at == scene->topic_count) {
        return false;
    }
    *ret = scene->topics[(*at)++];
    return true;
}

static bool next_key(void *user, uint32_t *at, struct hv_told_key *ret) {
    const struct scene *scene = user;
    if (*at == scene->key_count) {
        return false;
    }
    *ret = scene->keys[(*at)++];
    return true;
}

static char *answer;
static size_t answer_length;
static unsigned pages;

/* Into `answer`, as a client gets it. */
static void ask(struct scene *scene) {
    const struct hv_blocked_source source = {"eu-1", leads, next_topic, next_key, scene};
    struct hv_control_position position = {0};
    static char room[HV_CONTROL_PAGE];
    free(answer);
    FILE *out = open_memstream(&answer, &answer_length);
    pages = 0;
    for (bool last = false; !last; pages++) {
        struct hv_text page;
        hv_text_init(&page, room, sizeof room);
        last = hv_blocked_answer(&source, &position, &page);
        assert_false(page.cut);
        assert_true(page.length > 0 && room[page.length - 1] == '\n');
        fwrite(room, 1, page.length, out);
    }
    fclose(out);
}

static struct hv_blocked_list list;
static struct hv_error err;

static void parse(void) {
    if (hv_blocked_parse(answer, answer_length, &list, &err) != 0) {
        fail_msg("%s", err.text);
    }
}

static char *printed;

static const char *print(struct hv_blocked_options options) {
    size_t length;
    free(printed);
    FILE *out = open_memstream(&printed, &length);
    parse();
    hv_blocked_print(&list, &options, out);
    hv_blocked_free(&list);
    fclose(out);
    return printed;
}

#define BLOCKED(key_, id_, topic_)                                                                                                              \
    {.key = key_, .key_length = sizeof key_ - 1, .shard = -1, .id = id_, .topic = topic_, .class = "too large", .reason = "Message size too large", \
     .policy = "block", .since = 1767323045000000, .attempts = 3, .retry_in = HV_MS(12500)}

static const struct hv_told_key two_keys[] = {BLOCKED("b", 12, "orders"), BLOCKED("a\n\"\xC3\xA9\0.", 7, "payments")};
static const struct hv_told_topic one_topic[] = {{"orders", "Unknown topic", 1767323045000000, 12}};
static struct scene two = {one_topic, two_keys, 1, 2, true}, nothing = {NULL, NULL, 0, 0, true};

/* ---- tests ---- */

static void lines(void **state) {
    (void)state;
    ask(&two);
    assert_string_equal(answer,
                        "{\"type\":\"topic\",\"topic\":\"orders\",\"reason\":\"Unknown topic\",\"since\":\"2026-01-02T03:04:05Z\",\"keys\":12}\n"
                        "{\"type\":\"key\",\"key\":\"b\",\"id\":12,\"topic\":\"orders\",\"class\":\"too large\",\"reason\":\"Message size too large\","
                        "\"since\":\"2026-01-02T03:04:05Z\",\"attempts\":3,\"retry_in\":12.5,\"policy\":\"block\"}\n"
                        "{\"type\":\"key\",\"key\":\"a\\n\\\"\xC3\xA9\\u0000.\",\"id\":7,\"topic\":\"payments\",\"class\":\"too large\","
                        "\"reason\":\"Message size too large\",\"since\":\"2026-01-02T03:04:05Z\",\"attempts\":3,\"retry_in\":12.5,\"policy\":\"block\"}\n"
                        "{\"type\":\"end\",\"name\":\"eu-1\",\"leads\":true,\"topics\":1,\"keys\":2}\n");
    parse();
    assert_int_equal(json_array_size(list.keys), 2);
    hv_blocked_free(&list);
}

static void tables(void **state) {
    (void)state;
    ask(&two);
    assert_string_equal(print((struct hv_blocked_options){0}),
                        "closed topic  since                 keys  reason\n"
                        "orders        2026-01-02T03:04:05Z  12    Unknown topic\n"
                        "\n"
                        "key           id  topic     class      since                 attempts  retry_in  policy  reason\n"
                        "a\\x0a\"\xC3\xA9\\x00.  7   payments  too large  2026-01-02T03:04:05Z  3         12s       block   Message size too large\n"
                        "b             12  orders    too large  2026-01-02T03:04:05Z  3         12s       block   Message size too large\n"
                        "\n"
                        "2 keys blocked, 1 topic closed\n");
    assert_string_equal(print((struct hv_blocked_options){.topic = "payments"}),
                        "key           id  topic     class      since                 attempts  retry_in  policy  reason\n"
                        "a\\x0a\"\xC3\xA9\\x00.  7   payments  too large  2026-01-02T03:04:05Z  3         12s       block   Message size too large\n"
                        "\n"
                        "1 key blocked, 0 topics closed\n");
    assert_non_null(strstr(print((struct hv_blocked_options){.limit = 1}), "\n2 keys blocked, 1 topic closed; 1 not shown\n"));
    assert_non_null(strstr(printed, "payments"));
    assert_null(strstr(printed, "orders    too large"));
    assert_string_equal(print((struct hv_blocked_options){.topic = "neither"}), "no key is blocked\n");

    ask(&nothing);
    assert_string_equal(print((struct hv_blocked_options){0}), "no key is blocked\n");
    nothing.leads = false;
    ask(&nothing);
    assert_string_equal(print((struct hv_blocked_options){0}), "no key is blocked\nthis instance does not lead: ask the one that does\n");
    nothing.leads = true;
}

static void json(void **state) {
    (void)state;
    ask(&two);
    print((struct hv_blocked_options){.json = true, .topic = "payments"});
    assert_string_equal(printed,
                        "{\"type\":\"key\",\"key\":\"a\\n\\\"\xC3\xA9\\u0000.\",\"id\":7,\"topic\":\"payments\",\"class\":\"too large\","
                        "\"reason\":\"Message size too large\",\"since\":\"2026-01-02T03:04:05Z\",\"attempts\":3,\"retry_in\":12.5,\"policy\":\"block\"}\n"
                        "{\"type\":\"end\",\"name\":\"eu-1\",\"leads\":true,\"topics\":1,\"keys\":2}\n");
}

static void keys_of_all_kinds(void **state) {
    (void)state;
    static char long_key[5000];
    memset(long_key, 1, sizeof long_key); /* each takes six bytes */
    memcpy(long_key + HV_BLOCKED_KEY_SHOWN - 1, "\xC3\xA9", 2);
    const struct hv_told_key keys[] = {
        {.key = "", .shard = -1, .id = 1, .retry_in = HV_NEVER},
        {.key = "\xFF\x00", .key_length = 2, .shard = -1, .id = 2, .topic = "\x1b[31m", .retry_in = -5},
        {.key = long_key, .key_length = sizeof long_key, .shard = -1, .id = 3, .topic = long_key, .reason = long_key, .class = long_key, .policy = long_key},
        {.shard = 17, .id = 4},
        {.shard = -1, .id = 5},
    };
    struct scene scene = {NULL, keys, 0, 5, true};
    long_key[sizeof long_key - 1] = '\0';
    ask(&scene);
    parse();
    const json_t *row = json_array_get(list.keys, 2);
    assert_int_equal(json_string_length(json_object_get(row, "key")), HV_BLOCKED_KEY_SHOWN - 1);
    assert_int_equal(json_integer_value(json_object_get(row, "key_bytes")), sizeof long_key);
    assert_true(json_is_null(json_object_get(json_array_get(list.keys, 0), "retry_in")));
    assert_string_equal(json_string_value(json_object_get(json_array_get(list.keys, 1), "key_base64")), "/wA=");
    hv_blocked_free(&list);
    print((struct hv_blocked_options){0});
    assert_non_null(strstr(printed, "\n(empty)  "));
    assert_non_null(strstr(printed, "\nbase64:/wA=  "));
    assert_non_null(strstr(printed, "  \\x1b[31m  "));
    assert_non_null(strstr(printed, "\nshard 17  "));
    assert_non_null(strstr(printed, "\n?  "));
    for (const char *at = printed; *at != '\0'; at++) {
        assert_true(*at == '\n' || (unsigned char)*at >= 0x20);
    }
}

/* More than goes into a page, and of every length. */
static void many_keys(void **state) {
    enum { MANY = 5000 };
    static char text[3000];
    static struct hv_told_key keys[MANY];
    (void)state;
    memset(text, 'x', sizeof text);
    for (int i = 0; i < MANY; i++) {
        keys[i] = (struct hv_told_key){.key = text, .key_length = (size_t)i % sizeof text, .shard = -1, .id = i};
    }
    struct scene scene = {NULL, keys, 0, MANY, true};
    ask(&scene);
    assert_true(pages > 10);
    parse();
    assert_int_equal(json_array_size(list.keys), MANY);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(json_integer_value(json_object_get(json_array_get(list.keys, (size_t)i), "id")), i);
    }
    assert_int_equal(json_integer_value(json_object_get(list.end, "keys")), MANY);
    hv_blocked_free(&list);
}

static void expect_bad(const char *text, size_t length, const char *why) {
    assert_int_equal(hv_blocked_parse(text, length, &list, &err), -1);
    if (strstr(err.text, why) == NULL) {
        fail_msg("%s", err.text);
    }
}

static void bad_answers(void **state) {
    (void)state;
    ask(&two);
    for (size_t length = 0; length < answer_length; length++) {
        expect_bad(answer, length, "cut off");
    }
    static const char *const strangers[] = {"HTTP/1.1 400 Bad Request\r\n\n", "{\"type\":7}\n", "[]\n", "\n", "{\"type\":\"end\"\n"};
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        expect_bad(strangers[i], strlen(strangers[i]), "not harvestd");
    }
    static const char refusal[] = "{\"type\":\"error\",\"error\":\"no such question\"}\n";
    expect_bad(refusal, sizeof refusal - 1, "no such question");
    static const char newer[] = "{\"type\":\"weather\"}\n{\"type\":\"end\"}\n";
    assert_int_equal(hv_blocked_parse(newer, sizeof newer - 1, &list, &err), 0);
    hv_blocked_free(&list);
}

static void cells(void **state) {
    (void)state;
    char out[64];
    assert_string_equal(hv_cell_text("ab\\c\t\x1b\xff\xC2\x85", 9, 40, out, sizeof out), "ab\\\\c\\x09\\x1b\\xff\\xc2\\x85");
    assert_string_equal(hv_cell_text("\xC3\xA9\xC3\xA9\xC3\xA9", 6, 2, out, sizeof out), "\xC3\xA9\xC3\xA9...");
    assert_string_equal(hv_cell_text("abc", 3, 3, out, sizeof out), "abc");
    assert_string_equal(hv_cell_text("\xE2\x80\xAE" "x", 4, 9, out, sizeof out), "\\xe2\\x80\\xaex"); /* would turn the line round */
    assert_string_equal(hv_cell_text("0123456789", 10, 40, out, 10), "012345...");
    assert_string_equal(hv_cell_text("", 0, 40, out, sizeof out), "");
    assert_int_equal(hv_cell_width("\xC3\xA9z"), 2);
    static const char *const encoded[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    for (size_t i = 0; i < 7; i++) {
        char *base64 = hv_json_base64("foobar", i);
        assert_string_equal(base64, encoded[i]);
        free(base64);
    }
}

static void options(void **state) {
    (void)state;
    struct hv_options o;
    const char *const all[] = {"harvestd", "blocked", "--json", "-t", "orders", "--limit=5"};
    assert_int_equal(hv_options_parse(6, (char *const *)all, &o, &err), 0);
    assert_int_equal(o.command, HV_COMMAND_BLOCKED);
    assert_true(o.blocked.json && o.blocked.limit == 5 && strcmp(o.blocked.topic, "orders") == 0);
    const char *const none[] = {"harvestd", "blocked", "--limit", "0"};
    assert_int_equal(hv_options_parse(4, (char *const *)none, &o, &err), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),     cmocka_unit_test(tables),      cmocka_unit_test(json),  cmocka_unit_test(keys_of_all_kinds),
        cmocka_unit_test(many_keys), cmocka_unit_test(bad_answers), cmocka_unit_test(cells), cmocka_unit_test(options),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(answer);
    free(printed);
    return failed;
}
