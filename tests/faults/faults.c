/* Faults between harvestd's Kafka adapters and librdkafka, for a test build of the daemon: linked with --wrap, so that the product's own
 * code knows nothing of it. Only records are hurt, not heartbeats.
 *
 *   HV_FAULTS_FULL     share of records that the client does not take for now (queue full)
 *   HV_FAULTS_REFUSED  share of records that the client refuses
 *   HV_FAULTS_FAILED   share of delivered records whose report says that they failed
 *   HV_FAULTS_LOST     share of delivered records after which the client loses all that it holds: that fails, and what was only queued is
 *                      really not sent
 *   HV_FAULTS_SEED
 *
 * Shares are of 1. What was injected is told in a log line at exit. */
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ARGUMENTS_MAX = 16, TOPICS_MAX = 64 };

rd_kafka_resp_err_t __wrap_rd_kafka_producev(rd_kafka_t *client, ...);
const rd_kafka_message_t *__wrap_rd_kafka_event_message_next(rd_kafka_event_t *event);
const rd_kafka_message_t *__real_rd_kafka_event_message_next(rd_kafka_event_t *event);
rd_kafka_resp_err_t __wrap_rd_kafka_purge(rd_kafka_t *client, int flags);
rd_kafka_resp_err_t __real_rd_kafka_purge(rd_kafka_t *client, int flags);

static struct {
    double full, refused, failed, lost;
    uint64_t dice;
    struct {
        const rd_kafka_topic_t *topic;
        rd_kafka_t *client;
    } topics[TOPICS_MAX]; /* whose they are; a ring, latest ones */
    unsigned topic_count;
    bool losing; /* a client has lost what it held, and the daemon has not given it up yet */
    struct {
        unsigned long records, full, refused, delivered, failed, losses, lost, given_up;
    } count;
} faults;

static double share(const char *name) {
    const char *text = getenv(name);
    return text == NULL ? 0 : strtod(text, NULL);
}

__attribute__((constructor)) static void begin(void) {
    faults.full = share("HV_FAULTS_FULL");
    faults.refused = share("HV_FAULTS_REFUSED");
    faults.failed = share("HV_FAULTS_FAILED");
    faults.lost = share("HV_FAULTS_LOST");
    const char *seed = getenv("HV_FAULTS_SEED");
    faults.dice = seed == NULL ? 1 : strtoull(seed, NULL, 10);
}

/* As a log line, for that is all that may come out of a daemon. */
__attribute__((destructor)) static void end(void) {
    char when[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&now, &tm));
    fprintf(stderr,
            "time=%s level=info component=faults msg=\"injected\" records=%lu full=%lu refused=%lu delivered=%lu failed=%lu losses=%lu "
            "lost=%lu given_up=%lu\n",
            when, faults.count.records, faults.count.full, faults.count.refused, faults.count.delivered, faults.count.failed,
            faults.count.losses, faults.count.lost, faults.count.given_up);
}

