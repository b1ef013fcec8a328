/* See shards.h. */
#include "core/shards.h"

#include <assert.h>

#include "base/memory.h"

void hv_shards_init(struct hv_shards *shards, struct hv_slots *slots, uint32_t count) {
    *shards = (struct hv_shards){
        .slots = slots,
        .list = hv_calloc(count, sizeof *shards->list),
        .count = count,
    };
    for (uint32_t i = 0; i < count; i++) {
        shards->list[i].queue = HV_LIST_EMPTY;
        shards->list[i].next = HV_NO_SLOT;
    }
}

void hv_shards_fini(struct hv_shards *shards) {
    free(shards->list);
    *shards = (struct hv_shards){0};
}

void hv_shards_insert(struct hv_shards *shards, uint32_t index) {
    struct hv_slot *slot = hv_slot(shards->slots, index);
    struct hv_shard *shard = &shards->list[slot->shard];
    assert(slot->state == HV_SLOT_UNSENT);
    uint32_t before = HV_NO_SLOT, behind = shard->queue.last;
    while (behind != HV_NO_SLOT) {
        const struct hv_slot *other = hv_slot(shards->slots, behind);
        if (other->state != HV_SLOT_UNSENT || other->id < slot->id) {
            break;
        }
        before = behind;
        behind = other->prev;
    }
    hv_list_insert(shards->slots, &shard->queue, before, index);
    if (before == shard->next) {
        shard->next = index;
    }
    shards->unsent++;
    shards->unsent_bytes += slot->bytes;
}

void hv_shards_remove_unsent(struct hv_shards *shards, uint32_t index) {
    struct hv_slot *slot = hv_slot(shards->slots, index);
    struct hv_shard *shard = &shards->list[slot->shard];
    assert(slot->state == HV_SLOT_UNSENT);
    if (shard->next == index) {
        shard->next = slot->next;
    }
    hv_list_remove(shards->slots, &shard->queue, index);
    if (shard->next != HV_NO_SLOT && hv_slot(shards->slots, shard->next)->state != HV_SLOT_UNSENT) {
        hv_shard_rewind(shards, shard); /* only while failed reports of records behind it are still to come */
    }
    shards->unsent--;
    shards->unsent_bytes -= slot->bytes;
}

void hv_shards_sent(struct hv_shards *shards, struct hv_shard *shard, hv_time now) {
    struct hv_slot *slot = hv_slot(shards->slots, shard->next);
    hv_slot_sent(slot, now);
    shard->next = slot->next;
    shard->in_flight++;
    shard->in_flight_bytes += slot->bytes;
    shards->unsent--;
    shards->unsent_bytes -= slot->bytes;
}

static void landed(struct hv_shard *shard, const struct hv_slot *slot) {
    assert(shard->in_flight > 0 && shard->in_flight_bytes >= slot->bytes);
    shard->in_flight--;
    shard->in_flight_bytes -= slot->bytes;
}

void hv_shards_acked(struct hv_shards *shards, uint32_t index, hv_time now) {
    struct hv_slot *slot = hv_slot(shards->slots, index);
    struct hv_shard *shard = &shards->list[slot->shard];
    hv_slot_move(slot, HV_SLOT_ACKED);
    slot->since = now;
    hv_list_remove(shards->slots, &shard->queue, index);
    landed(shard, slot);
}

void hv_shards_failed(struct hv_shards *shards, uint32_t index) {
    struct hv_slot *slot = hv_slot(shards->slots, index);
    struct hv_shard *shard = &shards->list[slot->shard];
    hv_slot_move(slot, HV_SLOT_UNSENT);
    landed(shard, slot);
    shards->unsent++;
    shards->unsent_bytes += slot->bytes;
}

void hv_shard_rewind(struct hv_shards *shards, struct hv_shard *shard) {
    uint32_t index = shard->queue.first;
    while (index != HV_NO_SLOT && hv_slot(shards->slots, index)->state != HV_SLOT_UNSENT) {
        index = hv_slot(shards->slots, index)->next;
    }
    shard->next = index;
}
