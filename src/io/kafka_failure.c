/* See kafka_failure.h. librdkafka has a code for authentication and one for TLS, and beyond that only texts. */
#include "io/kafka_failure.h"

#include <stdio.h>
#include <string.h>

/* ---- classes ---- */

#define ERR(name) RD_KAFKA_RESP_ERR_##name

static const struct known {
    int code;
    enum hv_kafka_class of;
    const char *label;
} classes[] = {
    {ERR(MSG_SIZE_TOO_LARGE), HV_KAFKA_OVERSIZE, "too large"},
    {ERR(INVALID_MSG_SIZE), HV_KAFKA_OVERSIZE, "too large"},
    {ERR(INVALID_MSG), HV_KAFKA_RECORD, "invalid record"},
    {ERR(INVALID_RECORD), HV_KAFKA_RECORD, "invalid record"},
    {ERR(RECORD_LIST_TOO_LARGE), HV_KAFKA_OVERSIZE, "too large"},
    {ERR(POLICY_VIOLATION), HV_KAFKA_RECORD, "policy violation"},
    {ERR(TOPIC_EXCEPTION), HV_KAFKA_RECORD, "invalid topic"}, /* its name */
    {ERR(_INVALID_ARG), HV_KAFKA_RECORD, "invalid record"},
    {ERR(_BAD_MSG), HV_KAFKA_RECORD, "invalid record"},
    {ERR(_BAD_COMPRESSION), HV_KAFKA_RECORD, "invalid record"},
    {ERR(UNKNOWN_TOPIC_OR_PART), HV_KAFKA_DESTINATION, "unknown topic"},
    {ERR(TOPIC_AUTHORIZATION_FAILED), HV_KAFKA_DESTINATION, "not authorized"},
    {ERR(INVALID_TIMESTAMP), HV_KAFKA_DESTINATION, "invalid timestamp"}, /* that of sending: clocks differ by more than the topic allows */
    {ERR(UNSUPPORTED_FOR_MESSAGE_FORMAT), HV_KAFKA_DESTINATION, "unsupported"},
    {ERR(UNSUPPORTED_COMPRESSION_TYPE), HV_KAFKA_DESTINATION, "unsupported"},
    {ERR(INVALID_REQUIRED_ACKS), HV_KAFKA_DESTINATION, "unsupported"},
    {ERR(_UNKNOWN_TOPIC), HV_KAFKA_DESTINATION, "unknown topic"},
    {ERR(_UNKNOWN_PARTITION), HV_KAFKA_DESTINATION, "unknown partition"},
    {ERR(_FATAL), HV_KAFKA_CLIENT, "client"},
    {ERR(_GAPLESS_GUARANTEE), HV_KAFKA_CLIENT, "client"},
    {ERR(_STATE), HV_KAFKA_CLIENT, "client"},
    {ERR(OUT_OF_ORDER_SEQUENCE_NUMBER), HV_KAFKA_CLIENT, "client"},
    {ERR(DUPLICATE_SEQUENCE_NUMBER), HV_KAFKA_CLIENT, "client"},
    {ERR(UNKNOWN_PRODUCER_ID), HV_KAFKA_CLIENT, "client"},
    {ERR(INVALID_PRODUCER_EPOCH), HV_KAFKA_CLIENT, "client"},
    {ERR(_ALL_BROKERS_DOWN), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(_TRANSPORT), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(_RESOLVE), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(_AUTHENTICATION), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(_TIMED_OUT), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(_MSG_TIMED_OUT), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(REQUEST_TIMED_OUT), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(NETWORK_EXCEPTION), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(LEADER_NOT_AVAILABLE), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(NOT_LEADER_FOR_PARTITION), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(BROKER_NOT_AVAILABLE), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(NOT_ENOUGH_REPLICAS), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(NOT_ENOUGH_REPLICAS_AFTER_APPEND), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(KAFKA_STORAGE_ERROR), HV_KAFKA_CLUSTER, "cluster"},
    {ERR(CLUSTER_AUTHORIZATION_FAILED), HV_KAFKA_CLUSTER, "cluster"},
};

static const struct known *find(int code) {
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (classes[i].code == code) {
            return &classes[i];
        }
    }
    return NULL;
}

enum hv_kafka_class hv_kafka_class_of(int code) {
    const struct known *known = find(code);
    return known != NULL ? known->of : HV_KAFKA_PASSING;
}

const char *hv_kafka_label_of(int code) {
    const struct known *known = find(code);
    return known != NULL ? known->label : "unknown";
}

/* ---- why a certificate is refused ---- */

