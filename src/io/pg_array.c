/* See pg_array.h. */
#include "io/pg_array.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"

/* Postgres' object identifiers of the elements' types; they never change. */
enum { OID_BYTEA = 17, OID_INT8 = 20, OID_TEXT = 25, OID_XID = 28 };

uint8_t *hv_pg_array_of_ids(const int64_t *first, size_t stride, size_t count, int *ret_length) {
    size_t size = HV_ARRAY_HEAD + 12 * count;
    assert(size < INT32_MAX);
    uint8_t *array = malloc(size);
    if (array == NULL) {
        return NULL;
    }
    uint8_t *at = hv_put_array_head(array, OID_INT8, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        at = hv_put_be32(at, 8);
        at = hv_put_be64(at, (uint64_t)*(const int64_t *)(const void *)((const char *)first + i * stride));
    }
    *ret_length = (int)(at - array);
    return array;
}

uint8_t *hv_pg_array_of_versions(const uint32_t *first, size_t stride, size_t count, int *ret_length) {
    size_t size = HV_ARRAY_HEAD + 8 * count;
    assert(size < INT32_MAX);
    uint8_t *array = malloc(size);
    if (array == NULL) {
        return NULL;
    }
    uint8_t *at = hv_put_array_head(array, OID_XID, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        at = hv_put_be32(at, 4);
        at = hv_put_be32(at, *(const uint32_t *)(const void *)((const char *)first + i * stride));
    }
    *ret_length = (int)(at - array);
    return array;
}

static bool is_text(const struct hv_key_bytes *key) {
    const char *bytes = key->bytes;
    for (size_t at = 0, length; at < key->length; at += length) {
        uint32_t code;
        length = hv_utf8_length(bytes + at, key->length - at, &code);
        if (length == 0 || code == 0) {
            return false;
        }
    }
    return true;
}

uint8_t *hv_pg_array_of_keys(const struct hv_key_bytes *keys, size_t count, bool as_text, int *ret_length) {
    size_t size = HV_ARRAY_HEAD;
    uint32_t usable = 0;
    for (size_t i = 0; i < count; i++) {
        size += 4 + (size_t)keys[i].length;
        usable += !as_text || is_text(&keys[i]);
    }
    assert(size < INT32_MAX);
    uint8_t *array = malloc(size);
    if (array == NULL) {
        return NULL;
    }
    uint8_t *at = hv_put_array_head(array, as_text ? OID_TEXT : OID_BYTEA, usable);
    for (size_t i = 0; i < count; i++) {
        if (as_text && !is_text(&keys[i])) {
            continue;
        }
        at = hv_put_be32(at, keys[i].length);
        if (keys[i].length > 0) {
            memcpy(at, keys[i].bytes, keys[i].length);
        }
        at += keys[i].length;
    }
    *ret_length = (int)(at - array);
    return array;
}
