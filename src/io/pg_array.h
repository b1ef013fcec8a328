/* Parameters that are arrays, in Postgres' binary format. The caller frees them; NULL without memory. */
#ifndef HV_IO_PG_ARRAY_H
#define HV_IO_PG_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/event.h"

/* int8[] of one member of each of `count` structures of `stride` bytes. */
uint8_t *hv_pg_array_of_ids(const int64_t *first, size_t stride, size_t count, int *ret_length);

/* xid[], the same way. */
uint8_t *hv_pg_array_of_versions(const uint32_t *first, size_t stride, size_t count, int *ret_length);

/* bytea[], or text[] (`as_text`) of those that are valid UTF-8 without NUL: a server would refuse the others. */
uint8_t *hv_pg_array_of_keys(const struct hv_key_bytes *keys, size_t count, bool as_text, int *ret_length);

#endif
