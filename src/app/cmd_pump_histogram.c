/* See cmd_pump_histogram.h. */
#include "app/cmd_pump_histogram.h"

#include <assert.h>

enum { CLASSES_PER_POWER = 1 << HV_HISTOGRAM_CLASS_BITS };

static unsigned class_of(uint64_t value) {
    if (value >> HV_HISTOGRAM_TOP_BITS != 0) {
        return HV_HISTOGRAM_CLASSES - 1;
    }
    if (value < CLASSES_PER_POWER) {
        return (unsigned)value;
    }
    unsigned power = 63 - (unsigned)__builtin_clzll(value), shift = power - HV_HISTOGRAM_CLASS_BITS;
    return (shift << HV_HISTOGRAM_CLASS_BITS) + (unsigned)(value >> shift);
}

static uint64_t upper_end(unsigned class) {
    if (class < 2 * CLASSES_PER_POWER) {
        return class;
    }
    unsigned shift = (class >> HV_HISTOGRAM_CLASS_BITS) - 1;
    uint64_t top = class - (shift << HV_HISTOGRAM_CLASS_BITS);
    return ((top + 1) << shift) - 1;
}

void hv_histogram_add(struct hv_histogram *histogram, hv_time duration) {
    hv_time value = duration < 0 ? 0 : duration;
    histogram->count++;
    histogram->max = hv_time_max(histogram->max, value);
    histogram->classes[class_of((uint64_t)value)]++;
}

hv_time hv_histogram_quantile(const struct hv_histogram *histogram, unsigned per_mille) {
    assert(per_mille >= 1 && per_mille <= 1000);
    if (histogram->count == 0 || per_mille == 1000) {
        return histogram->max;
    }
    uint64_t wanted = histogram->count / 1000 * per_mille + (histogram->count % 1000 * per_mille + 999) / 1000;
    uint64_t seen = 0;
    for (unsigned class = 0; class < HV_HISTOGRAM_CLASSES; class++) {
        seen += histogram->classes[class];
        if (seen >= wanted) {
            return hv_time_min((hv_time)upper_end(class), histogram->max);
        }
    }
    return histogram->max;
}
