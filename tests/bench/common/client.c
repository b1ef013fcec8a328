/* See client.h. */
#include "client.h"

#include <string.h>

#include "bench.h"
#include "io/kafka_conf.h"

#define PROPERTIES_MAX 32

rd_kafka_t *bench_client(char **properties, rd_kafka_queue_t **queue) {
    struct hv_kafka_property list[PROPERTIES_MAX];
    struct hv_kafka_properties users = {.list = list};
    for (; *properties != NULL && users.count < PROPERTIES_MAX; properties++) {
        char *value = strchr(*properties, '=');
        if (value == NULL) {
            bench_die(*properties, "is not PROPERTY=VALUE");
        }
        *value++ = '\0';
        list[users.count++] = (struct hv_kafka_property){.name = *properties, .value = value};
    }
    rd_kafka_conf_t *conf;
    struct hv_error err;
    if (hv_kafka_conf_make(HV_KAFKA_RECORDS, "bench", &users, NULL, NULL, &conf, &err) != 0) {
        bench_die("librdkafka", err.text);
    }
    rd_kafka_conf_set(conf, "log.queue", "false", NULL, 0); /* nobody reads it here */
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    char reason[512];
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason);
    if (client == NULL) {
        bench_die("librdkafka", reason);
    }
    *queue = rd_kafka_queue_get_main(client);
    return client;
}

rd_kafka_topic_t *bench_topic(rd_kafka_t *client, const char *name) {
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
    if (rd_kafka_metadata(client, 0, topic, &metadata, 30000) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        bench_die(name, "no metadata");
    }
    rd_kafka_metadata_destroy(metadata);
    return topic;
}

size_t bench_reports(rd_kafka_queue_t *queue, int wait_ms, void (*delivered)(void *opaque)) {
    size_t count = 0;
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, wait_ms);
    if (event != NULL && rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) {
        for (const rd_kafka_message_t *m; (m = rd_kafka_event_message_next(event)) != NULL; count++) {
            if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
                bench_die("delivery", rd_kafka_err2str(m->err));
            }
            if (delivered != NULL) {
                delivered(m->_private);
            }
        }
    }
    rd_kafka_event_destroy(event);
    return count;
}
