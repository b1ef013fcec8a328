/* Rows in Postgres' binary format become records: sound ones, defective ones, and random bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "core/record.h"

#define NULL_ITEM ((const char *)-1)

static const struct hv_column null = {NULL, -1};

struct bytes {
    uint8_t data[4096];
    size_t length;
};

static void put_i32(struct bytes *b, int32_t v) {
    for (int i = 0; i < 4; i++) {
        b->data[b->length++] = (uint8_t)((uint32_t)v >> (24 - 8 * i));
    }
}

static void put_bytes(struct bytes *b, const void *data, size_t length) {
    put_i32(b, (int32_t)length);
    memcpy(b->data + b->length, data, length);
    b->length += length;
}

static void put_head(struct bytes *b, int32_t dimensions, int32_t count, int32_t lower_bound) {
    b->length = 0;
    put_i32(b, dimensions);
    put_i32(b, 0);
    put_i32(b, 25);
    if (dimensions > 0) {
        put_i32(b, count);
        put_i32(b, lower_bound);
    }
}

/* An array of strings, ended by NULL; NULL_ITEM is SQL's NULL. */
static struct hv_column array(struct bytes *b, const char *const *items) {
    int32_t count = 0;
    while (items[count] != NULL) {
        count++;
    }
    put_head(b, count > 0, count, 1);
    for (int32_t i = 0; i < count; i++) {
        if (items[i] == NULL_ITEM) {
            put_i32(b, -1);
        } else {
            put_bytes(b, items[i], strlen(items[i]));
        }
    }
    return (struct hv_column){b->data, (int32_t)b->length};
}

#define ARRAY(b, ...) array(b, (const char *const[]){__VA_ARGS__, NULL})

static struct hv_column text(const char *s) {
    return (struct hv_column){(const uint8_t *)s, (int32_t)strlen(s)};
}

static struct hv_row sound_row(void) {
    return (struct hv_row){.id = 7, .topic = text("topic"), .key = text("key"), .value = text("value"),
                           .header_keys = null, .header_values = null};
}

/* The column's bytes on the heap, exactly, so that a sanitizer sees every read past them. */
static struct hv_column exact(struct hv_column c) {
    if (c.length < 0) {
        return null;
    }
    uint8_t *copy = malloc((size_t)c.length + (c.length == 0));
    assert_non_null(copy);
    memcpy(copy, c.data == NULL ? (const uint8_t *)"" : c.data, (size_t)c.length);
    return (struct hv_column){copy, c.length};
}

static struct hv_record *build(const struct hv_row *row) {
    struct hv_row copy = {row->id, exact(row->topic), exact(row->key), exact(row->value),
                          exact(row->header_keys),
                          exact(row->header_values), row->id_header};
    struct hv_record_maker maker = {0};
    struct hv_record *record = NULL;
    assert_int_equal(hv_record_make(&maker, &copy, &record), 0);
    hv_record_maker_fini(&maker);
    const struct hv_column *columns[] = {&copy.topic, &copy.key, &copy.value, &copy.header_keys,
                                         &copy.header_values};
    for (int i = 0; i < 5; i++) {
        free((void *)(uintptr_t)columns[i]->data);
    }
    return record;
}

static void expect(const struct hv_row *row, enum hv_defect defect) {
    struct hv_record *record = build(row);
    if (record->defect != defect) {
        fail_msg("\"%s\" instead of \"%s\"", hv_defect_text(record->defect), hv_defect_text(defect));
    }
    hv_record_free(record);
}

