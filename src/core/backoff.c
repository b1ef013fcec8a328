/* See backoff.h. */
#include "core/backoff.h"

hv_time hv_backoff_next(struct hv_backoff *b, struct hv_random *dice) {
    hv_time wait = b->min;
    for (unsigned i = 0; i < b->failures && wait < b->max; i++) {
        wait *= 2;
    }
    if (wait > b->max) {
        wait = b->max;
    }
    if (b->failures < UINT32_MAX) {
        b->failures++;
    }
    return wait / 2 + (hv_time)hv_random_below(dice, (uint64_t)(wait / 2 + 1));
}
