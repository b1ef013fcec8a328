/* See kafka_producer.h. Everything comes as events through one queue (the client's main one, logs forwarded to it); no callback of
 * librdkafka's is set, for the two ways exclude each other. Topic handles are kept, so that sending looks up no names. */
#include "io/kafka_producer.h"

#include <assert.h>
#include <librdkafka/rdkafka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/kafka_queue.h"

enum {
    REPORTS_MAX = 1000,   /* a call of the handler */
    TOPICS_MAX = 1000,    /* handles kept; further topics are looked up by name each time and wait for librdkafka's own timers */
    TOPIC_SLOTS = 2048,   /* a power of two, well above TOPICS_MAX */
    ASK_TIMEOUT_MS = 1000, /* of one metadata request */
    ASK_TRIES = 6,
};

static_assert(sizeof(void *) >= sizeof(uint64_t), "tickets travel as pointers");

struct topic {
    rd_kafka_topic_t *handle; /* NULL: a free slot */
    bool asking;              /* its metadata is being asked for, or will be */
};

struct hv_producer {
    struct hv_loop *loop;
    rd_kafka_t *client;
    struct hv_queue *queue;
    const struct hv_producer_handler *handler;
    void *user;
    bool fatal_told;
    bool purged;
    int holders; /* the owner, and the metadata worker while there is one */
    size_t topic_count;
    struct topic topics[TOPIC_SLOTS];
    uint16_t to_ask[TOPICS_MAX]; /* slots, a stack */
    size_t to_ask_count;
    uint16_t asked;      /* the slot that the worker is about */
    bool ask_failed;     /* the worker got no answer */
    atomic_bool closed;  /* the worker need not try again */
    struct hv_report reports[REPORTS_MAX];
};

/* ---- what errors mean ---- */

/* Errors by which a record, its batch or its topic is refused, rather than the attempt. */
static bool is_refusal(rd_kafka_resp_err_t code) {
    switch (code) {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
    case RD_KAFKA_RESP_ERR__BAD_MSG:
    case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
        return true;
    default:
        return false;
    }
}

static enum hv_delivery delivery_of(rd_kafka_resp_err_t code) {
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        return HV_DELIVERED;
    if (code == RD_KAFKA_RESP_ERR__PURGE_QUEUE || code == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
        return HV_PURGED;
    return is_refusal(code) ? HV_REFUSED : HV_FAILED;
}

static bool may_be_mended_by_metadata(rd_kafka_resp_err_t code) {
    return code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC || code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ||
           code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
}

/* ---- events ---- */

static enum hv_queue_next on_reports(struct hv_producer *p, rd_kafka_event_t *event) {
    size_t count = 0;
    const rd_kafka_message_t *message;
    while (count < REPORTS_MAX && (message = rd_kafka_event_message_next(event)) != NULL) {
        p->reports[count++] = (struct hv_report){
            .ticket = (uint64_t)(uintptr_t)message->_private,
            .delivery = delivery_of(message->err),
            .code = message->err,
            .reason = rd_kafka_err2str(message->err),
        };
    }
    bool more = rd_kafka_event_message_count(event) > 0;
    if (count > 0)
        p->handler->reports(p->user, p->reports, count);
    return more ? HV_QUEUE_MORE : HV_QUEUE_DONE;
}

static void on_error(struct hv_producer *p, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    if (code != RD_KAFKA_RESP_ERR__FATAL && !rd_kafka_event_error_is_fatal(event)) {
        p->handler->trouble(p->user, code, rd_kafka_event_error_string(event));
        return;
    }
    if (p->fatal_told)
        return;
    p->fatal_told = true;
    char reason[HV_ERROR_MAX];
    code = rd_kafka_fatal_error(p->client, reason, sizeof reason);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        snprintf(reason, sizeof reason, "%s", rd_kafka_event_error_string(event));
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
            !hv_kafka_log_is_noise(facility, text))
            p->handler->log(p->user, level, facility, text);
        return HV_QUEUE_DONE;
    default:
        return HV_QUEUE_DONE;
    }
}

/* ---- the end ---- */