static void test_plain_record(void **state) {
    (void)state;
    struct bytes names, values;
    struct hv_row row = sound_row();
    row.id = INT64_MIN;
    row.header_keys = ARRAY(&names, "a", "", "c");
    row.header_values = ARRAY(&values, "1", "22", "");
    struct hv_record *r = build(&row);
    assert_int_equal(r->defect, HV_SOUND);
    assert_true(r->id == INT64_MIN);
    assert_string_equal(r->topic, "topic");
    assert_int_equal(r->key_length, 3);
    assert_memory_equal(r->key, "key", 3);
    assert_int_equal(r->value_length, 5);
    assert_memory_equal(r->value, "value", 5);
    assert_int_equal(r->header_count, 3);
    assert_string_equal(r->headers[0].name, "a");
    assert_string_equal(r->headers[1].name, "");
    assert_string_equal(r->headers[2].name, "c");
    assert_int_equal(r->headers[1].name_length, 0);
    assert_int_equal(r->headers[2].name_length, 1);
    assert_memory_equal(r->headers[1].value, "22", 2);
    assert_int_equal(r->headers[2].value_length, 0);
    assert_int_equal(r->key_hash, hv_fnv1a("key", 3));
    assert_true(r->size >= sizeof *r + 3 * sizeof(struct hv_header) + 5 + 3 + 5);
    hv_record_free(r);
}

static void test_null_and_empty_differ(void **state) {
    (void)state;
    struct hv_row row = sound_row();
    row.value = null;
    struct hv_record *r = build(&row);
    assert_int_equal(r->defect, HV_SOUND);
    assert_int_equal(r->value_length, -1);
    assert_null(r->value);
    hv_record_free(r);
    row.value = text("");
    row.key = text("");
    r = build(&row);
    assert_int_equal(r->defect, HV_SOUND);
    assert_int_equal(r->value_length, 0);
    assert_non_null(r->value);
    assert_int_equal(r->key_length, 0);
    assert_non_null(r->key);
    hv_record_free(r);
}

static void test_all_byte_values_pass(void **state) {
    (void)state;
    uint8_t all[256];
    for (int i = 0; i < 256; i++) {
        all[i] = (uint8_t)i;
    }
    struct bytes names, values;
    struct hv_row row = sound_row();
    row.key = row.value = (struct hv_column){all, sizeof all};
    row.header_keys = ARRAY(&names, "n");
    put_head(&values, 1, 1, 1);
    put_bytes(&values, all, sizeof all);
    row.header_values = (struct hv_column){values.data, (int32_t)values.length};
    struct hv_record *r = build(&row);
    assert_int_equal(r->defect, HV_SOUND);
    assert_memory_equal(r->key, all, sizeof all);
    assert_memory_equal(r->value, all, sizeof all);
    assert_int_equal(r->headers[0].value_length, 256);
    assert_memory_equal(r->headers[0].value, all, sizeof all);
    hv_record_free(r);
}

static void test_topics(void **state) {
    (void)state;
    static const char *const bad[] = {"", ".", "..", "a b", "a/b", "\xc3\xa9", "a\n", "a:b"};
    static const char *const good[] = {"a", "...", ".a", "_", "-", "A.b-C_9"};
    char longest[251];
    struct hv_row row = sound_row();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        row.topic = text(bad[i]);
        expect(&row, HV_DEFECT_TOPIC_NAME);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        row.topic = text(good[i]);
        expect(&row, HV_SOUND);
    }
    memset(longest, 'x', sizeof longest);
    row.topic = (struct hv_column){(const uint8_t *)longest, 249};
    expect(&row, HV_SOUND);
    row.topic.length = 250;
    expect(&row, HV_DEFECT_TOPIC_NAME);
    row.topic = (struct hv_column){(const uint8_t *)"a\0b", 3};
    expect(&row, HV_DEFECT_TOPIC_NAME);
    row.topic = null;
    struct hv_record *r = build(&row);
    assert_int_equal(r->defect, HV_DEFECT_NULL_TOPIC);
    assert_string_equal(r->topic, "");
    hv_record_free(r);
}

static void test_null_key(void **state) {
    (void)state;
    struct hv_row row = sound_row();
    row.key = null;
    struct hv_record *r = build(&row);
    assert_int_equal(r->defect, HV_DEFECT_NULL_KEY);
    assert_int_equal(r->key_length, -1);
    assert_null(r->key);
    assert_int_equal(r->key_hash, 2166136261u);
    hv_record_free(r);
}

