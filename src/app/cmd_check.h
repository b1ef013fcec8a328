/* The points that `harvestd check` looks at, and how they are told. */
#ifndef HV_APP_CMD_CHECK_H
#define HV_APP_CMD_CHECK_H

#include <stddef.h>

#include <stdbool.h>

#include "rt/settings.h"

#define HV_CHECK_TOPICS_MAX 100

struct hv_check {
    const struct hv_settings *settings;
    unsigned bad;                      /* points that are not ok */
    char *topics[HV_CHECK_TOPICS_MAX]; /* found in the table; owned */
    size_t topic_count;
};

/* Each prints one line (printf form): "ok      ...", "note    ..." (works, but should be known), or "not ok
 * ..." with a second line that says what to do. */
void hv_check_ok(struct hv_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hv_check_note(struct hv_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hv_check_bad(struct hv_check *check, const char *advice, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void hv_check_database(struct hv_check *check); /* connection, table, rights; finds the topics */
void hv_check_kafka(struct hv_check *check);    /* brokers, leader topic, topics */

/* Part of it: rights. `topics` exist; so does the leader topic, if so. */
void hv_check_acls(struct hv_check *check, bool leader_topic, const char *const *topics, size_t count);

#endif
