/* A small seeded generator (splitmix64, Steele, Lea and Flood 2014) for jitter and simulated schedules; not for secrets. */
#ifndef HV_BASE_RANDOM_H
#define HV_BASE_RANDOM_H

#include <stdint.h>

struct hv_random {
    uint64_t state;
};

static inline uint64_t hv_random_next(struct hv_random *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A number in [0, bound); 0 when bound is 0. */
static inline uint64_t hv_random_below(struct hv_random *r, uint64_t bound) {
    return bound == 0 ? 0 : hv_random_next(r) % bound;
}

#endif
