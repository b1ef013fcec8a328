/* Sending: two lanes (Kafka clients) over the shards, the window, and the failure rule: on the first failed report or fatal error of
 * the record lane, and on nothing else, stop feeding, purge the client, wait until nothing is in flight, make a new client, rewind
 * every shard. Records that were refused go apart, through the suspects' lane (isolation.h). That a client ended because a record was
 * refused does not make the next one wait.
 *
 *   CLOSED ──wanted──► OPENING ──ready──► READY ──failure, end of lease──► PURGING ──nothing in flight──► WAITING ──time──► CLOSED
 *                         └──────────────── could not be made ────────────────────────────────────────────►┘
 */
#ifndef HV_CORE_SENDING_H
#define HV_CORE_SENDING_H

#include "core/backoff.h"
#include "core/config.h"
#include "core/event.h"
#include "core/isolation.h"
#include "core/shards.h"

enum hv_lane_state { HV_LANE_CLOSED, HV_LANE_OPENING, HV_LANE_READY, HV_LANE_DRAINING, HV_LANE_PURGING, HV_LANE_WAITING };

struct hv_lane {
    enum hv_lane_state state;
    uint32_t in_flight;
    uint64_t in_flight_bytes;
    hv_time until;      /* PURGING: when waiting for reports ends by force; WAITING: when it may be opened again */
    hv_time last_used;
    bool refused;       /* a record was refused since the client was made */
    struct hv_backoff backoff;
};

struct hv_sender {
    struct hv_slots *slots;
    struct hv_shards *shards;
    struct hv_isolation *iso;
    struct hv_random *dice;
    const struct hv_core_config *config;
    struct hv_lane lanes[HV_LANES];
    struct hv_list acked;   /* what settling is to take over */
    uint32_t shard_limit;   /* in flight of one shard... */
    uint64_t shard_byte_limit; /* ... and their bytes */
    hv_time last_progress;  /* the latest acknowledgement, or when the window stopped being empty */
    bool stalled;
    hv_time pause_until;    /* the client's queue was full; 0: not */
};

void hv_sender_init(struct hv_sender *sender, struct hv_slots *slots, struct hv_shards *shards, struct hv_isolation *iso,
                    struct hv_random *dice, const struct hv_core_config *config);

/* What became of a record. Acknowledged ones are in `acked` afterwards. Late reports find nothing. Returns true when one was
 * acknowledged. */
bool hv_sender_report(struct hv_sender *sender, const struct hv_report *report, hv_time now, struct hv_actions *out);

/* The client did not take a record that HV_ACT_PRODUCE handed over. */
void hv_sender_bounced(struct hv_sender *sender, const struct hv_event *event, hv_time now, struct hv_actions *out);

void hv_sender_client_ready(struct hv_sender *sender, enum hv_lane_id lane);
void hv_sender_client_failed(struct hv_sender *sender, enum hv_lane_id lane, const char *reason, hv_time now,
                             struct hv_actions *out);

/* Gives up what is in flight, on all lanes. */
void hv_sender_give_up(struct hv_sender *sender, const char *reason, hv_time now, struct hv_actions *out);

/* Moves the lanes on: ends purges, opens clients (when `leading`) and closes unused ones. Call each turn. */
void hv_sender_advance(struct hv_sender *sender, bool leading, hv_time now, struct hv_actions *out);

/* Hands over records, fairly, as far as the window allows; a bounded number. Only while the lease holds. Returns true when it stopped at
 * the bound, with more to send at once. */
bool hv_sender_feed(struct hv_sender *sender, hv_time now, struct hv_actions *out);

/* Forgets an unsent record: its slot is free, its payload released. */
void hv_sender_forget(struct hv_sender *sender, uint32_t index, struct hv_actions *out);
/* ... all unsent ones of a shard's queue. */
void hv_sender_forget_unsent(struct hv_sender *sender, struct hv_shard *shard, struct hv_actions *out);

uint32_t hv_sender_in_flight(const struct hv_sender *sender);
/* Is a client being purged? Then records in flight may be behind others of their shard that are unsent again. */
bool hv_sender_is_purging(const struct hv_sender *sender);
hv_time hv_sender_deadline(const struct hv_sender *sender, bool leading);

#endif
