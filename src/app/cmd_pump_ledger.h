/* What was written and what came back, by key and Seq: finds what is lost, out of order, repeated, invented. Pure.
 *
 * Numbers of a key begin with 1 and have no gaps. Those that are not settled (being written, or committed and not arrived)
 * are kept in blocks of 16; a block goes as soon as all of it is settled. So memory is about 10 bytes for each outstanding
 * record, at most a block (HV_LEDGER_BLOCK_BYTES) for one that stands alone, such as one that is lost, and two blocks and
 * 64 bytes for each key. */
#ifndef HV_APP_CMD_PUMP_LEDGER_H
#define HV_APP_CMD_PUMP_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/cmd_pump_histogram.h"
#include "base/time.h"

#define HV_LEDGER_BLOCK_BYTES 160

enum hv_arrival {
    HV_ARRIVAL_FIRST,        /* and in order */
    HV_ARRIVAL_OUT_OF_ORDER, /* for the first time, but a later one of its key was there before */
    HV_ARRIVAL_DUPLICATE,
    HV_ARRIVAL_PHANTOM,      /* of a transaction that was rolled back */
    HV_ARRIVAL_INVENTED,     /* no such number was ever given out */
};

struct hv_ledger_counts {
    uint64_t committed;    /* the commit's reply was seen */
    uint64_t unknown;      /* the connection was lost during the commit: these may arrive or not */
    uint64_t arrived;      /* of those: for the first time */
    uint64_t missing;      /* committed and not arrived */
    uint64_t out_of_order, duplicates, phantoms, invented;
};

struct hv_ledger;

/* track: keep what is needed to judge arrivals. Without it, numbers are given out and counted, no more. */
struct hv_ledger *hv_ledger_new(uint32_t keys, bool track);
void hv_ledger_free(struct hv_ledger *ledger); /* NULL is fine */

uint64_t hv_ledger_issue(struct hv_ledger *ledger, uint32_t key); /* the key's next number; one of the next three follows once: */
void hv_ledger_committed(struct hv_ledger *ledger, uint32_t key, uint64_t seq, hv_time now);
void hv_ledger_unknown(struct hv_ledger *ledger, uint32_t key, uint64_t seq);
void hv_ledger_not_committed(struct hv_ledger *ledger, uint32_t key, uint64_t seq);

/* A record came. Its latency is from `now` of hv_ledger_committed to this `now`, or 0 when it comes before that. doomed: its
 * transaction was to be rolled back from the beginning. */
enum hv_arrival hv_ledger_arrived(struct hv_ledger *ledger, uint32_t key, uint64_t seq, bool doomed, hv_time now);

const struct hv_ledger_counts *hv_ledger_counts(const struct hv_ledger *ledger);
const struct hv_histogram *hv_ledger_latency(const struct hv_ledger *ledger); /* of those that arrived for the first time */
uint64_t hv_ledger_highest(const struct hv_ledger *ledger, uint32_t key);     /* number that arrived; 0: none */
size_t hv_ledger_bytes(const struct hv_ledger *ledger);                       /* memory for outstanding records now */

/* Calls found() for each that is committed and has not arrived, until it returns false. */
void hv_ledger_each_missing(const struct hv_ledger *ledger, bool (*found)(void *user, uint32_t key, uint64_t seq), void *user);

#endif
