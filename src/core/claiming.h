/* Claiming: when to look for rows, how many, from which id on, and what an unknown outcome leads to. The claiming connection carries one
 * statement at a time: a claim, the question for the writers, a look at the ids that are there, or the wish to be told of new rows.
 *
 * Two strategies; rows come in the order of ids from both, and what follows is the same. They may take turns on one table.
 *
 * *By mark*: rows are written our leader id and returned. An exact book of what was seen is not needed, the table keeps it.
 * A mark whose reply was lost may have taken rows that nobody knows of. So does a key of which rows were left in the table. Both are mended by a *refresh*: a
 * new leader id, under which every row is marked anew, from the first one on, in the order of ids. What we hold in memory stays there:
 * a row that comes again is known by its id.
 *
 * *By cursor*: nothing is written. We remember the highest id seen and the gaps below it (gaps.h), and read, in one statement and so in
 * one snapshot, what is above and what has appeared in the gaps. A reply that is lost costs nothing: the cursor did not move. All starts
 * from the first id when leadership begins, and after a refresh.
 *
 * With `listen` a leader's session has the database tell it when rows were written, which ends the wait before the next claim. That is
 * all it does: what was not told is found when the wait is over. */
#ifndef HV_CORE_CLAIMING_H
#define HV_CORE_CLAIMING_H

#include "core/backoff.h"
#include "core/config.h"
#include "core/event.h"
#include "core/gaps.h"
#include "core/isolation.h"
#include "core/slots.h"
#include "core/watermark.h"

enum hv_claim_state { HV_CLAIM_DOWN, HV_CLAIM_IDLE, HV_CLAIM_CLAIMING, HV_CLAIM_ASKING, HV_CLAIM_LISTING, HV_CLAIM_SUBSCRIBING };

struct hv_claim {
    const struct hv_core_config *config;
    struct hv_random *dice;
    enum hv_claim_state state;
    struct hv_watermark watermark; /* by mark */
    struct hv_gaps gaps;           /* by cursor: */
    int64_t next;                  /* the lowest id that was not seen and is in no gap */
    int64_t list_from;             /* of the next page of the look from the first id on */
    bool listing;                  /* that is under way */
    bool listed;                   /* the last statement was a page of it */
    bool regaining;                /* the cursor started again and has not come back to where it was... */
    int64_t regain;                /* ... which is here */
    hv_time regain_since;
    const char *refresh; /* why a refresh is due (static text), or NULL */
    uint32_t empty_due;  /* by mark, since a refresh: so many marks in a row must still come back empty before nothing is left */
    uint32_t limit;      /* rows of the next mark at most; adapts */
    uint32_t average;    /* bytes of a row, as seen lately */
    hv_time asked_at;
    uint32_t asked_limit;
    int64_t asked_from;
    bool asked_covering;
    bool asked_alone;    /* we could not delete anything meanwhile */
    uint64_t asked_term; /* of leadership, when the claim was sent */
    hv_time not_before;  /* of the next mark */
    hv_time busy_at;     /* when rows came last */
    hv_time rescan_at;
    bool listens;        /* the session is told when rows were written... */
    bool woken;          /* ... and was, since a claim was sent */
    hv_time wake_from;   /* no wait ends because of that before this */
    hv_time listen_at;   /* the session may be asked to tell, not before this */
    bool asked_listen;
    struct hv_backoff backoff;
};

void hv_claim_init(struct hv_claim *claim, const struct hv_core_config *config, struct hv_random *dice);
void hv_claim_fini(struct hv_claim *claim);

/* Leadership begins, or a new leader id: nothing is marked under it yet. */
void hv_claim_restart(struct hv_claim *claim, hv_time now);

void hv_claim_up(struct hv_claim *claim, hv_time now);
void hv_claim_down(struct hv_claim *claim, bool outcome_unknown, hv_time now);
void hv_claim_refused(struct hv_claim *claim, hv_time now);

/* The whole reply to a claim; rows ascending. Adapts limits and decides when to claim next. `cut`: above the last row there may be more,
 * although they are fewer than asked for. `term`: of leadership, now. Returns how many of the rows, from the first on, are claimed: none
 * of another term's; by cursor no more than asked for, the others come again. */
size_t hv_claim_marked(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, bool cut, uint64_t term, hv_time now);

/* The reply to HV_ACT_LIST. `slots`: the records that are held. Rows that were left in the table are no surprise. */
void hv_claim_listed(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, uint64_t term,
                     const struct hv_slots *slots, const struct hv_isolation *iso, hv_time now);

/* Is a statement out whose snapshot may hold rows that are deleted meanwhile? */
static inline bool hv_claim_is_reading(const struct hv_claim *claim) {
    return claim->state == HV_CLAIM_CLAIMING || claim->state == HV_CLAIM_LISTING;
}

/* Every id below it is decided: seen, or never to come. */
int64_t hv_claim_low(const struct hv_claim *claim);

void hv_claim_writers(struct hv_claim *claim, const uint64_t *hashes, size_t count, hv_time now);

/* The reply to HV_ACT_LISTEN. */
void hv_claim_listening(struct hv_claim *claim);

/* Rows may have been written. What is committed by now is seen by the next claim that is sent. */
void hv_claim_wake(struct hv_claim *claim);

/* While nothing is claimed, nobody has to be told of rows. */
void hv_claim_rest(struct hv_claim *claim, struct hv_actions *out);

/* Sends what is due. `room`: rows that may be taken; less than a full mark halts claiming. The keys of `iso` of which rows are left are
 * named to claims. */
void hv_claim_advance(struct hv_claim *claim, const uint8_t *leader_id, uint32_t room, bool alone, uint64_t term,
                      struct hv_isolation *iso, hv_time now, struct hv_actions *out);

hv_time hv_claim_deadline(const struct hv_claim *claim, uint32_t room);

#endif
