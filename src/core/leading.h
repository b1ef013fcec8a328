/* Who leads: roles, heartbeats and the lease. Decides nothing about records.
 *
 *                assigned                 first own heartbeat read
 *   STANDBY ───────────────► CANDIDATE ───────────────────────────► LEADER ──── lease over ────► FENCED
 *      ▲                         │                                  │  ▲                           │
 *      │◄──── revoked, lost ─────┘                                  │  └──── own heartbeat read ───┘
 *      │◄──── drained, answered ──── REVOKING ◄──── revoked ────────┘
 *
 * A lease runs for heartbeat_timeout from the moment at which a heartbeat was *sent* that came back through Kafka. The next one is due
 * heartbeat_interval later, or a twentieth of the lease later if that is more and the one before has come back: a heartbeat costs two
 * requests and wakes three threads, and a lease that was just renewed gains nothing by it. */
#ifndef HV_CORE_LEADING_H
#define HV_CORE_LEADING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"
#include "core/config.h"

enum hv_role { HV_STANDBY, HV_CANDIDATE, HV_LEADER, HV_FENCED, HV_REVOKING };

#define HV_BEATS 128 /* heartbeats that may be on their way; older ones are taken as lost */

struct hv_leading {
    enum hv_role role;
    bool answer_owed; /* the group waits for us to let a revoke through */
    hv_time lease_end;
    hv_time next_beat;
    hv_time interval, timeout;
    int64_t wall_offset;
    struct {
        int64_t stamp;
        hv_time at;
    } beats[HV_BEATS];
    uint32_t beat_count;
};

void hv_leading_init(struct hv_leading *leading, const struct hv_core_config *config);

/* Moves to a role; the table of allowed moves is the picture above. */
void hv_leading_move(struct hv_leading *leading, enum hv_role to);

/* The leader partition became ours: heartbeats sent earlier count no more. */
void hv_leading_assigned(struct hv_leading *leading, hv_time now);

/* A heartbeat with our name was read. One that we did not send in this assignment is ignored. */
void hv_leading_heartbeat(struct hv_leading *leading, int64_t stamp);

/* Does a lease stand at `now`? */
bool hv_leading_lease(const struct hv_leading *leading, hv_time now);

/* Is a heartbeat to be sent now? If so it is taken down as sent, and *ret_stamp is what it says. */
bool hv_leading_beat(struct hv_leading *leading, hv_time now, int64_t *ret_stamp);

/* When something here falls due. */
hv_time hv_leading_deadline(const struct hv_leading *leading);

#endif
