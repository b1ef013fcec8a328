/* What goes wrong in a run, and how often. Calm weather promises more than stormy weather: that is checked,
 * too. */
#include "sim.h"

#include <string.h>

#define TICK HV_MS(20)

#define DATABASE                                                                         \
    .claim = {200, 150, 200, 200, 100}, .settle = {200, 150, 200, 200, 100}, .claim_drops = 50, \
    .settle_drops = 50, .database_restarts = 30
#define KAFKA                                                                            \
    .batch_fails = 300, .queue_full = 200, .open_fails = 1500, .slow_purges = 400, .client_fatal = 60, \
    .hangs = 60
#define LEADERSHIP .revokes = 60, .loses = 60, .cuts = 60, .kills = 40, .pauses = 60, .stops = 40
#define FLAWS .poison = 150, .defective = 150, .oversize = 100, .closes = 20
#define WRITING .late = 500, .prepared = 60, .aborted = 1000

#define EXACT .no_duplicates = true, .no_rewind = true

static const struct sim_weather weathers[] = {
    {.name = "calm", .aborted = 1000, .members = 1, EXACT, .no_refresh = true, .latency_max = HV_MS(600)},
    {.name = "late", WRITING, .members = 1, EXACT, .no_refresh = true, .latency_max = HV_MS(600)},
    {.name = "lost marks", WRITING, .claim = {50, 50, 100, 100, 100}, .claim_drops = 20, .members = 1, EXACT},
    {.name = "lost purges", WRITING, .settle = {50, 50, 100, 100, 100}, .settle_drops = 20, .members = 1,
     EXACT, .no_refresh = true},
    {.name = "unpurgeable", WRITING, .undeletable = 200, .locked = 200, .members = 1, EXACT},
    {.name = "poison", FLAWS, .aborted = 1000, .members = 1,
     .latency_max = HV_SECONDS(8), .recovery_max = HV_SECONDS(10)},
    {.name = "crowd", .poison = 400, .aborted = 4000, .forgotten = HV_SECONDS(6), .members = 1,
     .latency_max = HV_SECONDS(8), .recovery_max = HV_SECONDS(10)},
    {.name = "defective", .defective = 300, .oversize = 200, .aborted = 1000, .members = 1, EXACT,
     .latency_max = HV_SECONDS(5), .recovery_max = HV_SECONDS(10)},
    {.name = "database", WRITING, DATABASE, .members = 1, .no_rewind = true},
    {.name = "slow", WRITING, .claim = {100, 100, 1200, 600, 2500}, .settle = {0, 0, 0, 300, 100},
     .open_fails = 5000, .batch_fails = 600, .client_fatal = 100, .members = 1},
    {.name = "kafka", WRITING, KAFKA, .members = 1},
    {.name = "leadership", WRITING, LEADERSHIP, .members = 2},
    {.name = "hand-over", WRITING, .revokes = 80, .stops = 60, .members = 2, EXACT, .no_refresh = true},
    {.name = "restarted sequence", .late = 500, .aborted = 1000, .restarts = true, .members = 1,
     EXACT, .no_refresh = true, .latency_max = HV_MS(600)},
    {.name = "ids again", WRITING, DATABASE, FLAWS, .batch_fails = 300, .hangs = 30, .reused = 1500, .members = 1},
    {.name = "everything", WRITING, DATABASE, KAFKA, LEADERSHIP, FLAWS, .puzzle = 60, .undeletable = 60, .locked = 60,
     .cached_keys = 1500, .reused = 100, .members = 2},
};

#define WEATHERS (sizeof weathers / sizeof *weathers)

/* Swarm: each kind of trouble is absent in half of the runs, and of different strength in the others. */
static void vary(struct sim *sim) {
    struct sim_weather *w = &sim->weather;
    uint32_t *chances[] = {
        &w->claim.refused, &w->claim.lost_before, &w->claim.lost_after, &w->claim.lost_later, &w->claim.slow,
        &w->settle.refused, &w->settle.lost_before, &w->settle.lost_after, &w->settle.lost_later,
        &w->settle.slow,
        &w->claim_drops, &w->settle_drops, &w->database_restarts, &w->batch_fails, &w->queue_full,
        &w->open_fails,
        &w->slow_purges, &w->client_fatal, &w->hangs, &w->poison, &w->defective, &w->oversize, &w->puzzle,
        &w->undeletable, &w->locked, &w->reused,
        &w->revokes, &w->loses, &w->cuts, &w->kills, &w->pauses, &w->stops, &w->late, &w->prepared,
        &w->aborted,
        &w->cached_keys,
    };
    static const uint32_t percents[] = {0, 0, 0, 30, 100, 100, 300};
    for (size_t i = 0; i < sizeof chances / sizeof *chances; i++) {
        *chances[i] = *chances[i] * percents[hv_random_below(&sim->dice, 7)] / 100;
    }
}

