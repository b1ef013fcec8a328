/* See kafka_conf.h. What we set stands in one table; what the user sets is checked against it by librdkafka's own eyes: both
 * values go through a scratch configuration and are compared as it prints them back. */
#include "io/kafka_conf.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/text.h"
#include "io/kafka_failure.h"
#include "io/kafka_login.h"

enum {
    REC = 1 << HV_KAFKA_RECORDS,
    SUS = 1 << HV_KAFKA_SUSPECTS,
    BEAT = 1 << HV_KAFKA_ELECTION_PRODUCER,
    CON = 1 << HV_KAFKA_ELECTION_CONSUMER,
    PRODUCERS = REC | SUS | BEAT,
    ALL = PRODUCERS | CON,
};

/* Properties that we set, by their true names. `why` NULL: a default, the user may override it. Otherwise it is fixed: the user's
 * value is refused with that reason unless it is the same; with an empty reason it is passed over in silence. value NULL: the owner
 * of the client gives it (or nobody does), the user never. */
struct setting {
    unsigned roles;
    const char *name, *value, *why;
};

static const struct setting settings[] = {
    {ALL, "metadata.broker.list", "localhost:9092", NULL},
    {ALL, "socket.keepalive.enable", "true", NULL},
    {ALL, "socket.nagle.disable", "true", NULL}, /* or small requests wait for the acknowledgement of the one before */
    {ALL, "socket.timeout.ms", "5000", NULL},    /* a hung connection is dropped and its requests repeated */
    {ALL, "socket.connection.setup.timeout.ms", "10000", NULL},
    {ALL, "reconnect.backoff.ms", "100", NULL},
    {ALL, "reconnect.backoff.max.ms", "1000", NULL},
    {ALL, "log.connection.close", "false", NULL}, /* brokers close idle connections every ten minutes */
    {ALL, "log.queue", "true", "log lines are taken from a queue"},
    {ALL, "enabled_events", NULL, "harvestd decides which events it takes"},
    {ALL, "statistics.interval.ms", "0", "nobody reads these statistics"},
    {ALL, "internal.termination.signal", "0", "signals are harvestd's own"},
    {ALL, "test.mock.num.brokers", "0", "each client would have a cluster of its own"},

    {REC | SUS, "enable.idempotence", "true", "the order of records depends on it"},
    {REC, "enable.gapless.guarantee", "true", "the order of records depends on it"},
    {SUS, "enable.gapless.guarantee", NULL, ""}, /* one refused record must not end the client */
    {REC | SUS, "request.required.acks", "all", "acknowledged records are deleted from the outbox"},
    {REC | SUS, "queuing.strategy", NULL, "it is always fifo, the order of records depends on it"},
    {REC | SUS, "delivery.report.only.error", "false", "records are deleted from the outbox when they are reported"},
    {PRODUCERS, "transactional.id", NULL, "records are not sent in transactions"},
    /* None: a time-out drops the head of a queue and sends what is behind it, gapless or not. We wait as long as we lead. */
    {REC | SUS, "message.timeout.ms", "0", NULL},
    {REC | SUS, "partitioner", "murmur2_random", NULL}, /* the Java client's placement */
    {REC | SUS, "sticky.partitioning.linger.ms", "0", ""}, /* partitions are chosen in kafka_route.c */
    {REC | SUS, "compression.codec", "lz4", NULL},
    {REC | SUS, "batch.size", "1000000", NULL},
    {REC, "queue.buffering.max.ms", "1", NULL},
    {SUS, "queue.buffering.max.ms", "1", ""},
    /* An error names a batch, not a record: the fewer share it the better; 16 is best for 1 bad one in 256. */
    {SUS, "batch.num.messages", "16", ""},
    {REC | SUS, "queue.buffering.max.messages", "10000000", NULL}, /* our own window is the limit */
    {REC | SUS, "queue.buffering.max.kbytes", "2147483647", NULL},
    {REC | SUS, "topic.metadata.refresh.fast.interval.ms", "100", NULL},
    {REC | SUS, "topic.metadata.propagation.max.ms", "10000", NULL},

    {BEAT, "enable.idempotence", "false", ""}, /* a late heartbeat is worth nothing, so none is repeated for long */
    {BEAT, "enable.gapless.guarantee", NULL, ""},
    {BEAT, "request.required.acks", "1", ""},
    {BEAT, "queue.buffering.max.ms", "0", ""},
    {BEAT, "compression.codec", "none", ""},
    {BEAT, "message.timeout.ms", NULL, ""},
    {BEAT, "queue.buffering.max.messages", "1000", ""},
    {BEAT, "topic.metadata.refresh.interval.ms", "10000", NULL},

    {CON, "group.id", NULL, "set leader_group_id in [harvest] instead"},
    {CON, "group.instance.id", NULL, "static membership delays a clean hand-over by the whole session"},
    {CON, "partition.assignment.strategy", NULL, "set leader_assignor in [harvest] instead"},
    {CON, "session.timeout.ms", NULL, "it is three times heartbeat_timeout in [limits]; set that instead"},
    {CON, "heartbeat.interval.ms", NULL, "it follows heartbeat_timeout in [limits]; set that instead"},
    {CON, "max.poll.interval.ms", NULL, "it follows heartbeat_timeout in [limits]; set that instead"},
    {CON, "enable.auto.commit", "false", "the leader topic is read from its end, without offsets"},
    {CON, "enable.auto.offset.store", "false", "the leader topic is read from its end, without offsets"},
    {CON, "auto.offset.reset", "latest", "the leader topic is read from its end, without offsets"},
    {CON, "isolation.level", "read_uncommitted", "heartbeats are not sent in transactions"},
    {CON, "enable.partition.eof", "false", "nobody waits for the end of the leader topic"},
    {CON, "allow.auto.create.topics", "false", NULL}, /* we make the leader topic ourselves, with one partition */
    {CON, "topic.metadata.refresh.interval.ms", "10000", NULL}, /* a leader topic made by hand is found that soon */
    {CON, "fetch.wait.max.ms", "1000", NULL},
    {CON, "fetch.message.max.bytes", "65536", NULL},
    {CON, "fetch.max.bytes", "65536", NULL},
    {CON, "message.max.bytes", "65536", ""}, /* meant for records; librdkafka raises fetch.max.bytes to it */
    {CON, "queued.max.messages.kbytes", "256", NULL},
};

