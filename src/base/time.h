/* Time as the whole program counts it: microseconds of a monotonic clock. Nothing below io/ reads a clock. */
#ifndef HV_BASE_TIME_H
#define HV_BASE_TIME_H

#include <stdint.h>

typedef int64_t hv_time; /* a point in time or a duration, in microseconds */

#define HV_US(n) ((hv_time)(n))
#define HV_MS(n) ((hv_time)(n) * 1000)
#define HV_SECONDS(n) ((hv_time)(n) * 1000000)
#define HV_NEVER INT64_MAX /* a deadline that is not set */

static inline hv_time hv_time_min(hv_time a, hv_time b) {
    return a < b ? a : b;
}

static inline hv_time hv_time_max(hv_time a, hv_time b) {
    return a > b ? a : b;
}

#endif
