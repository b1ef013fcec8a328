/* See gaps.h. */
#include "core/gaps.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define ASK_AGAIN HV_MS(50)     /* at first; the older the epoch is, the less soon it will be over... */
#define ASK_LATER HV_SECONDS(1) /* ... but so soon; also when there are more writers than we can remember */

void hv_gaps_init(struct hv_gaps *gaps, size_t max) {
    assert(max >= 2);
    *gaps = (struct hv_gaps){.max = max};
}

void hv_gaps_fini(struct hv_gaps *gaps) {
    free(gaps->list);
    free(gaps->room);
}

void hv_gaps_clear(struct hv_gaps *gaps) {
    gaps->count = 0;
    gaps->waiting = false;
    gaps->due = INT64_MIN;
}

/* ---- the list ---- */

static void append(struct hv_gap **list, size_t *count, size_t *capacity, struct hv_gap gap) {
    if (*count == *capacity) {
        *capacity = *capacity == 0 ? 16 : *capacity * 2;
        *list = hv_realloc(*list, *capacity, sizeof **list);
    }
    (*list)[(*count)++] = gap;
}

/* The list that is being made in `room` becomes the list. */
static void exchange(struct hv_gaps *gaps, size_t count) {
    struct hv_gap *list = gaps->list;
    size_t capacity = gaps->capacity;
    gaps->list = gaps->room;
    gaps->capacity = gaps->room_capacity;
    gaps->count = count;
    gaps->room = list;
    gaps->room_capacity = capacity;
}

static void join(struct hv_gaps *gaps, size_t at) {
    struct hv_gap *gap = &gaps->list[at];
    const struct hv_gap *next = &gaps->list[at + 1];
    gap->hi = next->hi;
    gap->phase = gap->phase < next->phase ? gap->phase : next->phase;
    gap->merged = true;
    memmove(&gaps->list[at + 1], &gaps->list[at + 2], (gaps->count - at - 2) * sizeof *gaps->list);
    gaps->count--;
}

static void bound(struct hv_gaps *gaps) {
    while (gaps->count > gaps->max) {
        size_t best = 0;
        uint64_t least = UINT64_MAX;
        for (size_t i = 0; i + 1 < gaps->count; i++) {
            uint64_t between = (uint64_t)gaps->list[i + 1].lo - (uint64_t)gaps->list[i].hi;
            if (between < least) {
                least = between;
                best = i;
            }
        }
        join(gaps, best);
    }
}

