/* The election's small producer: sends heartbeats, and makes the leader topic. A part of kafka_election. */
#ifndef HV_IO_KAFKA_BEATS_H
#define HV_IO_KAFKA_BEATS_H

#include <stdint.h>

#include "io/kafka_conf.h"
#include "io/loop.h"

struct hv_beats;

struct hv_beats_handler {
    /* The answer to hv_beats_make_topic. code: an rd_kafka_resp_err_t, 0 when the topic was made or is there already. */
    void (*topic_made)(void *user, int code, const char *reason);
    void (*trouble)(void *user, int code, const char *reason);
    void (*log)(void *user, int level, const char *facility, const char *text);
};

/* `lifetime`: a heartbeat that was not sent within is dropped. `topic` is copied. Returns 0, or -1 with err. */
int hv_beats_open(struct hv_loop *loop, const struct hv_kafka_properties *base, const char *client_id, const char *topic,
                  hv_time lifetime, hv_time poll_duration, const struct hv_beats_handler *handler, void *user,
                  struct hv_beats **ret, struct hv_error *err);

/* Asks for the leader topic: one partition, short retention. Answered by topic_made, once. Not while an answer is due. */
void hv_beats_make_topic(struct hv_beats *beats);

/* The leader topic exists: make ready to send there, so that the first heartbeat does not wait. Not earlier: asking a broker for
 * a topic can make it, with more partitions than wanted. */
void hv_beats_warm(struct hv_beats *beats);

void hv_beats_send(struct hv_beats *beats, int64_t stamp, const char *name);

/* No handler is called any more; destroyed off the loop. NULL is fine. */
void hv_beats_close(struct hv_beats *beats);

#endif
