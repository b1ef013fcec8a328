/* See kafka_producer.h. Everything comes as events through one queue (the client's main one, logs forwarded to it); no callback of
 * librdkafka's is set, for the two ways exclude each other. Where a record goes, and when, is kafka_route.c's. */
#include "io/kafka_producer.h"

#include <assert.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "io/kafka_failure.h"
#include "io/kafka_gate.h"
#include "io/kafka_queue.h"
#include "io/kafka_route.h"

enum {
    REPORTS_MAX = 1000,   /* a call of the handler */
};

struct hv_producer {
    struct hv_report refusal; /* the last one */
    struct hv_loop *loop;
    rd_kafka_t *client;
    struct hv_queue *queue;
    const struct hv_producer_handler *handler;
    void *user;
    bool fatal_told;
    bool purged;
    struct hv_gate *gate;
    struct hv_routes *routes;
    int32_t size_max; /* message.max.bytes: known here, so that a record that is too large is refused before any other is on its way */
    struct hv_report reports[REPORTS_MAX];
    struct hv_report *held; /* reports of records that were held, told by the next drain; bounded by what is in flight */
    size_t held_count, held_capacity;
};

/* ---- what errors mean ---- */

static enum hv_delivery delivery_of(rd_kafka_resp_err_t code) {
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        return HV_DELIVERED;
    }
    if (code == RD_KAFKA_RESP_ERR__PURGE_QUEUE || code == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT) {
        return HV_PURGED;
    }
    switch (hv_kafka_class_of(code)) {
    case HV_KAFKA_RECORD:
        return HV_REFUSED;
    case HV_KAFKA_OVERSIZE:
        return HV_OVERSIZE;
    case HV_KAFKA_DESTINATION:
        return HV_UNREACHED;
    case HV_KAFKA_PASSING:
        return HV_PUZZLING;
    default:
        return HV_FAILED;
    }
}

/* ---- events ---- */

static enum hv_queue_next on_reports(struct hv_producer *p, rd_kafka_event_t *event) {
    size_t count = 0;
    const rd_kafka_message_t *message;
    while (count < REPORTS_MAX && (message = rd_kafka_event_message_next(event)) != NULL) {
        hv_gate_take(p->gate);
        p->reports[count++] = (struct hv_report){
            .ticket = hv_routes_reported(p->routes, message),
            .delivery = delivery_of(message->err),
            .code = message->err,
            .reason = rd_kafka_err2str(message->err),
        };
    }
    hv_routes_release(p->routes);
    bool more = rd_kafka_event_message_count(event) > 0;
    if (hv_routes_are_full(p->routes)) {
        hv_queue_kick(p->queue); /* once this event is destroyed there is room */
    }
    if (count > 0) {
        p->handler->reports(p->user, p->reports, count);
    }
    return more ? HV_QUEUE_MORE : HV_QUEUE_DONE;
}

static void on_error(struct hv_producer *p, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    if (code != RD_KAFKA_RESP_ERR__FATAL && !rd_kafka_event_error_is_fatal(event)) {
        if (!p->purged && !hv_gate_is_over(p->gate)) { /* or it may be about connections that we cut */
            p->handler->trouble(p->user, code, rd_kafka_event_error_string(event));
        }
        return;
    }
    if (p->fatal_told) {
        return;
    }
    p->fatal_told = true;
    char reason[HV_ERROR_MAX];
    code = rd_kafka_fatal_error(p->client, reason, sizeof reason);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        snprintf(reason, sizeof reason, "%s", rd_kafka_event_error_string(event));
    }
    p->handler->fatal(p->user, reason);
}

static enum hv_queue_next on_event(void *user, rd_kafka_event_t *event) {
    struct hv_producer *p = user;
    const char *facility, *text;
    int level;
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_DR:
        return on_reports(p, event);
    case RD_KAFKA_EVENT_ERROR:
        on_error(p, event);
        return HV_QUEUE_DONE;
    case RD_KAFKA_EVENT_LOG:
        if (rd_kafka_event_log(event, &facility, &text, &level) == 0 &&
            !hv_kafka_log_is_noise(facility, text)) {
            p->handler->log(p->user, level, facility, text);
        }
        return HV_QUEUE_DONE;
    default:
        return HV_QUEUE_DONE;
    }
}

/* ---- the end ---- */

static void on_routes_closed(void *user) {
    struct hv_producer *p = user;
    hv_gate_destroy_client(p->loop, p->gate, p->client);
    free(p->held);
    free(p);
}

void hv_producer_close(struct hv_producer *p) {
    hv_queue_close(p->queue);
    hv_routes_close(p->routes);
}

/* ---- the lease ---- */

