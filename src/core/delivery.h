/* What became of a record that was handed to Kafka. */
#ifndef HV_CORE_DELIVERY_H
#define HV_CORE_DELIVERY_H

#include <stdbool.h>
#include <stdint.h>

enum hv_delivery {
    HV_DELIVERED, /* acknowledged by Kafka */
    HV_PURGED,    /* given up by us: it may have been written or not */
    HV_FAILED,    /* not acknowledged: time-out, fatal client error...; it may have been written or not; may pass when repeated */
    HV_PUZZLING,  /* the same, for a reason that we do not know: it may be the record's fault */
    HV_REFUSED,   /* Kafka refuses this record or its batch for good as things stand: invalid record */
    HV_OVERSIZE,  /* ... because it is too large */
    HV_UNREACHED, /* Kafka refuses all records of its topic as things stand: there is no such topic, or no authorisation */
};

static inline bool hv_is_refusal(enum hv_delivery delivery) {
    return delivery >= HV_REFUSED;
}

struct hv_report {
    uint64_t ticket; /* of the hand-over */
    enum hv_delivery delivery;
    int code;            /* the Kafka client's number for the reason */
    const char *reason;  /* static text of the code */
};

#endif
