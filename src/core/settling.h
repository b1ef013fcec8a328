/* Settling: everything that happens to a record after its delivery report, on the settling connection: acknowledged rows are purged,
 * rows that block their key are read again, or leave the table as poison (removal.h).
 *
 * A purge that fails is repeated, it is idempotent. One that the database refuses because of a row is halved until that row stands
 * alone; then the row waits and the others pass. Purging needs no leadership. */
#ifndef HV_CORE_SETTLING_H
#define HV_CORE_SETTLING_H

#include "core/backoff.h"
#include "core/config.h"
#include "core/event.h"
#include "core/sending.h"

enum hv_settle_state { HV_SETTLE_DOWN, HV_SETTLE_IDLE, HV_SETTLE_PURGING, HV_SETTLE_FETCHING, HV_SETTLE_PARKING, HV_SETTLE_SKIPPING };

struct hv_settle {
    struct hv_slots *slots;
    struct hv_sender *sender;
    struct hv_isolation *iso;
    struct hv_random *dice;
    const struct hv_core_config *config;
    enum hv_settle_state state;
    struct hv_list purging; /* in the statement that is out */
    struct hv_list stuck;   /* refused alone; tried again one at a time */
    struct hv_list gone;    /* purged while a mark was out, whose reply may still hold them: known until it came */
    uint32_t batch;         /* rows of the next purge at most */
    bool one_stuck;         /* the statement that is out is for a stuck row */
    hv_time retry_at;
    hv_time stuck_until;
    bool purge_next;        /* the last statement was another one: they take turns */
    struct hv_backoff backoff, stuck_backoff;
    int64_t *ids;           /* room for the ids of one statement */
};

void hv_settle_init(struct hv_settle *settle, struct hv_slots *slots, struct hv_sender *sender, struct hv_isolation *iso,
                    struct hv_random *dice, const struct hv_core_config *config);
void hv_settle_fini(struct hv_settle *settle);

void hv_settle_up(struct hv_settle *settle);
/* The connection is gone; what was out will be done again. */
void hv_settle_down(struct hv_settle *settle, hv_time now);
void hv_settle_refused(struct hv_settle *settle, bool because_of_a_row, hv_time now, struct hv_actions *out);
/* mark_is_out: the claiming connection waits for a mark, which may have taken the rows before they were deleted. */
void hv_settle_purged(struct hv_settle *settle, bool mark_is_out, struct hv_actions *out);
/* That mark is answered. */
void hv_settle_mark_answered(struct hv_settle *settle);
/* Rows were parked: none of them is in the table any more. */
void hv_settle_parked(struct hv_settle *settle, bool mark_is_out, struct hv_actions *out);
/* The rows that were asked for came. */
void hv_settle_fetched(struct hv_settle *settle);

/* Sends what is due. `leading`: rows may be read again. `hurry`: without gathering. */
void hv_settle_advance(struct hv_settle *settle, bool leading, bool hurry, hv_time now, struct hv_actions *out);

/* Rows acknowledged and not purged yet, without those that the database refuses to delete. */
uint32_t hv_settle_pending(const struct hv_settle *settle);
hv_time hv_settle_deadline(const struct hv_settle *settle);

#endif
