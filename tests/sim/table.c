/* The outbox table and the application that writes to it. Per key the application serialises its writes: a
 * key is locked from the first id drawn for it to the end of the transaction, so ids of a key rise in commit
 * order. */
#include "sim.h"

#include <string.h>

struct tx_arg {
    int tx;
};

struct row_arg {
    int64_t id;
};

static void think(struct sim *sim, void *arg);

#define RESTART_FROM (SIM_ROWS / 2) /* where a sequence stands that starts again later */

/* As of ALTER SEQUENCE ... RESTART: ids of a key rise again from here on, and nothing is promised towards
 * the rows before. */
static void restart_sequence(struct sim *sim) {
    sim_trace(sim, "the sequence starts again");
    sim->lowest = sim->next_id = 1;
    sim->restarted_at = sim->now;
    sim->restart_at = HV_NEVER;
    for (int i = 0; i < sim->key_count; i++) {
        sim->keys[i].last = 0;
    }
}

static void look_for_rows_of_before(struct sim *sim) {
    for (int64_t id = RESTART_FROM; sim->weather.restarts && id < sim->top; id++) {
        if (sim->rows[id].state == SIM_ROW_DRAWN || sim->rows[id].state == SIM_ROW_COMMITTED) {
            sim->settled_at = sim->now;
            return;
        }
    }
}

static bool used_up(const struct sim *sim) {
    return sim->next_id + 64 >= (sim->weather.restarts && sim->restarted_at > 0 ? RESTART_FROM : SIM_ROWS);
}

static int64_t draw_id(struct sim *sim, struct sim_key *key) {
    if (!key->cached) {
        return sim->next_id++;
    }
    if (key->cache_next == key->cache_end) { /* as of a sequence with CACHE 8 */
        key->cache_next = sim->next_id;
        key->cache_end = key->cache_next + 8;
        sim->next_id = key->cache_end;
    }
    return key->cache_next++;
}

static void flaw_is_over(struct sim *sim, struct sim_row *row) {
    if (row->flaw != SIM_SOUND) {
        sim->keys[row->key].flaws--;
        sim->keys[row->key].mended_at = hv_time_max(sim->keys[row->key].mended_at, sim->now);
    }
}

static void repair(struct sim *sim, void *arg) {
    sim_table_mend(sim, ((struct row_arg *)arg)->id);
}

static void spoil(struct sim *sim, struct sim_row *row, int64_t id) {
    row->flaw = SIM_SOUND;
    if (sim_chance(sim, sim->weather.poison)) {
        row->flaw = SIM_POISON;
    } else if (sim_chance(sim, sim->weather.defective)) {
        row->flaw = SIM_DEFECTIVE;
        row->keyless = sim_coin(sim, 40);
        sim->keyless |= row->keyless;
    } else if (sim_chance(sim, sim->weather.oversize)) {
        row->flaw = SIM_OVERSIZE;
    } else if (sim_chance(sim, sim->weather.puzzle)) {
        row->flaw = SIM_PUZZLE;
    }
    row->undeletable = sim_chance(sim, sim->weather.undeletable);
    row->locked_until = sim_chance(sim, sim->weather.locked) ? sim->now + sim_span(sim, HV_MS(50), HV_SECONDS(6)) : 0;
    row->was_bad = row->flaw != SIM_SOUND && row->flaw != SIM_PUZZLE;
    if (row->flaw != SIM_SOUND || row->undeletable) {
        sim->keys[row->key].troubled |= row->flaw != SIM_SOUND;
        sim->keys[row->key].flaws += row->flaw != SIM_SOUND;
        sim->keys[row->key].flaws_ever += row->flaw != SIM_SOUND;
        struct row_arg *again = sim_later(sim, sim_span(sim, HV_MS(300), HV_SECONDS(8)), repair,
                                          sizeof *again);
        again->id = id;
    }
}

static void draw_row(struct sim *sim, struct sim_tx *tx, int number) {
    struct sim_key *key = &sim->keys[number];
    if (sim->now >= sim->restart_at) {
        restart_sequence(sim);
    }
    if (tx->count == SIM_TX_ROWS || used_up(sim)) {
        return;
    }
    key->locked = true;
    int64_t id = draw_id(sim, key);
    sim->top = sim->top > id ? sim->top : id + 1;
    struct sim_row *row = &sim->rows[id];
    *row = (struct sim_row){.state = SIM_ROW_DRAWN, .key = (uint8_t)number, .xmin = ++sim->xid, .before = key->last,
                            .drawn_at = sim->now};
    row->born = row->xmin;
    key->last = id;
    tx->ids[tx->count++] = id;
    spoil(sim, row, id);
    sim_trace(sim, "tx %d draws %lld key %d flaw %d%s", (int)(tx - sim->txs), (long long)id, number,
              row->flaw,
              row->undeletable ? " undeletable" : "");
}

