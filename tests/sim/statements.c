/* A member's two connections to the database. A statement begins (its snapshot), takes effect, and is
 * answered, with time in between: what is deleted after a mark's snapshot makes its reply shorter than its
 * limit. It may be refused; the connection may be lost before or after it took effect; or it takes effect
 * when nobody waits for it any more. */
#include "sim.h"

#include <string.h>

#include "base/memory.h"
#include "core/gaps.h"
#include "core/harvest_parts.h"

#define IDS 64
#define GAPS 64
#define HASHES 256

enum fate { FINE, REFUSED, LOST_BEFORE, LOST_AFTER, LOST_LATER, LATE };

struct statement {
    int member, which;
    uint64_t life, link;
    enum hv_action_type type;
    enum fate fate;
    bool because_of_a_row;
    bool cut; /* the reply ended before the limit */
    bool listen;
    bool only_new; /* nobody asks for the versions that rows had before they were marked */
    uint8_t uuid[HV_UUID_BYTES];
    int64_t from, to;
    uint32_t limit, count, hash_count, gap_count;
    struct hv_gap gaps[GAPS];
    uint8_t left_out[SIM_ROWS / 8]; /* a bit for each id */
    bool without[SIM_KEYS]; /* keys */
    bool bare[IDS];
    int64_t ids[IDS];
    int versions[IDS];
    uint32_t xmins[IDS], was[IDS], born[IDS]; /* of rows that are read; of those that are to go: xmins */
    bool but_locked, locked;
    bool remarks; /* rows that were marked before */
    uint32_t done; /* rows that went */
    uint8_t flaws[IDS];
    uint64_t hashes[HASHES];
};

struct link_arg {
    int member, which;
    uint64_t life, link;
};

/* ---- the connection ---- */

static void come_up(struct sim *sim, void *arg) {
    const struct link_arg *a = arg;
    struct sim_member *member = sim_member_in(sim, a->member, a->life);
    if (member == NULL || member->links[a->which].uid != a->link) {
        return;
    }
    member->links[a->which].up = true;
    sim_tell(member, (struct hv_event){.type = a->which == 0 ? HV_EV_CLAIM_UP : HV_EV_SETTLE_UP}, NULL);
}

static void come_up_later(struct sim_member *member, int which, hv_time delay) {
    struct link_arg *a = sim_later(member->sim, delay, come_up, sizeof *a);
    *a = (struct link_arg){member->index, which, member->life, member->links[which].uid};
}

void sim_link_start(struct sim_member *member, int which) {
    member->links[which] = (struct sim_link){.uid = ++member->sim->uid};
    come_up_later(member, which, sim_span(member->sim, HV_MS(1), HV_MS(50)));
}

void sim_link_down(struct sim_member *member, int which) {
    struct sim_link *link = &member->links[which];
    if (!link->up) {
        return;
    }
    struct hv_event event = {.type = which == 0 ? HV_EV_CLAIM_DOWN : HV_EV_SETTLE_DOWN, .flag = link->busy};
    member->sim->remarked_unseen |= link->remarks;
    *link = (struct sim_link){.uid = ++member->sim->uid};
    sim_tell(member, event, NULL);
    come_up_later(member, which, sim_span(member->sim, HV_MS(5), sim_coin(member->sim, 80) ? HV_MS(300)
                                          : HV_SECONDS(3)));
}

void sim_links_end(struct sim_member *member) {
    for (int i = 0; i < 2; i++) {
        member->links[i] = (struct sim_link){.uid = ++member->sim->uid};
    }
}

/* The member whose statement this is, if it still waits for it. */
static struct sim_member *waiting(struct sim *sim, const struct statement *s) {
    struct sim_member *member = sim_member_in(sim, s->member, s->life);
    return member != NULL && member->links[s->which].uid == s->link ? member : NULL;
}

/* ---- the reply ---- */

/* What the core is told of a row; its payload if it is not bare. */
static struct hv_claimed describe(const struct sim *sim, const struct statement *s, uint32_t at) {
    const struct sim_row *row = &sim->rows[s->ids[at]];
    const struct sim_key *key = &sim->keys[row->key];
    if (s->flaws[at] == SIM_DEFECTIVE && row->keyless) {
        return (struct hv_claimed){.id = s->ids[at], .key = UINT64_MAX, .version = s->xmins[at], .was = s->was[at]};
    }
    return (struct hv_claimed){.id = s->ids[at], .key_hash = key->hash, .key = key->id,
                               .topic = (uint32_t)sim_partition_of(sim, row->key), .bare = s->bare[at],
                               .version = s->xmins[at], .was = s->was[at]};
}

