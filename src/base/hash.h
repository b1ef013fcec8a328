/* FNV-1a, 64 bits (offset basis and prime as published): quick, and good enough where nobody attacks. */
#ifndef HV_BASE_HASH_H
#define HV_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HV_HASH64_START UINT64_C(0xcbf29ce484222325)

/* Goes on with `hash` (HV_HASH64_START at the beginning) over `length` bytes. */
static inline uint64_t hv_hash64(uint64_t hash, const void *data, size_t length) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

#endif
