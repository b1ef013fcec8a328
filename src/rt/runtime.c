/* See runtime.h. Life of a runtime and its turn: events in, the core, actions out. */
#include "rt/runtime.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "io/ident.h"
#include "io/kafka_failure.h"
#include "rt/poison.h"
#include "rt/state.h"

#define GAPS_MAX 256    /* each costs a look into the index at every claim */
#define LIST_LIMIT 5000 /* ids: 100 kB */
#define LIST_SPAN 16383 /* ids less one: were all their rows dead, it would take some milliseconds */
#define BLOCKED_KEYS_MAX 4096
#define BLOCKED_KEYS_BYTES (256 * 1024) /* they go with each claim */
#define CLOCKS_DIFFER HV_MS(10) /* the two are not read at the same moment: less than this is no sleep */

/* The clock as it is now, not as the loop cached it: a process that was paused must see that its lease is over before it does
 * anything else. */
static hv_time read_now(struct hv_runtime *rt) {
    hv_time suspended = hv_loop_suspended();
    if (suspended - rt->suspended > CLOCKS_DIFFER) {
        rt->suspended = suspended;
    }
    rt->last_now = hv_time_max(rt->last_now, hv_loop_clock() + rt->suspended);
    return rt->last_now;
}

static void view(void *user, const void *payload, struct hv_view *ret) {
    const struct hv_settings *settings = user;
    const struct hv_record *record = payload;
    *ret = (struct hv_view){
        .key = record->key,
        .key_length = record->key_length > 0 ? (uint32_t)record->key_length : 0,
        .topic = record->topic,
        .defect = record->defect != HV_SOUND ? hv_defect_text(record->defect) : NULL,
        .policy = hv_poison_of(settings->on_poison_topics, (enum hv_poison)settings->on_poison, record->topic),
    };
}

static struct hv_core_config core_config(const struct hv_settings *s, hv_time wall_offset, uint64_t seed) {
    return (struct hv_core_config){
        .view = view,
        .view_user = (void *)s,
        .by_cursor = s->claim == HV_CLAIM_BY_CURSOR,
        .gaps_max = GAPS_MAX,
        .list_limit = LIST_LIMIT,
        .list_span = LIST_SPAN,
        .send_concurrency = s->send_concurrency,
        .max_in_flight_records = s->max_in_flight_records,
        .max_in_flight_bytes = s->max_in_flight_bytes,
        .send_buffer = s->send_buffer,
        .mark_query_records = s->mark_query_records,
        .mark_query_bytes = s->mark_query_bytes,
        .purge_query_records = s->purge_query_records,
        .mark_backoff = s->mark_backoff,
        .idle_backoff_max = s->idle_backoff_max,
        .listen = s->wakeup == HV_WAKE_BY_LISTEN,
        .io_error_backoff = s->io_error_backoff,
        .io_error_backoff_max = s->io_error_backoff_max,
        .blocked_backoff_max = s->blocked_backoff_max,
        .blocked_keys_max = BLOCKED_KEYS_MAX,
        .blocked_keys_bytes = BLOCKED_KEYS_BYTES,
        .queue_timeout = s->queue_timeout,
        .rescan_interval = s->rescan_interval,
        .heartbeat_interval = s->min_poll_interval,
        .heartbeat_timeout = s->heartbeat_timeout,
        .drain_timeout = s->drain_timeout,
        .min_metrics_interval = s->min_metrics_interval,
        .hand_over_limit = hv_election_patience(s->heartbeat_timeout) / 10 * 9,
        .wall_offset = wall_offset * 1000,
        .seed = seed,
    };
}

