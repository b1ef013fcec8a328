/* See doubt.h. */
#include "core/doubt.h"

#include <stdlib.h>

#include "base/memory.h"

#define SAME HV_MS(100)         /* refusals this close are those of one client */
#define MEMORY HV_SECONDS(10)   /* a batch that is refused later than this after the last one is the first again */
#define SPAN HV_MS(250)
#define ENOUGH 2000             /* records that pass between two refused batches: apart they take as long as a new client does (measured) */
#define SPAN_MAX HV_SECONDS(60)
#define LIKENESS HV_SECONDS(600) /* that no record showed for so long is forgotten */
#define MISLED_BY 2              /* what passed alone though it was as large as one that was refused weighs so much more than what was refused, */
#define MISLED_MAX 8             /* until it is not the size that counts here (but what they compress to, say) */
#define REPUTE HV_SECONDS(10)    /* of a key, and... */
#define REPUTE_RECORDS 100       /* ... so many of its records clear it, too */

/* doubts->count: there is none. */
static uint32_t find(const struct hv_doubts *doubts, uint32_t topic) {
    uint32_t at = 0;
    while (at < doubts->count && doubts->list[at].topic != topic) {
        at++;
    }
    return at;
}

static bool is_like_refused(const struct hv_doubt *doubt, const struct hv_slot *slot) {
    return slot->bytes >= doubt->too_large;
}

static struct hv_repute *repute_of(const struct hv_doubts *doubts, const struct hv_slot *slot, hv_time now) {
    if (now >= doubts->reputes_until) {
        return NULL;
    }
    struct hv_repute *repute = &doubts->reputes[slot->key % HV_REPUTES];
    return repute->key == slot->key && repute->left > 0 && now < repute->until ? repute : NULL;
}

static void note_repute(struct hv_doubts *doubts, const struct hv_slot *slot, hv_time now) {
    if (doubts->reputes == NULL) {
        doubts->reputes = hv_calloc(HV_REPUTES, sizeof *doubts->reputes);
    }
    doubts->reputes_until = now + REPUTE;
    doubts->reputes[slot->key % HV_REPUTES] = (struct hv_repute){slot->key, now + REPUTE, REPUTE_RECORDS};
}

void hv_doubts_fini(struct hv_doubts *doubts) {
    free(doubts->reputes);
}

static bool is_over(const struct hv_doubt *doubt, hv_time now) {
    return now >= hv_time_max(doubt->until, doubt->refused) + MEMORY;
}

void hv_doubts_forget_old(struct hv_doubts *doubts, hv_time now) {
    for (uint32_t i = 0; i < doubts->count;) {
        struct hv_doubt *doubt = &doubts->list[i];
        bool knows = (doubt->too_large != HV_ANY_SIZE || doubt->misled > 0) && now < doubt->learned + LIKENESS;
        if (is_over(doubt, now) && !knows) {
            *doubt = doubts->list[--doubts->count];
        } else {
            i++;
        }
    }
}

/* A free entry, if need be that of the topic that was refused longest ago. */
static struct hv_doubt *make_room(struct hv_doubts *doubts) {
    if (doubts->count < HV_DOUBTS_MAX) {
        return &doubts->list[doubts->count++];
    }
    struct hv_doubt *oldest = &doubts->list[0];
    for (uint32_t i = 1; i < doubts->count; i++) {
        oldest = doubts->list[i].refused < oldest->refused ? &doubts->list[i] : oldest;
    }
    return oldest;
}

/* That of the topic, a new one if need be. */
static struct hv_doubt *get(struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    hv_doubts_forget_old(doubts, now);
    uint32_t at = find(doubts, topic);
    if (at < doubts->count) {
        return &doubts->list[at];
    }
    struct hv_doubt *doubt = make_room(doubts);
    *doubt = (struct hv_doubt){.topic = topic, .refused = now, .until = now, .too_large = HV_ANY_SIZE};
    return doubt;
}

void hv_doubts_batch_refused(struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    struct hv_doubt *doubt = get(doubts, topic, now);
    bool first = !doubt->batches || is_over(doubt, now);
    if (!first && now - doubt->refused < SAME) {
        return;
    }
    doubt->batches = true;
    doubt->refused = now;
    if (first) {
        doubt->until = now;
        doubt->span = SPAN;
    } else if (doubt->passed < ENOUGH) {
        doubt->until = now + doubt->span;
        doubt->span = hv_time_min(doubt->span * 2, SPAN_MAX);
    }
    doubt->passed = 0;
}

void hv_doubts_note_passed(struct hv_doubts *doubts, uint32_t topic) {
    uint32_t at = find(doubts, topic);
    if (at < doubts->count && doubts->list[at].passed < ENOUGH) {
        doubts->list[at].passed++;
    }
}

void hv_doubts_refused_alone(struct hv_doubts *doubts, const struct hv_slot *slot, bool by_size, bool again, hv_time now) {
    struct hv_doubt *doubt = get(doubts, slot->topic, now);
    bool alike = is_like_refused(doubt, slot);
    bool foretold = again || alike || repute_of(doubts, slot, now) != NULL;
    if (!foretold && now < doubt->until) {
        doubt->until = hv_time_max(doubt->until, now + SPAN);
    }
    if (by_size && doubt->misled < MISLED_MAX) {
        doubt->misled -= alike && doubt->misled > 0;
        doubt->too_large = slot->bytes < doubt->too_large ? slot->bytes : doubt->too_large;
        doubt->learned = now;
    }
    note_repute(doubts, slot, now);
}

void hv_doubts_passed_alone(struct hv_doubts *doubts, const struct hv_slot *slot, bool again, hv_time now) {
    struct hv_repute *repute = repute_of(doubts, slot, now);
    if (repute != NULL) {
        repute->left = again ? 0 : repute->left - 1;
    }
    uint32_t at = find(doubts, slot->topic);
    if (at < doubts->count && is_like_refused(&doubts->list[at], slot)) {
        struct hv_doubt *doubt = &doubts->list[at];
        doubt->misled += MISLED_BY;
        doubt->too_large = doubt->misled < MISLED_MAX ? slot->bytes + 1 : HV_ANY_SIZE;
    }
}

enum hv_way hv_doubts_find_way(const struct hv_doubts *doubts, const struct hv_slot *slot, hv_time now) {
    if (repute_of(doubts, slot, now) != NULL) {
        return HV_WAY_ALONE;
    }
    uint32_t at = find(doubts, slot->topic);
    if (at == doubts->count) {
        return HV_WAY_OF_ALL;
    }
    const struct hv_doubt *doubt = &doubts->list[at];
    return is_like_refused(doubt, slot) ? HV_WAY_ALONE : now < doubt->until ? HV_WAY_APART : HV_WAY_OF_ALL;
}
