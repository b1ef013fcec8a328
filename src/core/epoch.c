/* See epoch.h. */
#include "core/epoch.h"

#include <string.h>

bool hv_epoch_begin(struct hv_epoch *epoch, const uint64_t *hashes, size_t count) {
    if (count > HV_EPOCH_MAX) {
        return false;
    }
    if (count > 0) {
        memcpy(epoch->writers, hashes, count * sizeof *hashes);
    }
    epoch->count = count;
    return true;
}

static bool holds(const uint64_t *hashes, size_t count, uint64_t hash) {
    for (size_t i = 0; i < count; i++) {
        if (hashes[i] == hash) {
            return true;
        }
    }
    return false;
}

bool hv_epoch_is_over(struct hv_epoch *epoch, const uint64_t *hashes, size_t count) {
    size_t left = 0;
    for (size_t i = 0; i < epoch->count; i++) {
        if (holds(hashes, count, epoch->writers[i])) {
            epoch->writers[left++] = epoch->writers[i];
        }
    }
    epoch->count = left;
    return left == 0;
}
