/* harvestd check, what the brokers allow this user: to join the group, to read and write the leader topic, to write the topics of waiting
 * rows. Blocks.
 *
 * Writing is tried without writing: a broker looks at the rights first and then refuses a number of acknowledgements that does not
 * exist. Should one not know that rule, it gets an odd heartbeat in the leader topic, which means nothing to anybody, and topics of records
 * are left alone. */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <string.h>

#include "app/cmd_check.h"
#include "io/kafka_conf.h"

enum { ANSWER_MS = 6000, POLL_MS = 250, POLLS_MAX = 12 };

static const char heartbeat[] = "0%harvestd check";

static void forbidden(struct hv_check *check, const char *point, const char *operation, const char *kind, const char *name) {
    char advice[500];
    snprintf(advice, sizeof advice, "kafka-acls.sh --bootstrap-server ... --add --allow-principal User:... --operation %s --%s %s",
             operation, kind, name);
    hv_check_bad(check, advice, "%s: this user has no right to %s %s %s", point, operation, kind, name);
}

static void drop_log(const rd_kafka_t *client, int level, const char *facility, const char *text) {
    (void)client, (void)level, (void)facility, (void)text;
}

static void on_report(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client;
    *(rd_kafka_resp_err_t *)opaque = message->err;
}

/* NULL: no client, which was told before in other words. */
static rd_kafka_t *open_client(const struct hv_settings *s, bool consumer, rd_kafka_resp_err_t *outcome) {
    char why[300];
    rd_kafka_conf_t *conf;
    struct hv_kafka_property group = {"group.id", s->leader_group_id};
    struct hv_kafka_properties own = {.list = &group, .count = consumer};
    if (hv_kafka_conf_make(consumer ? HV_KAFKA_ELECTION_CONSUMER : HV_KAFKA_ELECTION_PRODUCER, s->name, &s->kafka,
                           consumer ? &s->kafka_consumer : NULL, &own, &conf, NULL) != 0) {
        return NULL;
    }
    rd_kafka_conf_set_log_cb(conf, drop_log);
    rd_kafka_conf_set_opaque(conf, outcome);
    rd_kafka_conf_set(conf, "log.queue", "false", why, sizeof why);
    if (consumer) {
        rd_kafka_conf_set(conf, "enable.partition.eof", "true", why, sizeof why);
    } else {
        rd_kafka_conf_set_dr_msg_cb(conf, on_report);
        rd_kafka_conf_set(conf, "acks", "2", why, sizeof why);
        rd_kafka_conf_set(conf, "message.timeout.ms", "5000", why, sizeof why);
    }
    rd_kafka_t *client = rd_kafka_new(consumer ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (client == NULL) {
        rd_kafka_conf_destroy(conf);
    }
    return client;
}

/* ---- the group, and reading ---- */

/* Finds the group's coordinator, and fetches from the leader topic's end if there is that topic. Does not join. */
static void try_consuming(const struct hv_settings *s, bool leader_topic, bool *ret_group, bool *ret_topic) {
    rd_kafka_t *client = open_client(s, true, NULL);
    bool read = !leader_topic;
    *ret_group = *ret_topic = true;
    if (client == NULL) {
        return;
    }
    rd_kafka_poll_set_consumer(client);
    if (leader_topic) {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, s->leader_topic, 0)->offset = RD_KAFKA_OFFSET_END;
        rd_kafka_assign(client, list);
        rd_kafka_topic_partition_list_destroy(list);
    }
    /* A coordinator that is found is not told: then it is given the time that a refusal takes. */
    for (int i = 0; i < POLLS_MAX && (!read || (*ret_group && i < POLLS_MAX / 2)); i++) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(client, POLL_MS);
        rd_kafka_resp_err_t code = message == NULL ? RD_KAFKA_RESP_ERR_NO_ERROR : message->err;
        *ret_group = *ret_group && code != RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
        *ret_topic = *ret_topic && code != RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        read = read || code == RD_KAFKA_RESP_ERR__PARTITION_EOF || !*ret_topic;
        if (message != NULL) {
            rd_kafka_message_destroy(message);
        }
    }
    rd_kafka_consumer_close(client);
    rd_kafka_destroy(client);
}

/* ---- writing ---- */

/* INVALID_REQUIRED_ACKS when it is allowed. */
static rd_kafka_resp_err_t try_write(rd_kafka_t *client, const char *topic, rd_kafka_resp_err_t *outcome) {
    *outcome = RD_KAFKA_RESP_ERR__TIMED_OUT;
    rd_kafka_resp_err_t code = rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
                                                 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                                 RD_KAFKA_V_VALUE((void *)(uintptr_t)heartbeat, sizeof heartbeat - 1), RD_KAFKA_V_END);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return code;
    }
    rd_kafka_flush(client, ANSWER_MS);
    return *outcome;
}

static void check_writing(struct hv_check *check, const char *const *topics, size_t count) {
    const struct hv_settings *s = check->settings;
    rd_kafka_resp_err_t outcome;
    rd_kafka_t *client = open_client(s, false, &outcome);
    if (client == NULL) {
        return;
    }
    rd_kafka_resp_err_t code = try_write(client, s->leader_topic, &outcome);
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
        forbidden(check, "leader topic", "Write", "topic", s->leader_topic);
    }
    bool safe = code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || code == RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS;
    for (size_t i = 0; safe && i < count; i++) {
        code = try_write(client, topics[i], &outcome);
        safe = code != RD_KAFKA_RESP_ERR_NO_ERROR;
        if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
            forbidden(check, "topic", "Write", "topic", topics[i]);
        }
    }
    rd_kafka_destroy(client);
}

void hv_check_acls(struct hv_check *check, bool leader_topic, const char *const *topics, size_t count) {
    const struct hv_settings *s = check->settings;
    unsigned bad = check->bad;
    bool group, topic;
    try_consuming(s, leader_topic, &group, &topic);
    if (!group) {
        forbidden(check, "group", "Read", "group", s->leader_group_id);
    }
    if (!topic) {
        forbidden(check, "leader topic", "Read", "topic", s->leader_topic);
    }
    if (!leader_topic) {
        return;
    }
    check_writing(check, topics, count);
    if (check->bad == bad) {
        hv_check_ok(check, "rights: the brokers allow the group, the leader topic and the topics of waiting rows");
    }
}