static void test_headers_that_are_none(void **state) {
    (void)state;
    struct bytes empty, some;
    struct hv_row row = sound_row();
    expect(&row, HV_SOUND);
    put_head(&empty, 0, 0, 0);
    struct hv_column none = {empty.data, (int32_t)empty.length}, one = ARRAY(&some, "x");
    const struct {
        struct hv_column keys, values;
        enum hv_defect defect;
    } cases[] = {
        {none, none, HV_SOUND},
        {null, none, HV_SOUND},
        {none, null, HV_SOUND},
        {null, one, HV_DEFECT_NULL_HEADERS},
        {one, null, HV_DEFECT_NULL_HEADERS},
        {none, one, HV_DEFECT_HEADER_LENGTHS},
        {one, none, HV_DEFECT_HEADER_LENGTHS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        row.header_keys = cases[i].keys;
        row.header_values = cases[i].values;
        expect(&row, cases[i].defect);
    }
}

static void expect_header(const struct hv_record *r, int n, const char *name, const char *value) {
    assert_in_range(n, 0, r->header_count - 1);
    assert_string_equal(r->headers[n].name, name);
    assert_int_equal(r->headers[n].value_length, strlen(value));
    assert_memory_equal(r->headers[n].value, value, strlen(value));
}

/* The id comes last, also behind a header of its own name, and is part of what the record costs. */
static void test_id_as_a_header(void **state) {
    (void)state;
    static const struct {
        int64_t id;
        const char *text;
    } ids[] = {{0, "0"}, {7, "7"}, {-1, "-1"}, {INT64_MAX, "9223372036854775807"}, {INT64_MIN, "-9223372036854775808"}};
    struct bytes names, values;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        struct hv_row row = sound_row();
        row.id = ids[i].id;
        row.header_keys = ARRAY(&names, "a", "row-id");
        row.header_values = ARRAY(&values, "1", "the row's own");
        struct hv_record *without = build(&row);
        row.id_header = "row-id";
        struct hv_record *r = build(&row);
        assert_int_equal(r->header_count, 3);
        expect_header(r, 0, "a", "1");
        expect_header(r, 1, "row-id", "the row's own");
        expect_header(r, 2, "row-id", ids[i].text);
        assert_int_equal(r->size, without->size + sizeof(struct hv_header) + strlen(ids[i].text));
        hv_record_free(without);
        hv_record_free(r);
        row.header_keys = row.header_values = null;
        r = build(&row);
        assert_int_equal(r->header_count, 1);
        expect_header(r, 0, "row-id", ids[i].text);
        hv_record_free(r);
    }
}

/* A row that cannot be sent needs none; what is promised of its headers holds. */
static void test_no_id_header_with_a_defect(void **state) {
    (void)state;
    struct bytes names, values;
    struct hv_row row = sound_row();
    row.id_header = "row-id";
    row.header_keys = ARRAY(&names, "a", "b");
    row.header_values = ARRAY(&values, "1");
    struct hv_record *r = build(&row);
    assert_int_equal(r->defect, HV_DEFECT_HEADER_LENGTHS);
    assert_int_equal(r->header_count, 0);
    hv_record_free(r);
}

static void test_header_defects(void **state) {
    (void)state;
    struct bytes a, b;
    struct hv_row row = sound_row();
    row.header_keys = ARRAY(&a, "x", "y");
    row.header_values = ARRAY(&b, "x");
    expect(&row, HV_DEFECT_HEADER_LENGTHS);
    row.header_values = ARRAY(&b, "x", NULL_ITEM);
    expect(&row, HV_DEFECT_HEADER_NULL);
    row.header_values = ARRAY(&b, "x", "y");
    row.header_keys = ARRAY(&a, NULL_ITEM, "y");
    expect(&row, HV_DEFECT_HEADER_NULL);
    put_head(&a, 1, 2, -5); /* another lower bound */
    put_bytes(&a, "x", 1);
    put_bytes(&a, "y", 1);
    row.header_keys = (struct hv_column){a.data, (int32_t)a.length};
    expect(&row, HV_SOUND);
    a.data[24] = 0; /* a NUL byte in a name */
    expect(&row, HV_DEFECT_HEADER_FORM);
    /* The rest of a defective row can still be read. */
    struct hv_record *r = build(&row);
    assert_string_equal(r->topic, "topic");
    assert_int_equal(r->value_length, 5);
    assert_int_equal(r->header_count, 0);
    hv_record_free(r);
}

