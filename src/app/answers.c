/* See answers.h. */
#include "app/answers.h"

#include "rt/poison.h"

#include "app/cmd_blocked_lines.h"

static bool leads(void *user) {
    const struct hv_answers *answers = user;
    return *answers->runtime != NULL && hv_runtime_leads(*answers->runtime);
}

static int64_t wall_clock(const struct hv_answers *answers, hv_time time) {
    return hv_runtime_wall_clock(*answers->runtime, time);
}

static bool next_topic(void *user, uint32_t *at, struct hv_told_topic *ret) {
    const struct hv_answers *answers = user;
    struct hv_closed closed;
    if (*answers->runtime == NULL || !hv_runtime_next_closed(*answers->runtime, at, &closed)) {
        return false;
    }
    *ret = (struct hv_told_topic){
        .topic = closed.topic,
        .reason = closed.reason,
        .since = wall_clock(answers, closed.since),
        .keys = closed.keys,
    };
    return true;
}

static bool next_key(void *user, uint32_t *at, struct hv_told_key *ret) {
    const struct hv_answers *answers = user;
    struct hv_blocked blocked;
    if (*answers->runtime == NULL || !hv_runtime_next_blocked(*answers->runtime, at, &blocked)) {
        return false;
    }
    hv_time now = hv_runtime_clock(*answers->runtime);
    *ret = (struct hv_told_key){
        .key = blocked.key,
        .key_length = blocked.key_length,
        .shard = blocked.whole_shard ? (int64_t)blocked.shard : -1,
        .id = blocked.id,
        .topic = blocked.topic,
        .class = hv_runtime_failure_class(blocked.code),
        .reason = blocked.reason,
        .policy = hv_poison_name(blocked.policy),
        .since = wall_clock(answers, blocked.since),
        .attempts = blocked.attempts,
        .retry_in = blocked.next_try == HV_NEVER ? HV_NEVER : hv_time_max(blocked.next_try, now) - now,
    };
    return true;
}

static bool answer_blocked(void *user, struct hv_control_position *position, struct hv_text *page) {
    struct hv_answers *answers = user;
    const struct hv_blocked_source source = {answers->settings->name, leads, next_topic, next_key, answers};
    return hv_blocked_answer(&source, position, page);
}

const struct hv_control_question hv_answers_questions[] = {{"blocked", answer_blocked}, {NULL, NULL}};