static void reply_listed(struct sim_member *member, const struct statement *s) {
    struct hv_claimed *rows = hv_calloc(s->count, sizeof *rows);
    for (uint32_t i = 0; i < s->count; i++) {
        rows[i] = describe(member->sim, s, i);
    }
    sim_tell(member, (struct hv_event){.type = HV_EV_LISTED, .rows = rows, .count = s->count}, rows);
}

static void reply_rows(struct sim_member *member, const struct statement *s) {
    struct hv_claimed *rows = hv_calloc(s->count, sizeof *rows);
    for (uint32_t i = 0; i < s->count; i++) {
        rows[i] = describe(member->sim, s, i);
        if (s->bare[i]) {
            continue;
        }
        struct sim_payload *payload = sim_payload_new(member->sim, s->ids[i]);
        payload->version = s->versions[i];
        payload->flaw = s->flaws[i];
        payload->key_bytes = rows[i].key == UINT64_MAX ? NULL : member->sim->keys[payload->key].bytes;
        rows[i].bytes = 100 + (uint32_t)(s->ids[i] % 50);
        rows[i].defective = payload->flaw == SIM_DEFECTIVE;
        rows[i].payload = payload;
    }
    enum hv_event_type type = s->type == HV_ACT_FETCH ? HV_EV_FETCHED : HV_EV_CLAIMED;
    sim_tell(member, (struct hv_event){.type = type, .rows = rows, .count = s->count, .flag = s->cut}, rows);
}

static void *copy(const void *from, size_t count, size_t size) {
    void *to = hv_calloc(count, size);
    if (count > 0) {
        memcpy(to, from, count * size);
    }
    return to;
}

static void reply(struct sim *sim, void *arg) {
    const struct statement *s = arg;
    struct sim_member *member = waiting(sim, s);
    if (member == NULL) {
        return;
    }
    if (s->fate == REFUSED) {
        struct hv_event event = {.type = s->which == 0 ? HV_EV_CLAIM_REFUSED : HV_EV_SETTLE_REFUSED,
                                 .flag = s->because_of_a_row, .code = s->locked};
        sim_tell(member, event, NULL);
    } else if (s->type == HV_ACT_MARK || s->type == HV_ACT_SCAN || s->type == HV_ACT_FETCH) {
        reply_rows(member, s);
    } else if (s->type == HV_ACT_LIST) {
        reply_listed(member, s);
    } else if (s->type == HV_ACT_WRITERS) {
        uint64_t *hashes = copy(s->hashes, s->hash_count, sizeof *hashes);
        sim_tell(member, (struct hv_event){.type = HV_EV_WRITERS, .hashes = hashes, .count = s->hash_count},
                 hashes);
    } else if (s->type == HV_ACT_LISTEN) {
        sim_tell(member, (struct hv_event){.type = HV_EV_LISTENING}, NULL);
    } else {
        sim_tell(member, (struct hv_event){.type = s->type == HV_ACT_PARK ? HV_EV_PARKED : HV_EV_PURGED, .count = s->done}, NULL);
    }
}

static void reply_later(struct sim *sim, const struct statement *s) {
    struct statement *next = sim_later(sim, sim_span(sim, HV_US(50), sim_coin(sim, 10) ? HV_MS(20)
                                                     : sim->database_pace), reply, sizeof *next);
    *next = *s;
}

/* ---- the statement takes effect ---- */

static void apply_mark(struct sim *sim, struct statement *s) {
    uint32_t count = 0, xid = ++sim->xid;
    for (uint32_t i = 0; i < s->count; i++) {
        struct sim_row *row = &sim->rows[s->ids[i]];
        if (s->bare[i]) { /* only read: as the snapshot held it */
            s->flaws[count] = s->flaws[i];
            s->xmins[count] = s->was[count] = s->xmins[i];
        } else if (row->state == SIM_ROW_COMMITTED && row->born == s->born[i]) {
            s->remarks |= row->marked;
            row->marked = true;
            memcpy(row->leader, s->uuid, HV_UUID_BYTES);
            row->xmin = xid;
            s->was[count] = s->only_new && s->gap_count == 0 ? xid : s->xmins[i];
            s->xmins[count] = xid;
            s->versions[count] = row->version;
            s->flaws[count] = row->flaw;
        } else {
            continue; /* deleted since the snapshot */
        }
        s->bare[count] = s->bare[i];
        s->ids[count++] = s->ids[i];
    }
    s->count = count;
}

