/* A limit for the bench: what librdkafka alone does with the same records and settings, all of them in memory beforehand.
 *
 *   producer_alone FILE TOPIC IN_FLIGHT [PROPERTY=VALUE...]
 *
 * FILE has a line a record: key, value, and any number of header names and values, separated by tabs. At most IN_FLIGHT records are
 * in flight. Prints the line of bench.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bench.h"
#include "common/client.h"

#define FIELDS_MAX 34 /* key, value, 16 headers */

struct lines {
    char *text;
    size_t length, at;
};

static void read_file(const char *path, struct lines *lines) {
    FILE *f = fopen(path, "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        bench_die(path, "cannot be read");
    }
    lines->length = (size_t)ftell(f);
    rewind(f);
    lines->text = malloc(lines->length + 1);
    if (lines->text == NULL || fread(lines->text, 1, lines->length, f) != lines->length) {
        bench_die(path, "cannot be read");
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
        bench_die("input", "its last line does not end");
    }
    *end = '\0';
    lines->at += (size_t)(end - line) + 1;
    int count = 0;
    for (char *field; (field = strsep(&line, "\t")) != NULL;) {
        if (count == FIELDS_MAX) {
            bench_die("input", "too many fields");
        }
        fields[count++] = field;
    }
    return count;
}

static void produce(rd_kafka_t *client, rd_kafka_topic_t *topic, char *const fields[], int count) {
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)(count - 2) / 2);
    for (int i = 2; i + 1 < count; i += 2) {
        rd_kafka_header_add(headers, fields[i], -1, fields[i + 1], -1);
    }
    rd_kafka_resp_err_t err = rd_kafka_producev(
        client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(fields[0], strlen(fields[0])), RD_KAFKA_V_VALUE(fields[1], strlen(fields[1])),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        bench_die("produce", rd_kafka_err2str(err));
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        bench_die("usage", "producer_alone FILE TOPIC IN_FLIGHT [PROPERTY=VALUE...]");
    }
    struct lines lines;
    read_file(argv[1], &lines);
    size_t in_flight_max = strtoul(argv[3], NULL, 10), in_flight = 0, delivered = 0;
    rd_kafka_queue_t *queue;
    rd_kafka_t *client = bench_client(argv + 4, &queue);
    rd_kafka_topic_t *topic = bench_topic(client, argv[2]);

    struct bench_clock clock;
    bench_start(&clock);
    char *fields[FIELDS_MAX];
    for (int count; (count = next_line(&lines, fields)) > 0;) {
        if (count < 2 || count % 2 != 0) {
            bench_die("input", "a line without key and value, or a header without value");
        }
        produce(client, topic, fields, count);
        for (in_flight++; in_flight >= in_flight_max;) {
            size_t n = bench_reports(queue, 100, NULL);
            in_flight -= n;
            delivered += n;
        }
    }
    while (in_flight > 0) {
        size_t n = bench_reports(queue, 100, NULL);
        in_flight -= n;
        delivered += n;
    }
    bench_end(&clock, (long)delivered);
    rd_kafka_topic_destroy(topic);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
    free(lines.text);
    return 0;
}
