/* Removal of poison: where the policy is to park or to skip, the row of a record that was refused leaves the table, on the settling
 * connection, and then its key goes on. Until that is answered nothing of the key is sent: whoever puts a parked row back relies on it, and
 * a row that stays must not be overtaken. What is asked for is asked for again until it is known to be done; when the database refuses it,
 * the key is blocked like any other, and all begins anew with its next try.
 *
 * The slot of such a record stays taken, so that a row that comes again is known, until no claim can bring it any more. */
#ifndef HV_CORE_REMOVAL_H
#define HV_CORE_REMOVAL_H

#include "core/isolation.h"

/* May rows be removed that way now? */
static inline bool hv_removal_is_possible(const struct hv_isolation *iso, enum hv_poison policy, hv_time now) {
    return policy != HV_POISON_BLOCK && now >= iso->removals[policy].not_before;
}

/* The first record of the key's queue was refused: it goes. */
void hv_removal_begin(struct hv_isolation *iso, uint32_t key, enum hv_poison policy, struct hv_actions *out);

/* Asks for what waits to be parked, or else to be skipped: up to HV_REMOVALS rows. HV_POISON_BLOCK: nothing waits. Lent until the next
 * call. */
enum hv_poison hv_removal_ask(struct hv_isolation *iso, hv_time now, const struct hv_removed **ret_rows, const int64_t **ret_ids,
                              size_t *ret_count);
static inline bool hv_removal_waits(const struct hv_isolation *iso) {
    return iso->removals[HV_POISON_PARK].waiting + iso->removals[HV_POISON_SKIP].waiting > 0;
}

/* Nothing of it is asked for any more; the slot is free. */
void hv_removal_forget(struct hv_isolation *iso, uint32_t key);

/* What is asked for: so many rows, these. */
uint32_t hv_removal_asked(const struct hv_isolation *iso);
const int64_t *hv_removal_asked_ids(struct hv_isolation *iso, size_t *ret_count);
/* Was another row seen in the place of one of them, since the last call that asked? */
bool hv_removal_sees_others(const struct hv_isolation *iso);
/* Of what is asked for, this row is still there: it is not removed as it is now, its key is blocked until it was read again. */
void hv_removal_stays(struct hv_isolation *iso, int64_t id, hv_time now, struct hv_actions *out);

/* What was asked for is done: the rows are gone; keys go on. Slots go to `gone`. */
void hv_removal_done(struct hv_isolation *iso, struct hv_list *gone, struct hv_actions *out);
/* ... is not known to be done: it is asked for again. */
void hv_removal_again(struct hv_isolation *iso);
/* ... was refused, because of one of the rows (others may pass), or altogether. */
void hv_removal_refused(struct hv_isolation *iso, bool because_of_a_row, hv_time now, struct hv_actions *out);
/* What was told of rows that were parked is not used any more. */
void hv_removal_forget_told(struct hv_isolation *iso);

#endif