/* Numbers that are free within bounds. */
struct limit {
    unsigned roles;
    const char *name;
    double min, max;
    bool zero; /* 0 is fine as well */
    const char *why;
};

static const struct limit limits[] = {
    {REC, "queue.buffering.max.ms", 0, 20, false, "above 20 an idempotent client spins while a broker does not answer"},
    {REC | SUS, "message.timeout.ms", 30000, 2147483647, true,
     "below 30000 a fail-over of brokers fails records; 0 waits without limit"},
    {REC | SUS, "max.in.flight.requests.per.connection", 1, 5, false, "the order of records depends on at most 5"},
    {REC | SUS, "message.send.max.retries", 1000, 2147483647, false,
     "the client has to repeat requests until message.timeout.ms, or order is lost"},
};

/* ---- what librdkafka knows of a property ---- */

enum kind { FOR_ALL, FOR_CONSUMERS, FOR_PRODUCERS };

struct trait {
    enum kind kind;
    char name[80]; /* the true name behind an alias */
};

/* librdkafka tells for whom a property is in the manual that it prints; there is no other way to ask. NULL: no memory. */
static char *read_manual(void) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    if (file == NULL) {
        return NULL;
    }
    rd_kafka_conf_properties_show(file);
    if (fclose(file) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* A row: `name | C/P | range | default | importance | description`, the description perhaps "Alias for `name`: ...". A name
 * without a row (hidden or unknown) is for all. */
static struct trait find_trait(const char *manual, const char *name) {
    struct trait trait = {.kind = FOR_ALL};
    snprintf(trait.name, sizeof trait.name, "%s", name);
    size_t length = strlen(name);
    for (const char *row = manual; row != NULL; row = strchr(row, '\n')) {
        row += row == manual ? 0 : 1;
        if (strncmp(row, name, length) != 0 || row[length] != ' ') {
            continue;
        }
        const char *bar = strchr(row, '|');
        if (bar == NULL) {
            continue;
        }
        const char *who = bar + 1 + strspn(bar + 1, " ");
        trait.kind = *who == 'C' ? FOR_CONSUMERS : *who == 'P' ? FOR_PRODUCERS : FOR_ALL;
        const char *end = strchr(row, '\n');
        const char *alias = strstr(row, "Alias for `");
        if (alias != NULL && (end == NULL || alias < end)) {
            alias += strlen("Alias for `");
            snprintf(trait.name, sizeof trait.name, "%.*s", (int)strcspn(alias, "`"), alias);
        }
        break;
    }
    return trait;
}

static bool is_for(enum kind kind, unsigned roles) {
    return kind == FOR_ALL || (kind == FOR_CONSUMERS ? roles & CON : roles & PRODUCERS);
}

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct hv_error *err) {
    char why[256] = "";
    rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, name, value, why, sizeof why);
    if (result == RD_KAFKA_CONF_OK) {
        return 0;
    }
    if (result == RD_KAFKA_CONF_UNKNOWN) {
        return hv_error_set(err, "%s: librdkafka %s knows no such property", name, rd_kafka_version_str());
    }
    if (hv_kafka_property_is_secret(name) && strstr(why, "not supported in this build") == NULL) {
        return hv_error_set(err, "%s: librdkafka refuses this value", name);
    }
    if (strcmp(name, "sasl.oauthbearer.method") == 0 && strcmp(value, "oidc") == 0 && hv_kafka_lacks_oidc(why, sizeof why)) {
        return hv_error_set(err, "%s: %s; use SCRAM-SHA-512, PLAIN or client certificates", name, why);
    }
    return hv_error_set(err, "%s: %s", name, why);
}

