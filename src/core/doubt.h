/* Topics in doubt: Kafka refused records of theirs lately, again and again.
 *
 * A refusal finishes the client of all records: what is in flight must be sent again by a new one. Once is no harm; a storm of bad records
 * would leave time for nothing else. So from the second refused batch in a short time on, unless many records passed in between, all
 * records of that topic go alone for a while, through the client of suspects, which a refusal does not finish; records of other topics go on undisturbed. The while grows with each
 * refused batch that follows, and lasts as long as records are refused alone. */
#ifndef HV_CORE_DOUBT_H
#define HV_CORE_DOUBT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"

#define HV_DOUBTS_MAX 32 /* topics; of more, the one that was refused longest ago is forgotten */

struct hv_doubt {
    uint32_t topic;
    hv_time refused; /* when a batch was last */
    hv_time until;   /* records go alone */
    hv_time span;    /* how long they do after the next refused batch */
    uint32_t passed; /* records that went in batches since the last refused one */
};

struct hv_doubts {
    struct hv_doubt list[HV_DOUBTS_MAX];
    uint32_t count;
};

/* A record of the topic was refused as part of a batch: told for each of them. */
void hv_doubts_batch_refused(struct hv_doubts *doubts, uint32_t topic, hv_time now);
/* ... alone, for the first time. */
void hv_doubts_refused_alone(struct hv_doubts *doubts, uint32_t topic, hv_time now);

/* Those that are long over: while none is left, a record costs nothing. */
void hv_doubts_forget_old(struct hv_doubts *doubts, hv_time now);

void hv_doubts_note_passed(struct hv_doubts *doubts, uint32_t topic);

/* A record of the topic was acknowledged that had gone the way of all. */
static inline void hv_doubts_passed(struct hv_doubts *doubts, uint32_t topic) {
    if (doubts->count > 0) {
        hv_doubts_note_passed(doubts, topic);
    }
}

bool hv_doubts_find(const struct hv_doubts *doubts, uint32_t topic, hv_time now);

/* Do records of the topic have to go alone? */
static inline bool hv_doubts_has(const struct hv_doubts *doubts, uint32_t topic, hv_time now) {
    return doubts->count > 0 && hv_doubts_find(doubts, topic, now);
}

#endif
