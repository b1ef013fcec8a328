/* Exponential backoff with jitter: waits grow from `min` to `max`, each drawn from [wait/2, wait]. Pure: the caller owns the dice. */
#ifndef HV_CORE_BACKOFF_H
#define HV_CORE_BACKOFF_H

#include "base/random.h"
#include "base/time.h"

struct hv_backoff {
    hv_time min, max; /* min > 0, max >= min */
    unsigned failures; /* in a row */
};

static inline void hv_backoff_init(struct hv_backoff *b, hv_time min, hv_time max) {
    *b = (struct hv_backoff){.min = min, .max = max};
}

static inline void hv_backoff_reset(struct hv_backoff *b) {
    b->failures = 0;
}

/* How long to wait after one more failure. The first wait is `min` at most. */
hv_time hv_backoff_next(struct hv_backoff *b, struct hv_random *dice);

#endif
