/* The records of the pump: what they hold, and how one that was consumed is known again. Pure.
 *
 *   key      pump-<number of the key>
 *   value    letters and digits, or NULL
 *   Seq      header: number of the record within its key, rising from 1
 *   Pump     header: <run>-<number of the key>-<c or r>-<bytes of the value, or null>-<checksum>; r: of a transaction that is
 *            going to be rolled back; the checksum covers key, Seq and value */
#ifndef HV_APP_CMD_PUMP_RECORD_H
#define HV_APP_CMD_PUMP_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random.h"

#define HV_PUMP_KEY_PREFIX "pump-"
#define HV_PUMP_TAG_MAX 80 /* bytes of the header Pump, NUL included */

struct hv_pump_tag {
    uint64_t run;
    uint32_t key;
    uint64_t seq; /* of the other header */
    bool doomed;
    bool blank;    /* the value is NULL */
    uint64_t size; /* of the value */
    uint64_t sum;
};

/* size and sum are filled in from the value (NULL: blank). */
void hv_pump_tag_fill(struct hv_pump_tag *tag, const char *value, size_t size);

/* Writes the header Pump; returns its length. */
size_t hv_pump_tag_write(const struct hv_pump_tag *tag, char out[HV_PUMP_TAG_MAX]);

/* Reads the two headers' values. False when they are none of a pump's. */
bool hv_pump_tag_read(const char *pump, size_t pump_size, const char *seq, size_t seq_size, struct hv_pump_tag *ret);

/* Is this what the tag says? key and value as they were consumed; value NULL: none. */
bool hv_pump_tag_fits(const struct hv_pump_tag *tag, const void *key, size_t key_size, const void *value, size_t size);

/* Text to cut values from: `size` letters and digits, as random as the generator. */
void hv_pump_letters(struct hv_random *random, char *out, size_t size);

#endif