static void expect_form(struct hv_row *row, const struct bytes *b) {
    row->header_keys = (struct hv_column){b->data, (int32_t)b->length};
    row->header_values = null;
    expect(row, HV_DEFECT_HEADER_FORM);
    row->header_values = row->header_keys;
    row->header_keys = null;
    expect(row, HV_DEFECT_HEADER_FORM);
}

static void test_arrays_that_are_none(void **state) {
    (void)state;
    static const int32_t huge[] = {1, -1, 2, 1000, INT32_MAX, INT32_MIN, 0x40000000, 0x20000001};
    struct bytes b;
    struct hv_row row = sound_row();
    put_head(&b, 2, 1, 1); /* two dimensions, and cut */
    expect_form(&row, &b);
    put_i32(&b, 1);
    put_i32(&b, 1);
    put_bytes(&b, "x", 1);
    expect_form(&row, &b);
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        put_head(&b, 1, huge[i], 1); /* claims elements that are not there */
        expect_form(&row, &b);
        put_head(&b, 1, 1, 1); /* claims an element that long */
        put_i32(&b, huge[i] == -1 ? -2 : huge[i]);
        expect_form(&row, &b);
        put_head(&b, huge[i] == 1 ? 3 : huge[i], 1, 1);
        put_bytes(&b, "x", 1);
        expect_form(&row, &b);
    }
    put_head(&b, 1, 1, 1);
    put_bytes(&b, "x", 1);
    put_i32(&b, 0); /* something behind it */
    expect_form(&row, &b);
    put_head(&b, 0, 0, 0);
    put_i32(&b, 0);
    expect_form(&row, &b);
    for (b.length = 0; b.length < 12; b.length++) {
        expect_form(&row, &b);
    }
}

/* Every prefix of a good array, and every good array with one byte changed, yields a record and no read
 * out of bounds. */
static void test_damaged_arrays(void **state) {
    (void)state;
    struct bytes names, values;
    struct hv_row row = sound_row();
    row.header_values = ARRAY(&values, "1", "22", "");
    struct hv_column whole = ARRAY(&names, "a", "bb", "ccc");
    for (int32_t length = 0; length < whole.length; length++) {
        row.header_keys = (struct hv_column){names.data, length};
        expect(&row, HV_DEFECT_HEADER_FORM);
    }
    row.header_keys = whole;
    for (int32_t at = 0; at < whole.length; at++) {
        uint8_t was = names.data[at];
        for (int change = 1; change < 256; change++) {
            names.data[at] = (uint8_t)(was ^ change);
            hv_record_free(build(&row));
        }
        names.data[at] = was;
    }
    expect(&row, HV_SOUND);
}

/* Reads everything that a record says it holds. */
static uint32_t read_all(const struct hv_record *r) {
    uint32_t sum = (uint32_t)strlen(r->topic);
    if (r->key_length > 0) {
        sum += hv_fnv1a(r->key, (size_t)r->key_length);
    }
    if (r->value_length > 0) {
        sum += hv_fnv1a(r->value, (size_t)r->value_length);
    }
    for (int32_t i = 0; i < r->header_count; i++) {
        sum += (uint32_t)strlen(r->headers[i].name) + hv_fnv1a(r->headers[i].value,
                                                               (size_t)r->headers[i].value_length);
    }
    return sum;
}

static struct hv_column random_column(struct hv_random *dice, struct bytes *b) {
    b->length = hv_random_below(dice, 80);
    for (size_t i = 0; i < b->length; i++) {
        /* Mostly small numbers: the interesting ones are lengths. */
        b->data[i] = (uint8_t)(hv_random_below(dice, 4) != 0 ? 0 : hv_random_below(dice, 6) != 0
                                   ? hv_random_below(dice, 4) : hv_random_next(dice));
    }
    return (struct hv_column){b->data, hv_random_below(dice, 20) == 0 ? -1 : (int32_t)b->length};
}

