/* What `harvestd park` can be told. */
#ifndef HV_APP_CMD_PARK_OPTIONS_H
#define HV_APP_CMD_PARK_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/time.h"

struct hv_options;
struct hv_option_table;

enum hv_park_action { HV_PARK_LIST, HV_PARK_SHOW, HV_PARK_REPLAY, HV_PARK_DROP };

/* Beside --id, --key, --topic and --class: they may be repeated and so are kept as lists in struct hv_options. */
struct hv_park_options {
    bool all, dry_run, yes, json, raw, allow_reorder, keep_id;
    hv_time older_than, newer_than; /* 0: not given */
    uint64_t limit;                 /* 0: not given */
    const char *after;              /* an id; NULL: not given */
};

extern const struct hv_option_table hv_park_option_table;
extern const char *const hv_park_actions[];
extern const char hv_park_about[];

/* What the table cannot tell, between options. 0, or -1 with err. */
int hv_park_options_check(const struct hv_options *options, struct hv_error *err);

#endif