static void view(void *user, const void *memory, struct hv_view *ret) {
    const struct sim *sim = user;
    const struct sim_payload *payload = memory;
    *ret = (struct hv_view){.key = payload->key_bytes, .topic = "t", .defect = payload->flaw == SIM_DEFECTIVE ? "defective" : NULL};
    ret->policy = sim->policies[sim_partition_of(sim, payload->key)];
    ret->key_length = payload->key_bytes != NULL ? (uint32_t)strlen(payload->key_bytes) : 0;
}

static void configure(struct sim *sim) {
    struct hv_core_config *c = &sim->config;
    static const uint32_t windows[] = {4, 5, 8, 12, 20, 50, 3000};
    c->view = view;
    c->view_user = sim;
    for (int i = 0; i < SIM_PARTITIONS; i++) { /* mostly the same everywhere */
        sim->policies[i] = i > 0 && sim_coin(sim, 60) ? sim->policies[0] : (enum hv_poison)hv_random_below(&sim->dice, 3);
    }
    c->by_cursor = sim_coin(sim, 50);
    c->list_limit = (uint32_t)sim_between(sim, 2, 60);
    c->list_span = (uint32_t)sim_between(sim, 1, 200);
    static const uint32_t gaps[] = {2, 3, 8, 64};
    c->gaps_max = gaps[hv_random_below(&sim->dice, sim->weather.forgotten > 0 ? 2 : 4)];
    c->send_concurrency = (uint32_t)sim_between(sim, 1, SIM_SHARDS_MAX);
    c->max_in_flight_records = windows[hv_random_below(&sim->dice, 7)];
    c->max_in_flight_bytes = sim_coin(sim, 20) ? 500 : 1 << 20;
    c->send_buffer = c->max_in_flight_records > 1000 ? 1000 : (uint32_t)sim_between(sim, 1, 20);
    c->mark_query_records = sim_coin(sim, 30) ? (uint32_t)sim_between(sim, 1, 3)
        : (uint32_t)sim_between(sim, 4, 20);
    c->mark_query_bytes = sim_coin(sim, 30) ? 600 : 1 << 20;
    c->purge_query_records = (uint32_t)sim_between(sim, 1, 20);
    c->mark_backoff = sim_span(sim, HV_MS(5), HV_MS(20));
    c->idle_backoff_max = sim_span(sim, c->mark_backoff, HV_MS(200));
    c->listen = sim_coin(sim, 50);
    sim->deaf = sim_coin(sim, 50) ? (uint32_t)sim_between(sim, 5, 100) : 0;
    if (c->listen && sim->deaf == 0) { /* nothing is found by looking for it */
        c->idle_backoff_max = HV_SECONDS(60);
        c->mark_backoff = sim->weather.restarts || sim->weather.cached_keys > 0 ? c->mark_backoff : HV_SECONDS(60);
    }
    c->io_error_backoff = sim_span(sim, HV_MS(20), HV_MS(500));
    c->io_error_backoff_max = sim_span(sim, c->io_error_backoff, HV_SECONDS(2));
    c->blocked_backoff_max = sim_span(sim, c->io_error_backoff, HV_SECONDS(4));
    static const uint32_t keys[] = {0, 1, 2, 4, SIM_KEYS + 1, SIM_KEYS + 1};
    c->blocked_keys_max = keys[hv_random_below(&sim->dice, 6)];
    c->blocked_keys_bytes = sim_coin(sim, 20) ? sim_between(sim, 0, 100) : 1 << 16;
    sim->crowded = c->blocked_keys_max <= SIM_KEYS;
    c->queue_timeout = sim_coin(sim, 30) ? sim_span(sim, HV_SECONDS(1), HV_SECONDS(4)) : HV_SECONDS(30);
    c->rescan_interval = sim_span(sim, HV_SECONDS(1), HV_SECONDS(8));
    c->heartbeat_timeout = sim_span(sim, HV_SECONDS(1), HV_SECONDS(5));
    c->heartbeat_interval = sim_span(sim, HV_MS(50), c->heartbeat_timeout / 4);
    c->drain_timeout = sim_span(sim, HV_MS(200), HV_SECONDS(6));
    c->hand_over_limit = sim_span(sim, HV_MS(500), HV_SECONDS(8));
    c->min_metrics_interval = HV_SECONDS(1);
    static const hv_time paces[] = {HV_MS(1), HV_MS(1), HV_MS(2), HV_MS(10), HV_MS(50), HV_MS(300)};
    sim->kafka_pace = paces[hv_random_below(&sim->dice, sim->weather.latency_max > 0 ? 3 : 6)];
    sim->database_pace = paces[hv_random_below(&sim->dice, sim->weather.latency_max > 0 ? 3 : 5)];
    c->wall_offset = INT64_C(1700000000000000000);
    if (sim->weather.no_duplicates) {
        c->drain_timeout = HV_SECONDS(100);
    }
    if (sim->weather.no_refresh) {
        c->queue_timeout = HV_SECONDS(30);
    }
}

void sim_weather_choose(struct sim *sim) {
    size_t which = hv_random_below(&sim->dice, WEATHERS + 3); /* "everything" more often */
    which = which < WEATHERS ? which : WEATHERS - 1;
    for (size_t i = 0; sim->options.weather != NULL && i < WEATHERS; i++) {
        which = strcmp(weathers[i].name, sim->options.weather) == 0 ? i : which;
    }
    sim->weather = weathers[which];
    if (strcmp(sim->weather.name, "calm") != 0) {
        vary(sim);
    }
    configure(sim);
}

