/* What the files of struct hv_election share; nobody else includes this.
 *
 *   kafka_election.c            beginning and end, events and timers, making the leader topic, sending heartbeats; calls the others
 *   kafka_election_consumer.c   the consumer and its queue: made, let go
 *   kafka_election_group.c      what the group gives and takes, our answers, the heartbeats that are read
 *   kafka_election_trouble.c    what goes wrong, and what the operator can do about it
 *
 * The life of the whole is drawn at the top of kafka_election.c. */
#ifndef HV_IO_KAFKA_ELECTION_PARTS_H
#define HV_IO_KAFKA_ELECTION_PARTS_H

#include "core/backoff.h"
#include "io/kafka_beats.h"
#include "io/kafka_election.h"
#include "io/kafka_queue.h"

enum { HV_TROUBLES = 4 };

/* An answer to a rebalance while closing, given on the thread pool. */
struct hv_late_answer {
    struct hv_loop *loop;
    rd_kafka_t *consumer;
    rd_kafka_event_t *event;
    bool add;
    struct hv_election *election; /* NULL: it did not wait; the consumer is to be let go */
};

struct hv_election {
    struct hv_loop *loop;
    const struct hv_election_handler *handler; /* NULL once closing */
    void *user;
    struct hv_kafka_property *lists[2]; /* copies of the users' properties; strings owned */
    struct hv_kafka_properties base, specific;
    char *client_id, *group_id, *topic, *assignor;
    hv_time heartbeat_timeout, poll_interval, poll_duration;

    rd_kafka_t *consumer; /* NULL while one is to be made anew */
    rd_kafka_topic_t *topic_handle; /* of the consumer's */
    struct hv_queue *queue;
    struct hv_beats *beats;
    rd_kafka_event_t *pending;   /* a revoke of partition 0 that waits for its answer */
    struct hv_late_answer *late; /* that is being given */
    bool owns, told_owns, told_joined;
    bool making_topic;
    bool fatal; /* the consumer is finished; another one is made in the next iteration */
    struct {
        int code;
        bool beats;
        hv_time at;
    } troubles[HV_TROUBLES]; /* told last, a ring: what repeats for ever is told now and then */
    unsigned trouble_count;
    struct hv_backoff backoff;
    struct hv_random dice;

    uv_timer_t poll;  /* polls the consumer; while closing, looks whether it is closed */
    uv_timer_t later; /* does what cannot be done inside a call or an event; ends a close that takes too long */
    uv_timer_t retry; /* makes a consumer or the topic again */
    int open_timers;
    void (*left)(void *user);
};

/* ---- kafka_election_consumer.c ---- */

typedef enum hv_queue_next hv_election_events(void *user, rd_kafka_event_t *event); /* as hv_queue_open wants it */

/* Subscribed. Its events go to on_event, with e. Returns 0, or -1 with err. */
int hv_election_make_consumer(struct hv_election *e, hv_election_events *on_event, struct hv_error *err);
int hv_election_subscribe(struct hv_election *e); /* an rd_kafka_resp_err_t */

/* Lets the consumer go without leaving the group. */
void hv_election_drop_consumer(struct hv_election *e);

/* ---- kafka_election_group.c ---- */

/* The event is kept as e->pending if it has to wait for its answer. */
enum hv_queue_next hv_election_rebalance(struct hv_election *e, rd_kafka_event_t *event);
void hv_election_heartbeats(struct hv_election *e, rd_kafka_event_t *event); /* that were read */

/* Answers the revoke that waits for it. */
void hv_election_let_through(struct hv_election *e);

/* Partition 0 is gone without a hand-over. */
void hv_election_lose(struct hv_election *e);

/* Tells the handler who owns partition 0, if that has changed. */
void hv_election_tell_assigned(struct hv_election *e);

/* ---- kafka_election_trouble.c ---- */

/* Unless the same was told a short while ago. `beats`: it came from the client that sends heartbeats; the same code means something
 * else there. */
void hv_election_tell(struct hv_election *e, bool beats, int code, const char *reason);

/* Says what to do about an error of the consumer where librdkafka's words, which `reason` holds, do not. */
void hv_election_explain(const struct hv_election *e, rd_kafka_resp_err_t code, char *reason, size_t size);

#endif
