/* The connections of a producer, kept at hand so that nothing is sent on them when its lease is over.
 *
 * librdkafka sends on threads of its own, and what was handed to it goes out whether we lead or not: also the moment a process wakes that
 * was stopped for longer than its lease. A purge comes too late then, since those very threads carry it out. So librdkafka is
 * given sockets of ours:
 *
 *  - any thread can cut them: what was not sent is dropped, by the kernel too, and no more can be sent;
 *  - if hv_gate_use_signal was called, the thread that sends is interrupted by a timer of the kernel's when the lease is over, and cuts its
 *    own socket. A thread that was stopped meanwhile does that before anything else when it goes on, whoever wakes first. */
#ifndef HV_IO_KAFKA_GATE_H
#define HV_IO_KAFKA_GATE_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

#include "io/loop.h"

struct hv_gate;

/* Gives a signal to all gates that are made from now on, and sets its handler. It is blocked in every thread but librdkafka's. Not
 * for a library in a foreign program, whose signals are its own. */
void hv_gate_use_signal(int number);

/* Makes a gate and has the clients of `conf` use it; takes the configuration's opaque. NULL when memory is exhausted. */
struct hv_gate *hv_gate_new(rd_kafka_conf_t *conf);

/* Until when may be sent, by hv_loop_waking_clock; HV_NEVER (at first): without limit. When it is over connections are cut and none is
 * made, but only while the client has something to send. */
void hv_gate_lease(struct hv_gate *gate, hv_time until);

/* How many records the client has that it may send: told before the lease is looked at for the last time and one is given (what ends in
 * between cuts then, whoever is stopped), and after it was reported. */
void hv_gate_give(struct hv_gate *gate);
void hv_gate_take(struct hv_gate *gate);

/* Is the lease over? Reads the clock. */
bool hv_gate_is_over(const struct hv_gate *gate);

/* Cuts at once if the lease is over; whether it is. */
bool hv_gate_check(struct hv_gate *gate);

/* Cuts at once, and for good. */
void hv_gate_shut(struct hv_gate *gate);

/* For a gate whose client was never made. NULL is fine. */
void hv_gate_free(struct hv_gate *gate);

/* Destroys the client on the thread pool (see hv_kafka_destroy), and the gate after it. */
void hv_gate_destroy_client(struct hv_loop *loop, struct hv_gate *gate, rd_kafka_t *client);

#endif
