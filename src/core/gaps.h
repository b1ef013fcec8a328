/* Ids below the cursor that were not seen yet, as ranges. A gap is what a transaction left that has not committed yet, or that was
 * rolled back: its rows may still appear, in any order, until nobody is left who could write them.
 *
 *   FRESH ── the writers of that moment are known: they are its *epoch* ──► EPOCH ── all of them are gone ──► LAST ── a claim that
 *   was sent after that has looked at all of these once more ──► retired: what is missing will never come
 *
 * An INSERT takes its lock on the table before it draws its id, and a commit becomes visible before its lock is let go: so the one who
 * drew an id of the gap is among the writers of that moment, or has ended, which the next claim sees. (Ids that were drawn before their
 * INSERT escape; a slow rescan finds them.)
 *
 * One epoch runs at a time: a gap that comes while it does waits for the next. Every claim has to look at all gaps: rows of a later gap, or
 * above the cursor, may depend on rows of an earlier one. So their number is bounded: the two that are closest become one, over ids
 * that were seen already. */
#ifndef HV_CORE_GAPS_H
#define HV_CORE_GAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/time.h"
#include "core/epoch.h"

enum hv_gap_phase { HV_GAP_FRESH, HV_GAP_EPOCH, HV_GAP_LAST };

struct hv_gap {
    int64_t lo, hi; /* both inclusive */
    uint8_t phase;  /* enum hv_gap_phase */
    bool merged;    /* holds ids that were seen */
};

struct hv_gaps {
    struct hv_gap *list, *room; /* ascending, apart from each other; room for the next list */
    size_t count, capacity, room_capacity;
    size_t max;
    struct hv_epoch epoch; /* that runs */
    bool waiting;          /* one does... */
    hv_time began;         /* ... since then */
    hv_time due;  /* of the next question for writers, if there is something to ask for */
};

/* At most `max` (2 or more) gaps are kept apart. */
void hv_gaps_init(struct hv_gaps *gaps, size_t max);
void hv_gaps_fini(struct hv_gaps *gaps);

void hv_gaps_clear(struct hv_gaps *gaps);

/* A range that was not seen; what of it is in a gap already stays as it is. */
void hv_gaps_add(struct hv_gaps *gaps, int64_t lo, int64_t hi);

bool hv_gaps_hold(const struct hv_gaps *gaps, int64_t id);

/* Is the question for the writers to be sent now? */
bool hv_gaps_want_writers(const struct hv_gaps *gaps, hv_time now);
hv_time hv_gaps_deadline(const struct hv_gaps *gaps);
void hv_gaps_writers(struct hv_gaps *gaps, const uint64_t *hashes, size_t count, hv_time now);
void hv_gaps_unanswered(struct hv_gaps *gaps, hv_time now);

/* A claim has looked at everything in the gaps up to `until`, and these ids were there (ascending; others among them do not matter). Since
 * it was sent no answer to the question for writers came; gaps that were added meanwhile do no harm, they are fresh. */
void hv_gaps_probed(struct hv_gaps *gaps, const int64_t *ids, size_t count, int64_t until);

/* What waits for its last look was looked at up to `until`, and no claim will look at all of it: that much is retired. */
void hv_gaps_retire(struct hv_gaps *gaps, int64_t until);

#endif
