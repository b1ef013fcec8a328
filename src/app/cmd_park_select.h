/* Which parked records are meant, from options: ids and ranges of them, keys, topics, classes, ages; as a condition for SQL. */
#ifndef HV_APP_CMD_PARK_SELECT_H
#define HV_APP_CMD_PARK_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/options.h"
#include "base/error.h"

/* Both ends inclusive. Zero is none. */
struct hv_park_ranges {
    int64_t *lo, *hi;
    size_t count;
};

int hv_park_parse_id(const char *text, int64_t *ret); /* 0, or -1 */

/* "7", "10-20", "30-", "7,10-20": adds them. Returns 0, or -1 with err and no ranges. */
int hv_park_parse_ids(const struct hv_option_texts *texts, struct hv_park_ranges *ret, struct hv_error *err);
void hv_park_ranges_free(struct hv_park_ranges *ranges);

/* The parameters of the condition and behind them, as text; NULL for NULL. */
enum { HV_PARK_LO, HV_PARK_HI, HV_PARK_KEYS, HV_PARK_TOPICS, HV_PARK_CLASSES, HV_PARK_OLDER, HV_PARK_NEWER, HV_PARK_AFTER,
       HV_PARK_MOST, HV_PARK_SELECTION };
struct hv_park_selection {
    char *values[HV_PARK_SELECTION];
};

/* Of options that were checked. `most`: how many rows at most, 0 for all. The caller frees. */
void hv_park_select(const struct hv_options *options, uint64_t most, struct hv_park_selection *ret);
void hv_park_selection_free(struct hv_park_selection *selection);

/* The condition, of `FROM parked AS p`: with ORDER BY ... LIMIT $9 behind it. key_is_bytea: the type of kafka_key. */
const char *hv_park_condition(bool key_is_bytea);

/* An array as Postgres reads it. */
char *hv_park_id_array(const int64_t *ids, size_t count);

#endif