/* True for that share of the calls (splitmix64). */
static bool happens(double of_one) {
    uint64_t z = (faults.dice += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1.0p-53 < of_one;
}

/* ---- producing ---- */

/* The arguments as an array, for there is no form of the call that takes a va_list. Returns how many. */
static size_t collect(va_list list, rd_kafka_vu_t *arguments) {
    size_t count = 0;
    rd_kafka_vtype_t type;
    while ((type = va_arg(list, rd_kafka_vtype_t)) != RD_KAFKA_VTYPE_END) {
        if (count == ARGUMENTS_MAX) {
            abort();
        }
        rd_kafka_vu_t *a = &arguments[count++];
        a->vtype = type;
        switch (type) {
        case RD_KAFKA_VTYPE_RKT:
            a->u.rkt = va_arg(list, rd_kafka_topic_t *);
            break;
        case RD_KAFKA_VTYPE_PARTITION:
            a->u.i32 = va_arg(list, int32_t);
            break;
        case RD_KAFKA_VTYPE_MSGFLAGS:
            a->u.i = va_arg(list, int);
            break;
        case RD_KAFKA_VTYPE_KEY:
        case RD_KAFKA_VTYPE_VALUE:
            a->u.mem.ptr = va_arg(list, void *);
            a->u.mem.size = va_arg(list, size_t);
            break;
        case RD_KAFKA_VTYPE_OPAQUE:
            a->u.ptr = va_arg(list, void *);
            break;
        case RD_KAFKA_VTYPE_HEADERS:
            a->u.headers = va_arg(list, rd_kafka_headers_t *);
            break;
        default: /* teach it the new one */
            abort();
        }
    }
    return count;
}

/* The topic of a record; NULL for a heartbeat, which differs in having no opaque value. */
static const rd_kafka_topic_t *topic_of_record(const rd_kafka_vu_t *arguments, size_t count) {
    const rd_kafka_topic_t *topic = NULL;
    bool record = false;
    for (size_t i = 0; i < count; i++) {
        record = record || arguments[i].vtype == RD_KAFKA_VTYPE_OPAQUE;
        topic = arguments[i].vtype == RD_KAFKA_VTYPE_RKT ? arguments[i].u.rkt : topic;
    }
    return record ? topic : NULL;
}

static rd_kafka_t *client_of(const rd_kafka_topic_t *topic) {
    for (unsigned i = 1; i <= TOPICS_MAX && i <= faults.topic_count; i++) {
        unsigned at = (faults.topic_count - i) % TOPICS_MAX;
        if (faults.topics[at].topic == topic) {
            return faults.topics[at].client;
        }
    }
    return NULL;
}

static void remember(const rd_kafka_topic_t *topic, rd_kafka_t *client) {
    if (client_of(topic) != client) {
        faults.topics[faults.topic_count % TOPICS_MAX].topic = topic;
        faults.topics[faults.topic_count++ % TOPICS_MAX].client = client;
    }
}

rd_kafka_resp_err_t __wrap_rd_kafka_producev(rd_kafka_t *client, ...) {
    rd_kafka_vu_t arguments[ARGUMENTS_MAX];
    va_list list;
    va_start(list, client);
    size_t count = collect(list, arguments);
    va_end(list);
    const rd_kafka_topic_t *topic = topic_of_record(arguments, count);
    if (topic != NULL) {
        remember(topic, client);
        faults.count.records++;
        if (happens(faults.full)) {
            faults.count.full++;
            return RD_KAFKA_RESP_ERR__QUEUE_FULL;
        }
        if (happens(faults.refused)) {
            faults.count.refused++;
            return RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
        }
    }
    rd_kafka_error_t *error = rd_kafka_produceva(client, arguments, count);
    rd_kafka_resp_err_t code = error == NULL ? RD_KAFKA_RESP_ERR_NO_ERROR : rd_kafka_error_code(error);
    rd_kafka_error_destroy(error);
    return code;
}

/* ---- reports ---- */

rd_kafka_resp_err_t __wrap_rd_kafka_purge(rd_kafka_t *client, int flags) {
    faults.losing = false;
    faults.count.given_up++;
    return __real_rd_kafka_purge(client, flags);
}

static void lose_the_rest(const rd_kafka_topic_t *topic) {
    rd_kafka_t *client = client_of(topic);
    if (client == NULL || faults.losing) {
        return;
    }
    faults.count.losses++;
    faults.losing = true;
    __real_rd_kafka_purge(client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

const rd_kafka_message_t *__wrap_rd_kafka_event_message_next(rd_kafka_event_t *event) {
    rd_kafka_message_t *message = (rd_kafka_message_t *)(uintptr_t)__real_rd_kafka_event_message_next(event);
    if (message == NULL || rd_kafka_event_type(event) != RD_KAFKA_EVENT_DR) {
        return message;
    }
    bool lost = message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE || message->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT;
    if (lost && faults.losing) {
        faults.count.lost++;
        message->err = RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
    } else if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        faults.count.delivered++;
        if (happens(faults.failed)) {
            faults.count.failed++;
            message->err = RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
        }
        if (happens(faults.lost)) {
            lose_the_rest(message->rkt);
        }
    }
    return message;
}