/* What the snapshot held; contents may be older than what is in the table now. */
static void read_rows(struct sim *sim, struct statement *s) {
    for (uint32_t i = 0; i < s->count; i++) {
        s->versions[i] = sim->rows[s->ids[i]].version;
        s->flaws[i] = sim->rows[s->ids[i]].flaw;
        s->xmins[i] = s->was[i] = sim->rows[s->ids[i]].xmin;
        s->born[i] = sim->rows[s->ids[i]].born;
    }
}

/* Rows that are still of the version that they were sent in leave the table. */
static void take_away(struct sim *sim, struct statement *s) {
    for (uint32_t i = 0; i < s->count; i++) {
        struct sim_row *row = &sim->rows[s->ids[i]];
        bool locked = s->but_locked && sim->now < row->locked_until;
        if (row->state == SIM_ROW_COMMITTED && row->xmin == s->xmins[i] && !locked) {
            (s->type == HV_ACT_PARK ? sim_table_park : sim_table_delete)(sim, s->ids[i]);
            s->done++;
        }
    }
}

static void finish(struct sim *sim, void *arg) {
    struct statement *s = arg;
    if (s->type == HV_ACT_MARK) {
        apply_mark(sim, s);
    } else if (s->type == HV_ACT_PARK || s->type == HV_ACT_PURGE) {
        sim->count.purges += s->type == HV_ACT_PURGE;
        take_away(sim, s);
    }
    sim_trace(sim, "m%d statement %d takes effect, %u rows%s%s", s->member, s->type, s->count,
              s->fate == LATE ? ", late" : "", waiting(sim, s) == NULL ? ", nobody waits" : "");
    struct sim_member *member = waiting(sim, s);
    if (member != NULL && s->type == HV_ACT_LISTEN) {
        member->links[0].listens = s->listen;
    }
    if (member == NULL) {
        sim->remarked_unseen |= s->remarks;
    } else {
        member->links[s->which].remarks = s->remarks;
    }
    if (member != NULL && s->fate == LOST_AFTER) {
        sim_link_down(member, s->which);
    } else {
        reply_later(sim, s);
    }
}

/* ---- the statement begins ---- */

static bool is_ours(const struct statement *s, const struct sim_row *row) {
    return s->type == HV_ACT_MARK && row->marked && memcmp(row->leader, s->uuid, HV_UUID_BYTES) == 0;
}

/* The lowest `limit` rows between two ids, appended to those that the statement has. */
static void read_range(const struct sim *sim, struct statement *s, int64_t lo, int64_t hi, bool in_gap) {
    uint32_t found = 0;
    lo = lo < 0 ? 0 : lo;
    for (int64_t id = lo; id <= hi && id < sim->top && found < s->limit; id++) {
        const struct sim_row *row = &sim->rows[id];
        bool keyless = row->flaw == SIM_DEFECTIVE && row->keyless, without = s->without[row->key] && !keyless;
        bool out = s->left_out[id / 8] & 1 << id % 8 || (without && in_gap) || is_ours(s, row);
        if (row->state == SIM_ROW_COMMITTED && !out) {
            if (s->count == IDS) {
                break;
            }
            s->bare[s->count] = without;
            s->ids[s->count++] = id;
            found++;
        }
    }
}

static void read_gaps_and_above(struct sim *sim, struct statement *s) {
    for (uint32_t i = 0; i < s->gap_count; i++) {
        read_range(sim, s, s->gaps[i].lo, s->gaps[i].hi, true); /* gaps are ascending, and below */
    }
    read_range(sim, s, s->from, INT64_MAX, false);
    if (s->type == HV_ACT_MARK) {
        s->count = s->count < s->limit ? s->count : s->limit;
    } else if (s->count > 0 && sim_coin(sim, 10)) {
        s->cut = true;
        s->count = (uint32_t)sim_between(sim, 1, s->count);
    }
    read_rows(sim, s);
    sim->count.marks++;
}

static int by_id(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void read_again(struct sim *sim, struct statement *s) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        if (sim->rows[s->ids[i]].state == SIM_ROW_COMMITTED) {
            s->ids[count++] = s->ids[i];
        }
    }
    s->count = count;
    qsort(s->ids, s->count, sizeof *s->ids, by_id);
    if (s->count > 1 && sim_coin(sim, 20)) {
        s->cut = true;
        s->count = (uint32_t)sim_between(sim, 1, s->count);
    }
    read_rows(sim, s);
    sim->count.fetches++;
}

