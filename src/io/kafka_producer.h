/* One producer of records: hands records to librdkafka and brings back its delivery reports as events on the loop. */
#ifndef HV_IO_KAFKA_PRODUCER_H
#define HV_IO_KAFKA_PRODUCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/delivery.h"
#include "core/record.h"
#include "io/kafka_conf.h"
#include "io/loop.h"

struct hv_producer;

/* Called on the loop's thread; but for `reports` from within hv_producer_purge, never from within a call into this API. */
struct hv_producer_handler {
    /* Delivery reports, by the tickets given to hv_producer_send; lent. At most 1,000 a call; several calls follow in later iterations
     * if there are more. */
    void (*reports)(void *user, const struct hv_report *reports, size_t count);
    /* The client is finished (fatal error): nothing more will be delivered by it. Reports of what is in flight still come.
     * Once per client. */
    void (*fatal)(void *user, const char *reason);
    /* Something that an operator should know: brokers down, authentication, TLS...; the client goes on. */
    void (*trouble)(void *user, int code, const char *reason);
    /* A line of librdkafka's own log; level as in syslog (3 error, 4 warning, 6 info, 7 debug). */
    void (*log)(void *user, int level, const char *facility, const char *text);
};

/* Makes a client. `properties` are the user's ([kafka] then [kafka.producer]) and are only read during the call. `poll_duration`
 * bounds one drain of its queue. Returns 0 and *ret, or -1 with err. Never blocks. */
int hv_producer_open(struct hv_loop *loop, enum hv_kafka_role role, const struct hv_kafka_properties *properties,
                     const char *client_id, hv_time poll_duration, const struct hv_producer_handler *handler, void *user,
                     struct hv_producer **ret, struct hv_error *err);

enum hv_send {
    HV_SENT,         /* a report with this ticket will come, exactly one */
    HV_SEND_FULL,    /* the client's queue is full: try again later; nothing was taken */
    HV_SEND_REFUSED, /* this record can never be taken as things stand (size, topic...): err says why; nothing was taken */
    HV_SEND_FATAL,   /* the client is finished; nothing was taken */
};

/* The record stays the caller's, and must stay as it is until its report (it may be held for a while, see kafka_route.h).
 * record->defect is HV_SOUND (asserted). `alone`: in a request of its own, so that its report is about no other record; not for
 * HV_KAFKA_RECORDS, whose order depends on more than one being on their way. */
enum hv_send hv_producer_send(struct hv_producer *producer, const struct hv_record *record, uint64_t ticket, bool alone,
                              struct hv_error *err);
/* What the last HV_SEND_REFUSED was about. */
const struct hv_report *hv_producer_refusal(const struct hv_producer *producer);

/* Records go to the client only now, those of a partition together: to be called once at the end of a turn in which some were sent
 * or the lease was told. */
void hv_producer_flush(struct hv_producer *producer);

/* Until when records may be sent, by hv_loop_waking_clock; HV_NEVER (at first) is without limit. From then on none is given to the client:
 * hv_producer_send answers HV_SEND_FULL, and those that are held stay. What the client has is not sent any more either (see
 * kafka_gate.h), at the latest from hv_producer_check_lease on, which is to be called first after every wait. With a lease that is renewed
 * it goes on. */
void hv_producer_lease(struct hv_producer *producer, hv_time until);
void hv_producer_check_lease(struct hv_producer *producer);
/* hv_gate_use_signal, for who may not know of librdkafka. */
void hv_producer_use_signal(int number);

/* Gives up everything queued and in flight, what is in the kernel's buffers included: their reports follow as HV_PURGED (or as what they
 * were). `but_sent`: what brokers may have already stays in flight until it is answered; a later call may give that up as well. After
 * it, close this client and open a new one. */
void hv_producer_purge(struct hv_producer *producer, bool but_sent);

/* Tells the handler nothing any more and destroys the client off the loop (joining its threads can take seconds). Reports that did
 * not come are not waited for. */
void hv_producer_close(struct hv_producer *producer);

#endif
