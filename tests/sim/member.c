/* A process: its inbox, the turns of its loop as the runtime makes them (all that came, then HV_EV_TURN,
 * then the actions in order), and what it may do when, by our own books. */
#include "sim.h"

#include <string.h>

#include "base/memory.h"

#define IDLE_TURNS_MAX 700 /* a second, without anything to tell: more is a busy loop */

struct turn_arg {
    int member;
    uint64_t life;
    hv_time at;
};

struct start_arg {
    int member;
};

static void turn(struct sim *sim, void *arg);

struct sim_member *sim_member_in(struct sim *sim, int index, uint64_t life) {
    struct sim_member *member = &sim->members[index];
    return member->core != NULL && member->life == life ? member : NULL;
}

static void wake(struct sim_member *member, hv_time at) {
    at = hv_time_max(at, member->sim->now);
    if (at >= member->turn_at) {
        return;
    }
    member->turn_at = at;
    struct turn_arg *a = sim_later(member->sim, at - member->sim->now, turn, sizeof *a);
    *a = (struct turn_arg){member->index, member->life, at};
}

/* ---- payloads ---- */

struct sim_payload *sim_payload_new(struct sim *sim, int64_t id) {
    struct sim_payload *payload = hv_calloc(1, sizeof *payload);
    *payload = (struct sim_payload){.id = id, .key = sim->rows[id].key, .next = sim->payloads};
    sim->payloads = payload;
    return payload;
}

static void release(void *user, void *memory) {
    struct sim_member *member = user;
    struct sim_payload *payload = memory;
    if (payload->released || payload->holder != member) {
        sim_fail(member->sim, "the payload of %lld is released %s", (long long)payload->id,
                 payload->released ? "twice" : "by one who does not hold it");
        return;
    }
    if (payload->in_clients > 0 && member->core != NULL) {
        sim_fail(member->sim, "the payload of %lld is released while a client has it",
                 (long long)payload->id);
    }
    payload->released = true;
    member->payloads--;
}

/* ---- the inbox ---- */

static void put(struct sim_member *member, struct sim_mail mail) {
    if (member->inbox_count == member->inbox_capacity) {
        member->inbox_capacity = member->inbox_capacity == 0 ? 32 : member->inbox_capacity * 2;
        member->inbox = hv_realloc(member->inbox, member->inbox_capacity, sizeof *member->inbox);
    }
    member->inbox[member->inbox_count++] = mail;
    wake(member, member->sim->now + sim_span(member->sim, 0, HV_US(300)));
}

void sim_tell(struct sim_member *member, struct hv_event event, void *owned) {
    put(member, (struct sim_mail){.event = event, .owned = owned, .key = -1});
}

void sim_tell_of(struct sim_member *member, struct hv_event event, const struct sim_client *client,
                 int key) {
    put(member, (struct sim_mail){.event = event, .client = client->uid, .key = key});
}

void sim_tell_report(struct sim_member *member, struct hv_report report, const struct sim_client *client, int key) {
    struct hv_event event = {.type = HV_EV_REPORTS, .lane = client->lane, .count = 1};
    put(member, (struct sim_mail){.event = event, .report = report, .client = client->uid, .key = key});
}

void sim_drop_mail_of(struct sim_member *member, uint64_t client) {
    size_t kept = 0;
    for (size_t i = 0; i < member->inbox_count; i++) {
        struct sim_mail *mail = &member->inbox[i];
        if (mail->client != client) {
            member->inbox[kept++] = *mail;
        } else if (mail->key >= 0) {
            member->in_flight[mail->key][mail->event.lane]--;
        }
    }
    member->inbox_count = kept;
}

static void take_payloads(struct sim_member *member, const struct hv_event *event) {
    for (size_t i = 0; i < event->count; i++) {
        struct sim_payload *payload = event->rows[i].payload;
        if (payload != NULL) {
            payload->holder = member;
            member->payloads++;
        }
    }
}

