/* The group: who owns the leader partition. It goes to another member only after the owner answered, left,
 * or can no longer hold a lease (the session time-out is well above heartbeat_timeout). Heartbeats come back
 * to the owner only. */
#include "sim.h"

struct beat_arg {
    int member;
    uint64_t life;
    int64_t stamp;
    hv_time sent;
};

struct lost_arg {
    int member;
    uint64_t life;
};

void sim_group_start(struct sim *sim) {
    sim->group = (struct sim_group){.owner = -1, .assign_at = sim->now + sim_span(sim, HV_MS(5), HV_MS(300))};
}

/* The adapter says, after a revoke, that the partition is not the member's. */
static void tell_unassigned(struct sim_member *member) {
    if (sim_coin(member->sim, 80)) {
        sim_tell(member, (struct hv_event){.type = HV_EV_ASSIGNED}, NULL);
    }
}

static void vacate(struct sim *sim, hv_time at) {
    sim->group.owner = -1;
    sim->group.revoking = false;
    sim->group.assign_at = hv_time_max(at, sim->now) + sim_span(sim, HV_US(1), HV_MS(500));
}

static struct sim_member *owner(struct sim *sim) {
    return sim->group.owner < 0 ? NULL : &sim->members[sim->group.owner];
}

/* ---- heartbeats ---- */

static void beat_returns(struct sim *sim, void *arg) {
    const struct beat_arg *a = arg;
    struct sim_member *member = sim_member_in(sim, a->member, a->life);
    if (member == NULL || sim->group.owner != a->member || sim->now < member->cut_until) {
        return;
    }
    member->lease_end = hv_time_max(member->lease_end, a->sent + member->config.heartbeat_timeout);
    sim_tell(member, (struct hv_event){.type = HV_EV_HEARTBEAT, .stamp = a->stamp}, NULL);
}

void sim_heartbeat(struct sim_member *member, int64_t stamp) {
    struct sim *sim = member->sim;
    hv_time delay = sim_span(sim, HV_US(200), sim_chance(sim, sim->weather.cuts * 20) ? HV_SECONDS(2)
                             : HV_MS(5));
    struct beat_arg *a = sim_later(sim, delay, beat_returns, sizeof *a);
    *a = (struct beat_arg){member->index, member->life, stamp, sim->now};
}

/* ---- changes ---- */

void sim_group_revoke(struct sim *sim) {
    struct sim_member *member = owner(sim);
    if (member == NULL || sim->group.revoking || member->stopping) {
        return;
    }
    sim->group.revoking = true;
    sim_trace(sim, "the group revokes m%d", member->index);
    sim_tell(member, (struct hv_event){.type = HV_EV_REVOKED}, NULL);
}

void sim_group_answered(struct sim_member *member) {
    if (!member->answer_expected) {
        sim_fail(member->sim, "an answer that nobody waits for");
    }
    if (sim_in_flight(member) > 0) {
        sim_fail(member->sim, "m%d lets the partition go with records in flight", member->index);
    }
    member->answer_expected = false;
    if (member->sim->group.owner == member->index && member->sim->group.revoking) {
        vacate(member->sim, 0);
        tell_unassigned(member);
    }
}

static void hear_of_loss(struct sim *sim, void *arg) {
    const struct lost_arg *a = arg;
    struct sim_member *member = sim_member_in(sim, a->member, a->life);
    if (member != NULL && member->lost) {
        member->lost = false;
        sim_tell(member, (struct hv_event){.type = HV_EV_REVOKED, .flag = true}, NULL);
        tell_unassigned(member);
    }
}

void sim_group_lose(struct sim *sim) {
    struct sim_member *member = owner(sim);
    if (member == NULL || member->core == NULL) {
        return;
    }
    sim_trace(sim, "the group loses m%d", member->index);
    vacate(sim, member->lease_end);
    member->lost = true;
    struct lost_arg *a = sim_later(sim, sim_span(sim, 0, sim_coin(sim, 50) ? HV_MS(1) : HV_SECONDS(3)),
                                   hear_of_loss, sizeof *a);
    *a = (struct lost_arg){member->index, member->life};
}

void sim_group_left(struct sim_member *member) {
    if (member->sim->group.owner == member->index) {
        vacate(member->sim, 0);
    }
}

void sim_group_died(struct sim_member *member) {
    if (member->sim->group.owner == member->index) {
        vacate(member->sim, member->lease_end);
    }
}

static void assign(struct sim *sim, struct sim_member *member) {
    sim->group.owner = member->index;
    sim_trace(sim, "the group assigns m%d", member->index);
    if (member->lost) {
        member->lost = false;
        sim_tell(member, (struct hv_event){.type = HV_EV_REVOKED, .flag = true}, NULL);
    }
    for (int i = 0; i < sim->weather.members; i++) {
        struct sim_member *other = &sim->members[i];
        if (other->core != NULL && (other == member || (!other->lost && sim_coin(sim, 30)))) {
            sim_tell(other, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = other == member}, NULL);
        }
    }
}

void sim_group_tick(struct sim *sim) {
    if (sim->group.revoking && sim_chance(sim, sim->weather.loses)) {
        sim_group_lose(sim); /* the group does not wait for ever */
    }
    if (sim->group.owner >= 0 || sim->now < sim->group.assign_at) {
        return;
    }
    struct sim_member *member = &sim->members[hv_random_below(&sim->dice, (uint64_t)sim->weather.members)];
    if (member->core != NULL && !member->stopping) {
        assign(sim, member);
    }
}
