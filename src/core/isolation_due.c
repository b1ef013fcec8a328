/* See isolation.h. This file: when blocked keys are tried again, and what reading their records came to. */
#include "core/isolation.h"

#include <stdlib.h>

#define TRIALS 32 /* at one time: what is read again takes memory */

static int by_id(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

size_t hv_isolation_due(struct hv_isolation *iso, int64_t *ids, size_t max, hv_time now) {
    size_t count = 0;
    if (now < iso->due || iso->trials >= TRIALS) {
        return 0;
    }
    max = max < TRIALS - iso->trials ? max : TRIALS - iso->trials;
    iso->due = HV_NEVER;
    uint32_t first = iso->first_due;
    for (int round = 0; round < 2; round++) { /* from where the last one ended, and then those before */
        for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
            struct hv_key *key = hv_key(&iso->keys, i);
            if (key->state != HV_KEY_BLOCKED || (i < first) != (round == 1)) {
                continue;
            }
            if (key->until <= now && count < max) {
                hv_key_move(&iso->keys, i, HV_KEY_FETCHING);
                ids[count++] = key->id;
                iso->first_due = i + 1;
            } else {
                iso->due = hv_time_min(iso->due, key->until);
            }
        }
    }
    qsort(ids, count, sizeof *ids, by_id);
    return count;
}

hv_time hv_isolation_deadline(const struct hv_isolation *iso) {
    return iso->keys.count[HV_KEY_BLOCKED] == 0 || iso->trials >= TRIALS ? HV_NEVER : iso->due;
}

void hv_isolation_retry_all(struct hv_isolation *iso, hv_time now) {
    iso->removals[HV_POISON_PARK].not_before = iso->removals[HV_POISON_SKIP].not_before = INT64_MIN;
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        struct hv_key *key = hv_key(&iso->keys, i);
        if (key->state == HV_KEY_BLOCKED) {
            key->until = hv_time_min(key->until, now);
            iso->due = hv_time_min(iso->due, now);
        }
    }
}

void hv_isolation_not_fetched(struct hv_isolation *iso, hv_time until) {
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        struct hv_key *key = hv_key(&iso->keys, i);
        if (key->state == HV_KEY_FETCHING) {
            hv_key_move(&iso->keys, i, HV_KEY_BLOCKED);
            key->until = until;
            iso->due = hv_time_min(iso->due, until);
        }
    }
}

uint32_t hv_isolation_fetching(const struct hv_isolation *iso, int64_t id) {
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        const struct hv_key *key = &iso->keys.table[i];
        if (key->state == HV_KEY_FETCHING && key->id == id) {
            return i;
        }
    }
    return HV_NO_KEY;
}

void hv_isolation_try(struct hv_isolation *iso, uint32_t key, uint32_t index) {
    hv_slot(iso->slots, index)->way = HV_WAY_ALONE;
    hv_slot(iso->slots, index)->puzzles = HV_PUZZLES_MAX - 1; /* once more is enough */
    hv_key_move(&iso->keys, key, HV_KEY_SUSPECT);
    hv_key(&iso->keys, key)->trial = true;
    iso->trials++;
    hv_isolation_insert(iso, key, index);
}

void hv_isolation_put_off(struct hv_isolation *iso, uint32_t key, hv_time now) {
    hv_key_move(&iso->keys, key, HV_KEY_BLOCKED);
    hv_key(&iso->keys, key)->until = now + iso->config->io_error_backoff;
    iso->due = hv_time_min(iso->due, hv_key(&iso->keys, key)->until);
}

void hv_isolation_none_came(struct hv_isolation *iso, int64_t up_to, hv_time now, struct hv_actions *out) {
    for (uint32_t i = hv_keys_next(&iso->keys, HV_NO_KEY); i != HV_NO_KEY; i = hv_keys_next(&iso->keys, i)) {
        struct hv_key *key = hv_key(&iso->keys, i);
        if (key->state == HV_KEY_FETCHING && key->id <= up_to) {
            hv_isolation_gone(iso, i, out);
        } else if (key->state == HV_KEY_FETCHING) {
            hv_key_move(&iso->keys, i, HV_KEY_BLOCKED);
            iso->due = key->until = now;
        }
    }
}
