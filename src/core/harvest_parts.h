/* What the files of struct hv_harvest share; nobody else includes this, but the simulator, to look at them.
 *
 *   harvest.c          made, freed; an event goes to the part that it is for; the turn calls the parts in order
 *   harvest_tenure.c   from standing by to leading and back: ids of leaders, promotion, the lease, hand-over, stop, leaving the group
 *   harvest_supply.c   from the table to the shards: how many rows may be claimed, those that come, claiming all anew
 *   harvest_view.c     what harvest.h shows of it: figures, keys and topics that wait
 *
 * Every part may read all fields; it changes those that stand under its name. What is above them has functions of its own. Supply calls
 * tenure, and harvest.c calls both; nothing calls back. */
#ifndef HV_CORE_HARVEST_PARTS_H
#define HV_CORE_HARVEST_PARTS_H

#include "core/claiming.h"
#include "core/harvest.h"
#include "core/intake.h"
#include "core/meter.h"
#include "core/settling.h"

/* A stop: what is in flight is drained, then the group is left. */
enum hv_stop { HV_RUNNING, HV_DRAINING, HV_LEAVING, HV_STOPPED };

struct hv_harvest {
    struct hv_core_config config;
    struct hv_random dice;
    hv_time now, deadline;
    struct hv_slots slots;
    struct hv_shards shards;
    struct hv_isolation isolation;
    struct hv_sender sender;
    struct hv_settle settle;
    struct hv_meter meter;
    uint32_t given_up; /* records whose outcome stayed unknown while stopping */

    /* tenure */
    struct hv_leading leading;
    uint8_t leader_id[HV_UUID_BYTES], spare_id[HV_UUID_BYTES];
    bool spare, spare_asked;
    uint64_t term; /* rises when leadership ends: replies to marks of an earlier term are void */
    enum hv_stop stop;
    hv_time drain_until; /* while draining, for a stop or a hand-over */
    bool handing_over;   /* the application was told of the revoke and is not done with it yet */
    bool abandoned;      /* ... and the group does not wait any more */
    hv_time hand_over_until;

    /* supply */
    struct hv_intake intake;
    struct hv_claim claim;
    int64_t *known_ids; /* room for those that a claim leaves out */
    hv_time queue_check, left_refresh;
};

/* ---- tenure ---- */

/* Records may be claimed and sent: we are the leader, and are not stopping. */
bool hv_tenure_leads(const struct hv_harvest *h);

/* Ends leadership if the lease is over; before anything else is done at a time. */
void hv_tenure_check_lease(struct hv_harvest *h, struct hv_actions *out);

/* At the beginning of a turn: asks for an id, sends a heartbeat. */
void hv_tenure_begin_turn(struct hv_harvest *h, struct hv_actions *out);

/* Goes on with a hand-over, a stop, a promotion as far as may be. After what was given up was told. True: leadership begins. */
bool hv_tenure_advance(struct hv_harvest *h, struct hv_actions *out);

/* When something here falls due. */
hv_time hv_tenure_deadline(const struct hv_harvest *h);

/* An event of the group, of the application that winds up, of stopping; an id that was asked for. */
void hv_tenure_event(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out);

/* There is a spare id: it is ours now, for a term or a refresh. */
void hv_tenure_take_spare_id(struct hv_harvest *h);

/* Who does not lead holds nothing that is not sent. */
void hv_tenure_forget_unsent(struct hv_harvest *h, struct hv_actions *out);

/* ---- supply ---- */

/* Leadership begins: all is claimed from the start. */
void hv_supply_begin(struct hv_harvest *h);

/* An event of the connection that claims; rows of refused records that were read again. */
void hv_supply_event(struct hv_harvest *h, const struct hv_event *event, struct hv_actions *out);

/* Asks for rows if it is time and there is room. */
void hv_supply_advance(struct hv_harvest *h, struct hv_actions *out);

/* When something here falls due. */
hv_time hv_supply_deadline(const struct hv_harvest *h);

#endif
