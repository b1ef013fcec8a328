/* harvestd check, Kafka: brokers, the leader topic, the topics of waiting rows, the brokers' limits. Blocks.
 * Asks for the list of all topics rather than for single ones: asking for a topic can create it. */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cmd_check.h"
#include "base/text.h"
#include "io/kafka_conf.h"
#include "io/kafka_failure.h"

enum { ANSWER_MS = 8000 };

struct kafka {
    struct hv_check *check;
    rd_kafka_t *client;
    const struct rd_kafka_metadata *metadata;
    struct hv_error reason; /* what the client complained of last */
    int code;
    char auto_create[8];    /* the broker's auto.create.topics.enable, "" when it does not say */
};

static void on_error(rd_kafka_t *client, int code, const char *reason, void *opaque) {
    struct kafka *k = opaque;
    (void)client;
    if (k->reason.text[0] != '\0' && hv_kafka_is_consequence(code, reason)) {
        return;
    }
    k->code = code;
    hv_kafka_clean_reason(reason, k->reason.text, sizeof k->reason.text);
}

/* Called while we wait for an answer or poll, as on_error is: its lines come through the client's queue. */
static void on_log(const rd_kafka_t *client, int level, const char *facility, const char *text) {
    (void)level;
    if (hv_kafka_log_is_trouble(facility)) {
        on_error(NULL, 0, text, rd_kafka_opaque(client));
    }
}

/* Would every kind of client be made with these properties? Keeps one for asking. */
static bool make_client(struct kafka *k) {
    const struct hv_settings *s = k->check->settings;
    const struct {
        enum hv_kafka_role role;
        const struct hv_kafka_properties *specific;
        const char *section;
    } kinds[] = {
        {HV_KAFKA_RECORDS, &s->kafka_producer, "kafka.producer"},
        {HV_KAFKA_ELECTION_CONSUMER, &s->kafka_consumer, "kafka.consumer"},
        {HV_KAFKA_ELECTION_PRODUCER, NULL, "kafka"},
    };
    struct hv_error err;
    rd_kafka_conf_t *conf = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (conf != NULL) {
            rd_kafka_conf_destroy(conf);
        }
        if (hv_kafka_conf_make(kinds[i].role, s->name, &s->kafka, kinds[i].specific, NULL, &conf, &err) !=
            0) {
            hv_check_bad(k->check, "correct the property", "broker: [%s]: %s", kinds[i].section, err.text);
            return false;
        }
    }
    char why[300];
    rd_kafka_conf_set_opaque(conf, k);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    k->client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (k->client != NULL) {
        rd_kafka_set_log_queue(k->client, NULL); /* its lines come when it is polled, on this thread */
        return true;
    }
    rd_kafka_conf_destroy(conf);
    hv_check_bad(k->check, "correct the properties of [kafka]", "broker: no client: %s", why);
    return false;
}

static const char *servers(const struct hv_settings *s) {
    const char *found = "";
    for (size_t i = 0; i < s->kafka.count; i++) {
        if (strcmp(s->kafka.list[i].name, "bootstrap.servers") == 0 ||
            strcmp(s->kafka.list[i].name, "metadata.broker.list") == 0) {
            found = s->kafka.list[i].value;
        }
    }
    return found;
}

/* Waits for the list of topics; not to the end when a broker answered that it will not have us, or we not it. */
static rd_kafka_resp_err_t ask_metadata(struct kafka *k) {
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__TIMED_OUT;
    for (int waited = 0; code != RD_KAFKA_RESP_ERR_NO_ERROR && waited < ANSWER_MS; waited += ANSWER_MS / 8) {
        code = rd_kafka_metadata(k->client, 1, NULL, &k->metadata, ANSWER_MS / 8);
        while (rd_kafka_poll(k->client, 0) > 0) {
            continue;
        }
        if (waited >= ANSWER_MS / 8 && k->reason.text[0] != '\0' && k->code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN &&
            k->code != RD_KAFKA_RESP_ERR__TRANSPORT) {
            break;
        }
    }
    return code;
}

