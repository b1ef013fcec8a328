/* A limit for the bench: what librdkafka alone does with the same records and settings, all of them in memory beforehand.
 *
 *   producer_alone FILE TOPIC IN_FLIGHT [PROPERTY=VALUE...]
 *
 * FILE has a line a record: key, value, and any number of header names and values, separated by tabs. At most IN_FLIGHT records are
 * in flight. Prints: records=… seconds=… cpu_us=… rss_kb=… (CPU of all threads, per record). */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "io/kafka_conf.h"

#define FIELDS_MAX 34 /* key, value, 16 headers */
#define PROPERTIES_MAX 32

struct lines {
    char *text;
    size_t length, at;
};

static void die(const char *what, const char *why) {
    fprintf(stderr, "producer_alone: %s: %s\n", what, why);
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void read_file(const char *path, struct lines *lines) {
    FILE *f = fopen(path, "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        die(path, "cannot be read");
    }
    lines->length = (size_t)ftell(f);
    rewind(f);
    lines->text = malloc(lines->length + 1);
    if (lines->text == NULL || fread(lines->text, 1, lines->length, f) != lines->length) {
        die(path, "cannot be read");
    }
    lines->text[lines->length] = '\0';
    lines->at = 0;
    fclose(f);
}

/* Splits the next line in place; the number of its fields, 0 at the end. */
static int next_line(struct lines *lines, char *fields[FIELDS_MAX]) {
    if (lines->at >= lines->length) {
        return 0;
    }
    char *line = lines->text + lines->at;
    char *end = strchr(line, '\n');
    if (end == NULL) {
        die("input", "its last line does not end");
    }
    *end = '\0';
    lines->at += (size_t)(end - line) + 1;
    int count = 0;
    for (char *field; (field = strsep(&line, "\t")) != NULL;) {
        if (count == FIELDS_MAX) {
            die("input", "too many fields");
        }
        fields[count++] = field;
    }
    return count;
}

/* The daemon's own settings of its record producer, with properties from the command line over them. */
static rd_kafka_t *make_client(char **arguments, rd_kafka_queue_t **queue) {
    struct hv_kafka_property list[PROPERTIES_MAX];
    struct hv_kafka_properties properties = {.list = list};
    for (; *arguments != NULL && properties.count < PROPERTIES_MAX; arguments++) {
        char *value = strchr(*arguments, '=');
        if (value == NULL) {
            die(*arguments, "is not PROPERTY=VALUE");
        }
        *value++ = '\0';
        list[properties.count++] = (struct hv_kafka_property){.name = *arguments, .value = value};
    }
    rd_kafka_conf_t *conf;
    struct hv_error err;
    if (hv_kafka_conf_make(HV_KAFKA_RECORDS, "bench", &properties, NULL, NULL, &conf, &err) != 0) {
        die("librdkafka", err.text);
    }
    rd_kafka_conf_set(conf, "log.queue", "false", NULL, 0); /* nobody reads it here */
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    char reason[512];
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason);
    if (client == NULL) {
        die("librdkafka", reason);
    }
    *queue = rd_kafka_queue_get_main(client);
    return client;
}

static void produce(rd_kafka_t *client, const char *topic, char *const fields[], int count) {
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)(count - 2) / 2);
    for (int i = 2; i + 1 < count; i += 2) {
        rd_kafka_header_add(headers, fields[i], -1, fields[i + 1], -1);
    }
    rd_kafka_resp_err_t err = rd_kafka_producev(
        client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(fields[0], strlen(fields[0])), RD_KAFKA_V_VALUE(fields[1], strlen(fields[1])),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        die("produce", rd_kafka_err2str(err));
    }
}

/* Waits for one event and returns how many records it reports; dies when one was not delivered. */
static size_t reports(rd_kafka_queue_t *queue) {
    static const rd_kafka_message_t *messages[1000];
    size_t total = 0;
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 100);
    if (event != NULL && rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) {
        for (size_t n; (n = rd_kafka_event_message_array(event, messages, 1000)) > 0; total += n) {
            for (size_t i = 0; i < n; i++) {
                if (messages[i]->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
                    die("delivery", rd_kafka_err2str(messages[i]->err));
                }
            }
        }
    }
    rd_kafka_event_destroy(event);
    return total;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        die("usage", "producer_alone FILE TOPIC IN_FLIGHT [PROPERTY=VALUE...]");
    }
    struct lines lines;
    read_file(argv[1], &lines);
    size_t in_flight_max = strtoul(argv[3], NULL, 10), in_flight = 0, delivered = 0;
    rd_kafka_queue_t *queue;
    rd_kafka_t *client = make_client(argv + 4, &queue);
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, argv[2], NULL);
    if (rd_kafka_metadata(client, 0, topic, &metadata, 30000) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        die(argv[2], "no metadata");
    }
    rd_kafka_metadata_destroy(metadata);

    double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    char *fields[FIELDS_MAX];
    for (int count; (count = next_line(&lines, fields)) > 0;) {
        if (count < 2 || count % 2 != 0) {
            die("input", "a line without key and value, or a header without value");
        }
        produce(client, argv[2], fields, count);
        for (in_flight++; in_flight >= in_flight_max;) {
            size_t n = reports(queue);
            in_flight -= n;
            delivered += n;
        }
    }
    while (in_flight > 0) {
        size_t n = reports(queue);
        in_flight -= n;
        delivered += n;
    }
    double seconds = now(CLOCK_MONOTONIC) - start;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("records=%zu seconds=%.4f cpu_us=%.3f rss_kb=%ld\n", delivered, seconds, cpu * 1e6 / (double)delivered,
           usage.ru_maxrss);
    rd_kafka_topic_destroy(topic);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
    free(lines.text);
    return 0;
}
