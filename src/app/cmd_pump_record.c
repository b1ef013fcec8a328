/* See cmd_pump_record.h. */
#include "app/cmd_pump_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"

/* NULL is not the same as empty. */
static uint64_t sum_of(uint32_t key, uint64_t seq, const char *value, size_t size) {
    char head[64];
    int length = snprintf(head, sizeof head, "%" PRIu32 "/%" PRIu64 "/%d/", key, seq, value != NULL);
    uint64_t sum = hv_hash64(HV_HASH64_START, head, (size_t)length);
    return value == NULL ? sum : hv_hash64(sum, value, size);
}

void hv_pump_tag_fill(struct hv_pump_tag *tag, const char *value, size_t size) {
    tag->blank = value == NULL;
    tag->size = value == NULL ? 0 : size;
    tag->sum = sum_of(tag->key, tag->seq, value, size);
}

size_t hv_pump_tag_write(const struct hv_pump_tag *tag, char out[HV_PUMP_TAG_MAX]) {
    char size[24] = "null";
    if (!tag->blank) {
        snprintf(size, sizeof size, "%" PRIu64, tag->size);
    }
    return (size_t)snprintf(out, HV_PUMP_TAG_MAX, "%016" PRIx64 "-%" PRIu32 "-%c-%s-%016" PRIx64, tag->run, tag->key,
                            tag->doomed ? 'r' : 'c', size, tag->sum);
}

/* Reads a number that ends with `end`, and moves on behind that. */
static bool read_number(const char **at, char end, unsigned base, uint64_t max, uint64_t *ret) {
    uint64_t number = 0;
    const char *from = *at;
    for (; **at != end || *at == from; ++*at) {
        char c = **at;
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 99;
        if (digit >= base || number > (max - digit) / base) {
            return false;
        }
        number = number * base + digit;
    }
    *at += end != '\0';
    *ret = number;
    return true;
}

/* A header's value as a text. False when it is too long. */
static bool copy_text(const char *from, size_t size, char out[HV_PUMP_TAG_MAX]) {
    if (from == NULL || size >= HV_PUMP_TAG_MAX || memchr(from, '\0', size) != NULL) {
        return false;
    }
    memcpy(out, from, size);
    out[size] = '\0';
    return true;
}

static bool read_size(const char **at, struct hv_pump_tag *ret) {
    ret->blank = strncmp(*at, "null-", 5) == 0;
    ret->size = 0;
    if (ret->blank) {
        *at += 5;
        return true;
    }
    return read_number(at, '-', 10, UINT64_MAX, &ret->size);
}

bool hv_pump_tag_read(const char *pump, size_t pump_size, const char *seq, size_t seq_size, struct hv_pump_tag *ret) {
    char text[HV_PUMP_TAG_MAX], number[HV_PUMP_TAG_MAX];
    const char *at = text, *seq_at = number;
    uint64_t key;
    memset(ret, 0, sizeof *ret);
    if (!copy_text(pump, pump_size, text) || !copy_text(seq, seq_size, number) ||
        !read_number(&seq_at, '\0', 10, UINT64_MAX, &ret->seq) || !read_number(&at, '-', 16, UINT64_MAX, &ret->run) ||
        !read_number(&at, '-', 10, UINT32_MAX, &key)) {
        return false;
    }
    ret->key = (uint32_t)key;
    if ((at[0] != 'c' && at[0] != 'r') || at[1] != '-') {
        return false;
    }
    ret->doomed = at[0] == 'r';
    at += 2;
    return read_size(&at, ret) && read_number(&at, '\0', 16, UINT64_MAX, &ret->sum);
}

bool hv_pump_tag_fits(const struct hv_pump_tag *tag, const void *key, size_t key_size, const void *value, size_t size) {
    char expected[32];
    int length = snprintf(expected, sizeof expected, HV_PUMP_KEY_PREFIX "%" PRIu32, tag->key);
    return key != NULL && key_size == (size_t)length && memcmp(key, expected, key_size) == 0 &&
           tag->blank == (value == NULL) && (value == NULL || tag->size == size) &&
           tag->sum == sum_of(tag->key, tag->seq, value, size);
}

void hv_pump_letters(struct hv_random *random, char *out, size_t size) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    for (size_t i = 0; i < size; i++) {
        out[i] = letters[hv_random_next(random) >> 58];
    }
}
