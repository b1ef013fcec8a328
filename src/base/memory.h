/* Allocation of what the program cannot go on without: small, bounded structures. Ends the program when memory is exhausted:
 * a relay that stops loses nothing. Never used for sizes that come from outside. */
#ifndef HV_BASE_MEMORY_H
#define HV_BASE_MEMORY_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static inline void *hv_must(void *memory) {
    if (memory == NULL) {
        fputs("harvest: out of memory\n", stderr);
        abort();
    }
    return memory;
}

static inline void *hv_calloc(size_t count, size_t size) {
    return hv_must(calloc(count > 0 ? count : 1, size));
}

static inline void *hv_realloc(void *old, size_t count, size_t size) {
    return hv_must(reallocarray(old, count, size));
}

#endif