/* OpenSSL's numbers (X509_V_ERR_...), which librdkafka passes through. */
static const char *explain(int x509_error) {
    switch (x509_error) {
    case 2:  /* UNABLE_TO_GET_ISSUER_CERT */
    case 18: /* DEPTH_ZERO_SELF_SIGNED_CERT */
    case 19: /* SELF_SIGNED_CERT_IN_CHAIN */
    case 20: /* UNABLE_TO_GET_ISSUER_CERT_LOCALLY */
    case 21: /* UNABLE_TO_VERIFY_LEAF_SIGNATURE */
        return "it is not signed by an authority of ssl.ca.location";
    case 7:  /* CERT_SIGNATURE_FAILURE */
        return "its signature is not by the authority of this name in ssl.ca.location";
    case 9:  /* CERT_NOT_YET_VALID */
        return "it is not valid yet";
    case 10: /* CERT_HAS_EXPIRED */
        return "it has expired";
    case 23: /* CERT_REVOKED */
        return "it was revoked";
    case 62: /* HOSTNAME_MISMATCH */
    case 64: /* IP_ADDRESS_MISMATCH */
        return "it is for another host name";
    default:
        return NULL;
    }
}

/* On librdkafka's threads. Never accepts what OpenSSL refuses. */
static int on_certificate(rd_kafka_t *client, const char *broker, int32_t id, int *x509_error, int depth, const char *bytes,
                          size_t size, char *why, size_t why_size, void *opaque) {
    (void)client, (void)broker, (void)id, (void)depth, (void)bytes, (void)size, (void)opaque;
    if (*x509_error == 0) {
        return 1;
    }
    const char *text = explain(*x509_error);
    if (text != NULL) {
        snprintf(why, why_size, "%s", text);
    } else {
        snprintf(why, why_size, "OpenSSL's verification error %d", *x509_error);
    }
    return 0;
}

void hv_kafka_explain_certificates(rd_kafka_conf_t *conf) {
    rd_kafka_conf_set_ssl_cert_verify_cb(conf, on_certificate); /* fails without TLS, and is not needed then */
}

bool hv_kafka_log_is_trouble(const char *facility) {
    return strcmp(facility, "SSLCERTVRFY") == 0;
}

/* ---- texts ---- */

bool hv_kafka_is_consequence(int code, const char *reason) {
    return code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || strstr(reason, "certificate verify failed") != NULL;
}

static void cut_out(char *from, const char *to) {
    memmove(from, to, strlen(to) + 1);
}

const char *hv_kafka_clean_reason(const char *reason, char *out, size_t size) {
    static const char refused[] = " verification callback failed: ";
    if (strncmp(reason, "[thrd:", 6) == 0 && strstr(reason, "]: ") != NULL) {
        reason = strstr(reason, "]: ") + 3;
    }
    snprintf(out, size, "%s", reason);
    /* "ssl://host:9093/bootstrap: ...", "host:9092/1: ..." */
    char *scheme = strstr(out, "://"), *slash = strchr(scheme == NULL ? out : scheme + 3, '/');
    char *colon = slash == NULL ? NULL : strstr(slash, ": ");
    if (colon != NULL && strcspn(out, " ") > (size_t)(colon - out)) {
        cut_out(slash, colon);
    }
    char *after = strstr(out, " (after ");
    if (after != NULL) {
        *after = '\0';
    }
    char *callback = strstr(out, refused);
    if (callback != NULL) {
        cut_out(callback + sizeof " is refused: " - 1, callback + sizeof refused - 1);
        memcpy(callback, " is refused: ", sizeof " is refused: " - 1);
    }
    return out;
}

const char *hv_kafka_advice(int code, const char *reason) {
    static const struct {
        const char *part, *advice;
    } known[] = {
        {"it has expired", "renew the broker's certificate"},
        {"it is for another host name",
         "name brokers in bootstrap.servers and advertised.listeners as their certificates do, or have others issued"},
        {"of ssl.ca.location", "put the authority that signed the broker's certificate into ssl.ca.location"},
        {"in ssl.ca.location", "put the authority that signed the broker's certificate into ssl.ca.location"},
        {"certificate verify failed", "check ssl.ca.location, and the broker's certificate: authority, expiry, host names"},
        {"Unsupported SASL mechanism", "set sasl.mechanisms to one that the broker supports"},
        {"SSL alert number", "check ssl.certificate.location and ssl.key.location: the broker wants a client certificate that it "
                             "trusts; its log tells more"},
        {"unexpected eof while reading", "check security.protocol: perhaps this is a port without TLS"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strstr(reason, known[i].part) != NULL) {
            return known[i].advice;
        }
    }
    if (code == RD_KAFKA_RESP_ERR__AUTHENTICATION || code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED) {
        return "check sasl.username and sasl.password in [kafka], and that the broker knows them";
    }
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        return "check bootstrap.servers, security.protocol (brokers that expect TLS only hang up), and that brokers run there";
    }
    if (code == RD_KAFKA_RESP_ERR__RESOLVE) {
        return "check the host names in bootstrap.servers and in the brokers' advertised.listeners";
    }
    if (code == RD_KAFKA_RESP_ERR__TRANSPORT) {
        return "check bootstrap.servers and the network, and that brokers run there";
    }
    return NULL;
}
