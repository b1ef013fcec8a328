/* See intake.h. */
#include "core/intake.h"

#include <assert.h>

void hv_intake_release(const struct hv_claimed *row, struct hv_actions *out) {
    if (row->payload != NULL) {
        hv_actions_add(out, HV_ACT_RELEASE)->payload = row->payload;
    }
}

static uint32_t shard_of(const struct hv_intake *in, const struct hv_claimed *row) {
    return row->key_hash % in->shards->count;
}

static void fill(struct hv_slot *slot, const struct hv_claimed *row, hv_time now) {
    slot->payload = row->payload;
    slot->bytes = row->bytes;
    slot->version = row->version;
    slot->topic = row->topic;
    slot->since = now;
    slot->defective = row->defective;
}

static uint32_t make_slot(struct hv_intake *in, const struct hv_claimed *row, hv_time now) {
    uint32_t index = hv_slots_take(in->slots, row->id);
    struct hv_slot *slot = hv_slot(in->slots, index);
    slot->key = row->key;
    slot->shard = (uint16_t)shard_of(in, row);
    fill(slot, row, now);
    return index;
}

/* What of its key is in the table comes later, with this row. */
static enum hv_intake_result leave(struct hv_intake *in, uint32_t key, const struct hv_claimed *row) {
    hv_isolation_keep_bytes(in->iso, key, row->payload);
    return hv_keys_is_hidden(&in->iso->keys, key) ? HV_INTAKE_HAD : HV_INTAKE_LEFT;
}

static enum hv_intake_result take_new(struct hv_intake *in, const struct hv_claimed *row, hv_time now, struct hv_actions *out) {
    uint32_t key;
    enum hv_isolation_place place = hv_isolation_place(in->iso, row->key, shard_of(in, row), &key);
    if (place == HV_PLACE_TABLE || hv_slots_left(in->slots) == 0) {
        enum hv_intake_result result = place == HV_PLACE_TABLE ? leave(in, key, row) : HV_INTAKE_FULL;
        hv_intake_release(row, out);
        return result;
    }
    uint32_t index = make_slot(in, row, now);
    if (place == HV_PLACE_KEY) {
        hv_isolation_insert(in->iso, key, index);
    } else {
        hv_shards_insert(in->shards, index);
    }
    return HV_INTAKE_TOOK;
}

/* An id that we hold comes again, after a refresh. If the row was not sent yet its content is taken anew. Otherwise it may be another
 * row: then the purge of the first one will find it, and have it read (settling.h). If it is the same, we gave it another version. */
static enum hv_intake_result take_known(struct hv_intake *in, uint32_t index, const struct hv_claimed *row, hv_time now,
                                        struct hv_actions *out) {
    struct hv_slot *slot = hv_slot(in->slots, index);
    if (slot->state == HV_SLOT_PURGED && row->version != slot->version) {
        hv_list_remove(in->slots, in->gone, index);
        hv_slots_give(in->slots, index);
        return take_new(in, row, now, out);
    }
    if (slot->state != HV_SLOT_UNSENT) {
        if (row->was != slot->version) {
            slot->other = true;
        } else if (row->version != slot->version) {
            slot->moved = true;
            slot->version = row->version;
        }
        hv_intake_release(row, out);
        return HV_INTAKE_HAD;
    }
    if (row->key != slot->key || shard_of(in, row) != slot->shard) {
        hv_sender_forget(in->sender, index, out);
        return take_new(in, row, now, out);
    }
    uint64_t *bytes = slot->trouble != HV_NO_KEY ? &in->iso->unsent_bytes : &in->shards->unsent_bytes;
    *bytes += row->bytes;
    *bytes -= slot->bytes;
    hv_actions_add(out, HV_ACT_RELEASE)->payload = slot->payload;
    fill(slot, row, now);
    return HV_INTAKE_HAD;
}

/* Of a key that claims were told to leave out. It always belongs to the table: such keys stay known until all is claimed anew. */
static enum hv_intake_result take_bare(struct hv_intake *in, const struct hv_claimed *row) {
    uint32_t key;
    if (hv_slots_find(in->slots, row->id) != HV_NO_SLOT) {
        return HV_INTAKE_HAD;
    }
    enum hv_isolation_place place = hv_isolation_place(in->iso, row->key, shard_of(in, row), &key);
    return place == HV_PLACE_TABLE ? HV_INTAKE_HAD : HV_INTAKE_FULL;
}

enum hv_intake_result hv_intake_row(struct hv_intake *in, const struct hv_claimed *row, hv_time now, struct hv_actions *out) {
    assert((row->payload == NULL) == row->bare);
    if (row->bare) {
        return take_bare(in, row);
    }
    uint32_t known = hv_slots_find(in->slots, row->id);
    return known != HV_NO_SLOT ? take_known(in, known, row, now, out) : take_new(in, row, now, out);
}

/* ---- rows that were read again ---- */

/* The row that blocks this key is there. False: there is no room for it. */
static bool try_again(struct hv_intake *in, uint32_t index, const struct hv_claimed *row, hv_time now, struct hv_actions *out) {
    bool same = hv_keys_find(&in->iso->keys, row->key, shard_of(in, row)) == index;
    if (!same || hv_slots_find(in->slots, row->id) != HV_NO_SLOT) { /* somebody changed its key */
        hv_isolation_gone(in->iso, index, out);
        return hv_intake_row(in, row, now, out) != HV_INTAKE_FULL;
    }
    if (hv_slots_left(in->slots) > 0) {
        hv_isolation_try(in->iso, index, make_slot(in, row, now));
    } else {
        hv_isolation_put_off(in->iso, index, now);
        hv_intake_release(row, out);
    }
    return true;
}

bool hv_intake_fetched(struct hv_intake *in, const struct hv_claimed *rows, size_t count, bool cut, hv_time now, struct hv_actions *out) {
    bool room = true;
    for (size_t i = 0; i < count; i++) {
        uint32_t key = hv_isolation_fetching(in->iso, rows[i].id);
        if (key != HV_NO_KEY) {
            room = try_again(in, key, &rows[i], now, out) && room;
        } else {
            hv_intake_release(&rows[i], out);
        }
    }
    hv_isolation_none_came(in->iso, cut && count > 0 ? rows[count - 1].id : INT64_MAX, now, out);
    return room;
}
