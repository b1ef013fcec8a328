/* The answer to the question "blocked" of the control socket, as the daemon writes it and `harvestd blocked` reads it. One object a line:
 *
 *     {"type":"topic","topic":"orders","reason":"...","since":"2026-01-02T03:04:05Z","keys":12}      a topic that takes nothing
 *     {"type":"key","key":"customer-17","id":4711,"topic":"orders","class":"...","reason":"...","since":"2026-01-02T03:04:05Z","attempts":3,
 *      "retry_in":12.5,"policy":"block"}                                                            a key that waits, and the record it waits for
 *     {"type":"end","name":"eu-1","leads":true,"topics":1,"keys":3000}                              that was all
 *
 * What is not known, or means nothing, is null. "retry_in" (seconds; 0: now) is null when nobody knows: the key waits for its topic. A key
 * that is no UTF-8 stands in "key_base64"; of a long one there is only the beginning, and "key_bytes" tells its length. When there are too many
 * keys in trouble to know each, "shard" stands for those of one shard, and "key" is null. Values are never told.
 *
 * The answer is made while the daemon goes on: what is blocked from the beginning to the end of it is there once; what comes or goes
 * meanwhile may be there or not. */
#ifndef HV_APP_CMD_BLOCKED_LINES_H
#define HV_APP_CMD_BLOCKED_LINES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/control.h"
#include "base/error.h"
#include "base/text.h"
#include "base/time.h"

#define HV_BLOCKED_KEY_SHOWN 1000 /* bytes of a key that are told */

/* ---- what the daemon tells; texts are lent, NULL: not known ---- */

struct hv_told_key {
    const char *key; /* key_length bytes */
    size_t key_length;
    int64_t shard; /* the entry stands for all its keys that have none of their own; -1: for the one key */
    int64_t id;
    const char *topic, *class, *reason, *policy;
    int64_t since; /* microseconds since the Unix epoch */
    uint32_t attempts;
    hv_time retry_in; /* HV_NEVER: nobody knows */
};

struct hv_told_topic {
    const char *topic, *reason;
    int64_t since;
    uint32_t keys; /* that wait for it */
};

/* Where that comes from. Positions begin at 0; each call moves on and returns false when there is no more. */
struct hv_blocked_source {
    const char *name; /* of the instance */
    bool (*leads)(void *user);
    bool (*next_topic)(void *user, uint32_t *at, struct hv_told_topic *ret);
    bool (*next_key)(void *user, uint32_t *at, struct hv_told_key *ret);
    void *user;
};

/* As a question of control.h wants it. */
bool hv_blocked_answer(const struct hv_blocked_source *source, struct hv_control_position *position, struct hv_text *page);

/* ---- what the command reads ---- */

/* Lists of objects, of which each is known to be one. */
struct hv_blocked_list {
    json_t *topics, *keys, *end;
};

/* Reads an answer. Returns 0 and the caller gives ret to hv_blocked_free, or -1 with err: it is cut, an error, or not harvestd's. */
int hv_blocked_parse(const char *text, size_t length, struct hv_blocked_list *ret, struct hv_error *err);
void hv_blocked_free(struct hv_blocked_list *list);

#endif
