/* One connection of the pump: writes transactions of records, one at a time. A transaction that certainly did not commit
 * is written again, the same; one whose outcome is unknown is left, its records are noted as unknown. Whatever happens to
 * a writer is followed by hv_loop_wake(). */
#ifndef HV_APP_CMD_PUMP_WRITER_H
#define HV_APP_CMD_PUMP_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "app/cmd_pump_ledger.h"
#include "app/options.h"
#include "base/random.h"
#include "io/loop.h"
#include "rt/settings.h"

#define HV_PUMP_LETTERS (1 << 16) /* values are cut from a text that is so much longer than one */

/* What all writers share. */
struct hv_pump_work {
    struct hv_loop *loop;
    const struct hv_settings *settings;
    const struct hv_options *options;
    struct hv_ledger *ledger;
    struct hv_random random;
    uint64_t run;        /* identity of this run */
    char *letters;       /* HV_PUMP_LETTERS + value_size */
    uint64_t transactions, rolled_back_transactions, rolled_back_records; /* that have ended */
};

struct hv_pump_writer;

/* Writer `index` of options->pump.connections; it owns the keys that leave this remainder. Returns 0, or -1 with err. */
int hv_pump_writer_open(struct hv_pump_work *work, uint32_t index, struct hv_pump_writer **ret, struct hv_error *err);

bool hv_pump_writer_is_ready(const struct hv_pump_writer *writer); /* for hv_pump_writer_begin */
/* With a transaction, also one that waits for the connection. */
bool hv_pump_writer_is_busy(const struct hv_pump_writer *writer);
const char *hv_pump_writer_failure(const struct hv_pump_writer *writer); /* it cannot go on, and why; or NULL */
hv_time hv_pump_writer_ended(const struct hv_pump_writer *writer);       /* when its last transaction did; 0: none */

/* Writes `count` new records. Returns how many of them are to be committed: all, or none when the dice rolled them back. */
uint64_t hv_pump_writer_begin(struct hv_pump_writer *writer, uint64_t count);

/* Closes the connection, whatever it is busy with; closed(user) follows when the writer is gone. */
void hv_pump_writer_close(struct hv_pump_writer *writer, void (*closed)(void *user), void *user);

#endif