static void test_random_bytes(void **state) {
    (void)state;
    struct hv_random dice = {20240117};
    struct bytes b[5];
    uint32_t sum = 0;
    for (int i = 0; i < 200000; i++) {
        struct hv_row row = {.id = (int64_t)hv_random_next(&dice), .id_header = i % 3 == 0 ? "id" : NULL};
        row.topic = random_column(&dice, &b[0]);
        row.key = random_column(&dice, &b[1]);
        row.value = random_column(&dice, &b[2]);
        row.header_keys = random_column(&dice, &b[3]);
        row.header_values = random_column(&dice, &b[4]);
        if (i % 2 == 0) {
            /* an array's head more often than by chance */
            memcpy(b[3].data, "\0\0\0\1\0\0\0\0\0\0\0\x19\0\0\0", 15);
            memcpy(b[4].data, "\0\0\0\1\0\0\0\0\0\0\0\x19\0\0\0", 15);
        }
        struct hv_record *r = build(&row);
        sum += read_all(r);
        hv_record_free(r);
    }
    assert_true(sum != 0);
}

#define MADE 300

static void check_made(const struct hv_record *r, int i, const uint8_t *value) {
    assert_true(r->id == i);
    assert_int_equal(r->defect, i % 7 == 3 ? HV_DEFECT_TOPIC_NAME : HV_SOUND);
    assert_string_equal(r->topic, i % 7 == 3 ? "no/ic" : "topic");
    assert_int_equal(r->value_length, i * 10 % 3000);
    assert_memory_equal(r->value, value, (size_t)r->value_length);
}

/* Of all sizes, given back in any order, while others are made and after the maker is gone. */
static void test_records_of_one_maker(void **state) {
    (void)state;
    struct hv_random dice = {.state = 4};
    struct hv_record_maker maker = {0};
    struct hv_record *made[MADE] = {NULL};
    static uint8_t value[3000];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < MADE; i++) {
            struct hv_row row = sound_row();
            row.id = i;
            row.topic = text(i % 7 == 3 ? "no/ic" : "topic");
            row.value = exact((struct hv_column){value, i * 10 % 3000});
            size_t gone = hv_random_next(&dice) % MADE;
            hv_record_free(made[gone]);
            made[gone] = NULL;
            hv_record_free(made[i]);
            assert_int_equal(hv_record_make(&maker, &row, &made[i]), 0);
            free((void *)(uintptr_t)row.value.data);
        }
        for (int i = 0; i < MADE; i++) {
            if (made[i] != NULL) {
                check_made(made[i], i, value);
            }
        }
    }
    hv_record_maker_fini(&maker);
    for (int i = 0; i < MADE; i++) {
        hv_record_free(made[i]);
    }
}

static void test_hash_and_texts(void **state) {
    (void)state;
    assert_int_equal(hv_fnv1a("", 0), 0x811c9dc5u);
    assert_int_equal(hv_fnv1a("a", 1), 0xe40c292cu);
    assert_int_equal(hv_fnv1a("foobar", 6), 0xbf9cf968u);
    for (int i = HV_SOUND; i <= HV_DEFECT_HEADER_FORM; i++) {
        assert_true(strlen(hv_defect_text((enum hv_defect)i)) > 4);
        assert_string_not_equal(hv_defect_text((enum hv_defect)i), "unknown defect");
    }
    hv_record_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_record),
        cmocka_unit_test(test_null_and_empty_differ),
        cmocka_unit_test(test_all_byte_values_pass),
        cmocka_unit_test(test_topics),
        cmocka_unit_test(test_null_key),
        cmocka_unit_test(test_headers_that_are_none),
        cmocka_unit_test(test_id_as_a_header),
        cmocka_unit_test(test_no_id_header_with_a_defect),
        cmocka_unit_test(test_header_defects),
        cmocka_unit_test(test_arrays_that_are_none),
        cmocka_unit_test(test_damaged_arrays),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_records_of_one_maker),
        cmocka_unit_test(test_hash_and_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
