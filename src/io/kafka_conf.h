/* Properties for Kafka clients as the user and we set them, and what may not be overridden. */
#ifndef HV_IO_KAFKA_CONF_H
#define HV_IO_KAFKA_CONF_H

#include <stddef.h>

#include "base/error.h"

/* One passed-through librdkafka property. */
struct hv_kafka_property {
    const char *name;
    const char *value;
};

struct hv_kafka_properties {
    const struct hv_kafka_property *list; /* later ones override earlier ones */
    size_t count;
};

enum hv_kafka_role {
    HV_KAFKA_RECORDS,  /* the record producer: idempotent, gapless, acks=all */
    HV_KAFKA_SUSPECTS, /* same without gapless, one record at a time */
    HV_KAFKA_ELECTION_PRODUCER, /* heartbeats, admin */
    HV_KAFKA_ELECTION_CONSUMER,
};

/* Would librdkafka and we take this property in this role? 0, or -1 with err saying why not (unknown name, bad value, or a
 * property that order and safety depend on, with the reason). Pure in effect; used when settings are read. */
int hv_kafka_property_check(enum hv_kafka_role role, const struct hv_kafka_property *property, struct hv_error *err);

#endif
