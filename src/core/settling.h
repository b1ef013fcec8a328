/* Settling: everything that happens to a record after its delivery report, on the settling connection: acknowledged rows are purged,
 * rows that block their key are read again, or leave the table as poison (removal.h).
 *
 * A purge that fails is repeated, it is idempotent. One that the database refuses because of a row is halved until that row stands
 * alone; then the row waits and the others pass. One that waited for a row which somebody keeps locked is repeated without such rows.
 * Purging needs no leadership.
 *
 * What is deleted is the very version of the row that was sent: its id may have been given to another row meanwhile, or somebody changed
 * it. So when fewer rows were deleted than asked for, those that are still there are read (*checked*): another version is a new record,
 * which has to be sent; the same one waits, and is tried again. */
#ifndef HV_CORE_SETTLING_H
#define HV_CORE_SETTLING_H

#include "core/backoff.h"
#include "core/config.h"
#include "core/event.h"
#include "core/intake.h"
#include "core/sending.h"

enum hv_settle_state {
    HV_SETTLE_DOWN,
    HV_SETTLE_IDLE,
    HV_SETTLE_PURGING,
    HV_SETTLE_FETCHING,
    HV_SETTLE_PARKING,
    HV_SETTLE_SKIPPING,
    HV_SETTLE_CHECKING,
};

struct hv_settle {
    struct hv_slots *slots;
    struct hv_sender *sender;
    struct hv_isolation *iso;
    struct hv_random *dice;
    const struct hv_core_config *config;
    enum hv_settle_state state;
    struct hv_list purging; /* in the statement that is out, or to be checked */
    struct hv_list stuck;   /* refused alone, or not deleted; tried again by themselves */
    struct hv_list gone;    /* purged while a mark was out, whose reply may still hold them: known until it came */
    uint32_t batch;         /* rows of the next purge at most */
    uint32_t stuck_batch;   /* ... of stuck ones */
    bool of_stuck;          /* the statement that is out is for stuck rows */
    bool but_locked;        /* the next purge leaves out rows that somebody keeps locked */
    bool check;             /* of what was asked for, some was not deleted */
    hv_time retry_at;
    hv_time stuck_until;
    bool purge_next;        /* the last statement was another one: they take turns */
    struct hv_backoff backoff, stuck_backoff;
    int64_t *ids;           /* room for the ids of one statement, and their versions */
    uint32_t *versions, removed_versions[HV_REMOVALS];
};

void hv_settle_init(struct hv_settle *settle, struct hv_slots *slots, struct hv_sender *sender, struct hv_isolation *iso,
                    struct hv_random *dice, const struct hv_core_config *config);
void hv_settle_fini(struct hv_settle *settle);

void hv_settle_up(struct hv_settle *settle);
/* The connection is gone; what was out will be done again. */
void hv_settle_down(struct hv_settle *settle, hv_time now);
void hv_settle_refused(struct hv_settle *settle, bool because_of_a_row, bool locked, hv_time now, struct hv_actions *out);
/* So many rows were deleted. mark_is_out: the claiming connection waits for a mark, which may have taken the rows before they were
 * deleted. */
void hv_settle_purged(struct hv_settle *settle, size_t deleted, bool mark_is_out, struct hv_actions *out);
/* That mark is answered. */
void hv_settle_mark_answered(struct hv_settle *settle);
/* So many rows were parked. */
void hv_settle_parked(struct hv_settle *settle, size_t parked, bool mark_is_out, struct hv_actions *out);
/* The rows that were asked for came. */
void hv_settle_fetched(struct hv_settle *settle);

/* Those of the rows to be checked that are there (ids ascending; `cut`: those above the last one were not looked at). Their payloads are the
 * core's, or released. `take`: new records may be taken. */
void hv_settle_checked(struct hv_settle *settle, struct hv_intake *intake, const struct hv_event *event, bool take, bool mark_is_out,
                       hv_time now, struct hv_actions *out);

/* Sends what is due. `leading`: rows may be read again. `hurry`: without gathering. */
void hv_settle_advance(struct hv_settle *settle, bool leading, bool hurry, hv_time now, struct hv_actions *out);

/* Is a statement out? */
static inline bool hv_settle_is_waiting(const struct hv_settle *settle) {
    return settle->state != HV_SETTLE_DOWN && settle->state != HV_SETTLE_IDLE;
}

/* Rows acknowledged and not purged yet, without those that the database refuses to delete. */
uint32_t hv_settle_pending(const struct hv_settle *settle);
hv_time hv_settle_deadline(const struct hv_settle *settle);

#endif
