/* What the pump hears back: reads its topics from where they ended before the first row was written, and has the ledger
 * judge each record of this run. Partitions that are added later are not read. No consumer group is used. */
#ifndef HV_APP_CMD_PUMP_CONSUMER_H
#define HV_APP_CMD_PUMP_CONSUMER_H

#include <stdint.h>

#include "app/cmd_pump_writer.h"

struct hv_pump_heard {
    uint64_t corrupted; /* not what its headers say; not judged any further, so it is missing, too */
    uint64_t foreign;   /* no record of this run */
    hv_time news;       /* when something arrived for the first time; 0: nothing did */
};

struct hv_pump_consumer;

/* Looks up where the topics end; waits for the brokers. Nothing is consumed yet. Returns 0, or -1 with err. */
int hv_pump_consumer_open(struct hv_pump_work *work, struct hv_pump_consumer **ret, struct hv_error *err);

/* Consumes on the loop from now on. What arrives is followed by hv_loop_wake(). Returns 0, or -1 with err. */
int hv_pump_consumer_start(struct hv_pump_consumer *consumer, struct hv_error *err);

const struct hv_pump_heard *hv_pump_consumer_heard(const struct hv_pump_consumer *consumer);

/* Stops; the rest goes on off the loop, which waits for it. NULL is fine. */
void hv_pump_consumer_close(struct hv_pump_consumer *consumer);

#endif
