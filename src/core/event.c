/* See event.h. */
#include "core/event.h"

#include <string.h>

#include "base/memory.h"

struct hv_action *hv_actions_add(struct hv_actions *actions, enum hv_action_type type) {
    if (actions->count == actions->capacity) {
        actions->capacity = actions->capacity == 0 ? 64 : actions->capacity * 2;
        actions->list = hv_realloc(actions->list, actions->capacity, sizeof *actions->list);
    }
    struct hv_action *action = &actions->list[actions->count++];
    memset(action, 0, sizeof *action);
    action->type = type;
    return action;
}

struct hv_action *hv_actions_notify(struct hv_actions *actions, enum hv_notice notice) {
    struct hv_action *action = hv_actions_add(actions, HV_ACT_NOTIFY);
    action->notice = notice;
    return action;
}

void hv_actions_free(struct hv_actions *actions) {
    free(actions->list);
    *actions = (struct hv_actions){0};
}
