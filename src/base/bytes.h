/* Numbers and the heads of arrays as they stand in Postgres' binary format: big-endian. */
#ifndef HV_BASE_BYTES_H
#define HV_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* Writes `value` and returns where it ends. */
static inline uint8_t *hv_put_be32(uint8_t *at, uint32_t value) {
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

static inline uint8_t *hv_put_be64(uint8_t *at, uint64_t value) {
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

static inline uint32_t hv_get_be32(const void *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static inline uint64_t hv_get_be64(const void *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

#define HV_ARRAY_HEAD 20 /* bytes of the head of an array with one dimension */

/* The head of an array without NULLs: of one dimension, or of none when it has no elements. `element`: the type's object identifier. Behind
 * it stands for each element its length (be32) and its bytes. Returns where the head ends. */
static inline uint8_t *hv_put_array_head(uint8_t *at, uint32_t element, uint32_t count) {
    at = hv_put_be32(at, count > 0 ? 1 : 0);
    at = hv_put_be32(at, 0); /* no NULLs */
    at = hv_put_be32(at, element);
    if (count > 0) {
        at = hv_put_be32(at, count);
        at = hv_put_be32(at, 1); /* lower bound */
    }
    return at;
}

#endif
