/* Properties for Kafka clients: what we set, what the user may set over it, and what may not be overridden. */
#ifndef HV_IO_KAFKA_CONF_H
#define HV_IO_KAFKA_CONF_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
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
    HV_KAFKA_RECORDS,           /* the record producer: idempotent, gapless, acks=all; section [kafka.producer] */
    HV_KAFKA_SUSPECTS,          /* same without gapless, every record a batch of its own */
    HV_KAFKA_ELECTION_PRODUCER, /* heartbeats, admin */
    HV_KAFKA_ELECTION_CONSUMER, /* section [kafka.consumer] */
    HV_KAFKA_SHARED,            /* for hv_kafka_property_check only: section [kafka], which every client reads; a property of
                                   consumers (producers) is taken and reaches consumers (producers) alone */
};

/* Would librdkafka and we take this property in this role? 0, or -1 with err saying why not (unknown name, bad value, or a
 * property that order and safety depend on, with the reason; never with the value of a secret). A property that we fix is
 * taken when it says what we set anyway. Pure in effect; used when settings are read. */
int hv_kafka_property_check(enum hv_kafka_role role, const struct hv_kafka_property *property, struct hv_error *err);

/* Makes the configuration of a client (any role but SHARED), in this order, later ones winning: our defaults and client_id; the users'
 * properties of `base` and `specific` (either may be NULL), those of the other kind of client left out; what we fix; `own`.
 * Returns 0 and *ret, the caller's (hv_kafka_client_new takes it over), or -1 with err. */
int hv_kafka_conf_make(enum hv_kafka_role role, const char *client_id, const struct hv_kafka_properties *base,
                       const struct hv_kafka_properties *specific, const struct hv_kafka_properties *own,
                       rd_kafka_conf_t **ret, struct hv_error *err);

/* rd_kafka_new, for the daemon's clients: with a main thread that does not spin. Takes conf over, also when it fails (NULL, and `why`). */
rd_kafka_t *hv_kafka_client_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *why, size_t size);

/* Is this line of librdkafka's log about nothing but what we set ourselves (that the gapless guarantee is experimental; that a broker is
 * too old to be told not to make topics, again and again)? */
bool hv_kafka_log_is_noise(const char *facility, const char *text);

#endif
