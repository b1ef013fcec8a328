/* Carries out what the core wants, by the adapters. */
#include <assert.h>
#include <string.h>

#include "base/memory.h"
#include "io/ident.h"
#include "rt/state.h"

#define LEAVE_LIMIT HV_SECONDS(5) /* below the core's own limit */
#define AHEAD 4                   /* actions: records are out of the cache when it comes to them */

static void new_leader_id(struct hv_runtime *rt) {
    uint8_t *uuid = hv_calloc(1, HV_UUID_BYTES);
    hv_ident_new(uuid);
    hv_rt_tell(rt, (struct hv_event){.type = HV_EV_LEADER_ID, .uuid = uuid}, uuid);
}

static void open_client(struct hv_runtime *rt, enum hv_lane_id lane) {
    const struct hv_settings *s = rt->settings;
    size_t count = s->kafka.count + s->kafka_producer.count;
    struct hv_kafka_property *merged = hv_calloc(count, sizeof *merged);
    for (size_t i = 0; i < count; i++) {
        merged[i] = i < s->kafka.count ? s->kafka.list[i] : s->kafka_producer.list[i - s->kafka.count];
    }
    const struct hv_kafka_properties properties = {.list = merged, .count = count};
    enum hv_kafka_role role = lane == HV_LANE_RECORDS ? HV_KAFKA_RECORDS : HV_KAFKA_SUSPECTS;
    struct hv_rt_client *client = &rt->clients[lane];
    assert(client->producer == NULL);
    struct hv_error err;
    struct hv_event answer = {.type = HV_EV_CLIENT_READY, .lane = (uint8_t)lane};
    if (hv_producer_open(rt->loop, role, &properties, s->name, s->poll_duration, &hv_rt_producer_handler, client,
                         &client->producer, &err) < 0) {
        hv_log(rt->logger, HV_ERROR, "kafka", "cannot make a producer", HV_FIELDS(HV_STR("reason", err.text)));
        client->producer = NULL;
        answer.type = HV_EV_CLIENT_FAILED;
        answer.reason = "cannot make a client";
    }
    free(merged);
    hv_rt_tell(rt, answer, NULL);
}

static void close_client(struct hv_runtime *rt, enum hv_lane_id lane) {
    if (rt->clients[lane].producer != NULL) {
        hv_producer_close(rt->clients[lane].producer);
        rt->clients[lane].producer = NULL;
    }
}

/* refusal: NULL unless it is for good. */
static void bounce(struct hv_runtime *rt, const struct hv_action *action, const struct hv_report *refusal) {
    struct hv_event event = {.type = HV_EV_BOUNCED, .ticket = action->ticket, .flag = refusal != NULL};
    if (refusal != NULL) {
        event.delivery = refusal->delivery;
        event.code = refusal->code;
        event.reason = refusal->reason;
    }
    rt->bounced = true;
    hv_rt_tell(rt, event, NULL);
}

static void produce(struct hv_runtime *rt, const struct hv_action *action) {
    struct hv_producer *producer = rt->clients[action->lane].producer;
    if (rt->bounced || producer == NULL) {
        bounce(rt, action, NULL);
        return;
    }
    const struct hv_record *record = action->payload;
    struct hv_error err;
    switch (hv_producer_send(producer, record, action->ticket, action->flag, &err)) {
    case HV_SENT:
        break;
    case HV_SEND_FULL:
    case HV_SEND_FATAL:
        bounce(rt, action, NULL);
        break;
    case HV_SEND_REFUSED:
        hv_log(rt->logger, HV_DEBUG, "record", "not taken by the client",
               HV_FIELDS(HV_INT("id", record->id), HV_STR("reason", err.text)));
        bounce(rt, action, hv_producer_refusal(producer));
        break;
    }
}

static void park(struct hv_rt_database *db, const struct hv_action *action) {
    struct hv_parked rows[HV_REMOVALS];
    assert(action->count <= HV_REMOVALS);
    for (size_t i = 0; i < action->count; i++) {
        const struct hv_removed *row = &action->removed[i];
        rows[i] = (struct hv_parked){
            .id = row->id,
            .version = row->version,
            .failure_class = hv_runtime_failure_class(row->code),
            .error = row->reason,
            .attempts = row->attempts,
            .failing_for = row->failing_for,
        };
    }
    db->parks = true;
    hv_outbox_park(db->outbox, rows, action->count);
}

