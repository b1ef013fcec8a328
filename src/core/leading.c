/* See leading.h. */
#include "core/leading.h"

#include "base/fsm.h"

/* While heartbeats come back, so many fall into a lease. One that is not back when the least interval is over is not waited for. */
#define BEATS_A_LEASE 20

static const struct hv_fsm_state roles[] = {
    [HV_STANDBY] = {"standby", HV_TO(HV_CANDIDATE)},
    [HV_CANDIDATE] = {"candidate", HV_TO(HV_LEADER) | HV_TO(HV_STANDBY)},
    [HV_LEADER] = {"leader", HV_TO(HV_FENCED) | HV_TO(HV_REVOKING) | HV_TO(HV_STANDBY)},
    [HV_FENCED] = {"fenced", HV_TO(HV_LEADER) | HV_TO(HV_STANDBY)},
    [HV_REVOKING] = {"revoking", HV_TO(HV_STANDBY)},
};

void hv_leading_init(struct hv_leading *leading, const struct hv_core_config *config) {
    *leading = (struct hv_leading){
        .role = HV_STANDBY,
        .lease_end = INT64_MIN,
        .next_beat = HV_NEVER,
        .interval = config->heartbeat_interval,
        .timeout = config->heartbeat_timeout,
        .wall_offset = config->wall_offset,
    };
}

void hv_leading_move(struct hv_leading *leading, enum hv_role to) {
    leading->role = hv_fsm_move("leading", roles, leading->role, to);
    if (to == HV_STANDBY) {
        leading->next_beat = HV_NEVER;
        leading->lease_end = INT64_MIN;
        leading->beat_count = 0;
    }
}

void hv_leading_assigned(struct hv_leading *leading, hv_time now) {
    hv_leading_move(leading, HV_CANDIDATE);
    leading->next_beat = now;
    leading->beat_count = 0;
    leading->lease_end = INT64_MIN;
}

void hv_leading_heartbeat(struct hv_leading *leading, int64_t stamp) {
    uint32_t known = leading->beat_count < HV_BEATS ? leading->beat_count : HV_BEATS;
    for (uint32_t i = 0; i < known; i++) {
        if (leading->beats[i].stamp == stamp) {
            leading->lease_end = hv_time_max(leading->lease_end, leading->beats[i].at + leading->timeout);
            if (i == (leading->beat_count - 1) % HV_BEATS) { /* the latest: none is on its way that could be lost */
                leading->next_beat = hv_time_max(leading->next_beat, leading->beats[i].at + leading->timeout / BEATS_A_LEASE);
            }
            return;
        }
    }
}

bool hv_leading_lease(const struct hv_leading *leading, hv_time now) {
    return now < leading->lease_end;
}

bool hv_leading_beat(struct hv_leading *leading, hv_time now, int64_t *ret_stamp) {
    if (leading->role == HV_STANDBY || now < leading->next_beat) {
        return false;
    }
    uint32_t at = leading->beat_count++ % HV_BEATS;
    leading->beats[at].stamp = leading->wall_offset + now * 1000;
    leading->beats[at].at = now;
    leading->next_beat = now + leading->interval;
    *ret_stamp = leading->beats[at].stamp;
    return true;
}

hv_time hv_leading_deadline(const struct hv_leading *leading) {
    hv_time deadline = leading->next_beat;
    if (leading->role == HV_LEADER || leading->role == HV_REVOKING) {
        deadline = hv_time_min(deadline, leading->lease_end);
    }
    return deadline;
}
