/* See doubt.h. */
#include "core/doubt.h"

#include <stddef.h>

#define SAME HV_MS(100)         /* refusals this close are those of one client */
#define MEMORY HV_SECONDS(10)   /* a batch that is refused later than this after the last one is the first again */
#define SPAN HV_SECONDS(1)
#define ENOUGH 500              /* records that pass between two refused batches: alone they take as long as a new client does (measured) */
#define SPAN_MAX HV_SECONDS(60)

static struct hv_doubt *find(struct hv_doubts *doubts, uint32_t topic) {
    for (uint32_t i = 0; i < doubts->count; i++) {
        if (doubts->list[i].topic == topic) {
            return &doubts->list[i];
        }
    }
    return NULL;
}

static bool is_over(const struct hv_doubt *doubt, hv_time now) {
    return now >= hv_time_max(doubt->until, doubt->refused) + MEMORY;
}

/* A free entry, if need be that of the topic that was refused longest ago. */
static struct hv_doubt *make_room(struct hv_doubts *doubts, hv_time now) {
    struct hv_doubt *oldest = &doubts->list[0];
    for (uint32_t i = 0; i < doubts->count;) {
        struct hv_doubt *doubt = &doubts->list[i];
        if (is_over(doubt, now)) {
            *doubt = doubts->list[--doubts->count];
            continue;
        }
        oldest = doubt->refused < oldest->refused ? doubt : oldest;
        i++;
    }
    return doubts->count < HV_DOUBTS_MAX ? &doubts->list[doubts->count++] : oldest;
}

void hv_doubts_batch_refused(struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    struct hv_doubt *doubt = find(doubts, topic);
    if (doubt == NULL || is_over(doubt, now)) {
        doubt = doubt != NULL ? doubt : make_room(doubts, now);
        *doubt = (struct hv_doubt){.topic = topic, .refused = now, .until = now, .span = SPAN};
        return;
    }
    if (now - doubt->refused < SAME) {
        return;
    }
    doubt->refused = now;
    if (doubt->passed < ENOUGH) {
        doubt->until = now + doubt->span;
        doubt->span = hv_time_min(doubt->span * 2, SPAN_MAX);
    }
    doubt->passed = 0;
}

void hv_doubts_note_passed(struct hv_doubts *doubts, uint32_t topic) {
    struct hv_doubt *doubt = find(doubts, topic);
    if (doubt != NULL && doubt->passed < ENOUGH) {
        doubt->passed++;
    }
}

void hv_doubts_refused_alone(struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    struct hv_doubt *doubt = find(doubts, topic);
    if (doubt != NULL && now < doubt->until) {
        doubt->until = hv_time_max(doubt->until, now + SPAN);
    }
}

bool hv_doubts_find(const struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    for (uint32_t i = 0; i < doubts->count; i++) {
        if (doubts->list[i].topic == topic) {
            return now < doubts->list[i].until;
        }
    }
    return false;
}
