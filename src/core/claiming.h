/* Claiming by mark: when to mark, how many rows, from which id on, and what an unknown outcome leads to. The claiming connection
 * carries one statement at a time: a mark, or the question for the writers.
 *
 * A mark whose reply was lost may have taken rows that nobody knows of. So does a shard that spilled. Both are mended by a *refresh*: a
 * new leader id, under which every row is marked anew, from the first one on, in the order of ids. What we hold in memory stays there:
 * a row that comes again is known by its id. */
#ifndef HV_CORE_CLAIMING_H
#define HV_CORE_CLAIMING_H

#include "core/backoff.h"
#include "core/config.h"
#include "core/event.h"
#include "core/watermark.h"

enum hv_claim_state { HV_CLAIM_DOWN, HV_CLAIM_IDLE, HV_CLAIM_MARKING, HV_CLAIM_ASKING };

struct hv_claim {
    const struct hv_core_config *config;
    struct hv_random *dice;
    enum hv_claim_state state;
    struct hv_watermark watermark;
    const char *refresh; /* why a refresh is due (static text), or NULL */
    uint32_t limit;      /* rows of the next mark at most; adapts */
    uint32_t average;    /* bytes of a row, as seen lately */
    uint32_t asked_limit;
    int64_t asked_from;
    bool asked_covering;
    bool asked_alone;    /* we could not delete anything meanwhile */
    uint64_t asked_term; /* of leadership, when the mark was sent */
    hv_time not_before;  /* of the next mark */
    hv_time wait;        /* after an empty mark */
    hv_time busy_at;     /* when rows came last */
    hv_time rescan_at;
    struct hv_backoff backoff;
};

void hv_claim_init(struct hv_claim *claim, const struct hv_core_config *config, struct hv_random *dice);

/* Leadership begins, or a new leader id: nothing is marked under it yet. */
void hv_claim_restart(struct hv_claim *claim, hv_time now);

void hv_claim_up(struct hv_claim *claim);
void hv_claim_down(struct hv_claim *claim, bool outcome_unknown, hv_time now);
void hv_claim_refused(struct hv_claim *claim, hv_time now);

/* The whole reply to a mark; rows ascending. Adapts limits and decides when to mark next. */
void hv_claim_marked(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, hv_time now);
void hv_claim_writers(struct hv_claim *claim, const uint64_t *hashes, size_t count, hv_time now);

/* Rows that wait below the watermark should be marked soon: they were reset. */
void hv_claim_look_at(struct hv_claim *claim, int64_t id, hv_time now);

/* Sends what is due. `room`: rows that may be taken; less than a full mark halts claiming. */
void hv_claim_advance(struct hv_claim *claim, const uint8_t *leader_id, uint32_t room, bool alone, uint64_t term, hv_time now,
                      struct hv_actions *out);

hv_time hv_claim_deadline(const struct hv_claim *claim, uint32_t room);

#endif
