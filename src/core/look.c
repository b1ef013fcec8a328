/* See look.h. */
#include "core/look.h"

#include <assert.h>

#define PAGE_TIME HV_MS(5) /* about; a claim that is due waits for it */

void hv_look_init(struct hv_look *look, uint64_t span_min) {
    assert(span_min > 0);
    *look = (struct hv_look){.span_min = span_min, .fastest = HV_NEVER};
}

void hv_look_restart(struct hv_look *look) {
    hv_look_init(look, look->span_min);
}

void hv_look_begin(struct hv_look *look, int64_t highest, hv_time late) {
    assert(!look->under_way);
    look->under_way = true;
    look->to = highest;
    look->late = late;
    look->span = look->quick && look->seen < look->span_min ? UINT64_MAX : look->span_min;
    look->seen = 0;
    look->quick = true;
    if (look->fastest != HV_NEVER) {
        look->fastest += look->fastest / 8 + 1; /* the way to the server may have become longer */
    }
}

void hv_look_ask(struct hv_look *look, hv_time now) {
    uint64_t below = (uint64_t)look->to - (uint64_t)INT64_MIN;
    look->from = below <= look->span ? INT64_MIN : (int64_t)((uint64_t)look->to - look->span);
    look->asked = now;
}

static void adapt(struct hv_look *look, bool full, hv_time now) {
    hv_time took = now - look->asked;
    look->fastest = hv_time_min(look->fastest, took);
    took -= look->fastest;
    look->quick = look->quick && took < PAGE_TIME / 2;
    if (now >= look->late || (took < PAGE_TIME / 2 && !full)) {
        look->span = look->span < UINT64_MAX / 8 ? look->span * 8 : UINT64_MAX;
    } else if (took > PAGE_TIME * 2) {
        look->span = look->span / 4 > look->span_min ? look->span / 4 : look->span_min;
    }
}

void hv_look_turn(struct hv_look *look, bool full, int64_t last, hv_time now) {
    assert(look->under_way);
    adapt(look, full, now);
    int64_t lowest = full ? last : look->from;
    look->under_way = lowest > INT64_MIN;
    look->to = look->under_way ? lowest - 1 : INT64_MIN;
}