/* What a member knows once it was told. */
static void note_told(struct sim_member *member, const struct sim_mail *mail) {
    const struct hv_event *event = &mail->event;
    struct sim *sim = member->sim;
    if (mail->key >= 0) {
        member->in_flight[mail->key][event->lane]--;
    }
    switch (event->type) {
    case HV_EV_CLAIMED:
        take_payloads(member, event);
        member->links[0].busy = member->links[0].remarks = false;
        break;
    case HV_EV_FETCHED:
        take_payloads(member, event);
        member->links[1].busy = false;
        break;
    case HV_EV_WRITERS:
    case HV_EV_LISTED:
    case HV_EV_LISTENING:
    case HV_EV_CLAIM_REFUSED:
        member->links[0].busy = member->links[0].remarks = false;
        break;
    case HV_EV_PURGED:
    case HV_EV_PARKED:
    case HV_EV_SETTLE_REFUSED:
        member->links[1].busy = false;
        break;
    case HV_EV_ASSIGNED:
        member->entitled = event->flag;
        break;
    case HV_EV_REVOKED:
        member->entitled = false;
        member->answer_expected = !event->flag;
        member->answer_due = sim->now + member->config.drain_timeout +
                             member->config.hand_over_limit + HV_SECONDS(6);
        member->revoked_at = member->winding_up ? member->revoked_at : sim->now;
        break;
    case HV_EV_LEFT:
        member->entitled = member->answer_expected = false;
        break;
    case HV_EV_STOP:
    case HV_EV_HURRY:
        if (!member->answer_expected && !member->winding_up && !member->stopping) {
            member->revoked_at = sim->now;
        }
        member->stopping = true;
        member->hurrying = member->hurrying || event->type == HV_EV_HURRY;
        break;
    case HV_EV_HANDED_OVER:
        member->winding_up = false;
        break;
    default:
        break;
    }
}

static const char *const event_names[] = {
    "turn",    "leader id",    "assigned", "revoked",     "heartbeat",     "handed over", "left",       "claim up",
       "claim down",
    "refused", "claimed",      "listed", "writers", "listening", "wake", "settle up",   "settle down",   "settle refused", "purged",
    "fetched", "parked",
    "ready",   "client failed", "reports", "bounced",     "retry",    "stop",          "hurry",
};

static void trace_event(const struct sim_member *member, const struct hv_event *event) {
    if (member->sim->options.trace) {
        sim_trace(member->sim, "m%d < %s flag %d lane %d delivery %d ticket %llx count %zu", member->index,
                  event_names[event->type], event->flag, event->lane, (int)event->delivery,
                  (unsigned long long)event->ticket, event->count);
        for (size_t i = 0; event->type == HV_EV_CLAIMED && i < event->count; i++) {
            sim_trace(member->sim, "      row %lld%s", (long long)event->rows[i].id, event->rows[i].bare ? " bare" : "");
        }
        for (size_t i = 0; event->type == HV_EV_REPORTS && i < event->count; i++) {
            sim_trace(member->sim, "      ticket %llx delivery %d", (unsigned long long)event->reports[i].ticket, (int)event->reports[i].delivery);
        }
    }
}

static void tell_all(struct sim_member *member) {
    struct sim_mail *inbox = member->inbox;
    size_t count = member->inbox_count;
    member->inbox = NULL;
    member->inbox_count = member->inbox_capacity = 0;
    for (size_t i = 0; i < count; i++) {
        if (inbox[i].event.type == HV_EV_REPORTS) {
            inbox[i].event.reports = &inbox[i].report; /* it stays where it is from now on */
        }
        note_told(member, &inbox[i]);
        trace_event(member, &inbox[i].event);
        hv_harvest_step(member->core, &inbox[i].event, member->sim->now, &member->actions);
        free(inbox[i].owned);
    }
    free(inbox);
}

/* ---- actions ---- */

uint32_t sim_in_flight(const struct sim_member *member) {
    uint32_t all = 0;
    for (uint32_t i = 0; i < SIM_KEYS; i++) {
        all += member->in_flight[i][0] + member->in_flight[i][1];
    }
    return all;
}

static void check_produce(struct sim_member *member, const struct hv_action *action) {
    struct sim *sim = member->sim;
    const struct sim_payload *payload = action->payload;
    uint32_t *in_flight = member->in_flight[payload->key];
    if (!member->entitled || sim->now >= member->lease_end || member->gone || member->stopping) {
        sim_fail(sim, "m%d produces %lld %s", member->index, (long long)payload->id,
                 member->gone || member->stopping ? "while it stops" : "without a lease");
    }
    if (payload->released || payload->flaw == SIM_DEFECTIVE) {
        sim_fail(sim, "m%d produces %lld, which is %s", member->index, (long long)payload->id,
                 payload->released ? "released" : "defective");
    }
    if (in_flight[1 - action->lane] > 0 || (action->lane == HV_LANE_SUSPECTS &&
                                            in_flight[action->lane] > 0)) {
        sim_fail(sim, "m%d sends of key %u in two lanes, or two suspects at once", member->index, payload->key);
    }
    in_flight[action->lane]++;
    uint32_t all = sim_in_flight(member);
    if (all > member->config.max_in_flight_records) {
        sim_fail(sim, "m%d has %u records in flight, more than max_in_flight_records", member->index, all);
    }
}

