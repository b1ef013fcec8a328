/* A Kafka broker for demonstrations: librdkafka's mock cluster in a process of its own. Topics come into being when a client
 * asks for them, with 4 partitions; others are made at the start.
 *
 *     mock_broker [TOPIC:PARTITIONS ...]
 *
 * Prints `bootstrap=127.0.0.1:PORT` and runs until standard input ends, SIGTERM or SIGINT. It keeps the last 100,000 records or
 * 5 MiB of a partition, in memory, and knows no CreateTopics request. */
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static rd_kafka_t *make_owner(void) {
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "3", NULL, 0); /* it misses bootstrap.servers, which the owner does not need */
    rd_kafka_t *owner = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (owner == NULL) {
        fprintf(stderr, "mock_broker: %s\n", why);
        rd_kafka_conf_destroy(conf);
    }
    return owner;
}

/* TOPIC:PARTITIONS, from the command line. */
static int make_topic(rd_kafka_mock_cluster_t *cluster, char *text) {
    char *colon = strrchr(text, ':');
    int partitions = colon == NULL ? 0 : atoi(colon + 1);
    if (partitions < 1) {
        fprintf(stderr, "mock_broker: '%s' is not TOPIC:PARTITIONS\n", text);
        return -1;
    }
    *colon = '\0';
    rd_kafka_resp_err_t code = rd_kafka_mock_topic_create(cluster, text, partitions, 1);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        fprintf(stderr, "mock_broker: cannot make topic %s: %s\n", text, rd_kafka_err2str(code));
        return -1;
    }
    return 0;
}

static void wait_for_end(int signals) {
    struct pollfd ends[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    for (;;) {
        if (poll(ends, 2, -1) < 0) {
            if (errno == EINTR) {
                continue;
            }
            return;
        }
        if (ends[1].revents != 0) {
            return;
        }
        char ignored[256];
        if (ends[0].revents != 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0) {
            return;
        }
    }
}

int main(int argc, char **argv) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before any thread is made */
    int signals = signalfd(-1, &set, SFD_CLOEXEC);
    rd_kafka_t *owner = make_owner();
    if (owner == NULL || signals < 0) {
        return 1;
    }
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(owner, 1);
    int result = cluster == NULL ? 1 : 0;
    for (int i = 1; i < argc && result == 0; i++) {
        result = make_topic(cluster, argv[i]) == 0 ? 0 : 2;
    }
    if (result == 0) {
        printf("bootstrap=%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
        fflush(stdout);
        wait_for_end(signals);
    }
    if (cluster != NULL) {
        rd_kafka_mock_cluster_destroy(cluster);
    }
    rd_kafka_destroy(owner);
    return result;
}
