/* What happens to a record that Kafka refuses for good: on_poison, and on_poison_topics, which is text such as
 * "audit.*=park, metrics-?=skip". A pattern is of a whole name: * stands for any characters, ? for one; the first that fits counts. */
#ifndef HV_RT_POISON_H
#define HV_RT_POISON_H

#include "base/error.h"
#include "core/config.h"

/* Is this text well-formed? Returns 0, or -1 with err. */
int hv_poison_check(const char *topics, struct hv_error *err);

/* The policy for a topic (NULL: it has none). `topics`: text that was checked; `otherwise`: if no pattern fits. */
enum hv_poison hv_poison_of(const char *topics, enum hv_poison otherwise, const char *topic);

/* "block", "park", "skip" */
const char *hv_poison_name(enum hv_poison policy);

#endif
