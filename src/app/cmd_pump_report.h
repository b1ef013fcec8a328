/* The pump's last words: its summary as text or as JSON, and whether all is well. */
#ifndef HV_APP_CMD_PUMP_REPORT_H
#define HV_APP_CMD_PUMP_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "app/cmd_pump_consumer.h"
#include "app/cmd_pump_ledger.h"
#include "app/cmd_pump_writer.h"

struct hv_pump_report {
    const struct hv_pump_work *work;
    const struct hv_pump_heard *heard; /* NULL: not verified */
    hv_time writing;                   /* how long it took */
    bool interrupted;                  /* by a signal */
    bool timed_out;                    /* nothing new arrived, and something was missing */
    const char *failure;               /* why writing ended early; or NULL */
};

/* Nothing failed, and what was verified is as it should be. */
bool hv_pump_report_is_good(const struct hv_pump_report *report);

void hv_pump_report_text(const struct hv_pump_report *report, FILE *out);
void hv_pump_report_json(const struct hv_pump_report *report, FILE *out);

/* "written 5000 (1000/s) ...": one line, with rates since the last one. */
struct hv_pump_progress {
    hv_time at;
    uint64_t committed, arrived;
};
void hv_pump_progress_text(struct hv_pump_progress *last, const struct hv_pump_work *work, hv_time started, hv_time now,
                           FILE *out);

#endif