/* The highest `limit` rows between two ids, ascending. */
static void list_range(const struct sim *sim, struct statement *s) {
    uint32_t most = s->limit < IDS ? s->limit : IDS;
    for (int64_t id = s->to < sim->top ? s->to : sim->top - 1; id >= 0 && id >= s->from && s->count < most; id--) {
        if (sim->rows[id].state == SIM_ROW_COMMITTED) {
            s->ids[s->count++] = id;
        }
    }
    qsort(s->ids, s->count, sizeof *s->ids, by_id);
}

static void take_snapshot(struct sim *sim, struct statement *s) {
    if (s->type == HV_ACT_MARK || s->type == HV_ACT_SCAN) {
        read_gaps_and_above(sim, s);
    } else if (s->type == HV_ACT_LIST) {
        list_range(sim, s);
        for (uint32_t i = 0; i < s->count; i++) {
            s->flaws[i] = sim->rows[s->ids[i]].flaw;
        }
    } else if (s->type == HV_ACT_FETCH) {
        read_again(sim, s);
    } else if (s->type == HV_ACT_WRITERS) {
        for (int i = 0; i < sim->tx_count && s->hash_count < HASHES - 1; i++) {
            if (sim->txs[i].open) {
                s->hashes[s->hash_count++] = sim->txs[i].hash;
            }
        }
        if (sim_coin(sim, 3)) {
            s->hashes[s->hash_count++] = hv_random_next(&sim->dice); /* a passing stranger */
        }
    } else if (s->type == HV_ACT_PURGE || s->type == HV_ACT_PARK) {
        for (uint32_t i = 0; i < s->count; i++) {
            const struct sim_row *row = &sim->rows[s->ids[i]];
            bool there = row->state == SIM_ROW_COMMITTED && row->xmin == s->xmins[i];
            s->because_of_a_row = s->because_of_a_row || (there && row->undeletable);
            s->locked = s->locked || (there && sim->now < row->locked_until && !s->but_locked);
        }
    }
}

static void begin(struct sim *sim, void *arg) {
    struct statement *s = arg;
    struct sim_member *member = waiting(sim, s);
    if (s->fate == LOST_BEFORE || s->fate == LOST_LATER) {
        if (member != NULL) {
            sim_link_down(member, s->which);
        }
        if (s->fate == LOST_LATER) {
            struct statement *late = sim_later(sim, sim_span(sim, HV_MS(1), HV_SECONDS(6)), begin,
                                               sizeof *late);
            *late = *s;
            late->fate = LATE;
        }
        return;
    }
    if (member == NULL && s->fate != LATE && sim_coin(sim, 30)) {
        return; /* the connection ended, and the server saw that in time */
    }
    take_snapshot(sim, s);
    if ((s->because_of_a_row || s->locked) && s->fate != LATE) {
        s->fate = REFUSED;
    }
    if (s->fate == REFUSED || s->because_of_a_row || s->locked) {
        reply_later(sim, s);
        return;
    }
    hv_time span = sim_chance(sim, s->which == 0 ? sim->weather.claim.slow : sim->weather.settle.slow)
        ? HV_SECONDS(2) : sim->database_pace;
    struct statement *next = sim_later(sim, sim_span(sim, HV_US(50), span), finish, sizeof *next);
    *next = *s;
}

static enum fate draw_fate(struct sim *sim, const struct sim_trouble *trouble) {
    return sim_chance(sim, trouble->refused)       ? REFUSED
           : sim_chance(sim, trouble->lost_before) ? LOST_BEFORE
           : sim_chance(sim, trouble->lost_after)  ? LOST_AFTER
           : sim_chance(sim, trouble->lost_later)  ? LOST_LATER
                                                   : FINE;
}

static void leave_out(struct statement *s, const int64_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++) {
        s->left_out[ids[i] / 8] |= (uint8_t)(1 << ids[i] % 8);
    }
}

static bool leave_out_keys(const struct sim *sim, struct statement *s, const struct hv_action *action) {
    for (size_t i = 0; i < action->key_count; i++) {
        int key = 0;
        while (key < sim->key_count && (strlen(sim->keys[key].bytes) != action->keys[i].length ||
                                        memcmp(sim->keys[key].bytes, action->keys[i].bytes, action->keys[i].length) != 0)) {
            key++;
        }
        if (key == sim->key_count || s->without[key]) {
            return false;
        }
        s->without[key] = true;
    }
    return true;
}

static void take_range(struct statement *s, const struct hv_action *action) {
    s->from = action->from_id;
    s->to = action->to_id;
    s->gap_count = (uint32_t)action->gap_count;
    if (action->gap_count > 0) {
        memcpy(s->gaps, action->gaps, action->gap_count * sizeof *s->gaps);
    }
}

