/* See watermark.h. */
#include "core/watermark.h"

#define REST HV_SECONDS(1)  /* between two advances: the dead rows of a second are walked at worst */
#define ASK_AGAIN HV_MS(50) /* while writers of the epoch are there... */
#define ASK_AGAIN_MAX HV_SECONDS(1)

void hv_watermark_restart(struct hv_watermark *mark, hv_time now) {
    mark->phase = HV_MARK_REST;
    mark->low = INT64_MIN;
    mark->highest = INT64_MIN;
    mark->due = now + REST;
}

void hv_watermark_found_below(struct hv_watermark *mark, int64_t last, hv_time now) {
    hv_watermark_restart(mark, now);
    mark->highest = last; /* not the highest ever: a sequence that starts again would stay below it for long */
}

bool hv_watermark_wants_writers(struct hv_watermark *mark, hv_time now) {
    if (now < mark->due || mark->phase == HV_MARK_COVER) {
        return false;
    }
    if (mark->phase == HV_MARK_REST) {
        if (mark->highest < mark->low || mark->highest == INT64_MAX || mark->highest == INT64_MIN) {
            mark->due = now + REST;
            return false;
        }
        mark->candidate = mark->highest;
        mark->phase = HV_MARK_ASK;
    }
    mark->due = HV_NEVER;
    return true;
}

void hv_watermark_writers(struct hv_watermark *mark, const uint64_t *hashes, size_t count, hv_time now) {
    bool over = false;
    if (mark->phase == HV_MARK_ASK) {
        if (!hv_epoch_begin(&mark->epoch, hashes, count)) {
            mark->phase = HV_MARK_REST;
            mark->due = now + REST;
            return;
        }
        mark->phase = HV_MARK_WAIT;
        over = count == 0;
    } else if (mark->phase == HV_MARK_WAIT) {
        over = hv_epoch_is_over(&mark->epoch, hashes, count);
    } else {
        return; /* restarted in between */
    }
    if (over) {
        mark->phase = HV_MARK_COVER;
        mark->empty_before = false;
        mark->due = HV_NEVER;
    } else {
        mark->due = now + (mark->epoch.count > 16 ? ASK_AGAIN_MAX : ASK_AGAIN);
    }
}

void hv_watermark_unanswered(struct hv_watermark *mark, hv_time now) {
    mark->phase = HV_MARK_REST;
    mark->due = now + REST;
}

bool hv_watermark_covering(const struct hv_watermark *mark) {
    return mark->phase == HV_MARK_COVER;
}

void hv_watermark_marked(struct hv_watermark *mark, bool covering, int64_t from, int64_t last, bool alone, hv_time now) {
    if (!covering || mark->phase != HV_MARK_COVER || from > mark->low) {
        return;
    }
    bool empty = last == INT64_MIN && alone;
    if (last >= mark->candidate || (empty && mark->empty_before)) {
        mark->low = mark->candidate + 1;
        mark->phase = HV_MARK_REST;
        mark->due = now + REST;
    }
    mark->empty_before = empty;
}

hv_time hv_watermark_deadline(const struct hv_watermark *mark) {
    return mark->phase == HV_MARK_COVER ? HV_NEVER : mark->due;
}