static void end_tx(struct sim *sim, void *arg) {
    struct sim_tx *tx = &sim->txs[((struct tx_arg *)arg)->tx];
    bool aborted = hv_random_below(&sim->dice, 10000) < sim->weather.aborted;
    sim_trace(sim, "tx %d %s", (int)(tx - sim->txs), aborted ? "rolls back" : "commits");
    for (int i = 0; i < tx->count; i++) {
        struct sim_row *row = &sim->rows[tx->ids[i]];
        row->state = aborted ? SIM_ROW_ABORTED : SIM_ROW_COMMITTED;
        row->committed_at = sim->now;
        sim->keys[row->key].locked = false;
        sim->count.committed += !aborted;
        if (aborted) {
            flaw_is_over(sim, row);
        }
    }
    tx->open = false;
    if (!aborted) {
        sim_notify(sim, false);
    }
}

static hv_time commit_delay(struct sim *sim) {
    if (hv_random_below(&sim->dice, 10000) < sim->weather.prepared) {
        sim->count.late++;
        return sim_span(sim, HV_SECONDS(5), HV_SECONDS(20));
    }
    if (hv_random_below(&sim->dice, 10000) < sim->weather.late) {
        sim->count.late++;
        return sim_span(sim, HV_MS(100), HV_SECONDS(4));
    }
    return sim_span(sim, HV_US(100), HV_MS(15));
}

/* Draws one row after the other, then commits or rolls back. */
static void draw_next(struct sim *sim, void *arg) {
    int number = ((struct tx_arg *)arg)->tx;
    struct sim_tx *tx = &sim->txs[number];
    int key = (int)hv_random_below(&sim->dice, (uint64_t)sim->key_count);
    bool mine = false;
    for (int i = 0; i < tx->count; i++) {
        mine = mine || sim->rows[tx->ids[i]].key == key;
    }
    if (!sim->keys[key].locked || mine) {
        draw_row(sim, tx, key);
    }
    bool more = tx->count < SIM_TX_ROWS && sim_coin(sim, 50);
    hv_time delay = more ? sim_span(sim, HV_US(50), sim_coin(sim, 5) ? HV_MS(300) : HV_MS(3))
        : commit_delay(sim);
    struct tx_arg *next = sim_later(sim, delay, more ? draw_next : end_tx, sizeof *next);
    next->tx = number;
}

static void begin_tx(struct sim *sim) {
    look_for_rows_of_before(sim);
    if (sim->tx_count == SIM_TXS || used_up(sim)) {
        return;
    }
    int number = sim->tx_count++;
    sim->txs[number] = (struct sim_tx){.hash = hv_random_next(&sim->dice), .open = true};
    struct tx_arg *next = sim_later(sim, sim_span(sim, 0, HV_MS(2)), draw_next, sizeof *next);
    next->tx = number;
}

/* A transaction that writes and stays open: nothing that is missing above its row is given up before it ends. */
static void forget_one(struct sim *sim, void *arg) {
    (void)arg;
    if (sim->keys[0].locked) {
        sim_later(sim, HV_MS(1), forget_one, 1);
        return;
    }
    int number = sim->tx_count++;
    sim->txs[number] = (struct sim_tx){.hash = hv_random_next(&sim->dice), .open = true};
    draw_row(sim, &sim->txs[number], 0);
    struct tx_arg *end = sim_later(sim, sim->weather.forgotten + sim_span(sim, 0, sim->weather.forgotten), end_tx, sizeof *end);
    end->tx = number;
}

/* A writer begins transactions one after the other, in bursts; they may overlap. */
static void think(struct sim *sim, void *arg) {
    (void)arg;
    if (!sim->writing) {
        return;
    }
    begin_tx(sim);
    hv_time pause = sim_coin(sim, 50) ? sim_span(sim, 0, HV_MS(20))
        : sim_span(sim, HV_MS(20), sim->pause_max);
    sim_later(sim, pause, think, 1);
}

void sim_table_start(struct sim *sim) {
    sim->restart_at = sim->weather.restarts ? sim_span(sim, HV_SECONDS(2), HV_SECONDS(8)) : HV_NEVER;
    sim->next_id = sim->lowest = sim->top = sim->weather.restarts ? RESTART_FROM : 1;
    sim->key_count = (int)sim_between(sim, 2, SIM_KEYS);
    sim->partition_count = (int)sim_between(sim, 1, SIM_PARTITIONS);
    for (int i = 0; i < sim->key_count; i++) {
        sim->keys[i] = (struct sim_key){.hash = (uint32_t)hv_random_next(&sim->dice),
                                        .cached = sim_chance(sim, sim->weather.cached_keys),
                                        .bytes = {'k', (char)('a' + i)}};
        sim->keys[i].id = sim->keys[i].hash;
    }
    sim->pause_max = sim_coin(sim, 70) || sim->weather.recovery_max > 0 ? HV_MS(400) : HV_MS(40);
    if (sim->weather.forgotten > 0) {
        sim_later(sim, sim_span(sim, 0, HV_SECONDS(1)), forget_one, 1);
    }
    int writers = (int)sim_between(sim, 1, 3);
    for (int i = 0; i < writers; i++) {
        sim_later(sim, sim_span(sim, 0, HV_MS(500)), think, 1);
    }
}