void hv_producer_lease(struct hv_producer *p, hv_time until) {
    hv_gate_lease(p->gate, until);
    hv_gate_check(p->gate);
}

void hv_producer_check_lease(struct hv_producer *p) {
    hv_gate_check(p->gate);
}

void hv_producer_use_signal(int number) {
    hv_gate_use_signal(number);
}

/* ---- sending ---- */

static rd_kafka_headers_t *make_headers(const struct hv_record *record) {
    if (record->header_count == 0) {
        return NULL;
    }
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)record->header_count);
    for (int32_t i = 0; i < record->header_count; i++) {
        const struct hv_header *h = &record->headers[i];
        /* A NULL value would make a header without one; empty is another thing. */
        rd_kafka_header_add(headers, h->name, h->name_length, h->value != NULL ? (const void *)h->value : "", h->value_length);
    }
    return headers;
}

static const void *bytes_or_null(const uint8_t *data, int32_t length) {
    return length < 0 ? NULL : data != NULL ? (const void *)data : "";
}

static rd_kafka_resp_err_t produce(void *user, rd_kafka_topic_t *topic, int32_t partition, const struct hv_record *record,
                                   void *opaque) {
    struct hv_producer *p = user;
    hv_gate_give(p->gate);
    if (hv_gate_is_over(p->gate)) { /* the process may have been stopped at any point before this */
        hv_gate_take(p->gate);
        return RD_KAFKA_RESP_ERR__QUEUE_FULL;
    }
    rd_kafka_headers_t *headers = make_headers(record);
    void *key = (void *)(uintptr_t)bytes_or_null(record->key, record->key_length);
    void *value = (void *)(uintptr_t)bytes_or_null(record->value, record->value_length);
    size_t key_length = record->key_length < 0 ? 0 : (size_t)record->key_length;
    size_t value_length = record->value_length < 0 ? 0 : (size_t)record->value_length;
    rd_kafka_resp_err_t code =
        rd_kafka_producev(p->client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, key_length),
                          RD_KAFKA_V_VALUE(value, value_length), RD_KAFKA_V_OPAQUE(opaque),
                          RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR && headers != NULL) {
        rd_kafka_headers_destroy(headers); /* taken over on success only */
    }
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        hv_gate_take(p->gate);
    }
    return code;
}

/* Of a record that was held and will not be given to the client. Perhaps from within a call of the owner's: told later. */
static void report_held(void *user, uint64_t ticket, rd_kafka_resp_err_t code) {
    struct hv_producer *p = user;
    if (p->held_count == p->held_capacity) {
        p->held_capacity = p->held_capacity == 0 ? 64 : p->held_capacity * 2;
        p->held = hv_realloc(p->held, p->held_capacity, sizeof *p->held);
    }
    p->held[p->held_count++] = (struct hv_report){
        .ticket = ticket, .delivery = delivery_of(code), .code = code, .reason = rd_kafka_err2str(code)};
    hv_queue_kick(p->queue);
}

static void tell_held(void *user) {
    struct hv_producer *p = user;
    hv_producer_check_lease(p);
    for (size_t told = 0; told < p->held_count; told += REPORTS_MAX) {
        size_t left = p->held_count - told;
        p->handler->reports(p->user, p->held + told, left < REPORTS_MAX ? left : REPORTS_MAX);
    }
    p->held_count = 0;
    hv_routes_retry(p->routes);
}

static const struct hv_route_handler route_handler = {.produce = produce, .report = report_held, .closed = on_routes_closed};

static bool is_too_large(const struct hv_producer *p, const struct hv_record *record) {
    int64_t size = (int64_t)(record->key_length > 0 ? record->key_length : 0) +
                   (record->value_length > 0 ? record->value_length : 0);
    return size > p->size_max;
}

static struct hv_report refusal(uint64_t ticket, rd_kafka_resp_err_t code) {
    enum hv_delivery delivery = delivery_of(code);
    return (struct hv_report){
        .ticket = ticket,
        .delivery = hv_is_refusal(delivery) ? delivery : HV_REFUSED,
        .code = code,
        .reason = rd_kafka_err2str(code),
    };
}

enum hv_send hv_producer_send(struct hv_producer *p, const struct hv_record *record, uint64_t ticket, bool alone,
                              struct hv_error *err) {
    assert(record->defect == HV_SOUND);
    if (p->purged || p->fatal_told) {
        return HV_SEND_FATAL;
    }
    rd_kafka_resp_err_t code = is_too_large(p, record) ? RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
                                                       : hv_routes_send(p->routes, record, ticket, alone);
    switch (code) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return HV_SENT;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return HV_SEND_FULL;
    case RD_KAFKA_RESP_ERR__FATAL:
        return HV_SEND_FATAL; /* the event that says why is in the queue */
    default:
        p->refusal = refusal(ticket, code);
        hv_error_set(err, "%s", p->refusal.reason);
        return HV_SEND_REFUSED;
    }
}