static bool reach_brokers(struct kafka *k) {
    rd_kafka_resp_err_t code = ask_metadata(k);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        const char *advice = hv_kafka_advice(k->code, k->reason.text);
        hv_check_bad(
            k->check,
            advice != NULL
                ? advice
                : "check bootstrap.servers, security.protocol and the like in [kafka], and that brokers run there",
            "broker: no answer from %s: %s", servers(k->check->settings),
            k->reason.text[0] != '\0' ? k->reason.text : rd_kafka_err2str(code));
        return false;
    }
    hv_check_ok(k->check, "broker: %d broker%s of the cluster at %s", k->metadata->broker_cnt,
                k->metadata->broker_cnt == 1 ? "" : "s", servers(k->check->settings));
    return true;
}

static const struct rd_kafka_metadata_topic *find_topic(const struct kafka *k, const char *name) {
    for (int i = 0; i < k->metadata->topic_cnt; i++) {
        if (strcmp(k->metadata->topics[i].topic, name) == 0) {
            return &k->metadata->topics[i];
        }
    }
    return NULL;
}

/* Waits for the answer to an administrative request. The caller destroys it; NULL when there is none in time.
 */
static rd_kafka_event_t *wait_answer(rd_kafka_queue_t *queue) {
    return rd_kafka_queue_poll(queue, ANSWER_MS + 2000);
}

/* ---- The brokers' limits ---- */

static void check_session_timeout(struct kafka *k, const char *name, const char *value) {
    int64_t session = k->check->settings->heartbeat_timeout * 3 / 1000, limit = atoll(value);
    if (strcmp(name, "group.min.session.timeout.ms") == 0 && session < limit) {
        hv_check_bad(k->check,
                     "raise heartbeat_timeout, or lower group.min.session.timeout.ms of the brokers",
                     "broker: takes no session time-out below %" PRId64
                     " ms, ours is 3 x heartbeat_timeout = %" PRId64 " ms",
                     limit, session);
    }
    if (strcmp(name, "group.max.session.timeout.ms") == 0 && session > limit) {
        hv_check_bad(k->check,
                     "lower heartbeat_timeout, or raise group.max.session.timeout.ms of the brokers",
                     "broker: takes no session time-out above %" PRId64
                     " ms, ours is 3 x heartbeat_timeout = %" PRId64 " ms",
                     limit, session);
    }
}

static void read_broker_settings(struct kafka *k, const rd_kafka_DescribeConfigs_result_t *result) {
    size_t resources, count = 0;
    const rd_kafka_ConfigResource_t **list = rd_kafka_DescribeConfigs_result_resources(result, &resources);
    const rd_kafka_ConfigEntry_t **entries =
        resources > 0 ? rd_kafka_ConfigResource_configs(list[0], &count) : NULL;
    for (size_t i = 0; i < count; i++) {
        const char *name = rd_kafka_ConfigEntry_name(entries[i]),
                   *value = rd_kafka_ConfigEntry_value(entries[i]);
        if (value == NULL) {
            continue;
        }
        if (strcmp(name, "auto.create.topics.enable") == 0) {
            snprintf(k->auto_create, sizeof k->auto_create, "%s", value);
        }
        check_session_timeout(k, name, value);
    }
}

/* Needs a right that not everybody has; without it we know less. */
static void ask_broker_settings(struct kafka *k, rd_kafka_queue_t *queue) {
    char id[16];
    if (k->metadata->broker_cnt == 0) {
        return;
    }
    snprintf(id, sizeof id, "%d", (int)k->metadata->brokers[0].id);
    rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_BROKER, id);
    rd_kafka_DescribeConfigs(k->client, &resource, 1, NULL, queue);
    rd_kafka_event_t *answer = wait_answer(queue);
    const rd_kafka_DescribeConfigs_result_t *result = rd_kafka_event_DescribeConfigs_result(answer);
    if (result != NULL && rd_kafka_event_error(answer) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        read_broker_settings(k, result);
    }
    rd_kafka_event_destroy(answer);
    rd_kafka_ConfigResource_destroy(resource);
}

/* ---- Topics ---- */

