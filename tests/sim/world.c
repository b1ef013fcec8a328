/* One run: weather and configuration from the seed, some seconds of writing and trouble, then all is mended
 * and everything must have arrived, the table be empty, the members stop and hold nothing. */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_MAX HV_SECONDS(120) /* without a row that leaves the table, once all is mended */
#define STEP HV_MS(50)

void sim_fail(struct sim *sim, const char *format, ...) {
    if (sim->failed) {
        return;
    }
    sim->failed = true;
    int length = snprintf(sim->failure, sizeof sim->failure, "at %lld.%06lld s: ",
                          (long long)(sim->now / 1000000),
                          (long long)(sim->now % 1000000));
    va_list args;
    va_start(args, format);
    vsnprintf(sim->failure + length, sizeof sim->failure - (size_t)length, format, args);
    va_end(args);
    sim_trace(sim, "FAILED %s", sim->failure);
}

void sim_trace(const struct sim *sim, const char *format, ...) {
    if (!sim->options.trace) {
        return;
    }
    printf("%4lld.%06lld ", (long long)(sim->now / 1000000), (long long)(sim->now % 1000000));
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

bool sim_chance(struct sim *sim, uint32_t chance) {
    return sim->faults && chance > 0 && hv_random_below(&sim->dice, 10000) < chance;
}

bool sim_coin(struct sim *sim, uint32_t percent) {
    return hv_random_below(&sim->dice, 100) < percent;
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high) {
    return low + hv_random_below(&sim->dice, high - low + 1);
}

hv_time sim_span(struct sim *sim, hv_time low, hv_time high) {
    return (hv_time)sim_between(sim, (uint64_t)low, (uint64_t)high);
}

static void what_is_left(struct sim *sim) {
    int64_t first = 0;
    uint32_t left = 0;
    for (int64_t id = sim->lowest; id < sim->top; id++) {
        if (sim->rows[id].state == SIM_ROW_COMMITTED) {
            first = first == 0 ? id : first;
            left++;
        }
    }
    if (left > 0) {
        sim_fail(sim, "%u rows do not leave the table; the first is %lld, appended %u times", left,
                 (long long)first,
                 sim->rows[first].appended);
    } else {
        sim_fail(sim, "the members do not come to rest");
    }
}

static bool at_rest(struct sim *sim) {
    if (!sim_table_empty(sim)) {
        return false;
    }
    for (int i = 0; i < sim->weather.members; i++) {
        struct hv_harvest_figures figures;
        if (sim->members[i].core == NULL || sim->members[i].paused_until > sim->now) {
            return false;
        }
        hv_harvest_look(sim->members[i].core, &figures);
        if (figures.held > 0) {
            return false;
        }
    }
    return true;
}

static void stop_all(struct sim *sim) {
    sim->finished = true;
    for (int i = 0; i < sim->weather.members; i++) {
        if (!sim->members[i].stopping) {
            sim_member_stop(&sim->members[i], false);
        }
    }
    sim->deadline = sim->now + HV_SECONDS(40);
}

static bool all_stopped(const struct sim *sim) {
    for (int i = 0; i < sim->weather.members; i++) {
        if (sim->members[i].core != NULL) {
            return false;
        }
    }
    return true;
}

static void watch(struct sim *sim, void *arg) {
    (void)arg;
    if (sim->writing && sim->now >= sim->writing_until) {
        sim_trace(sim, "no more writing, all is mended");
        sim->writing = sim->faults = false;
        memset(sim->hang_until, 0, sizeof sim->hang_until);
        memset(sim->closed_until, 0, sizeof sim->closed_until);
        for (int i = 0; i < sim->weather.members; i++) {
            sim->members[i].cut_until = INT64_MIN;
        }
        sim->progress = sim->now;
    } else if (!sim->writing && !sim->finished) {
        sim_table_mend_all(sim);
        if (at_rest(sim)) {
            sim->rest = sim->rest > 0 ? sim->rest : sim->now + (sim_coin(sim, 3) ? HV_SECONDS(70)
                                                                : HV_MS(50));
            if (sim->now >= sim->rest) {
                stop_all(sim);
            }
        }
    }
    if (sim->finished ? sim->now > sim->deadline
                      : !sim->writing && sim->rest == 0 && sim->now > sim->progress + QUIET_MAX + sim->config.mark_backoff) {
        what_is_left(sim);
    }
    sim_later(sim, STEP, watch, 1);
}

void sim_run(struct sim *sim, const struct sim_options *options) {
    memset(sim, 0, sizeof *sim);
    sim->options = *options;
    sim->dice.state = options->seed;
    sim->faults = sim->writing = true;
    sim_weather_choose(sim);
    sim->writing_until = sim_span(sim, HV_SECONDS(3), sim->weather.restarts ? HV_SECONDS(30)
                                  : HV_SECONDS(12));
    sim_trace(sim, "seed %llu weather %s shards %u window %u limit %u", (unsigned long long)options->seed,
              sim->weather.name,
              sim->config.send_concurrency, sim->config.max_in_flight_records,
              sim->config.mark_query_records);
    for (int i = 0; i < sim->weather.members; i++) {
        sim->members[i].sim = sim;
        sim->members[i].index = i;
        sim_member_start(&sim->members[i]);
    }
    sim_group_start(sim);
    sim_table_start(sim);
    sim_weather_start(sim);
    sim_later(sim, STEP, watch, 1);
    while (!sim->failed && !(sim->finished && all_stopped(sim)) && sim_next(sim)) {
    }
    if (!sim->failed && sim->count.appended < sim->count.committed) {
        for (int64_t id = 1; id < sim->top; id++) {
            const struct sim_row *row = &sim->rows[id];
            if (row->appended == 0 && row->state == SIM_ROW_GONE && !row->by_operator && !row->removed) {
                sim_fail(sim, "row %lld never appeared", (long long)id);
            }
        }
    }
}

static void free_member(struct sim_member *member) {
    for (int lane = 0; lane < HV_LANES; lane++) {
        for (int i = 0; member->clients[lane] != NULL && i < SIM_PARTITIONS; i++) {
            free(member->clients[lane]->queues[i].list);
        }
        free(member->clients[lane]);
    }
    for (size_t i = 0; i < member->inbox_count; i++) {
        free(member->inbox[i].owned);
    }
    free(member->inbox);
    hv_harvest_free(member->core, NULL, NULL);
    hv_actions_free(&member->actions);
}

void sim_free(struct sim *sim) {
    for (int i = 0; i < SIM_MEMBERS; i++) {
        free_member(&sim->members[i]);
    }
    sim_heap_free(sim);
    while (sim->payloads != NULL) {
        struct sim_payload *payload = sim->payloads;
        sim->payloads = payload->next;
        free(payload);
    }
}
