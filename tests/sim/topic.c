/* The topic: what was appended, and whether it may have been. Order of first deliveries is all that is kept:
 * a row knows its predecessor of the same key, and how often it was appended. */
#include "sim.h"

/* While rows of before a restart of the sequence are still to come, and until a mark from the very start
 * found the new ones, new rows may be late, or overtaken. */
static bool unsettled(const struct sim *sim, const struct sim_row *row) {
    return sim->weather.restarts &&
    row->drawn_at < sim->settled_at + sim->config.rescan_interval + HV_SECONDS(2);
}

static void check_predecessor(struct sim *sim, int64_t id) {
    const struct sim_row *rows = sim->rows;
    if (sim->keys[rows[id].key].cached || rows[id].keyless || rows[id].again || unsettled(sim, &rows[id])) {
        return;
    }
    int64_t before = rows[id].before;
    while (before != 0 && (rows[before].state == SIM_ROW_ABORTED || rows[before].by_operator || rows[before].removed ||
                           rows[before].keyless || rows[before].again ||
                           unsettled(sim, &rows[before]))) {
        before = rows[before].before;
    }
    if (before != 0 && sim->rows[before].appended == 0) {
        sim_fail(sim, "order: %lld appears before %lld of the same key", (long long)id, (long long)before);
    }
}

/* Does the one's trouble concern the other? */
static bool share_trouble(const struct sim *sim, uint8_t a, uint8_t b) {
    uint32_t shards = sim->config.send_concurrency;
    return a == b || (sim->crowded && sim->keys[a].hash % shards == sim->keys[b].hash % shards);
}

struct trouble {
    bool is, is_over;
    uint32_t flaws_ever;
    hv_time mended_at; /* the last of its rows with a flaw */
};

static struct trouble trouble_of(const struct sim *sim, uint8_t key) {
    struct trouble t = {.is_over = true};
    for (int i = 0; i < sim->key_count; i++) {
        const struct sim_key *other = &sim->keys[i];
        if (!share_trouble(sim, key, (uint8_t)i)) {
            continue;
        }
        t.is = t.is || other->troubled;
        t.is_over = t.is_over && other->flaws == 0;
        t.flaws_ever += other->flaws_ever;
        t.mended_at = hv_time_max(t.mended_at, other->mended_at);
    }
    t.is = t.is || sim->keys[key].cached ||
           (sim->crowded && sim->keyless && sim->keys[key].hash % sim->config.send_concurrency == 0);
    return t;
}

static void check_latency(struct sim *sim, int64_t id) {
    const struct sim_row *row = &sim->rows[id];
    const struct trouble trouble = trouble_of(sim, row->key);
    hv_time took = sim->now - row->committed_at, since_mended = sim->now - trouble.mended_at;
    const struct sim_weather *w = &sim->weather;
    /* under load, small limits hold up */
    hv_time most = w->latency_max * (sim->pause_max < HV_MS(100) ? 4 : 1);
    /* once more the highest id of before may mislead */
    most += w->restarts ? sim->config.rescan_interval : 0;
    if (w->latency_max > 0 && took > most && !unsettled(sim, row) && !trouble.is && !row->again) {
        sim_fail(sim, "row %lld waited for %lld ms", (long long)id, (long long)(took / 1000));
    }
    took = hv_time_min(took, since_mended);
    /* Those that were read before they were mended block once each. */
    most = w->recovery_max + sim->config.blocked_backoff_max;
    most += trouble.flaws_ever * sim->config.io_error_backoff;
    if (w->recovery_max > 0 && took > most && trouble.is_over && !row->again && !(sim->crowded && sim->keyless)) {
        sim_fail(sim, "row %lld waited for %lld ms after all was mended", (long long)id,
                 (long long)(took / 1000));
    }
}

static void append(struct sim *sim, int64_t id, int version, uint8_t flaw) {
    struct sim_row *row = &sim->rows[id];
    sim_trace(sim, "append %lld key %d version %d%s", (long long)id, row->key, version, row->appended > 0
              ? " AGAIN" : "");
    if (row->state != SIM_ROW_COMMITTED && row->state != SIM_ROW_GONE) {
        sim_fail(sim, "row %lld appears, which is not committed", (long long)id);
    }
    if (flaw != SIM_SOUND) {
        sim_fail(sim, "row %lld is appended with a flaw", (long long)id);
    }
    if (version < row->version && row->again) {
        return; /* another row was given its id meanwhile */
    }
    check_predecessor(sim, id);
    if (row->appended++ == 0) {
        sim->count.appended++;
        check_latency(sim, id);
    } else {
        sim->count.duplicates++;
        if (sim->weather.no_duplicates && !sim->remarked_unseen) {
            sim_fail(sim, "row %lld is appended twice", (long long)id);
        }
    }
}

static void append_aborted(struct sim *sim) {
    for (int64_t id = 1; id < sim->top; id++) {
        if (sim->rows[id].state == SIM_ROW_ABORTED) {
            sim->corrupted = true;
            append(sim, id, 0, SIM_SOUND);
            return;
        }
    }
}

/* Corrupts what is observed, so that the checks can show that they see it. True: the append was dealt with.
 * */
static bool corrupt(struct sim *sim, int64_t id, int version, uint8_t flaw) {
    const struct sim_row *row = &sim->rows[id];
    bool due = !sim->corrupted && sim->now > HV_SECONDS(2);
    switch (sim->options.corruption) {
    case SIM_DROP_APPEND:
        sim->corrupted = sim->corrupted || due;
        return due;
    case SIM_SWAP_APPENDS:
        if (due) {
            sim->corrupted = true;
            sim->held_back = id;
            return true;
        }
        if (sim->held_back != 0 && sim->rows[sim->held_back].key == row->key) {
            append(sim, id, version, flaw);
            append(sim, sim->held_back, version, flaw);
            sim->held_back = 0;
            return true;
        }
        return false;
    case SIM_APPEND_ABORTED:
        if (due) {
            append_aborted(sim);
        }
        return false;
    case SIM_APPEND_TWICE:
        if (due) {
            sim->corrupted = true;
            append(sim, id, version, flaw);
        }
        return false;
    default:
        return false;
    }
}

void sim_append(struct sim *sim, int64_t id, int version, uint8_t flaw) {
    if (sim->options.corruption == SIM_HONEST || !corrupt(sim, id, version, flaw)) {
        append(sim, id, version, flaw);
    }
}
