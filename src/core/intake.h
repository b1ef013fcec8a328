/* Intake: rows that come from the table become records in memory: in their shard's queue, in that of their key if it is in trouble, or not at
 * all, if they have to be left in the table for now. */
#ifndef HV_CORE_INTAKE_H
#define HV_CORE_INTAKE_H

#include "core/event.h"
#include "core/isolation.h"
#include "core/sending.h"
#include "core/shards.h"
#include "core/slots.h"

struct hv_intake {
    struct hv_slots *slots;
    struct hv_shards *shards;
    struct hv_isolation *iso;
    struct hv_sender *sender;
    struct hv_list *gone; /* slots of rows that are deleted, known until no claim can bring them any more */
};

enum hv_intake_result {
    HV_INTAKE_TOOK, /* it was not held, and is now */
    HV_INTAKE_HAD,  /* nothing new: it is held, or of a key that claims can be told to leave out */
    HV_INTAKE_LEFT, /* it is left in the table, and claims cannot be told of its key: for that it may come again */
    HV_INTAKE_FULL, /* there is no room for it */
};

/* A row of a claim. Its payload is the core's, or released. */
enum hv_intake_result hv_intake_row(struct hv_intake *in, const struct hv_claimed *row, hv_time now, struct hv_actions *out);

/* The whole answer to HV_ACT_FETCH: what came is tried alone, what did not is gone. `cut`: rows behind the last one may be there.
 * False: there was no room for one of another key now. */
bool hv_intake_fetched(struct hv_intake *in, const struct hv_claimed *rows, size_t count, bool cut, hv_time now, struct hv_actions *out);

/* The row's payload is not used. */
void hv_intake_release(const struct hv_claimed *row, struct hv_actions *out);

#endif
