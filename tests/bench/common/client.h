/* A producer of librdkafka's with the daemon's own settings, for the bench's small programs. */
#ifndef BENCH_COMMON_CLIENT_H
#define BENCH_COMMON_CLIENT_H

#include <librdkafka/rdkafka.h>

/* `properties`: PROPERTY=VALUE over the daemon's settings, up to a NULL; they are changed. Delivery reports come as events of
 * the main queue. */
rd_kafka_t *bench_client(char **properties, rd_kafka_queue_t **queue);

/* A handle of the topic, once its partitions are known, so that the first record need not wait. */
rd_kafka_topic_t *bench_topic(rd_kafka_t *client, const char *name);

/* Waits up to `wait_ms` for one event and returns how many records it reports; dies when one was not delivered. `delivered` (may be
 * NULL) is called with the opaque value of each. */
size_t bench_reports(rd_kafka_queue_t *queue, int wait_ms, void (*delivered)(void *opaque));

#endif
