/* What librdkafka's complaints mean: the part of a text that stays the same, whether it says anything new, and what to do. */
#ifndef HV_IO_KAFKA_FAILURE_H
#define HV_IO_KAFKA_FAILURE_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>

/* What a failed delivery is about. */
enum hv_kafka_class {
    HV_KAFKA_PASSING,     /* unknown, or something of the moment: may pass when repeated */
    HV_KAFKA_RECORD,      /* this record, or one that shared its batch */
    HV_KAFKA_OVERSIZE,    /* the same, because of its size */
    HV_KAFKA_DESTINATION, /* the topic: all of its records fare alike */
    HV_KAFKA_CLIENT,      /* the client is out of step, and a new one is needed */
    HV_KAFKA_CLUSTER,     /* brokers, or the way to them */
};
enum hv_kafka_class hv_kafka_class_of(int code);
/* A word or two for the code, as operators sort by: "too large", "unknown topic"... */
const char *hv_kafka_label_of(int code);

/* Lets this client log why it refuses a broker's certificate (expired, another host, unknown authority); the error that follows
 * does not tell. See hv_kafka_log_is_trouble. */
void hv_kafka_explain_certificates(rd_kafka_conf_t *conf);

/* Is a log line of this facility the reason of an error that follows, and tells more? */
bool hv_kafka_log_is_trouble(const char *facility);

/* Is this error only what follows from another that was told (all brokers are down; a handshake that failed)? */
bool hv_kafka_is_consequence(int code, const char *reason);

/* Copies what stays the same when it happens again: without the time it took, how often, and the number of the broker behind its
 * address. Returns out. */
const char *hv_kafka_clean_reason(const char *reason, char *out, size_t size);

/* What an operator should do, one clause; NULL when the reason says it or nobody knows. */
const char *hv_kafka_advice(int code, const char *reason);

#endif
