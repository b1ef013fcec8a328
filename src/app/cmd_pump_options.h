/* What `harvestd pump` can be told. */
#ifndef HV_APP_CMD_PUMP_OPTIONS_H
#define HV_APP_CMD_PUMP_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/time.h"

struct hv_options;
struct hv_option_table;

/* Beside `topics`, which may be repeated and so is kept in struct hv_options. */
struct hv_pump_options {
    uint64_t records;  /* 0: not given */
    hv_time duration;  /* 0: not given */
    uint64_t keys, connections;
    uint64_t transaction; /* records of one */
    uint64_t rate;     /* records a second; 0: as quickly as it goes */
    hv_time interval;  /* between the transactions of a connection */
    uint64_t value_size;
    uint64_t blank, rollback; /* per cent */
    hv_time progress;
    bool json;
    bool verify;
    hv_time verify_timeout, verify_linger;
    uint64_t verify_memory;
};

extern const struct hv_option_table hv_pump_option_table;
extern const char hv_pump_about[];

/* What the table cannot tell, between options. 0, or -1 with err. */
int hv_pump_options_check(const struct hv_options *options, struct hv_error *err);

#endif