/* What leaves the table unsent, or is parked, was bad, and that is the policy. */
static void check_removal(struct sim *sim, int64_t id, enum hv_poison policy) {
    struct sim_row *row = &sim->rows[id];
    if (!row->was_bad || sim->policies[sim_partition_of(sim, row->key)] != policy) {
        sim_fail(sim, "row %lld is %s", (long long)id, policy == HV_POISON_PARK ? "parked for nothing" : "deleted but was never appended");
    }
    flaw_is_over(sim, row);
    row->flaw = SIM_SOUND;
    row->removed = true;
    sim->count.removed++;
}

void sim_table_park(struct sim *sim, int64_t id) {
    struct sim_row *row = &sim->rows[id];
    if (row->state == SIM_ROW_COMMITTED) {
        check_removal(sim, id, HV_POISON_PARK);
        row->state = SIM_ROW_GONE;
        sim->progress = sim->now;
    }
}

void sim_table_delete(struct sim *sim, int64_t id) {
    struct sim_row *row = &sim->rows[id];
    if (row->state != SIM_ROW_COMMITTED) {
        return;
    }
    if (row->appended == 0) {
        check_removal(sim, id, HV_POISON_SKIP);
    }
    row->state = SIM_ROW_GONE;
    sim->progress = sim->now;
}

void sim_table_mend(struct sim *sim, int64_t id) {
    struct sim_row *row = &sim->rows[id];
    bool over = row->state == SIM_ROW_ABORTED || row->state == SIM_ROW_GONE;
    if (over || (row->flaw == SIM_SOUND && !row->undeletable)) {
        return;
    }
    flaw_is_over(sim, row);
    if (row->state == SIM_ROW_COMMITTED && row->flaw != SIM_SOUND && sim_coin(sim, 25)) {
        sim_trace(sim, "operator deletes %lld", (long long)id);
        row->state = SIM_ROW_GONE;
        row->by_operator = true;
        return;
    }
    sim_trace(sim, "operator mends %lld", (long long)id);
    row->undeletable = false;
    if (row->flaw != SIM_SOUND) {
        row->flaw = SIM_SOUND;
        row->xmin = ++sim->xid;
        row->version++;
    }
}

void sim_table_give_again(struct sim *sim) {
    uint64_t latest = sim_coin(sim, 60) && sim->top > 30 ? 30 : (uint64_t)sim->top; /* what is on its way is more interesting */
    int64_t id = sim->top - 1 - (int64_t)hv_random_below(&sim->dice, latest);
    struct sim_row *row = &sim->rows[id];
    bool there = row->state == SIM_ROW_COMMITTED;
    if (!(there || row->state == SIM_ROW_GONE) || row->flaw != SIM_SOUND || row->undeletable) {
        return;
    }
    sim_trace(sim, "%lld is given again, its first owner %s", (long long)id, there ? "is deleted" : "is gone");
    row->state = SIM_ROW_COMMITTED;
    row->committed_at = sim->now;
    row->xmin = row->born = ++sim->xid;
    row->version++;
    row->again = true;
    row->appended = 0;
    row->locked_until = 0;
    row->marked = row->removed = row->by_operator = row->was_bad = row->keyless = false;
    sim->lowest = sim->lowest < id ? sim->lowest : id;
    sim->count.committed++;
}

void sim_table_mend_all(struct sim *sim) {
    for (int64_t id = sim->lowest; id < sim->top; id++) {
        if (sim->rows[id].state != SIM_ROW_UNUSED) {
            sim_table_mend(sim, id);
        }
    }
}

bool sim_table_empty(struct sim *sim) {
    while (sim->lowest < sim->top) {
        enum sim_row_state state = sim->rows[sim->lowest].state;
        if (state == SIM_ROW_DRAWN || state == SIM_ROW_COMMITTED ||
            (state == SIM_ROW_UNUSED && sim->writing)) {
            return false;
        }
        sim->lowest++;
    }
    for (int i = 0; i < sim->tx_count; i++) {
        if (sim->txs[i].open) {
            return false;
        }
    }
    return true;
}

void sim_lose_row(struct sim *sim) {
    for (int64_t id = sim->lowest; id < sim->top; id++) {
        if (sim->rows[id].state == SIM_ROW_COMMITTED && sim->rows[id].appended == 0) {
            sim->corrupted = true;
            sim_table_delete(sim, id);
            return;
        }
    }
}
