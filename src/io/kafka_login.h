/* How a client proves to a broker who it is: which properties are secrets, and what cannot work. */
#ifndef HV_IO_KAFKA_LOGIN_H
#define HV_IO_KAFKA_LOGIN_H

#include <stdbool.h>

#include "base/error.h"
#include "io/kafka_conf.h"

/* Must the value of this property of librdkafka stay out of logs and messages? */
bool hv_kafka_property_is_secret(const char *name);

/* May the value of this property have several lines (keys and certificates in PEM form)? */
bool hv_kafka_property_is_pem(const char *name);

/* Could a client with these properties (`specific` over `base`, either may be NULL) keep itself logged in? 0, or -1 with err: one
 * that needs tokens which nobody would renew. Pure in effect. */
int hv_kafka_login_check(const struct hv_kafka_properties *base, const struct hv_kafka_properties *specific,
                         struct hv_error *err);

/* Are the files there that a client with this configuration needs for TLS? librdkafka's own errors do not name them. 0, or -1
 * with err. */
int hv_kafka_files_check(const rd_kafka_conf_t *conf, struct hv_error *err);

/* Why this build of librdkafka cannot fetch tokens by itself (sasl.oauthbearer.method=oidc); false when it can. */
bool hv_kafka_lacks_oidc(char *why, size_t size);

#endif
