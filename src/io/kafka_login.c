/* See kafka_login.h. */
#include "io/kafka_login.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/text.h"

bool hv_kafka_property_is_secret(const char *name) {
    /* By pattern: librdkafka's list grows, and hiding one too many does no harm. */
    static const char *const parts[] = {"password", "secret", "pem", "sasl.username", "oauthbearer.config", "jaas"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(name, parts[i]) != NULL) {
            return true;
        }
    }
    return false;
}

bool hv_kafka_property_is_pem(const char *name) {
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".pem") == 0;
}

bool hv_kafka_lacks_oidc(char *why, size_t size) {
    rd_kafka_conf_t *scratch = rd_kafka_conf_new();
    char reason[256] = "";
    bool lacks = rd_kafka_conf_set(scratch, "sasl.oauthbearer.method", "oidc", reason, sizeof reason) != RD_KAFKA_CONF_OK;
    rd_kafka_conf_destroy(scratch);
    snprintf(why, size, "librdkafka %s on this machine was built without OIDC (libcurl), so it cannot fetch tokens",
             rd_kafka_version_str());
    return lacks;
}

/* The value that is in force; names are tried in pairs because of librdkafka's aliases. "" when it is not set. */
static const char *in_force(const struct hv_kafka_properties *base, const struct hv_kafka_properties *specific,
                            const char *name, const char *alias) {
    const struct hv_kafka_properties *const lists[] = {base, specific};
    const char *value = "";
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t j = 0; lists[i] != NULL && j < lists[i]->count; j++) {
            const struct hv_kafka_property *p = &lists[i]->list[j];
            if (strcmp(p->name, name) == 0 || strcmp(p->name, alias) == 0) {
                value = p->value;
            }
        }
    }
    return value;
}

/* Unsecured tokens, which librdkafka makes itself for tests, do not count: version 2.0.2 crashes when it renews one (a null queue
 * in its main thread), measured. */
int hv_kafka_login_check(const struct hv_kafka_properties *base, const struct hv_kafka_properties *specific,
                         struct hv_error *err) {
    const char *protocol = in_force(base, specific, "security.protocol", "security.protocol");
    const char *mechanism = in_force(base, specific, "sasl.mechanisms", "sasl.mechanism");
    const char *method = in_force(base, specific, "sasl.oauthbearer.method", "sasl.oauthbearer.method");
    char why[200];
    if (strncasecmp(protocol, "sasl_", 5) != 0 || strcasecmp(mechanism, "OAUTHBEARER") != 0 ||
        strcasecmp(method, "oidc") == 0) {
        return 0;
    }
    if (hv_kafka_lacks_oidc(why, sizeof why)) {
        return hv_error_set(err,
                            "sasl.mechanisms: nobody would get tokens for OAUTHBEARER: %s; use SCRAM-SHA-512, PLAIN or client "
                            "certificates, or a librdkafka with OIDC",
                            why);
    }
    return hv_error_set(err, "sasl.mechanisms: nobody would get tokens for OAUTHBEARER; set sasl.oauthbearer.method=oidc, and "
                             "sasl.oauthbearer.client.id, .client.secret and .token.endpoint.url");
}

int hv_kafka_files_check(const rd_kafka_conf_t *conf, struct hv_error *err) {
    static const char *const names[] = {"ssl.ca.location", "ssl.certificate.location", "ssl.key.location",
                                        "ssl.keystore.location", "ssl.crl.location"};
    char value[1024], shown[100];
    size_t size = sizeof value;
    if (rd_kafka_conf_get(conf, "security.protocol", value, &size) != RD_KAFKA_CONF_OK || strstr(value, "ssl") == NULL) {
        return 0;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size = sizeof value;
        if (rd_kafka_conf_get(conf, names[i], value, &size) != RD_KAFKA_CONF_OK || value[0] == '\0' ||
            strcmp(value, "probe") == 0 || access(value, R_OK) == 0) {
            continue;
        }
        return hv_error_set(err, "%s: %s cannot be read: %s", names[i], hv_text_show(value, shown, sizeof shown),
                            strerror(errno));
    }
    return 0;
}
