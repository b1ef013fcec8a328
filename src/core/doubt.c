/* See doubt.h. */
#include "core/doubt.h"

#define SAME HV_MS(100)         /* refusals this close are those of one client */
#define MEMORY HV_SECONDS(10)   /* a batch that is refused later than this after the last one is the first again */
#define SPAN HV_SECONDS(1)
#define ENOUGH 500              /* records that pass between two refused batches: alone they take as long as a new client does (measured) */
#define SPAN_MAX HV_SECONDS(60)

/* doubts->count: there is none. */
static uint32_t find(const struct hv_doubts *doubts, uint32_t topic) {
    uint32_t at = 0;
    while (at < doubts->count && doubts->list[at].topic != topic) {
        at++;
    }
    return at;
}

static bool is_over(const struct hv_doubt *doubt, hv_time now) {
    return now >= hv_time_max(doubt->until, doubt->refused) + MEMORY;
}

void hv_doubts_forget_old(struct hv_doubts *doubts, hv_time now) {
    for (uint32_t i = 0; i < doubts->count;) {
        if (is_over(&doubts->list[i], now)) {
            doubts->list[i] = doubts->list[--doubts->count];
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

void hv_doubts_batch_refused(struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    hv_doubts_forget_old(doubts, now);
    uint32_t at = find(doubts, topic);
    if (at == doubts->count) {
        *make_room(doubts) = (struct hv_doubt){.topic = topic, .refused = now, .until = now, .span = SPAN};
        return;
    }
    struct hv_doubt *doubt = &doubts->list[at];
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
    uint32_t at = find(doubts, topic);
    if (at < doubts->count && doubts->list[at].passed < ENOUGH) {
        doubts->list[at].passed++;
    }
}

void hv_doubts_refused_alone(struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    if (hv_doubts_has(doubts, topic, now)) {
        struct hv_doubt *doubt = &doubts->list[find(doubts, topic)];
        doubt->until = hv_time_max(doubt->until, now + SPAN);
    }
}

bool hv_doubts_find(const struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    uint32_t at = find(doubts, topic);
    return at < doubts->count && now < doubts->list[at].until;
}
