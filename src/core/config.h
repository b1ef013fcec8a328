/* What the core needs to know of the settings; see the settings table for meaning, defaults and ranges. */
#ifndef HV_CORE_CONFIG_H
#define HV_CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"

/* What happens to a record that is refused for good. */
enum hv_poison {
    HV_POISON_BLOCK, /* its key waits */
    HV_POISON_PARK,  /* its row moves to the table of parked records, then its key goes on */
    HV_POISON_SKIP,  /* its row is deleted, then its key goes on */
};

/* What the core may want to know of a payload when its record is in trouble. Lent, as long as the payload is there. */
struct hv_view {
    const void *key; /* NULL: not known, or none */
    uint32_t key_length;
    const char *topic;  /* NULL: not known, or none */
    const char *defect; /* why it cannot be sent as it is (static text), or NULL */
    enum hv_poison policy;
};

struct hv_core_config {
    void (*view)(void *user, const void *payload, struct hv_view *ret); /* NULL: nothing is known of payloads */
    void *view_user;
    bool by_cursor;                 /* claim without a write; otherwise rows are marked */
    uint32_t gaps_max;              /* ranges of missing ids that are kept apart */
    uint32_t list_limit;            /* ids that are listed at once */
    uint32_t list_span;             /* ... and the least that these may span, less one */
    uint32_t send_concurrency;      /* shards */
    uint32_t max_in_flight_records; /* handed to Kafka and not reported */
    uint64_t max_in_flight_bytes;
    uint32_t send_buffer;           /* unsent records that a shard may hold before claiming halts */
    uint32_t mark_query_records;    /* rows of one mark at most */
    uint64_t mark_query_bytes;      /* ... and bytes, as far as earlier rows let us guess */
    uint32_t purge_query_records;
    hv_time mark_backoff, idle_backoff_max;
    bool listen; /* have the database tell when rows were written; claims go on without that, too */
    hv_time io_error_backoff, io_error_backoff_max;
    hv_time blocked_backoff_max;
    uint32_t blocked_keys_max;   /* keys in trouble; beyond that, the trouble of a key is that of its shard */
    uint64_t blocked_keys_bytes; /* of keys that claims name, so that their rows are not read; at least one key's */
    hv_time queue_timeout;
    hv_time rescan_interval;
    hv_time heartbeat_interval, heartbeat_timeout;
    hv_time drain_timeout;
    hv_time hand_over_limit; /* how long the group can wait for our answer to a revoke, all in all */
    hv_time min_metrics_interval;
    int64_t wall_offset; /* nanoseconds since the Unix epoch at time 0 of the core's clock */
    uint64_t seed;       /* of jitter */
};

#endif
