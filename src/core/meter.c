/* See meter.h. */
#include "core/meter.h"

void hv_meter_init(struct hv_meter *meter, hv_time interval, hv_time now) {
    *meter = (struct hv_meter){.interval = interval, .start = now, .lap_start = now};
}

static double rate(uint64_t count, hv_time span) {
    return span > 0 ? (double)count * 1e6 / (double)span : 0;
}

bool hv_meter_read(struct hv_meter *meter, hv_time now, struct hv_meter_reading *ret) {
    if (meter->lap == 0 || now - meter->lap_start < meter->interval) {
        return false;
    }
    *ret = (struct hv_meter_reading){
        .start = meter->start,
        .total_count = meter->total,
        .total_rate = rate(meter->total, now - meter->start),
        .lap_count = meter->lap,
        .lap_rate = rate(meter->lap, now - meter->lap_start),
    };
    meter->lap = 0;
    meter->lap_start = now;
    return true;
}
