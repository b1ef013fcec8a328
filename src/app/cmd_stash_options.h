/* What `harvestd stash` can be told. */
#ifndef HV_APP_CMD_STASH_OPTIONS_H
#define HV_APP_CMD_STASH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct hv_options;
struct hv_option_table;

/* Beside --key, --value and --header: they may be empty or repeated and so are kept as lists in struct hv_options. */
struct hv_stash_options {
    const char *topic;      /* NULL: not given */
    const char *value_file; /* NULL: not given; "-": standard input */
    bool null;              /* a tombstone */
    bool dry_run;
    uint64_t batch; /* lines of a transaction; 0: not given */
};

extern const struct hv_option_table hv_stash_option_table;
extern const char hv_stash_about[];

/* What the table cannot tell, between options. 0, or -1 with err. */
int hv_stash_options_check(const struct hv_options *options, struct hv_error *err);

/* One record from options, or many from lines? */
bool hv_stash_options_name_a_record(const struct hv_options *options);

#endif