static struct sim_member *some_member(struct sim *sim) {
    return &sim->members[hv_random_below(&sim->dice, (uint64_t)sim->weather.members)];
}

static void disturb_database(struct sim *sim) {
    const struct sim_weather *w = &sim->weather;
    if (sim_chance(sim, w->claim_drops)) {
        sim_link_down(some_member(sim), 0);
    }
    if (sim_chance(sim, w->reused)) {
        sim_table_give_again(sim);
    }
    if (sim_chance(sim, w->settle_drops)) {
        sim_link_down(some_member(sim), 1);
    }
    if (sim_chance(sim, w->database_restarts)) {
        for (int i = 0; i < w->members; i++) {
            sim_link_down(&sim->members[i], 0);
            sim_link_down(&sim->members[i], 1);
        }
    }
}

static void disturb_kafka(struct sim *sim) {
    const struct sim_weather *w = &sim->weather;
    if (sim_chance(sim, w->client_fatal)) {
        sim_client_fatal(some_member(sim), sim_coin(sim, 70) ? HV_LANE_RECORDS : HV_LANE_SUSPECTS);
    }
    if (sim_chance(sim, w->hangs)) {
        hv_time until = sim->now + sim_span(sim, HV_MS(50), sim_coin(sim, 70) ? HV_SECONDS(1)
                                            : HV_SECONDS(12));
        int only = sim_coin(sim, 50) ? (int)hv_random_below(&sim->dice, SIM_PARTITIONS) : -1;
        sim_trace(sim, "partition %d hangs until %lld", only, (long long)until);
        for (int i = 0; i < SIM_PARTITIONS; i++) {
            if (only < 0 || only == i) {
                sim->hang_until[i] = until;
            }
        }
    }
}

static void close_topic(struct sim *sim) {
    if (sim_chance(sim, sim->weather.closes)) {
        int which = (int)hv_random_below(&sim->dice, (uint64_t)sim->partition_count);
        sim->closed_until[which] = sim->now + sim_span(sim, HV_MS(100), HV_SECONDS(8));
        sim_trace(sim, "topic %d is closed until %lld", which, (long long)sim->closed_until[which]);
        for (int i = 0; i < sim->key_count; i++) {
            if (sim_partition_of(sim, (uint8_t)i) == which) {
                sim->keys[i].troubled = true;
                sim->keys[i].mended_at = hv_time_max(sim->keys[i].mended_at, sim->closed_until[which]);
            }
        }
    }
}

static void disturb_members(struct sim *sim) {
    const struct sim_weather *w = &sim->weather;
    if (sim_chance(sim, w->revokes)) {
        sim_group_revoke(sim);
    }
    if (sim_chance(sim, w->loses)) {
        sim_group_lose(sim);
    }
    if (sim_chance(sim, w->cuts)) {
        some_member(sim)->cut_until = sim->now + sim_span(sim, HV_MS(500), HV_SECONDS(8));
    }
    if (sim_chance(sim, w->kills)) {
        sim_member_kill(some_member(sim));
    }
    if (sim_chance(sim, w->pauses)) {
        sim_member_pause(some_member(sim), sim_span(sim, HV_MS(5), sim_coin(sim, 50) ? HV_MS(500)
                                                    : HV_SECONDS(8)));
    }
    if (sim_chance(sim, w->stops)) {
        sim_member_stop(some_member(sim), !w->no_duplicates && sim_coin(sim, 30));
    }
    for (int i = 0; i < w->members; i++) { /* who was asked to stop may be hurried */
        if (sim->members[i].stopping && !w->no_duplicates && sim_chance(sim, 20)) {
            sim_member_stop(&sim->members[i], true);
        }
    }
}

static void check_due(struct sim *sim) {
    for (int i = 0; i < sim->weather.members; i++) {
        const struct sim_member *member = &sim->members[i];
        if (member->core != NULL && member->paused_until < sim->now) {
            if (member->answer_expected && sim->now > member->answer_due) {
                sim_fail(sim, "m%d does not answer the revoke", i);
            }
            if (member->stopping && sim->now > member->stop_due) {
                sim_fail(sim, "m%d does not stop", i);
            }
        }
    }
}

static void tick(struct sim *sim, void *arg) {
    (void)arg;
    disturb_database(sim);
    disturb_kafka(sim);
    close_topic(sim);
    disturb_members(sim);
    if (sim->config.listen && sim_chance(sim, 500)) {
        sim_notify(sim, true);
    }
    sim_group_tick(sim);
    check_due(sim);
    sim_table_empty(sim);
    if (sim->options.corruption == SIM_LOSE_ROW && !sim->corrupted && sim->now > HV_SECONDS(2)) {
        sim_lose_row(sim);
    }
    sim_later(sim, TICK, tick, 1);
}

void sim_weather_start(struct sim *sim) {
    sim_later(sim, TICK, tick, 1);
}
