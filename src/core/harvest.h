/* The protocol as one pure machine: events go in, actions come out. Reads no clock, rolls no dice of its own, opens no socket,
 * never blocks. The runtime interprets its actions with real libraries, the simulator with a model and seeded faults. */
#ifndef HV_CORE_HARVEST_H
#define HV_CORE_HARVEST_H

#include "core/config.h"
#include "core/event.h"
#include "core/leading.h"

struct hv_harvest;

/* Time starts at `now`. The configuration is copied. Never NULL (ends the program when memory is exhausted). */
struct hv_harvest *hv_harvest_new(const struct hv_core_config *config, hv_time now);

/* Payloads that are still held go to `release` (may be NULL) with `user`. NULL is fine. */
void hv_harvest_free(struct hv_harvest *h, void (*release)(void *user, void *payload), void *user);

/* Feeds one event at time `now` (which never goes back) and appends what is to be done to `out`. The lease is checked first. The last
 * event of each turn is HV_EV_TURN; actions must be carried out, in order, before the next turn. */
void hv_harvest_step(struct hv_harvest *h, const struct hv_event *event, hv_time now, struct hv_actions *out);

/* When the next HV_EV_TURN is wanted if nothing else happens; not after `now` of the last one: at once. HV_NEVER: not at all. */
hv_time hv_harvest_deadline(const struct hv_harvest *h);

/* Figures for status, tests and invariants. */
struct hv_harvest_figures {
    enum hv_role role;
    bool lease;                /* stands as of the last step */
    hv_time lease_end;         /* when it runs out, a leader may send before that only; INT64_MIN: none */
    uint32_t held;             /* records in memory: unsent + in_flight + unpurged + removing */
    uint32_t unsent, in_flight, unpurged;
    uint32_t removing;         /* refused ones that leave the table, by the policy */
    uint32_t given_up;         /* while stopping: neither acknowledged nor refused, so they may have been written */
    uint32_t blocked_keys; /* of which a record was refused, and is not being tried now */
    int64_t watermark;
    uint64_t acknowledged;     /* since the start */
    uint8_t leader_id[HV_UUID_BYTES]; /* of the current or last leadership */
    bool stopping, stopped;
};

/* Calls visit with the payload of each record that is in flight. */
void hv_harvest_each_in_flight(const struct hv_harvest *h, void (*visit)(void *user, void *payload), void *user);

void hv_harvest_look(const struct hv_harvest *h, struct hv_harvest_figures *ret);

/* ---- what waits ---- */

/* A key that waits, and the record that it waits for. Texts are lent until the next step; NULL: not known. */
struct hv_blocked {
    const void *key; /* NULL: not known, or the record has none, or (whole_shard) this stands for all keys of the shard that have no entry
                      * of their own, because too many keys are in trouble */
    uint32_t key_length;
    bool whole_shard;
    uint32_t shard;
    int64_t id;
    const char *topic;
    int code;           /* as the Kafka client told; 0: the record cannot be sent as it is */
    const char *reason; /* static text */
    enum hv_poison policy; /* what is to become of the record */
    bool of_topic;      /* its topic takes nothing: it is never parked or skipped */
    hv_time since;      /* when it was refused first, by the core's clock */
    uint32_t attempts;  /* refused so often in a row */
    hv_time next_try;   /* HV_NEVER: when its topic takes records again; INT64_MIN or any time that has passed: now */
};

/* From *at (0 at the beginning) on: the next one, and moves *at behind it. False: there is no more. Between two steps that is all there
 * is; what comes or goes between two calls may be told or not, all others are told once. Changes nothing. */
bool hv_harvest_next_blocked(const struct hv_harvest *h, uint32_t *at, struct hv_blocked *ret);

/* A topic that takes nothing: keys wait for it. */
struct hv_closed {
    const char *topic;
    int code;
    const char *reason;
    hv_time since;
    uint32_t keys; /* that wait for it */
};

/* As above. A topic that stops being closed may make another one be missed that is told by a later call. */
bool hv_harvest_next_closed(const struct hv_harvest *h, uint32_t *at, struct hv_closed *ret);

#endif
