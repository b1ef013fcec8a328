/* What the contract tests of the Kafka adapters share: librdkafka's mock cluster inside the process, a loop that is run until something is
 * so, a record made by hand, and a handler that takes down what a producer says. */
#ifndef HV_TESTS_KAFKA_BED_H
#define HV_TESTS_KAFKA_BED_H

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/kafka_producer.h"
#include "io/loop.h"

struct kept;

struct bed {
    struct kept *kept; /* records that must stay until they are reported: freed with the bed */
    struct hv_loop *loop;
    rd_kafka_t *owner;
    rd_kafka_mock_cluster_t *cluster;
    char bootstrap[256];
};

/* brokers 0: no cluster. */
void bed_open(struct bed *bed, int brokers);
void bed_close(struct bed *bed); /* asserts that the loop closes cleanly */

/* Runs the loop until *flag, or fails after `limit` with `what`. */
void bed_until(struct bed *bed, bool (*so)(void *arg), void *arg, hv_time limit, const char *what);
void bed_run_for(struct bed *bed, hv_time time);
double bed_cpu(void); /* seconds of this process so far */

struct reports {
    size_t count, delivered, purged, failed, refused;
    size_t largest; /* call of the handler */
    int last_code;
    size_t fatal, trouble, logs;
    const char *awaited_log; /* how often was a line with this text logged? NULL: not counted */
    size_t awaited_logs;
    char fatal_reason[512], trouble_reason[512];
    int trouble_code;
    unsigned char seen[1 << 20]; /* how often a ticket was reported */
    bool inside;   /* a call into the API is under way: no handler may be called */
    bool in_handler;
};

extern const struct hv_producer_handler reports_handler; /* user: a struct reports */

struct hv_producer *bed_producer(struct bed *bed, enum hv_kafka_role role, struct reports *reports,
                                 const struct hv_kafka_property *more, size_t more_count);

/* A copy of everything but the headers that stays until bed_close. */
const struct hv_record *bed_keep(struct bed *bed, const struct hv_record *record);

struct hv_record bed_record(const char *topic, const char *key, const void *value, int32_t length);

/* Runs each test in a process of its own, all at once, for tests that mostly wait; prints what they said one after the other.
 * Returns how many failed. The processes must not have made a client before. */
struct bed_test {
    const char *name;
    void (*run)(void **state);
};
int bed_run_side_by_side(const struct bed_test *tests, size_t count);

/* Waits until so many reports came in all. */
void bed_reports(struct bed *bed, struct reports *reports, size_t count, hv_time limit);

#endif
