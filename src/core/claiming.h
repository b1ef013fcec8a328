/* Claiming: when to look for rows, how many, from which id on, and what an unknown outcome leads to. The claiming connection carries one
 * statement at a time: a claim, the question for the writers, a look at the ids that are there, or the wish to be told of new rows.
 *
 * We remember the highest id seen and the gaps below it (gaps.h), and claim, in one statement and so in one snapshot, what is above and
 * what has appeared in the gaps: so dead rows are not walked. All starts from the first id when leadership begins, on a new connection,
 * and after a *refresh*: a new leader id, under which every row is claimed anew. What we hold in memory stays there: a row that comes
 * again is known by its id, and by the version that it had (slots.h).
 *
 * Two strategies; rows come in the order of ids from both, and what follows is the same. They may take turns on one table.
 *
 * *By mark*: rows are written our leader id and returned; those that carry it already are passed over. A mark whose reply was lost may
 * have taken rows that nobody knows of; so does a key of which rows were left in the table. Both are mended by a refresh.
 *
 * *By cursor*: nothing is written. A reply that is lost costs nothing: the cursor did not move. But gaps that had to become one hold rows
 * that were seen. Those that we hold are left out of the scan, and so are those of keys that are named to it, since rows of them are left in
 * the table. Should there be more such keys than can be named (keys.h), their rows come again and again: when they are most of what
 * comes (*crowded*), a refresh goes over to marks, with which the table keeps the book, until the next one.
 *
 * Ids that were drawn before their INSERT began (sequence caches, hi/lo generators), and those of a sequence that starts again, escape the
 * gaps. Every `rescan_interval` a look at all ids (look.h) finds them. Claims go on between its pages. What appears behind its back is found
 * by the next one.
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
#include "core/look.h"
#include "core/slots.h"

enum hv_claim_state { HV_CLAIM_DOWN, HV_CLAIM_IDLE, HV_CLAIM_CLAIMING, HV_CLAIM_ASKING, HV_CLAIM_LISTING, HV_CLAIM_SUBSCRIBING };

struct hv_claim {
    const struct hv_core_config *config;
    struct hv_random *dice;
    enum hv_claim_state state;
    bool by_mark;        /* as configured; also after a refresh because of crowded gaps, until the next */
    struct hv_gaps gaps;
    int64_t next;        /* the lowest id that was not seen and is in no gap */
    int64_t seen_to;     /* the highest that it ever was: nothing above is held */
    int64_t remark_until; /* rows below it may be held, and be marked anew */
    hv_time crowded_since; /* HV_NEVER: the last scan was not crowded */
    bool crowded;        /* ... for too long: the refresh that is due goes over to marks */
    struct hv_look look; /* at all ids */
    hv_time look_since;
    bool listed;         /* the last statement was a page of it */
    bool regaining;      /* the cursor started again and has not come back to where it was... */
    int64_t regain;      /* ... which is here */
    hv_time regain_since;
    hv_time rest_until;  /* a refresh that can wait should come no sooner: it took its time to come back */
    const char *refresh; /* why a refresh is due (static text), or NULL */
    uint32_t limit;      /* rows of the next mark at most; adapts */
    uint32_t average;    /* bytes of a row, as seen lately */
    hv_time asked_at;
    uint32_t asked_limit;
    bool asked_alone;    /* we deleted nothing meanwhile */
    bool remarking;      /* of the rows that we hold some are not marked anew yet */
    bool was_cut;        /* the last reply: there may be more above its last row */
    bool empty_before;   /* the mark before found nothing, alone */
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

/* We delete rows, or did so since the claim was sent. */
void hv_claim_deleting(struct hv_claim *claim);

/* The reply to HV_ACT_LIST. `slots`: the records that are held. Rows that were left in the table are no surprise. */
void hv_claim_listed(struct hv_claim *claim, const struct hv_claimed *rows, size_t count, uint64_t term,
                     const struct hv_slots *slots, const struct hv_isolation *iso, hv_time now);

/* What became of the rows that hv_claim_marked counted, up to one with the id `last`: so many were new and are kept, so many were not kept,
 * and will come again. */
void hv_claim_took(struct hv_claim *claim, size_t kept, size_t come_again, int64_t last, hv_time now);

/* Will a scan see this row again, although it was seen? */
static inline bool hv_claim_comes_again(const struct hv_claim *claim, int64_t id) {
    return !claim->by_mark && hv_gaps_hold(&claim->gaps, id);
}

/* Is a statement out whose snapshot may hold rows that are deleted meanwhile? */
static inline bool hv_claim_is_reading(const struct hv_claim *claim) {
    return claim->state == HV_CLAIM_CLAIMING || claim->state == HV_CLAIM_LISTING;
}

static inline bool hv_claim_is_claiming(const struct hv_claim *claim) {
    return claim->state == HV_CLAIM_CLAIMING;
}

/* A new leader id changes the version of rows that are held. Nobody may wonder meanwhile whether it is another row: until all of those are
 * marked anew, marks and the statements of the settling connection take turns. */
static inline bool hv_claim_takes_turns(const struct hv_claim *claim) {
    return claim->by_mark && claim->next < claim->remark_until;
}

/* Is any statement out? */
static inline bool hv_claim_is_waiting(const struct hv_claim *claim) {
    return claim->state != HV_CLAIM_DOWN && claim->state != HV_CLAIM_IDLE;
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

/* Sends what is due. `room`: rows that may be taken; less than a full mark halts claiming. `alone`: nothing is being deleted by us. The
 * keys of `iso` of which rows are left are named to claims. */
void hv_claim_advance(struct hv_claim *claim, const uint8_t *leader_id, uint32_t room, bool alone, uint64_t term,
                      struct hv_isolation *iso, hv_time now, struct hv_actions *out);

hv_time hv_claim_deadline(const struct hv_claim *claim, uint32_t room);

#endif