struct done_arg {
    int member;
    uint64_t life;
};

static void application_done(struct sim *sim, void *arg) {
    const struct done_arg *a = arg;
    struct sim_member *member = sim_member_in(sim, a->member, a->life);
    if (member != NULL && member->winding_up) {
        sim_tell(member, (struct hv_event){.type = HV_EV_HANDED_OVER}, NULL);
    }
}

/* Most applications are done at once, some take their time, few forget to say so. */
static void wind_up(struct sim_member *member) {
    struct sim *sim = member->sim;
    member->winding_up = true;
    if (sim_coin(sim, 5)) {
        return;
    }
    hv_time takes = sim_coin(sim, 30) ? sim_span(sim, 0, HV_SECONDS(6)) : 0;
    struct done_arg *a = sim_later(sim, takes, application_done, sizeof *a);
    *a = (struct done_arg){member->index, member->life};
}

/* Nobody else may lead before the application is done or its time is up. */
static void check_wound_up(struct sim_member *member, const char *what) {
    bool over = member->hurrying || member->sim->now >= member->revoked_at + member->config.hand_over_limit;
    if (member->winding_up && !over) {
        sim_fail(member->sim, "m%d %s while its application winds up", member->index, what);
    }
    member->winding_up = false;
}

/* What the application is told of leadership must make sense. */
static void check_leadership(struct sim_member *member, const struct hv_action *action) {
    bool led = member->leads;
    switch (action->notice) {
    case HV_NOTICE_ACQUIRED:
    case HV_NOTICE_REFRESHED:
        if (led != (action->notice == HV_NOTICE_REFRESHED)) {
            sim_fail(member->sim, "m%d tells of a leadership that %s", member->index, led ? "it has"
                     : "it does not have");
        }
        if (action->notice == HV_NOTICE_ACQUIRED) {
            check_wound_up(member, "leads again");
        }
        member->leads = true;
        memcpy(member->leader_id, action->uuid, HV_UUID_BYTES);
        break;
    case HV_NOTICE_REVOKED:
    case HV_NOTICE_FENCED:
        if (!led && !(action->notice == HV_NOTICE_FENCED && member->winding_up)) {
            sim_fail(member->sim, "m%d tells of the end of a leadership that was over", member->index);
        }
        member->leads = member->winding_up = false;
        if (action->notice == HV_NOTICE_REVOKED) {
            wind_up(member);
        }
        break;
    default:
        break;
    }
}

static void notice(struct sim_member *member, const struct hv_action *action) {
    struct sim *sim = member->sim;
    static const char *const names[] = {"acquired", "refreshed", "revoked", "fenced",      "rewinding",
                                        "stalled",
                                        "flowing",  "blocked",   "unblocked", "parked", "skipped", "unpurgeable", "meter"};
    sim_trace(sim, "m%d ! %s id %lld %s", member->index, names[action->notice], (long long)action->id,
              action->reason == NULL ? "" : action->reason);
    if (action->notice == HV_NOTICE_BLOCKED && ((struct sim_payload *)action->payload)->released) {
        sim_fail(sim, "the notice on %lld comes after the release of its payload", (long long)action->id);
    }
    if ((action->notice == HV_NOTICE_REWINDING && sim->weather.no_rewind) ||
        (action->notice == HV_NOTICE_REFRESHED && sim->weather.no_refresh)) {
        sim_fail(sim, "m%d %s without need: %s", member->index, names[action->notice], action->reason);
    }
    check_leadership(member, action);
    sim->count.rewinds += action->notice == HV_NOTICE_REWINDING;
    sim->count.refreshes += action->notice == HV_NOTICE_REFRESHED;
    sim->count.blocked += action->notice == HV_NOTICE_BLOCKED;
    sim->count.acquired += action->notice == HV_NOTICE_ACQUIRED;
    sim->count.fenced += action->notice == HV_NOTICE_FENCED;
}

