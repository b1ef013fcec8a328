/* What refusals taught: which way other records had better go.
 *
 * A refusal finishes the client of all records: what is in flight must be sent again by a new one. Once is no harm; a storm of bad records
 * would leave time for nothing else. Three things keep it small.
 *
 * Likeness: a record that was refused alone because it is too large tells what others will be refused: those of the topic that are as
 * large go alone at once, until one of them passes. So they take no others with them. Where that is wrong again and again, sizes
 * are left out of it.
 *
 * Repute: a key of which a record was refused alone is likely to have others. When it goes on (the record was parked, say), its records go
 * alone, until a good many of them passed, or some time did.
 *
 * Doubt: if a topic's batches are refused nevertheless, from the second in a short time on, unless many records passed in between, all
 * its records go apart for a while: one at a time a key, in small batches, through the client of suspects, which a refusal does not
 * finish. Records of other topics go on undisturbed. The while grows with each refused batch that follows, and lasts as long as records
 * are refused alone that neither likeness nor repute foretold. */
#ifndef HV_CORE_DOUBT_H
#define HV_CORE_DOUBT_H

#include "core/slots.h"

#define HV_DOUBTS_MAX 32 /* topics; of more, the one that was refused longest ago is forgotten */

struct hv_doubt {
    uint32_t topic;
    bool batches;       /* were refused, not only records alone */
    hv_time refused;    /* when one was last */
    hv_time until;      /* records go apart */
    hv_time span;       /* how long they do after the next refused batch */
    uint32_t passed;    /* records that went in batches since the last refused one */
    uint32_t too_large; /* records of so many bytes are refused; HV_ANY_SIZE: not known */
    hv_time learned;    /* when one was last refused */
    uint8_t misled;     /* how often that was wrong, of late */
};

#define HV_ANY_SIZE UINT32_MAX

#define HV_REPUTES 1024 /* keys; of those that share a place the last one is known */

struct hv_repute {
    uint64_t key;
    hv_time until;
    uint32_t left; /* so many records have to pass */
};

struct hv_doubts {
    struct hv_doubt list[HV_DOUBTS_MAX];
    uint32_t count;
    struct hv_repute *reputes; /* by key; NULL: none was refused yet */
    hv_time reputes_until;     /* all are over */
};

void hv_doubts_fini(struct hv_doubts *doubts);

/* A record of the topic was refused as part of a batch: told for each of them. */
void hv_doubts_batch_refused(struct hv_doubts *doubts, uint32_t topic, hv_time now);
/* The record was refused alone, because of its size or not; or was so again. */
void hv_doubts_refused_alone(struct hv_doubts *doubts, const struct hv_slot *slot, bool by_size, bool again, hv_time now);
/* ... was taken, alone; `again`: after it was refused, so that nothing is wrong with its key any more. */
void hv_doubts_passed_alone(struct hv_doubts *doubts, const struct hv_slot *slot, bool again, hv_time now);

/* Topics of which nothing is known any more: while none is left, a record costs nothing. */
void hv_doubts_forget_old(struct hv_doubts *doubts, hv_time now);

void hv_doubts_note_passed(struct hv_doubts *doubts, uint32_t topic);

/* A record of the topic was acknowledged that had gone the way of all. */
static inline void hv_doubts_passed(struct hv_doubts *doubts, uint32_t topic) {
    if (doubts->count > 0) {
        hv_doubts_note_passed(doubts, topic);
    }
}

enum hv_way hv_doubts_find_way(const struct hv_doubts *doubts, const struct hv_slot *slot, hv_time now);

/* Which way has the record to go, for what is known of its topic and its key? */
static inline enum hv_way hv_doubts_way(const struct hv_doubts *doubts, const struct hv_slot *slot, hv_time now) {
    return doubts->count == 0 && now >= doubts->reputes_until ? HV_WAY_OF_ALL : hv_doubts_find_way(doubts, slot, now);
}

#endif
