/* app/cmd_pump_record: headers are read back, and nothing that was changed passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "app/cmd_pump_record.h"

static bool read_texts(const char *pump, const char *seq, struct hv_pump_tag *ret) {
    return hv_pump_tag_read(pump, strlen(pump), seq, strlen(seq), ret);
}

static void is_read_back(void **state) {
    (void)state;
    static const struct hv_pump_tag tags[] = {
        {.run = 0x1234567890abcdef, .key = 0, .seq = 1},
        {.run = 0, .key = UINT32_MAX, .seq = UINT64_MAX, .doomed = true},
        {.run = UINT64_MAX, .key = 17, .seq = 99},
    };
    static const char *const values[] = {"value", "", NULL};
    for (size_t t = 0; t < 3; t++) {
        for (size_t v = 0; v < 3; v++) {
            struct hv_pump_tag tag = tags[t], found;
            char pump[HV_PUMP_TAG_MAX], seq[24], key[32];
            size_t size = values[v] == NULL ? 0 : strlen(values[v]);
            hv_pump_tag_fill(&tag, values[v], size);
            assert_true(hv_pump_tag_write(&tag, pump) < HV_PUMP_TAG_MAX);
            snprintf(seq, sizeof seq, "%llu", (unsigned long long)tag.seq);
            snprintf(key, sizeof key, HV_PUMP_KEY_PREFIX "%u", (unsigned)tag.key);
            assert_true(read_texts(pump, seq, &found));
            assert_true(found.run == tag.run && found.key == tag.key && found.seq == tag.seq && found.doomed == tag.doomed);
            assert_true(hv_pump_tag_fits(&found, key, strlen(key), values[v], size));
        }
    }
}

static void changes_are_noticed(void **state) {
    (void)state;
    struct hv_pump_tag tag = {.run = 1, .key = 5, .seq = 7};
    hv_pump_tag_fill(&tag, "value", 5);
    assert_true(hv_pump_tag_fits(&tag, "pump-5", 6, "value", 5));
    assert_false(hv_pump_tag_fits(&tag, "pump-6", 6, "value", 5));
    assert_false(hv_pump_tag_fits(&tag, "pump-55", 7, "value", 5));
    assert_false(hv_pump_tag_fits(&tag, NULL, 0, "value", 5));
    assert_false(hv_pump_tag_fits(&tag, "pump-5", 6, "walue", 5));
    assert_false(hv_pump_tag_fits(&tag, "pump-5", 6, "valu", 4));
    assert_false(hv_pump_tag_fits(&tag, "pump-5", 6, "values", 6));
    assert_false(hv_pump_tag_fits(&tag, "pump-5", 6, NULL, 0));
    tag.seq = 8; /* the headers of one record on the value of another */
    assert_false(hv_pump_tag_fits(&tag, "pump-5", 6, "value", 5));
    hv_pump_tag_fill(&tag, "", 0);
    assert_true(hv_pump_tag_fits(&tag, "pump-5", 6, "", 0));
    assert_false(hv_pump_tag_fits(&tag, "pump-5", 6, NULL, 0));
    hv_pump_tag_fill(&tag, NULL, 0);
    assert_true(hv_pump_tag_fits(&tag, "pump-5", 6, NULL, 0));
    assert_false(hv_pump_tag_fits(&tag, "pump-5", 6, "", 0));
}

static void what_is_no_pumps_is_refused(void **state) {
    (void)state;
    struct hv_pump_tag tag;
    static const char good[] = "0000000000000001-5-c-200-00000000000000ff";
    assert_true(read_texts(good, "7", &tag));
    static const char *const bad[] = {
        "",
        "x",
        "0000000000000001",
        "0000000000000001-5-c-200-",
        "0000000000000001-5-c-200-00000000000000ff-",
        "0000000000000001-5-x-200-00000000000000ff",
        "0000000000000001-5-c--00000000000000ff",
        "0000000000000001--c-200-00000000000000ff",
        "0000000000000001-4294967296-c-200-00000000000000ff",
        "0000000000000001-5-c-200-100000000000000ff",
        "0000000000000001-5-c-nul-00000000000000ff",
        "0000000000000001-5-c-200-00000000000000fg",
        "0000000000000001-5-c-200-00000000000000ff0000000000000000000000000000000000000000000000",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (read_texts(bad[i], "7", &tag)) {
            fail_msg("taken: %s", bad[i]);
        }
    }
    assert_false(read_texts(good, "", &tag));
    assert_false(read_texts(good, "7a", &tag));
    assert_false(read_texts(good, "-7", &tag));
    assert_false(read_texts(good, "18446744073709551616", &tag));
    assert_false(hv_pump_tag_read(good, sizeof good, "7", 1, &tag)); /* the NUL belongs to the value */
    assert_false(hv_pump_tag_read(NULL, 0, "7", 1, &tag));
    assert_false(hv_pump_tag_read(good, strlen(good), NULL, 0, &tag));
}

static void letters_need_no_escaping(void **state) {
    (void)state;
    static char text[100000];
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    struct hv_random random = {.state = 1};
    hv_pump_letters(&random, text, sizeof text - 1);
    assert_int_equal(strspn(text, allowed), sizeof text - 1);
    for (const char *c = allowed; *c != '\0'; c++) {
        assert_non_null(strchr(text, *c));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_read_back),
        cmocka_unit_test(changes_are_noticed),
        cmocka_unit_test(what_is_no_pumps_is_refused),
        cmocka_unit_test(letters_need_no_escaping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
