/* Which partition a record goes to, and when it may go there.
 *
 * A broker that knows nothing of a producer in a partition takes whatever sequence number comes first. So if the very first batch of
 * a new client is refused while a second one is on its way, the second is appended: its records overtake those of the first
 * (measured: Kafka 3.9, a first record that is too large). Therefore a partition must be *proven* before it may have more
 * than one record in flight: the first record goes alone, the others are held here until it is acknowledged. From then on the broker
 * refuses gaps itself. A partition that was idle for long must be proven anew, since brokers forget producers
 * (producer.id.expiration.ms, retention).
 *
 * Partitions have to be known for that, so they are chosen here, with librdkafka's own partitioners, once the topic's metadata is
 * there; it is asked for off the loop at first sight (left to itself librdkafka asks by a timer of a second) and again from
 * time to time. Records of a topic that is not known yet are held, too. */
#ifndef HV_IO_KAFKA_ROUTE_H
#define HV_IO_KAFKA_ROUTE_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/record.h"
#include "io/kafka_producer.h"

/* And a third reason to hold records: librdkafka sends the next batch of a partition only when the one before was acknowledged
 * (2.0.2 counts five *records* in flight, not requests). If records wait inside the client for that, its thread polls without
 * sleeping until the acknowledgement comes (measured: a whole core, for socket.timeout.ms if a broker hangs, whatever
 * linger.ms is). So what cannot go with a batch yet waits here, and goes together when the partition is free.
 *
 * And a batch is given in one go, at the end of a turn: the client takes whatever is there when its thread wakes, after linger.ms. What
 * came a moment too late would wait inside it for the answer, so each record of a batch is given within three quarters of that time, or
 * not at all: there is a last look at the clock when librdkafka asks for the partition, right before it queues the record. While
 * little is under way nothing would join a batch by lingering, so the client is told not to (measured at 5,000 records a second: a
 * median of 2.8 ms from commit to consumer instead of 4.6). */

struct hv_routes;

/* What of the client's configuration makes a batch. */
struct hv_route_limits {
    hv_time linger;
    uint32_t batch_records;
    int64_t batch_bytes;
    bool hurry; /* batches need not linger while little is under way */
};

struct hv_route_handler {
    /* Gives a record to the client, with `opaque`. `partition` is RD_KAFKA_PARTITION_UA if it is chosen at the last
     * moment, by a partitioner that may refuse. Called from within hv_routes_release and hv_routes_flush, and from the loop. */
    rd_kafka_resp_err_t (*produce)(void *user, rd_kafka_topic_t *topic, int32_t partition, const struct hv_record *record,
                                   void *opaque);
    /* A record that was held will not be given to the client: its report. */
    void (*report)(void *user, uint64_t ticket, rd_kafka_resp_err_t code);
    /* After hv_routes_close: nothing of it uses the client any more. */
    void (*closed)(void *user);
};

/* `partitioner`: librdkafka's name. `prove`: as above; false when at most one record of a key is in flight anyway. NULL when
 * memory is exhausted. */
struct hv_routes *hv_routes_open(struct hv_loop *loop, rd_kafka_t *client, const char *partitioner,
                                 const struct hv_route_limits *limits, bool prove, const struct hv_route_handler *handler,
                                 void *user);

/* Takes the record: NO_ERROR. It and what it points to must stay until its report. Otherwise nothing was taken. `alone`: in a request of
 * its own, so that what the broker answers is about this record and no other. */
rd_kafka_resp_err_t hv_routes_send(struct hv_routes *routes, const struct hv_record *record, uint64_t ticket, bool alone);

/* Gives to the client what was taken, as far as may be: to be called at the end of a turn that sent records. */
void hv_routes_flush(struct hv_routes *routes);

/* A record that was given to the client has been reported: its ticket. What waited for that goes with hv_routes_release, once all that were
 * reported together are told. */
uint64_t hv_routes_reported(struct hv_routes *routes, const rd_kafka_message_t *message);
void hv_routes_release(struct hv_routes *routes);

/* Has a record been held back because the client's queue was full? Then hv_routes_retry is to be called once reports have been
 * dealt with and destroyed, which makes room. */
bool hv_routes_are_full(const struct hv_routes *routes);
void hv_routes_retry(struct hv_routes *routes);

/* Reports all that is held as RD_KAFKA_RESP_ERR__PURGE_QUEUE, from within this call, and takes nothing any more. */
void hv_routes_purge(struct hv_routes *routes);

/* Drops what is held, without reports. `handler->closed` follows, perhaps from within this call, when no request is out. */
void hv_routes_close(struct hv_routes *routes);

#endif
