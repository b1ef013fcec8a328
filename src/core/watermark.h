/* The low watermark of marks: every id below it is decided (seen, or never to come), so that a mark need not walk the dead rows at the
 * head of the index. It must never pass an id that could still appear, or a late commit would be overtaken:
 *
 *   REST ──► ASK: note the highest id seen, then ask which transactions hold a writing lock on the table
 *        ──► WAIT until all of those are gone (an INSERT takes that lock before it draws its id)
 *        ──► COVER: until a mark that was sent after that has looked at all ids up to the one noted: the watermark is behind it
 *
 * Ids drawn before their INSERT began (sequence caches, hi/lo generators), and those of a sequence that starts again, escape this; a mark
 * from the very start every `rescan_interval` finds them, and the watermark begins anew. */
#ifndef HV_CORE_WATERMARK_H
#define HV_CORE_WATERMARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/time.h"
#include "core/epoch.h"

enum hv_watermark_phase { HV_MARK_REST, HV_MARK_ASK, HV_MARK_WAIT, HV_MARK_COVER };

struct hv_watermark {
    enum hv_watermark_phase phase;
    int64_t low;       /* the watermark: marks look at ids >= low */
    int64_t highest;   /* id seen so far; INT64_MIN: none */
    int64_t candidate; /* `highest` when the question was put */
    struct hv_epoch epoch; /* WAIT; with too many writers at once the watermark just stays where it is */
    hv_time due;       /* of the next question, or of leaving REST */
    bool empty_before; /* COVER: the mark before found nothing */
};

/* Everything may still come. */
void hv_watermark_restart(struct hv_watermark *mark, hv_time now);

/* A mark from the very start returned rows below the watermark, up to `last`: more may come around them. */
void hv_watermark_found_below(struct hv_watermark *mark, int64_t last, hv_time now);

static inline void hv_watermark_saw(struct hv_watermark *mark, int64_t id) {
    if (id > mark->highest) {
        mark->highest = id;
    }
}

/* Is the question for the writers to be sent now? When true, the answer must be given to hv_watermark_writers. */
bool hv_watermark_wants_writers(struct hv_watermark *mark, hv_time now);
void hv_watermark_writers(struct hv_watermark *mark, const uint64_t *hashes, size_t count, hv_time now);
/* The question was not answered. */
void hv_watermark_unanswered(struct hv_watermark *mark, hv_time now);

/* A mark is about to be sent: returns whether it can serve COVER. Pass that to hv_watermark_marked with its outcome. */
bool hv_watermark_covering(const struct hv_watermark *mark);
/* `from`: its lowest id; `last`: the highest id returned (INT64_MIN: none): up to that one it took all there were; `alone`: nothing that
 * it might have returned was deleted by us meanwhile. A mark that returns nothing says that nothing is left, unless all that it found
 * was deleted under its hands: by us (not alone), or by others, which nobody does twice in a row. */
void hv_watermark_marked(struct hv_watermark *mark, bool covering, int64_t from, int64_t last, bool alone, hv_time now);

hv_time hv_watermark_deadline(const struct hv_watermark *mark);

#endif
