/* Numbers and the heads of arrays as they stand in Postgres' binary format: big-endian. */
#ifndef HV_BASE_BYTES_H
#define HV_BASE_BYTES_H

#include <stdint.h>

/* Writes `value` and returns where it ends. */
static inline uint8_t *hv_put_be32(uint8_t *at, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        *at++ = (uint8_t)(value >> shift);
    }
    return at;
}

static inline uint8_t *hv_put_be64(uint8_t *at, uint64_t value) {
    return hv_put_be32(hv_put_be32(at, (uint32_t)(value >> 32)), (uint32_t)value);
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
