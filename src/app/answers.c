/* See answers.h. */
#include "app/answers.h"

#include "app/cmd_blocked_lines.h"

static bool leads(void *user) {
    const struct hv_answers *answers = user;
    return *answers->runtime != NULL && hv_runtime_leads(*answers->runtime);
}

static bool next_topic(void *user, uint32_t *at, struct hv_told_topic *ret) {
    (void)user, (void)at, (void)ret;
    return false;
}

static bool next_key(void *user, uint32_t *at, struct hv_told_key *ret) {
    (void)user, (void)at, (void)ret;
    return false;
}

static bool answer_blocked(void *user, struct hv_control_position *position, struct hv_text *page) {
    struct hv_answers *answers = user;
    const struct hv_blocked_source source = {answers->settings->name, leads, next_topic, next_key, answers};
    return hv_blocked_answer(&source, position, page);
}

const struct hv_control_question hv_answers_questions[] = {{"blocked", answer_blocked}, {NULL, NULL}};