static void act_on_database(struct hv_runtime *rt, const struct hv_action *action) {
    bool claims = action->type == HV_ACT_MARK || action->type == HV_ACT_SCAN || action->type == HV_ACT_LIST ||
                  action->type == HV_ACT_WRITERS || action->type == HV_ACT_LISTEN;
    struct hv_outbox *outbox = rt->databases[claims ? 0 : 1].outbox;
    if (!hv_outbox_is_idle(outbox)) {
        return; /* it went down in this iteration and has told so; that event answers the core's statement as well */
    }
    const struct hv_outbox_hidden hidden = {action->keys, action->key_count};
    switch (action->type) {
    case HV_ACT_MARK:
        hv_outbox_mark(outbox, action->uuid, action->from_id, action->limit, action->gaps, action->gap_count, hidden, action->flag);
        break;
    case HV_ACT_SCAN:
        hv_outbox_scan(outbox, action->from_id, action->limit, action->gaps, action->gap_count, action->ids, action->count,
                       hidden);
        break;
    case HV_ACT_LIST:
        hv_outbox_list(outbox, action->from_id, action->to_id, action->limit);
        break;
    case HV_ACT_WRITERS:
        hv_outbox_writers(outbox);
        break;
    case HV_ACT_LISTEN:
        hv_outbox_listen(outbox, action->flag);
        break;
    case HV_ACT_PARK:
        park(&rt->databases[1], action);
        break;
    case HV_ACT_PURGE:
        hv_outbox_purge(outbox, action->ids, action->versions, action->count, action->flag);
        break;
    default:
        hv_outbox_fetch(outbox, action->ids, action->count);
        break;
    }
}

static void leave(struct hv_runtime *rt) {
    if (rt->election != NULL) {
        hv_election_close(rt->election, LEAVE_LIMIT, hv_rt_left);
        rt->election = NULL;
    } else {
        hv_rt_left(rt);
    }
}

static void tell_application(struct hv_runtime *rt, const struct hv_action *action) {
    bool done = rt->handler->notice == NULL || rt->handler->notice(rt->user, action);
    if (done && action->notice == HV_NOTICE_REVOKED) {
        hv_runtime_handed_over(rt);
    }
}

static void act(struct hv_runtime *rt, const struct hv_action *action) {
    switch (action->type) {
    case HV_ACT_NEED_LEADER_ID:
        new_leader_id(rt);
        break;
    case HV_ACT_HEARTBEAT:
        if (rt->election != NULL) {
            hv_election_beat(rt->election, action->stamp, rt->settings->name);
        }
        break;
    case HV_ACT_ANSWER:
        if (rt->election != NULL) {
            hv_election_answer(rt->election);
        }
        break;
    case HV_ACT_LEAVE:
        leave(rt);
        break;
    case HV_ACT_MARK:
    case HV_ACT_SCAN:
    case HV_ACT_LIST:
    case HV_ACT_WRITERS:
    case HV_ACT_LISTEN:
    case HV_ACT_PURGE:
    case HV_ACT_PARK:
    case HV_ACT_FETCH:
        act_on_database(rt, action);
        break;
    case HV_ACT_OPEN_CLIENT:
        open_client(rt, action->lane);
        break;
    case HV_ACT_PURGE_CLIENT:
        if (rt->clients[action->lane].producer != NULL) {
            hv_producer_purge(rt->clients[action->lane].producer, action->flag);
        }
        break;
    case HV_ACT_CLOSE_CLIENT:
        close_client(rt, action->lane);
        break;
    case HV_ACT_PRODUCE:
        produce(rt, action);
        break;
    case HV_ACT_RELEASE:
        hv_record_free(action->payload);
        break;
    case HV_ACT_NOTIFY:
        hv_rt_notice(rt, action);
        tell_application(rt, action);
        break;
    case HV_ACT_STOPPED:
        rt->finished = true;
        break;
    }
}

/* The clients have to know how long they may send: between this and the sending the process may be stopped. */
static void tell_lease(struct hv_runtime *rt) {
    struct hv_harvest_figures figures;
    hv_harvest_look(rt->core, &figures);
    for (int lane = 0; lane < HV_LANES; lane++) {
        if (rt->clients[lane].producer != NULL) {
            hv_producer_lease(rt->clients[lane].producer, figures.lease_end);
        }
    }
}

void hv_rt_check_lease(void *runtime) {
    struct hv_runtime *rt = runtime;
    for (int lane = 0; lane < HV_LANES; lane++) {
        if (rt->clients[lane].producer != NULL) {
            hv_producer_check_lease(rt->clients[lane].producer);
        }
    }
}

void hv_rt_act(struct hv_runtime *rt) {
    rt->bounced = false;
    tell_lease(rt);
    for (size_t i = 0; i < rt->actions.count; i++) {
        if (i + AHEAD < rt->actions.count) {
            __builtin_prefetch(rt->actions.list[i + AHEAD].payload); /* any address, or none */
        }
        act(rt, &rt->actions.list[i]);
    }
    rt->actions.count = 0;
    for (int lane = 0; lane < HV_LANES; lane++) {
        if (rt->clients[lane].producer != NULL) {
            hv_producer_flush(rt->clients[lane].producer);
        }
    }
}