/* The first gap that does not end below the id; count if there is none. */
static size_t find(const struct hv_gaps *gaps, int64_t id) {
    size_t low = 0, high = gaps->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (gaps->list[middle].hi < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool hv_gaps_hold(const struct hv_gaps *gaps, int64_t id) {
    size_t at = find(gaps, id);
    return at < gaps->count && gaps->list[at].lo <= id;
}

static void insert(struct hv_gaps *gaps, int64_t lo, int64_t hi) {
    size_t at = find(gaps, lo);
    append(&gaps->list, &gaps->count, &gaps->capacity, (struct hv_gap){0});
    memmove(&gaps->list[at + 1], &gaps->list[at], (gaps->count - 1 - at) * sizeof *gaps->list);
    gaps->list[at] = (struct hv_gap){.lo = lo, .hi = hi, .phase = HV_GAP_FRESH};
}

void hv_gaps_add(struct hv_gaps *gaps, int64_t lo, int64_t hi) {
    assert(lo <= hi);
    for (;;) {
        size_t at = find(gaps, lo);
        const struct hv_gap *next = at < gaps->count ? &gaps->list[at] : NULL;
        if (next == NULL || next->lo > hi) {
            insert(gaps, lo, hi);
            break;
        }
        int64_t known_until = next->hi; /* before the list moves */
        if (next->lo > lo) {
            insert(gaps, lo, next->lo - 1);
        }
        if (known_until >= hi) {
            break;
        }
        lo = known_until + 1;
    }
    bound(gaps);
}

/* ---- epochs ---- */

static bool has_fresh(const struct hv_gaps *gaps) {
    for (size_t i = gaps->count; i > 0; i--) { /* the newest are mostly the last */
        if (gaps->list[i - 1].phase == HV_GAP_FRESH) {
            return true;
        }
    }
    return false;
}

static void advance(struct hv_gaps *gaps, enum hv_gap_phase from, enum hv_gap_phase to) {
    for (size_t i = 0; i < gaps->count; i++) {
        if (gaps->list[i].phase == from) {
            gaps->list[i].phase = to;
        }
    }
}

bool hv_gaps_want_writers(const struct hv_gaps *gaps, hv_time now) {
    return now >= gaps->due && (gaps->waiting || has_fresh(gaps));
}

hv_time hv_gaps_deadline(const struct hv_gaps *gaps) {
    return gaps->waiting || has_fresh(gaps) ? gaps->due : HV_NEVER;
}

void hv_gaps_writers(struct hv_gaps *gaps, const uint64_t *hashes, size_t count, hv_time now) {
    gaps->due = now + ASK_AGAIN;
    if (gaps->waiting && hv_epoch_is_over(&gaps->epoch, hashes, count)) {
        gaps->waiting = false;
        advance(gaps, HV_GAP_EPOCH, HV_GAP_LAST);
    }
    if (gaps->waiting) {
        gaps->due = now + hv_time_min(hv_time_max(ASK_AGAIN, (now - gaps->began) / 4), ASK_LATER);
    }
    if (gaps->waiting || !has_fresh(gaps)) {
        return;
    }
    if (count == 0) {
        advance(gaps, HV_GAP_FRESH, HV_GAP_LAST);
    } else if (hv_epoch_begin(&gaps->epoch, hashes, count)) {
        advance(gaps, HV_GAP_FRESH, HV_GAP_EPOCH);
        gaps->waiting = true;
        gaps->began = now;
    } else {
        gaps->due = now + ASK_LATER;
    }
}

void hv_gaps_unanswered(struct hv_gaps *gaps, hv_time now) {
    gaps->due = now + ASK_AGAIN;
}

/* ---- probes ---- */

struct probe {
    struct hv_gaps *gaps;
    size_t made; /* gaps in room */
    bool retires;
};

/* What waits for its last look is retired at one time, by a probe that looked at all of it: after a sequence began anew among it, rows of one
 * key must not be found here and passed over there. */
static bool covers_the_last(const struct hv_gaps *gaps, int64_t until) {
    for (size_t i = gaps->count; i > 0 && gaps->list[i - 1].hi > until; i--) {
        if (gaps->list[i - 1].phase == HV_GAP_LAST) {
            return false;
        }
    }
    return true;
}

/* A piece of a gap in which nothing was found, if there is one. */
static void keep(struct probe *p, const struct hv_gap *gap, int64_t lo, int64_t hi) {
    bool retired = gap->phase == HV_GAP_LAST && p->retires;
    if (lo <= hi && !retired) {
        struct hv_gap piece = {.lo = lo, .hi = hi, .phase = gap->phase, .merged = gap->merged};
        append(&p->gaps->room, &p->made, &p->gaps->room_capacity, piece);
    }
}

void hv_gaps_probed(struct hv_gaps *gaps, const int64_t *ids, size_t count, int64_t until) {
    struct probe p = {gaps, 0, covers_the_last(gaps, until)};
    size_t next = 0;
    for (size_t i = 0; i < gaps->count; i++) {
        const struct hv_gap *gap = &gaps->list[i];
        int64_t lo = gap->lo;
        bool rest = true; /* it does not end with an id that was found */
        for (; next < count && ids[next] <= gap->hi; next++) {
            if (ids[next] < lo) {
                continue;
            }
            if (ids[next] > lo) {
                keep(&p, gap, lo, ids[next] - 1);
            }
            if (ids[next] == gap->hi) {
                rest = false;
                next++;
                break;
            }
            lo = ids[next] + 1;
        }
        if (rest) {
            keep(&p, gap, lo, gap->hi);
        }
    }
    exchange(gaps, p.made);
    bound(gaps);
}

void hv_gaps_retire(struct hv_gaps *gaps, int64_t until) {
    size_t left = 0;
    for (size_t i = 0; i < gaps->count; i++) {
        struct hv_gap gap = gaps->list[i];
        bool last = gap.phase == HV_GAP_LAST;
        if (last && gap.hi <= until) {
            continue;
        }
        gap.lo = last && gap.lo <= until ? until + 1 : gap.lo;
        gaps->list[left++] = gap;
    }
    gaps->count = left;
}