/* The value as librdkafka prints it back. Returns 0 or -1 with err. */
static int canonical(const char *name, const char *value, char *out, size_t size, struct hv_error *err) {
    rd_kafka_conf_t *scratch = rd_kafka_conf_new();
    int result = set(scratch, name, value, err);
    if (result == 0 && rd_kafka_conf_get(scratch, name, out, &size) != RD_KAFKA_CONF_OK) {
        *out = '\0'; /* longer than any value that we compare */
    }
    rd_kafka_conf_destroy(scratch);
    return result;
}

/* Is the name in the manual? If not, the error gets the nearest one that is. */
static void suggest(const char *manual, const char *name, struct hv_error *err) {
    struct hv_nearest nearest = {.name = name};
    char candidates[2][80];
    int turn = 0; /* the best one so far has to stay while the next is tried */
    for (const char *row = manual; row != NULL && err != NULL; row = strchr(row, '\n')) {
        row += *row == '\n' ? 1 : 0;
        size_t length = strcspn(row, " |\n");
        if (length == 0 || length >= sizeof candidates[0]) {
            continue;
        }
        memcpy(candidates[turn], row, length);
        candidates[turn][length] = '\0';
        hv_nearest_try(&nearest, candidates[turn]);
        if (nearest.best == candidates[turn]) {
            turn = 1 - turn;
        }
    }
    size_t said = err == NULL ? 0 : strlen(err->text);
    if (nearest.best != NULL && nearest.distance > 0) {
        snprintf(err->text + said, sizeof err->text - said, "; did you mean %s?", nearest.best);
    }
}

/* ---- checking ---- */