static void destroy_client(void *client) {
    rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

/* Joining the client's threads takes as long as the slowest of them, seconds if it resolves a name: never on the loop. */
static void let_go(struct hv_producer *p) {
    if (--p->holders > 0)
        return;
    for (size_t i = 0; i < TOPIC_SLOTS; i++) {
        if (p->topics[i].handle != NULL)
            rd_kafka_topic_destroy(p->topics[i].handle);
    }
    if (hv_loop_offload(p->loop, destroy_client, NULL, p->client) != 0)
        destroy_client(p->client);
    free(p);
}

void hv_producer_close(struct hv_producer *p) {
    hv_queue_close(p->queue);
    p->to_ask_count = 0;
    p->closed = true;
    let_go(p);
}

/* ---- metadata of topics not seen before ---- */

/* Left to itself librdkafka asks by a timer of a second. Asking here (on the thread pool, the call blocks) brings the first record
 * on its way in milliseconds. A topic that is just being created has no leader yet: ask again a few times. What does
 * not help within that is left to librdkafka's timer. */
static void ask(void *arg) {
    struct hv_producer *p = arg;
    struct timespec pause = {.tv_nsec = 10000000};
    p->ask_failed = false;
    for (int i = 0; i < ASK_TRIES && !p->closed; i++) {
        const struct rd_kafka_metadata *metadata;
        rd_kafka_resp_err_t code =
            rd_kafka_metadata(p->client, 0, p->topics[p->asked].handle, &metadata, ASK_TIMEOUT_MS);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            p->ask_failed = true;
            return;
        }
        bool known = metadata->topic_cnt > 0 && metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR &&
                     metadata->topics[0].partition_cnt > 0;
        for (int n = 0; known && n < metadata->topics[0].partition_cnt; n++)
            known = metadata->topics[0].partitions[n].leader >= 0;
        rd_kafka_metadata_destroy(metadata);
        if (known)
            return;
        nanosleep(&pause, NULL);
        pause.tv_nsec *= 2;
    }
}

static void ask_next(struct hv_producer *p);

static void asked(void *arg) {
    struct hv_producer *p = arg;
    p->topics[p->asked].asking = false;
    if (p->ask_failed) { /* no broker answers: do not keep a thread of the pool waiting for each topic in turn */
        while (p->to_ask_count > 0)
            p->topics[p->to_ask[--p->to_ask_count]].asking = false;
    }
    ask_next(p);
    let_go(p);
}

static void ask_next(struct hv_producer *p) {
    if (p->to_ask_count == 0)
        return;
    p->asked = p->to_ask[--p->to_ask_count];
    p->holders++;
    if (hv_loop_offload(p->loop, ask, asked, p) != 0) {
        p->topics[p->asked].asking = false;
        p->holders--;
    }
}

static void ask_for(struct hv_producer *p, struct topic *topic) {
    if (topic->asking)
        return;
    topic->asking = true;
    p->to_ask[p->to_ask_count++] = (uint16_t)(topic - p->topics);
    if (p->holders == 1)
        ask_next(p);
}

/* ---- topics ---- */

/* The topic's slot, made at first sight; NULL with *ret_code when librdkafka refuses the name; NULL with no error when the
 * table is full. */
static struct topic *find_topic(struct hv_producer *p, const char *name, rd_kafka_resp_err_t *ret_code) {
    size_t at = hv_fnv1a(name, strlen(name)) % TOPIC_SLOTS;
    while (p->topics[at].handle != NULL) {
        if (strcmp(rd_kafka_topic_name(p->topics[at].handle), name) == 0)
            return &p->topics[at];
        at = (at + 1) % TOPIC_SLOTS;
    }
    *ret_code = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (p->topic_count == TOPICS_MAX)
        return NULL;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(p->client, name, NULL);
    if (handle == NULL) {
        *ret_code = rd_kafka_last_error();
        return NULL;
    }
    p->topics[at].handle = handle;
    p->topic_count++;
    ask_for(p, &p->topics[at]);
    return &p->topics[at];
}

/* ---- sending ---- */

static rd_kafka_headers_t *make_headers(const struct hv_record *record) {
    if (record->header_count == 0)
        return NULL;
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)record->header_count);
    for (int32_t i = 0; i < record->header_count; i++) {
        const struct hv_header *h = &record->headers[i];
        /* A NULL value would make a header without one; empty is another thing. */
        rd_kafka_header_add(headers, h->name, -1, h->value != NULL ? (const void *)h->value : "", h->value_length);
    }
    return headers;
}

