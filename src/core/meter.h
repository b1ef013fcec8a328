/* Throughput, as goharvest's MeterRead tells it: totals and laps, read no more often than an interval and only after deliveries. */
#ifndef HV_CORE_METER_H
#define HV_CORE_METER_H

#include <stdbool.h>

#include "core/event.h"

struct hv_meter {
    hv_time interval;
    hv_time start, lap_start;
    uint64_t total, lap;
};

void hv_meter_init(struct hv_meter *meter, hv_time interval, hv_time now);

static inline void hv_meter_count(struct hv_meter *meter) {
    meter->total++;
    meter->lap++;
}

/* True when a reading is due: then *ret is set and a new lap begins. */
bool hv_meter_read(struct hv_meter *meter, hv_time now, struct hv_meter_reading *ret);

#endif
