/* One librdkafka queue on the loop: drained when its eventfd says so, in bounded portions; and the end of a client. */
#ifndef HV_IO_KAFKA_QUEUE_H
#define HV_IO_KAFKA_QUEUE_H

#include <librdkafka/rdkafka.h>

#include "base/error.h"
#include "io/loop.h"

enum hv_queue_next {
    HV_QUEUE_DONE, /* the event was dealt with and is destroyed */
    HV_QUEUE_MORE, /* not all of it: the same event comes again in the next iteration, before any other */
    HV_QUEUE_KEPT, /* the callee owns the event now */
};

struct hv_queue;

/* Serves `queue`, which is taken over (also on failure). `event` is called from the loop only, never from within a call into this
 * API; one drain ends when the queue is empty, after `poll_duration`, after a bounded number of events, or when `event` asks for
 * more, and then goes on in the next iteration. Returns 0, or -1 with err. */
int hv_queue_open(struct hv_loop *loop, rd_kafka_queue_t *queue, hv_time poll_duration,
                  enum hv_queue_next (*event)(void *user, rd_kafka_event_t *event), void *user, struct hv_queue **ret,
                  struct hv_error *err);

rd_kafka_queue_t *hv_queue_handle(const struct hv_queue *queue);

/* Drains in the next iteration, asked by nobody's wake-up: after forwarding another queue to this one, from timers. Idempotent. */
void hv_queue_kick(struct hv_queue *queue);

/* `call(user)` precedes every drain from now on, to do what an API call left for the loop (see hv_queue_kick). */
void hv_queue_before_drain(struct hv_queue *queue, void (*call)(void *user));

/* Stops at once: no event is delivered any more, one left over is destroyed, the queue is let go. Memory follows by itself. May be
 * called from within `event` and the call before a drain. NULL is fine. */
void hv_queue_close(struct hv_queue *queue);

/* Destroys a client, whatever its state, on the thread pool: joining its threads takes as long as the slowest of them, seconds
 * if it resolves a name or a request is out to a broker that hangs. A consumer does not leave its group. */
void hv_kafka_destroy(struct hv_loop *loop, rd_kafka_t *client);

#endif