static int check_fixed(unsigned roles, const struct hv_kafka_property *property, const char *name, const char *value,
                       struct hv_error *err) {
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const struct setting *s = &settings[i];
        if (!(s->roles & roles) || s->why == NULL || *s->why == '\0' || strcmp(s->name, name) != 0) {
            continue;
        }
        char ours[256];
        if (s->value == NULL) {
            return hv_error_set(err, "%s cannot be set: %s", property->name, s->why);
        }
        if (canonical(s->name, s->value, ours, sizeof ours, err) != 0) {
            return -1;
        }
        if (strcmp(ours, value) != 0) {
            return hv_error_set(err, "%s cannot be set to anything but %s: %s", property->name, s->value, s->why);
        }
    }
    return 0;
}

static int check_limits(unsigned roles, const struct hv_kafka_property *property, const char *name, const char *value,
                        struct hv_error *err) {
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const struct limit *l = &limits[i];
        if (!(l->roles & roles) || strcmp(l->name, name) != 0) {
            continue;
        }
        double number = strtod(value, NULL);
        if ((number < l->min || number > l->max) && !(l->zero && number == 0)) {
            return hv_error_set(err, "%s must be %s%.0f to %.0f: %s", property->name, l->zero ? "0 or " : "", l->min, l->max,
                                l->why);
        }
    }
    return 0;
}

static unsigned roles_of(enum hv_kafka_role role) {
    switch (role) {
    case HV_KAFKA_SHARED:
        return REC | CON;
    case HV_KAFKA_SUSPECTS:
        return REC; /* they are given the record producer's properties, and its rules hold */
    default:
        return 1u << role;
    }
}

static int check_with(const char *manual, enum hv_kafka_role role, const struct hv_kafka_property *property,
                      struct hv_error *err) {
    char value[1024];
    if (canonical(property->name, property->value, value, sizeof value, err) != 0) {
        suggest(manual, property->name, err);
        return -1;
    }
    struct trait trait = find_trait(manual, property->name);
    unsigned roles = roles_of(role);
    if (!is_for(trait.kind, roles)) {
        return hv_error_set(err, "%s is a property of %s, put it into [kafka.%s]", property->name,
                            trait.kind == FOR_CONSUMERS ? "consumers" : "producers",
                            trait.kind == FOR_CONSUMERS ? "consumer" : "producer");
    }
    if (check_fixed(roles, property, trait.name, value, err) != 0) {
        return -1;
    }
    return check_limits(roles, property, trait.name, value, err);
}

int hv_kafka_property_check(enum hv_kafka_role role, const struct hv_kafka_property *property, struct hv_error *err) {
    char *manual = read_manual();
    if (manual == NULL) {
        return hv_error_set(err, "out of memory");
    }
    int result = check_with(manual, role, property, err);
    free(manual);
    return result;
}

bool hv_kafka_log_is_noise(const char *facility, const char *text) {
    return (strcmp(facility, "CONFWARN") == 0 && strstr(text, "enable.gapless.guarantee") != NULL) ||
           strcmp(facility, "AUTOCREATE") == 0;
}

/* ---- librdkafka's main threads ---- */

/* Each client has a thread for timers, one of which fires every second. Before each, librdkafka 2.0.2 sleeps for the whole milliseconds
 * that are left and then spins for the rest of the last one: most of what an idle client costs. A timer of the kernel's that may be late
 * by more than that ends the sleep when there is nothing left to spin for. Sending and receiving are other threads' work. */
#define MAIN_THREAD_SLACK_NS 2000000ul

