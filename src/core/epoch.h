/* An epoch: the transactions that were writing at one moment, told by hashes, until none of them is left. Whoever took a lock before that
 * moment is among them or has ended. */
#ifndef HV_CORE_EPOCH_H
#define HV_CORE_EPOCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_EPOCH_MAX 1024 /* writers; with more of them at once none is begun */

struct hv_epoch {
    uint64_t writers[HV_EPOCH_MAX]; /* those that may still be there */
    size_t count;
};

/* Begins with those who write now. False, and nothing is changed, when they are too many. */
bool hv_epoch_begin(struct hv_epoch *epoch, const uint64_t *hashes, size_t count);

/* Keeps of them those who still write. Is it over: is nobody left? */
bool hv_epoch_is_over(struct hv_epoch *epoch, const uint64_t *hashes, size_t count);

#endif
