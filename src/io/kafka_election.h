/* The election's transport: a consumer in the leader group, a small producer of heartbeats, the making of the leader topic.
 * Decides nothing; the core does. */
#ifndef HV_IO_KAFKA_ELECTION_H
#define HV_IO_KAFKA_ELECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "io/kafka_conf.h"
#include "io/loop.h"

struct hv_election;

struct hv_election_options {
    const struct hv_kafka_properties *base;     /* [kafka], for both clients */
    const struct hv_kafka_properties *consumer; /* [kafka.consumer], for the consumer */
    const char *client_id, *group_id, *topic;
    const char *assignor;      /* "cooperative-sticky" or "range" */
    hv_time heartbeat_timeout; /* session.timeout.ms = 3 x this */
    hv_time poll_interval;     /* the consumer is polled that often while a revoke waits for its answer, otherwise every second */
    hv_time poll_duration;     /* bound of one drain */
};

/* How long the group waits for a member's answer to a revoke before it goes on without it (max.poll.interval.ms). */
hv_time hv_election_patience(hv_time heartbeat_timeout);

/* Called on the loop's thread, never from within a call into this API. */
struct hv_election_handler {
    /* The group's assignment changed and was applied. `owns`: partition 0 of the leader topic is ours. Told only on change. */
    void (*assigned)(void *user, bool owns);
    /* Partition 0 is being taken from us. lost: it is gone already (session expired, fenced, fatal): another may lead, no answer is
     * needed. Otherwise the hand-over waits for hv_election_answer(). */
    void (*revoked)(void *user, bool lost);
    /* A heartbeat was read from partition 0: `"<stamp>%<name>"` split; malformed ones are left out. */
    void (*heartbeat)(void *user, int64_t stamp, const char *name);
    /* Joined the group for the first time or anew (readiness). */
    void (*joined)(void *user);
    /* As in hv_producer_handler; `reason` says what to do where that is known (session time-out refused, topic cannot be made...). */
    void (*trouble)(void *user, int code, const char *reason);
    void (*log)(void *user, int level, const char *facility, const char *text);
};

/* Makes both clients, creates the topic when it is missing (1 partition, short retention), then subscribes. Retries by itself, with
 * backoff, what can be retried; after a fatal consumer error it makes a new one. Returns 0, or -1 with err. Never blocks. */
int hv_election_open(struct hv_loop *loop, const struct hv_election_options *options, const struct hv_election_handler *handler,
                     void *user, struct hv_election **ret, struct hv_error *err);

/* Lets a pending revoke go through. No-op when none is pending. */
void hv_election_answer(struct hv_election *election);

/* Sends `"<stamp>%<name>"` to partition 0, no key, no headers. Fire and forget; dropped by the client after heartbeat_timeout. */
void hv_election_beat(struct hv_election *election, int64_t stamp, const char *name);

/* Leaves the group (a clean leave, so that another takes over at once) and destroys both clients off the loop. A pending revoke
 * is let through. `left(user)` (may be NULL) is called from the loop when the group was left, or after `limit`. Nothing else is
 * called any more. */
void hv_election_close(struct hv_election *election, hv_time limit, void (*left)(void *user));

#endif