const struct hv_report *hv_producer_refusal(const struct hv_producer *p) {
    return &p->refusal;
}

void hv_producer_flush(struct hv_producer *p) {
    if (p->purged) {
        return;
    }
    hv_routes_retry(p->routes);
    hv_routes_flush(p->routes);
}

void hv_producer_purge(struct hv_producer *p, bool but_sent) {
    /* Under the gapless guarantee a purge is a fatal error; that is no news to who asked for it. */
    p->fatal_told = true;
    if (but_sent) {
        rd_kafka_purge(p->client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING);
    } else {
        p->purged = true;
        hv_gate_shut(p->gate);
        rd_kafka_purge(p->client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
    }
    hv_routes_purge(p->routes);
}

/* ---- the beginning ---- */

/* What routing must know of the configuration, as the client will have it. */
struct known {
    char partitioner[64];
    int32_t size_max;
    struct hv_route_limits limits;
};

static double read_number(const rd_kafka_conf_t *conf, const char *name) {
    char text[32] = "";
    size_t length = sizeof text;
    rd_kafka_conf_get(conf, name, text, &length);
    return strtod(text, NULL);
}

static bool is_set(const struct hv_kafka_properties *properties, const char *name) {
    for (size_t i = 0; i < properties->count; i++) {
        if (strcmp(properties->list[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void read_conf(const rd_kafka_conf_t *conf, enum hv_kafka_role role, const struct hv_kafka_properties *properties,
                      struct known *known) {
    size_t length = sizeof known->partitioner;
    *known->partitioner = '\0';
    rd_kafka_conf_get(conf, "partitioner", known->partitioner, &length);
    known->size_max = (int32_t)read_number(conf, "message.max.bytes");
    double batch_bytes = read_number(conf, "batch.size"), linger = read_number(conf, "linger.ms");
    known->limits = (struct hv_route_limits){
        .linger = (hv_time)(linger * 1000),
        .batch_records = (uint32_t)read_number(conf, "batch.num.messages"),
        .batch_bytes = batch_bytes < known->size_max ? (int64_t)batch_bytes : known->size_max,
        /* Who asks for a linger gets it, but not for suspects. */
        .hurry = linger > 0 && (role == HV_KAFKA_SUSPECTS || (!is_set(properties, "linger.ms") &&
                                                              !is_set(properties, "queue.buffering.max.ms"))),
    };
}

static int make_client(struct hv_producer *p, enum hv_kafka_role role, const struct hv_kafka_properties *properties,
                       const char *client_id, struct hv_error *err) {
    rd_kafka_conf_t *conf;
    if (hv_kafka_conf_make(role, client_id, NULL, properties, NULL, &conf, err) != 0) {
        return -1;
    }
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
    char why[HV_ERROR_MAX] = "out of memory";
    struct known known;
    read_conf(conf, role, properties, &known);
    p->size_max = known.size_max;
    p->gate = hv_gate_new(conf);
    p->client = NULL;
    if (p->gate == NULL) {
        rd_kafka_conf_destroy(conf);
    } else {
        p->client = hv_kafka_client_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    }
    if (p->client == NULL) {
        hv_gate_free(p->gate);
        return hv_error_set(err, "cannot make a Kafka producer: %s", why);
    }
    rd_kafka_set_log_queue(p->client, NULL);
    p->routes = hv_routes_open(p->loop, p->client, known.partitioner, &known.limits, role == HV_KAFKA_RECORDS, &route_handler, p);
    if (p->routes == NULL) {
        rd_kafka_destroy(p->client); /* it did nothing yet */
        hv_gate_free(p->gate);
        return hv_error_set(err, "out of memory");
    }
    return 0;
}

int hv_producer_open(struct hv_loop *loop, enum hv_kafka_role role, const struct hv_kafka_properties *properties,
                     const char *client_id, hv_time poll_duration, const struct hv_producer_handler *handler, void *user,
                     struct hv_producer **ret, struct hv_error *err) {
    struct hv_producer *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return hv_error_set(err, "out of memory");
    }
    p->loop = loop;
    p->handler = handler;
    p->user = user;
    if (make_client(p, role, properties, client_id, err) != 0) {
        free(p);
        return -1;
    }
    if (hv_queue_open(loop, rd_kafka_queue_get_main(p->client), poll_duration, on_event, p, &p->queue, err) != 0) {
        hv_routes_close(p->routes); /* takes the rest with it */
        return -1;
    }
    hv_queue_before_drain(p->queue, tell_held);
    *ret = p;
    return 0;
}