static int open_database(struct hv_runtime *rt, int which, const char *role, uint64_t seed, struct hv_error *err) {
    struct hv_rt_database *db = &rt->databases[which];
    const struct hv_settings *s = rt->settings;
    char application[64];
    snprintf(application, sizeof application, "harvestd %s %s", role, s->name);
    *db = (struct hv_rt_database){.rt = rt, .role = role, .claims = which == 0};
    const struct hv_pg_options options = {
        .conninfo = s->data_source,
        .application_name = application,
        .connect_timeout = s->connect_timeout,
        .statement_timeout = s->statement_timeout,
        .backoff_min = s->io_error_backoff,
        .backoff_max = s->io_error_backoff_max,
        .seed = seed + (uint64_t)which,
    };
    if (hv_outbox_open(rt->loop, &options, s->outbox_table, &hv_rt_outbox_handler, db, &db->outbox, err) < 0) {
        return -1;
    }
    hv_outbox_set_id_header(db->outbox, s->id_header);
    hv_outbox_set_reply_bytes(db->outbox, s->mark_query_bytes);
    rt->databases_open++;
    return 0;
}

static int open_election(struct hv_runtime *rt, struct hv_error *err) {
    const struct hv_settings *s = rt->settings;
    const struct hv_election_options options = {
        .base = &s->kafka,
        .consumer = &s->kafka_consumer,
        .client_id = s->name,
        .group_id = s->leader_group_id,
        .topic = s->leader_topic,
        .assignor = hv_assignor_name((enum hv_assignor)s->leader_assignor),
        .heartbeat_timeout = s->heartbeat_timeout,
        .poll_interval = s->min_poll_interval,
        .poll_duration = s->poll_duration,
    };
    return hv_election_open(rt->loop, &options, &hv_rt_election_handler, rt, &rt->election, err);
}

static void free_payload(void *user, void *payload) {
    (void)user;
    hv_record_free(payload);
}

static void destroy(struct hv_runtime *rt) {
    for (size_t i = 0; i < rt->inbox.count; i++) {
        const struct hv_event *event = &rt->inbox.list[i].event;
        bool rows = event->type == HV_EV_CLAIMED || event->type == HV_EV_FETCHED;
        for (size_t row = 0; rows && row < event->count; row++) {
            hv_record_free(event->rows[row].payload);
        }
    }
    hv_inbox_free(&rt->inbox);
    hv_inbox_free(&rt->feeding);
    hv_actions_free(&rt->actions);
    hv_harvest_free(rt->core, free_payload, NULL);
    free(rt);
}

static void on_loop_closed(void *user) {
    struct hv_runtime *rt = user;
    const struct hv_runtime_handler *handler = rt->handler;
    void *handler_user = rt->user;
    int status = rt->status;
    destroy(rt);
    handler->stopped(handler_user, status);
}

static void on_database_closed(void *user) {
    struct hv_rt_database *db = user;
    if (--db->rt->databases_open == 0) {
        hv_loop_close(db->rt->loop, on_loop_closed);
    }
}

/* Everything is closed; the group was left before. */
static void close_all(struct hv_runtime *rt) {
    struct hv_harvest_figures figures;
    hv_harvest_look(rt->core, &figures);
    hv_rt_say_how_many_more(rt);
    rt->status = figures.in_flight > 0 || figures.unpurged > 0 || figures.given_up > 0;
    rt->closing = true;
    for (int lane = 0; lane < HV_LANES; lane++) {
        if (rt->clients[lane].producer != NULL) {
            hv_producer_close(rt->clients[lane].producer);
            rt->clients[lane].producer = NULL;
        }
    }
    int open = rt->databases_open;
    for (int i = 0; i < open; i++) {
        hv_outbox_close(rt->databases[i].outbox, on_database_closed);
    }
    if (open == 0) {
        hv_loop_close(rt->loop, on_loop_closed);
    }
}

static void turn(void *user) {
    struct hv_runtime *rt = user;
    if (rt->closing) {
        return;
    }
    hv_rt_check_lease(rt);
    hv_time now = read_now(rt);
    struct hv_inbox empty = rt->feeding;
    rt->feeding = rt->inbox;
    rt->inbox = empty;
    for (size_t i = 0; i < rt->feeding.count; i++) {
        hv_harvest_step(rt->core, &rt->feeding.list[i].event, now, &rt->actions);
    }
    hv_inbox_clear(&rt->feeding);
    const struct hv_event end = {.type = HV_EV_TURN};
    hv_harvest_step(rt->core, &end, now, &rt->actions);
    hv_rt_act(rt);
    hv_time untold_until = hv_rt_notice_turn(rt);
    if (rt->finished && rt->left) { /* after a pause the core's patience can end before the leaving does */
        close_all(rt);
    } else {
        hv_time deadline = hv_time_min(hv_harvest_deadline(rt->core), untold_until);
        hv_loop_set_deadline(rt->loop, deadline == HV_NEVER ? HV_NEVER : deadline - rt->suspended);
    }
}

