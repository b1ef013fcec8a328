/* How often which duration occurred, in constant memory: 128 classes for each power of two, as HdrHistogram does it. A percentile
 * is the upper end of its class: at most 1/128 (0.8 %) above the true one, never below it; below 256 us it is exact. Pure. */
#ifndef HV_APP_CMD_PUMP_HISTOGRAM_H
#define HV_APP_CMD_PUMP_HISTOGRAM_H

#include <stdint.h>

#include "base/time.h"

#define HV_HISTOGRAM_CLASS_BITS 7 /* classes for each power of two */
#define HV_HISTOGRAM_TOP_BITS 40  /* longer durations (12 days) count as the longest that fits; max stays exact */
#define HV_HISTOGRAM_CLASSES ((HV_HISTOGRAM_TOP_BITS - HV_HISTOGRAM_CLASS_BITS + 1) << HV_HISTOGRAM_CLASS_BITS)

struct hv_histogram {
    uint64_t count;
    hv_time max; /* exact */
    uint64_t classes[HV_HISTOGRAM_CLASSES];
};

/* A negative duration counts as 0. Start with all zero. */
void hv_histogram_add(struct hv_histogram *histogram, hv_time duration);

/* What `per_mille` of 1000 durations do not exceed; 0 when there are none. per_mille is 1 to 1000. */
hv_time hv_histogram_quantile(const struct hv_histogram *histogram, unsigned per_mille);

#endif
