/* What `harvestd blocked` can be told on the command line. */
#ifndef HV_APP_CMD_BLOCKED_OPTIONS_H
#define HV_APP_CMD_BLOCKED_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct hv_option_table;

struct hv_blocked_options {
    const char *topic; /* NULL: all */
    uint64_t limit;    /* 0: all */
    bool json;
};

extern const struct hv_option_table hv_blocked_option_table;
extern const char hv_blocked_about[];

#endif