static const void *bytes_or_null(const uint8_t *data, int32_t length) {
    return length < 0 ? NULL : data != NULL ? (const void *)data : "";
}

static rd_kafka_resp_err_t produce(struct hv_producer *p, const struct topic *topic, const struct hv_record *record,
                                   uint64_t ticket) {
    rd_kafka_headers_t *headers = make_headers(record);
    void *key = (void *)(uintptr_t)bytes_or_null(record->key, record->key_length);
    void *value = (void *)(uintptr_t)bytes_or_null(record->value, record->value_length);
    size_t key_length = record->key_length < 0 ? 0 : (size_t)record->key_length;
    size_t value_length = record->value_length < 0 ? 0 : (size_t)record->value_length;
    rd_kafka_resp_err_t code;
#define MESSAGE                                                                                                                \
    RD_KAFKA_V_PARTITION(RD_KAFKA_PARTITION_UA), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),                                     \
        RD_KAFKA_V_KEY(key, key_length), RD_KAFKA_V_VALUE(value, value_length),                                                \
        RD_KAFKA_V_OPAQUE((void *)(uintptr_t)ticket)
    if (topic == NULL)
        code = rd_kafka_producev(p->client, RD_KAFKA_V_TOPIC(record->topic), MESSAGE, RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    else
        code = rd_kafka_producev(p->client, RD_KAFKA_V_RKT(topic->handle), MESSAGE, RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
#undef MESSAGE
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR && headers != NULL)
        rd_kafka_headers_destroy(headers); /* taken over on success only */
    return code;
}

enum hv_send hv_producer_send(struct hv_producer *p, const struct hv_record *record, uint64_t ticket, struct hv_error *err) {
    assert(record->defect == HV_SOUND);
    if (p->purged || p->fatal_told)
        return HV_SEND_FATAL;
    rd_kafka_resp_err_t code;
    struct topic *topic = find_topic(p, record->topic, &code);
    if (topic != NULL || code == RD_KAFKA_RESP_ERR_NO_ERROR)
        code = produce(p, topic, record, ticket);
    switch (code) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return HV_SENT;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return HV_SEND_FULL;
    case RD_KAFKA_RESP_ERR__FATAL:
        return HV_SEND_FATAL; /* the event that says why is in the queue */
    default:
        if (topic != NULL && may_be_mended_by_metadata(code))
            ask_for(p, topic);
        hv_error_set(err, "%s", rd_kafka_err2str(code));
        return HV_SEND_REFUSED;
    }
}

void hv_producer_purge(struct hv_producer *p) {
    p->purged = true;
    /* Under the gapless guarantee a purge is a fatal error; that is no news to who asked for it. */
    p->fatal_told = true;
    rd_kafka_purge(p->client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

/* ---- the beginning ---- */

static int make_client(enum hv_kafka_role role, const struct hv_kafka_properties *properties, const char *client_id,
                       rd_kafka_t **ret, struct hv_error *err) {
    rd_kafka_conf_t *conf;
    if (hv_kafka_conf_make(role, client_id, NULL, properties, NULL, &conf, err) != 0)
        return -1;
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
    char why[HV_ERROR_MAX];
    *ret = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (*ret == NULL) {
        rd_kafka_conf_destroy(conf);
        return hv_error_set(err, "cannot make a Kafka producer: %s", why);
    }
    rd_kafka_set_log_queue(*ret, NULL);
    return 0;
}

int hv_producer_open(struct hv_loop *loop, enum hv_kafka_role role, const struct hv_kafka_properties *properties,
                     const char *client_id, hv_time poll_duration, const struct hv_producer_handler *handler, void *user,
                     struct hv_producer **ret, struct hv_error *err) {
    struct hv_producer *p = calloc(1, sizeof *p);
    if (p == NULL)
        return hv_error_set(err, "out of memory");
    p->loop = loop;
    p->handler = handler;
    p->user = user;
    p->holders = 1;
    if (make_client(role, properties, client_id, &p->client, err) != 0) {
        free(p);
        return -1;
    }
    if (hv_queue_open(loop, rd_kafka_queue_get_main(p->client), poll_duration, on_event, p, &p->queue, err) != 0) {
        let_go(p);
        return -1;
    }
    *ret = p;
    return 0;
}