/* Asks the broker whether it would create the topic, without doing it. 0, or -1 with err. */
static int try_create(struct kafka *k, rd_kafka_queue_t *queue, const char *name, struct hv_error *err) {
    char why[300] = "no answer";
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(name, 1, -1, why, sizeof why);
    if (topic == NULL) {
        return hv_error_set(err, "%s", why);
    }
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(k->client, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_validate_only(options, 1, why, sizeof why);
    rd_kafka_CreateTopics(k->client, &topic, 1, options, queue);
    rd_kafka_event_t *answer = wait_answer(queue);
    const rd_kafka_CreateTopics_result_t *result = rd_kafka_event_CreateTopics_result(answer);
    size_t count = 0;
    const rd_kafka_topic_result_t **topics =
        result == NULL ? NULL : rd_kafka_CreateTopics_result_topics(result, &count);
    int bad = 0;
    if (count == 0) {
        bad = hv_error_set(err, "%s", answer == NULL ? "no answer" : rd_kafka_event_error_string(answer));
    } else if (rd_kafka_topic_result_error(topics[0]) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        bad = hv_error_set(err, "%s", rd_kafka_err2str(rd_kafka_topic_result_error(topics[0])));
    }
    rd_kafka_event_destroy(answer);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_NewTopic_destroy(topic);
    return bad;
}

static void check_leader_topic(struct kafka *k, rd_kafka_queue_t *queue) {
    const char *name = k->check->settings->leader_topic;
    const struct rd_kafka_metadata_topic *topic = find_topic(k, name);
    struct hv_error err;
    if (topic != NULL && topic->partition_cnt > 0) {
        hv_check_ok(k->check, "leader topic: %s exists", name);
        if (topic->partition_cnt > 1) {
            hv_check_note(k->check, "leader topic: %s has %d partitions; one is enough", name,
                          topic->partition_cnt);
        }
    } else if (try_create(k, queue, name, &err) == 0) {
        hv_check_ok(k->check, "leader topic: %s does not exist yet and will be made", name);
    } else {
        char advice[400];
        snprintf(advice, sizeof advice,
                 "kafka-topics.sh --bootstrap-server ... --create --topic %s --partitions 1, and allow this "
                 "user to read and write it",
                 name);
        hv_check_bad(k->check, advice, "leader topic: %s does not exist and cannot be made: %s", name,
                     err.text);
    }
}

/* Puts those that exist into `found` and returns how many. */
static size_t check_topics(struct kafka *k, const char **found) {
    size_t there = 0;
    for (size_t i = 0; i < k->check->topic_count; i++) {
        const char *name = k->check->topics[i];
        char shown[100], advice[400];
        if (find_topic(k, name) != NULL) {
            found[there++] = name;
            continue;
        }
        hv_text_show(name, shown, sizeof shown);
        snprintf(advice, sizeof advice, "kafka-topics.sh --bootstrap-server ... --create --topic %.249s",
                 name);
        if (strcmp(k->auto_create, "true") == 0) {
            hv_check_note(k->check, "topic: %s of rows in the table does not exist; the broker creates it",
                          shown);
        } else if (k->auto_create[0] == '\0') {
            hv_check_note(k->check,
                          "topic: %s of rows in the table does not exist, or this user has no right to Write it", shown);
        } else {
            hv_check_bad(k->check, advice, "topic: %s of rows in the table does not exist", shown);
        }
    }
    if (there > 0) {
        hv_check_ok(k->check, "topics: %zu of %zu of the rows in the table exist", there,
                    k->check->topic_count);
    } else if (k->check->topic_count == 0) {
        hv_check_ok(k->check, "topics: no rows in the table, none to look for");
    }
    return there;
}

void hv_check_kafka(struct hv_check *check) {
    struct kafka k = {.check = check};
    if (!make_client(&k)) {
        return;
    }
    if (reach_brokers(&k)) {
        rd_kafka_queue_t *queue = rd_kafka_queue_new(k.client);
        ask_broker_settings(&k, queue);
        check_leader_topic(&k, queue);
        const char *found[HV_CHECK_TOPICS_MAX];
        size_t count = check_topics(&k, found);
        hv_check_acls(check, find_topic(&k, check->settings->leader_topic) != NULL, found, count);
        rd_kafka_queue_destroy(queue);
        rd_kafka_metadata_destroy(k.metadata);
    }
    rd_kafka_destroy(k.client);
}