static rd_kafka_resp_err_t on_thread_start(rd_kafka_t *client, rd_kafka_thread_type_t type, const char *name, void *opaque) {
    (void)client;
    (void)name;
    (void)opaque;
    if (type == RD_KAFKA_THREAD_MAIN) {
        prctl(PR_SET_TIMERSLACK, MAIN_THREAD_SLACK_NS);
    }
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_new(rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *why, size_t size) {
    (void)conf;
    (void)opaque;
    (void)why;
    (void)size;
    return rd_kafka_interceptor_add_on_thread_start(client, "harvestd", on_thread_start, NULL);
}

/* When librdkafka 2.0.2 fails to make a client it frees the interceptors of the configuration that it was given, and once more when that
 * is freed. So such a one stays; the list is there for leak checkers. */
static void keep(rd_kafka_conf_t *conf) {
    static rd_kafka_conf_t *kept[16];
    static atomic_uint count;
    kept[atomic_fetch_add(&count, 1) % (sizeof kept / sizeof kept[0])] = conf;
}

rd_kafka_t *hv_kafka_client_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *why, size_t size) {
    rd_kafka_conf_interceptor_add_on_new(conf, "harvestd", on_new, NULL);
    rd_kafka_t *client = rd_kafka_new(type, conf, why, size);
    if (client == NULL) {
        keep(conf);
    }
    return client;
}

/* ---- making ---- */

static int apply_ours(rd_kafka_conf_t *conf, enum hv_kafka_role role, bool fixed, struct hv_error *err) {
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const struct setting *s = &settings[i];
        if (!(s->roles & 1u << role) || s->value == NULL || (s->why != NULL) != fixed) {
            continue;
        }
        if (set(conf, s->name, s->value, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Is the user's value of this (true) name passed over in this role? */
static bool is_passed_over(enum hv_kafka_role role, const char *name) {
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const struct setting *s = &settings[i];
        if (s->roles & 1u << role && s->why != NULL && *s->why == '\0' && strcmp(s->name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The users' properties are checked again: an embedding program may not have asked. */
static int apply_users(rd_kafka_conf_t *conf, enum hv_kafka_role role, const char *manual, bool shared,
                       const struct hv_kafka_properties *properties, struct hv_error *err) {
    for (size_t i = 0; properties != NULL && i < properties->count; i++) {
        const struct hv_kafka_property *p = &properties->list[i];
        struct trait trait = find_trait(manual, p->name);
        if (!is_for(trait.kind, 1u << role)) {
            continue;
        }
        if (check_with(manual, shared ? HV_KAFKA_SHARED : role, p, err) != 0) {
            return -1;
        }
        if (!is_passed_over(role, trait.name) && set(conf, p->name, p->value, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int apply_own(rd_kafka_conf_t *conf, const struct hv_kafka_properties *own, struct hv_error *err) {
    for (size_t i = 0; own != NULL && i < own->count; i++) {
        if (set(conf, own->list[i].name, own->list[i].value, err) != 0) {
            return -1;
        }
    }
    return 0;
}

int hv_kafka_conf_make(enum hv_kafka_role role, const char *client_id, const struct hv_kafka_properties *base,
                       const struct hv_kafka_properties *specific, const struct hv_kafka_properties *own,
                       rd_kafka_conf_t **ret, struct hv_error *err) {
    assert(role != HV_KAFKA_SHARED);
    char *manual = read_manual();
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (manual == NULL || conf == NULL) {
        free(manual);
        return hv_error_set(err, "out of memory");
    }
    /* What librdkafka says before its log queue exists would go to standard error; what matters of it is returned. */
    rd_kafka_conf_set_log_cb(conf, NULL);
    hv_kafka_explain_certificates(conf);
    int result = 0;
    if (apply_ours(conf, role, false, err) != 0 || (client_id != NULL && set(conf, "client.id", client_id, err) != 0) ||
        apply_users(conf, role, manual, true, base, err) != 0 ||
        apply_users(conf, role, manual, false, specific, err) != 0 || apply_ours(conf, role, true, err) != 0 ||
        apply_own(conf, own, err) != 0 || hv_kafka_files_check(conf, err) != 0) {
        result = -1;
    }
    free(manual);
    if (result == 0) {
        *ret = conf;
    } else {
        rd_kafka_conf_destroy(conf);
    }
    return result;
}