static bool holds_any_from(const struct sim_member *member, int64_t id) {
    const struct hv_slots *slots = &member->core->slots;
    bool any = false;
    for (uint32_t i = 0; i < slots->capacity; i++) {
        any = any || (slots->table[i].state != HV_SLOT_FREE && slots->table[i].id >= id);
    }
    return any;
}

void sim_statement(struct sim_member *member, const struct hv_action *action) {
    struct sim *sim = member->sim;
    bool claims = action->type == HV_ACT_MARK || action->type == HV_ACT_SCAN;
    bool asks = action->type == HV_ACT_WRITERS || action->type == HV_ACT_LIST || action->type == HV_ACT_LISTEN;
    int which = claims || asks ? 0 : 1;
    struct sim_link *link = &member->links[which];
    if (!link->up || link->busy) {
        sim_fail(sim, "a statement on a connection that is %s", link->up ? "busy" : "down");
        return;
    }
    if ((!claims && action->count > IDS) || (which == 1 && action->count == 0) || (which == 0 && action->gap_count > GAPS) ||
        (claims && (action->limit == 0 || action->limit > member->config.mark_query_records))) {
        sim_fail(sim, "a statement of a wrong size");
        return;
    }
    if (action->type == HV_ACT_MARK && (!member->leads || memcmp(action->uuid, member->leader_id,
                                                                  HV_UUID_BYTES) != 0)) {
        sim_fail(sim, "m%d marks without being the leader that it said it is", member->index);
    }
    if (action->type == HV_ACT_MARK && action->flag && holds_any_from(member, action->from_id)) {
        sim_fail(sim, "m%d holds rows that it takes for new", member->index);
    }
    if (action->type == HV_ACT_LISTEN && (!member->config.listen || (action->flag && !member->leads))) {
        sim_fail(sim, "m%d wants to be told of rows without need", member->index);
    }
    link->busy = true;
    const struct sim_trouble *trouble = which == 0 ? &sim->weather.claim : &sim->weather.settle;
    hv_time span = sim_chance(sim, trouble->slow) ? HV_SECONDS(2) : sim->database_pace;
    struct statement *s = sim_later(sim, sim_span(sim, HV_US(50), span), begin, sizeof *s);
    s->member = member->index;
    s->which = which;
    s->life = member->life;
    s->link = link->uid;
    s->type = action->type;
    s->listen = action->flag;
    s->only_new = action->type == HV_ACT_MARK && action->flag;
    s->fate = draw_fate(sim, trouble);
    memcpy(s->uuid, action->uuid, HV_UUID_BYTES);
    s->limit = action->limit;
    if (which == 0) {
        take_range(s, action);
    }
    if (claims) {
        leave_out(s, action->ids, action->count);
        if (!leave_out_keys(sim, s, action)) {
            sim_fail(sim, "m%d names a key that there is not, or twice", member->index);
        }
    } else if (action->type == HV_ACT_PARK) {
        for (size_t i = 0; i < action->count; i++) {
            s->xmins[s->count] = action->removed[i].version;
            s->ids[s->count++] = action->removed[i].id;
        }
    } else if (action->count > 0) {
        memcpy(s->ids, action->ids, action->count * sizeof *s->ids);
        s->count = (uint32_t)action->count;
        s->but_locked = action->flag;
        if (action->type == HV_ACT_PURGE) {
            memcpy(s->xmins, action->versions, action->count * sizeof *s->xmins);
        }
    }
    sim_trace(sim, "m%d statement %d from %lld limit %u count %u fate %d", member->index, s->type,
              (long long)s->from,
              s->limit, s->count, (int)s->fate);
}

/* ---- notifications ---- */

static void tell_of_rows(struct sim *sim, void *arg) {
    const struct link_arg *a = arg;
    struct sim_member *member = sim_member_in(sim, a->member, a->life);
    if (member != NULL && member->links[0].uid == a->link) {
        sim_tell(member, (struct hv_event){.type = HV_EV_WAKE}, NULL);
    }
}

void sim_notify(struct sim *sim, bool spurious) {
    for (int i = 0; i < sim->weather.members; i++) {
        const struct sim_member *member = &sim->members[i];
        bool told = spurious || (member->links[0].listens && !sim_coin(sim, sim->deaf));
        if (member->core != NULL && member->links[0].up && told) {
            struct link_arg *a = sim_later(sim, sim_span(sim, HV_US(20), sim->database_pace), tell_of_rows, sizeof *a);
            *a = (struct link_arg){i, 0, member->life, member->links[0].uid};
        }
    }
}