static void new_leader_id(struct sim_member *member) {
    uint64_t *uuid = hv_calloc(2, sizeof *uuid);
    uuid[0] = ++member->sim->uid;
    uuid[1] = hv_random_next(&member->sim->dice);
    sim_tell(member, (struct hv_event){.type = HV_EV_LEADER_ID, .uuid = (uint8_t *)uuid}, uuid);
}

static void leave(struct sim_member *member) {
    sim_group_left(member);
    member->entitled = false;
    if (!sim_coin(member->sim, 3)) {
        sim_tell(member, (struct hv_event){.type = HV_EV_LEFT}, NULL);
    }
}

static void act(struct sim_member *member, const struct hv_action *action) {
    switch (action->type) {
    case HV_ACT_NEED_LEADER_ID:
        new_leader_id(member);
        break;
    case HV_ACT_HEARTBEAT:
        sim_heartbeat(member, action->stamp);
        break;
    case HV_ACT_ANSWER:
        check_wound_up(member, "answers the revoke");
        sim_group_answered(member);
        break;
    case HV_ACT_LEAVE:
        check_wound_up(member, "leaves the group");
        leave(member);
        break;
    case HV_ACT_MARK:
    case HV_ACT_SCAN:
    case HV_ACT_LIST:
    case HV_ACT_WRITERS:
    case HV_ACT_LISTEN:
    case HV_ACT_PURGE:
    case HV_ACT_PARK:
    case HV_ACT_FETCH:
        sim_statement(member, action);
        break;
    case HV_ACT_OPEN_CLIENT:
        sim_client_open(member, action->lane);
        break;
    case HV_ACT_PURGE_CLIENT:
        sim_client_purge(member, action->lane, action->flag);
        break;
    case HV_ACT_CLOSE_CLIENT:
        sim_client_close(member, action->lane);
        break;
    case HV_ACT_PRODUCE:
        sim_trace(member->sim, "m%d produce %lld lane %d ticket %llx", member->index,
                  (long long)((struct sim_payload *)action->payload)->id, action->lane,
                  (unsigned long long)action->ticket);
        check_produce(member, action);
        sim_client_produce(member, action);
        break;
    case HV_ACT_RELEASE:
        release(member, action->payload);
        break;
    case HV_ACT_NOTIFY:
        notice(member, action);
        break;
    case HV_ACT_STOPPED:
        if (member->leads) {
            sim_fail(member->sim, "m%d stops without saying that it leads no more", member->index);
        }
        member->gone = true;
        break;
    }
}

/* ---- a turn ---- */

static void check_idle(struct sim_member *member, bool told) {
    hv_time second = member->sim->now / HV_SECONDS(1);
    if (second != member->idle_second) {
        member->idle_second = second;
        member->idle_turns = 0;
    }
    member->idle_turns += !told;
    if (member->idle_turns > IDLE_TURNS_MAX) {
        sim_fail(member->sim, "m%d spins: %u turns in a second for nothing", member->index,
                 member->idle_turns);
    }
}

/* Who does not lead any more, and is not draining because it was asked to, gives up what is in flight at
 * once. */
static void check_given_up(struct sim_member *member, enum hv_role role) {
    for (int lane = 0; lane < HV_LANES && (role == HV_FENCED || role == HV_STANDBY); lane++) {
        const struct sim_client *client = member->clients[lane];
        if (client != NULL && client->unreported > 0 && !client->purged) {
            sim_fail(member->sim, "m%d does not lead and lets %u records go on", member->index,
                     client->unreported);
        }
    }
}

static void check_figures(struct sim_member *member) {
    struct hv_harvest_figures f;
    hv_harvest_look(member->core, &f);
    check_given_up(member, f.role);
    if (f.held != f.unsent + f.in_flight + f.unpurged + f.removing) {
        sim_fail(member->sim, "m%d holds %u records, but %u + %u + %u are told", member->index, f.held,
                 f.unsent, f.in_flight,
                 f.unpurged);
    }
    if (f.held > 2 * (member->config.max_in_flight_records + member->config.mark_query_records) +
                     4 * member->config.send_concurrency || f.blocked_keys > member->config.blocked_keys_max +
                     member->config.send_concurrency) {
        sim_fail(member->sim, "m%d holds %u records, and %u blocked keys", member->index, f.held, f.blocked_keys);
    }
    if (f.unsent + f.in_flight != member->payloads) {
        sim_fail(member->sim, "m%d holds %u payloads for %u records", member->index, member->payloads,
                 f.unsent + f.in_flight);
    }
}

