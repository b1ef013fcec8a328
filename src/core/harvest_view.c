/* See harvest.h: what can be seen of it from outside. Changes nothing. */
#include "core/harvest_parts.h"

#include <string.h>

void hv_harvest_look(const struct hv_harvest *h, struct hv_harvest_figures *ret) {
    *ret = (struct hv_harvest_figures){
        .role = h->leading.role,
        .lease = hv_leading_lease(&h->leading, h->now),
        .lease_end = h->leading.lease_end,
        .held = h->slots.used - h->settle.gone.count,
        .unsent = h->shards.unsent + h->isolation.unsent,
        .in_flight = hv_sender_in_flight(&h->sender),
        .unpurged = hv_settle_pending(&h->settle) + h->settle.stuck.count,
        .removing = h->isolation.removals[HV_POISON_PARK].waiting + h->isolation.removals[HV_POISON_PARK].asked +
                    h->isolation.removals[HV_POISON_SKIP].waiting + h->isolation.removals[HV_POISON_SKIP].asked,
        .given_up = h->given_up,
        .blocked_keys = hv_isolation_blocked(&h->isolation),
        .watermark = hv_claim_low(&h->claim),
        .acknowledged = h->meter.total,
        .stopping = h->stop != HV_RUNNING,
        .stopped = h->stop == HV_STOPPED,
    };
    memcpy(ret->leader_id, h->leader_id, HV_UUID_BYTES);
}

void hv_harvest_each_in_flight(const struct hv_harvest *h, void (*visit)(void *user, void *payload), void *user) {
    for (uint32_t i = 0; i < h->slots.capacity; i++) {
        const struct hv_slot *slot = &h->slots.table[i];
        if (slot->state == HV_SLOT_IN_FLIGHT) {
            visit(user, slot->payload);
        }
    }
}

/* ---- what waits ---- */

bool hv_harvest_next_blocked(const struct hv_harvest *h, uint32_t *at, struct hv_blocked *ret) {
    const struct hv_keys *keys = &h->isolation.keys;
    for (uint32_t index = hv_keys_next(keys, *at - 1); index != HV_NO_KEY; index = hv_keys_next(keys, index)) {
        const struct hv_key *key = &keys->table[index];
        if (key->state == HV_KEY_FREE || key->attempts == 0) {
            continue;
        }
        *at = index + 1;
        *ret = (struct hv_blocked){
            .key = key->bytes,
            .key_length = key->length,
            .whole_shard = key->whole_shard,
            .shard = key->shard,
            .id = key->id,
            .topic = key->topic_name,
            .code = key->code,
            .reason = key->reason,
            .policy = (enum hv_poison)key->policy,
            .of_topic = key->of_topic,
            .since = key->since,
            .attempts = key->attempts,
            .next_try = key->state == HV_KEY_BLOCKED ? key->until : INT64_MIN,
        };
        return true;
    }
    return false;
}

static uint32_t keys_that_wait_for(const struct hv_keys *keys, uint32_t topic) {
    uint32_t count = 0;
    for (uint32_t index = hv_keys_next(keys, HV_NO_KEY); index != HV_NO_KEY; index = hv_keys_next(keys, index)) {
        const struct hv_key *key = &keys->table[index];
        count += key->state != HV_KEY_FREE && key->attempts > 0 && key->of_topic && key->topic == topic;
    }
    return count;
}

bool hv_harvest_next_closed(const struct hv_harvest *h, uint32_t *at, struct hv_closed *ret) {
    const struct hv_isolation *iso = &h->isolation;
    if (*at >= iso->closed_count) {
        return false;
    }
    const struct hv_closed_topic *closed = &iso->closed[(*at)++];
    *ret = (struct hv_closed){
        .topic = iso->keys.table[closed->probe].topic_name,
        .code = closed->why.code,
        .reason = closed->why.reason,
        .since = closed->since,
        .keys = keys_that_wait_for(&iso->keys, closed->topic),
    };
    return true;
}
