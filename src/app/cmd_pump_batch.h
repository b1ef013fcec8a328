/* The records of one transaction of the pump, and the statement that writes them. */
#ifndef HV_APP_CMD_PUMP_BATCH_H
#define HV_APP_CMD_PUMP_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/cmd_pump_writer.h"
#include "base/error.h"

/* One array of the statement: topics, keys, values, and the values of the headers Seq and Pump. */
enum { HV_BATCH_ARRAYS = 5 };

struct hv_pump_text {
    char *bytes;
    size_t length, room;
};

struct hv_pump_batch {
    uint64_t count, room;
    struct hv_pump_item {
        uint32_t key;
        uint64_t seq;
    } *items;
    bool doomed; /* to be rolled back */
    struct hv_pump_text arrays[HV_BATCH_ARRAYS];
};

/* Makes `count` new records, of the keys that writer `index` owns. Their numbers are issued by the ledger. */
void hv_pump_batch_fill(struct hv_pump_batch *batch, struct hv_pump_work *work, uint32_t index, uint64_t count);

/* The INSERT, whose parameters are the arrays as text. `binary`: kafka_value is a bytea. Returns 0, or -1 with err when the
 * table's name is none. */
int hv_pump_batch_sql(const char *table, bool binary, char *out, size_t size, struct hv_error *err);

void hv_pump_batch_free(struct hv_pump_batch *batch);

#endif