static void end_life(struct sim_member *member) {
    for (uint8_t lane = 0; lane < HV_LANES; lane++) {
        sim_client_close(member, lane);
    }
    sim_links_end(member);
    for (size_t i = 0; i < member->inbox_count; i++) {
        free(member->inbox[i].owned);
    }
    free(member->inbox);
    member->inbox = NULL;
    member->inbox_count = member->inbox_capacity = 0;
    struct hv_harvest *core = member->core;
    member->core = NULL;
    member->lost = false;
    hv_harvest_free(core, release, member);
    hv_actions_free(&member->actions);
    if (member->payloads != 0) {
        sim_fail(member->sim, "m%d leaks %u payloads", member->index, member->payloads);
    }
}

static void start(struct sim *sim, void *arg) {
    struct sim_member *member = &sim->members[((struct start_arg *)arg)->member];
    if (member->core == NULL && !sim->finished) {
        sim_member_start(member);
    }
}

static void start_later(struct sim_member *member) {
    struct start_arg *a = sim_later(member->sim, sim_span(member->sim, HV_MS(10), HV_SECONDS(2)), start,
                                    sizeof *a);
    a->member = member->index;
}

static void carry_out(struct sim_member *member) {
    member->bounced = false;
    for (size_t i = 0; i < member->actions.count && !member->sim->failed; i++) {
        act(member, &member->actions.list[i]);
    }
    member->actions.count = 0;
}

static void turn(struct sim *sim, void *arg) {
    const struct turn_arg *a = arg;
    struct sim_member *member = sim_member_in(sim, a->member, a->life);
    if (member == NULL || member->turn_at != a->at) {
        return;
    }
    member->turn_at = HV_NEVER;
    if (member->paused_until > sim->now) {
        wake(member, member->paused_until);
        return;
    }
    bool told = member->inbox_count > 0;
    tell_all(member);
    const struct hv_event end = {.type = HV_EV_TURN};
    hv_harvest_step(member->core, &end, sim->now, &member->actions);
    sim->count.turns++;
    carry_out(member);
    if (sim->failed) {
        return;
    }
    check_figures(member);
    if (member->gone) {
        sim_group_left(member);
        end_life(member);
        start_later(member);
        return;
    }
    check_idle(member, told);
    hv_time deadline = hv_harvest_deadline(member->core);
    if (deadline != HV_NEVER) {
        wake(member, hv_time_max(deadline, sim->now + HV_US(20)));
    }
}

/* ---- life ---- */

void sim_member_start(struct sim_member *member) {
    struct sim *sim = member->sim;
    uint64_t life = member->life + 1;
    *member = (struct sim_member){.sim = sim,
                                  .index = member->index,
                                  .life = life,
                                  .config = sim->config,
                                  .turn_at = HV_NEVER,
                                  .lease_end = INT64_MIN,
                                  .cut_until = INT64_MIN};
    member->config.seed = hv_random_next(&sim->dice);
    member->core = hv_harvest_new(&member->config, sim->now);
    sim_trace(sim, "m%d starts", member->index);
    sim_link_start(member, 0);
    sim_link_start(member, 1);
    wake(member, sim->now);
}

void sim_member_kill(struct sim_member *member) {
    if (member->core == NULL) {
        return;
    }
    sim_trace(member->sim, "m%d is killed", member->index);
    member->sim->count.kills++;
    sim_group_died(member);
    end_life(member);
    start_later(member);
}

void sim_member_pause(struct sim_member *member, hv_time span) {
    if (member->core == NULL) {
        return;
    }
    sim_trace(member->sim, "m%d pauses for %lld ms", member->index, (long long)(span / 1000));
    member->paused_until = hv_time_max(member->paused_until, member->sim->now + span);
    member->answer_due += span;
    member->stop_due += span;
}

void sim_member_stop(struct sim_member *member, bool hurry) {
    if (member->core == NULL) {
        return;
    }
    hv_time waits = member->config.drain_timeout + member->config.hand_over_limit;
    hv_time due = member->sim->now + HV_SECONDS(17) + (hurry ? 0 : waits);
    due = hv_time_max(due, member->paused_until + HV_SECONDS(17));
    if (!member->stopping || (hurry && due < member->stop_due)) {
        member->stop_due = due;
    }
    sim_trace(member->sim, "m%d %s", member->index, hurry ? "hurries" : "stops");
    member->sim->count.stops++;
    sim_tell(member, (struct hv_event){.type = hurry ? HV_EV_HURRY : HV_EV_STOP}, NULL);
}