int hv_runtime_open(uv_loop_t *loop, const struct hv_settings *settings, struct hv_logger *logger,
                    const struct hv_runtime_handler *handler, void *user, struct hv_runtime **ret, struct hv_error *err) {
    struct hv_runtime *rt = hv_calloc(1, sizeof *rt);
    rt->settings = settings;
    rt->logger = logger;
    rt->handler = handler;
    rt->user = user;
    if (hv_loop_open(loop, turn, rt, &rt->loop, err) < 0) {
        free(rt);
        handler->stopped(user, 0);
        return -1;
    }
    hv_loop_do_first(rt->loop, hv_rt_check_lease);
    uint64_t seed;
    uint8_t random[HV_UUID_BYTES];
    hv_ident_new(random);
    memcpy(&seed, random, sizeof seed);
    hv_time now = read_now(rt);
    rt->wall_offset = hv_loop_wall_clock() - now;
    const struct hv_core_config config = core_config(settings, rt->wall_offset, seed);
    rt->core = hv_harvest_new(&config, now);
    for (int lane = 0; lane < HV_LANES; lane++) {
        rt->clients[lane] = (struct hv_rt_client){.rt = rt, .lane = (enum hv_lane_id)lane};
    }
    if (open_database(rt, 0, "claim", seed, err) < 0 || open_database(rt, 1, "settle", seed, err) < 0 ||
        open_election(rt, err) < 0) {
        close_all(rt);
        return -1;
    }
    hv_loop_wake(rt->loop);
    *ret = rt;
    return 0;
}

void hv_runtime_stop(struct hv_runtime *rt) {
    hv_rt_tell(rt, (struct hv_event){.type = HV_EV_STOP}, NULL);
}

void hv_runtime_hurry(struct hv_runtime *rt) {
    hv_rt_tell(rt, (struct hv_event){.type = HV_EV_HURRY}, NULL);
}

void hv_runtime_retry(struct hv_runtime *rt) {
    hv_rt_tell(rt, (struct hv_event){.type = HV_EV_RETRY}, NULL);
}

void hv_runtime_handed_over(struct hv_runtime *rt) {
    hv_rt_tell(rt, (struct hv_event){.type = HV_EV_HANDED_OVER}, NULL);
}

bool hv_runtime_leads(const struct hv_runtime *rt) {
    struct hv_harvest_figures figures;
    hv_harvest_look(rt->core, &figures);
    return figures.role == HV_LEADER && hv_loop_waking_clock() < figures.lease_end;
}

int64_t hv_runtime_wall_clock(const struct hv_runtime *rt, hv_time time) {
    return rt->wall_offset + time;
}

void hv_runtime_each_in_flight(const struct hv_runtime *rt, void (*visit)(void *user, void *payload), void *user) {
    hv_harvest_each_in_flight(rt->core, visit, user);
}

bool hv_runtime_next_blocked(const struct hv_runtime *rt, uint32_t *at, struct hv_blocked *ret) {
    return hv_harvest_next_blocked(rt->core, at, ret);
}

bool hv_runtime_next_closed(const struct hv_runtime *rt, uint32_t *at, struct hv_closed *ret) {
    return hv_harvest_next_closed(rt->core, at, ret);
}

hv_time hv_runtime_clock(const struct hv_runtime *rt) {
    return hv_time_max(rt->last_now, hv_loop_clock() + rt->suspended);
}

const char *hv_runtime_failure_class(int code) {
    return code == 0 ? "invalid row" : hv_kafka_label_of(code);
}

void hv_runtime_look(const struct hv_runtime *rt, struct hv_harvest_figures *ret) {
    hv_harvest_look(rt->core, ret);
}
