/* include/harvest.h, the part that needs no loop: making, setting, being told, asking. */
#include "rt/api.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/memory.h"
#include "core/record.h"
#include "io/loop.h"
#include "rt/config.h"

int hv_api_fail(struct harvest_error *err, const char *text) {
    if (err != NULL) {
        snprintf(err->text, sizeof err->text, "%s", text);
    }
    return -1;
}

int hv_api_fail_with(char *lines, struct harvest_error *err) {
    size_t length = strlen(lines);
    if (length > 0 && lines[length - 1] == '\n') {
        lines[length - 1] = '\0';
    }
    hv_api_fail(err, lines);
    free(lines);
    return -1;
}

/* ---- making ---- */

static int64_t wall_clock(void *user) {
    (void)user;
    return hv_loop_wall_clock();
}

static void pass_line_on(void *user, enum hv_log_level level, const char *line, size_t length) {
    struct harvest *h = user;
    if (h->sink == NULL) {
        return;
    }
    char text[HV_LOG_LINE_MAX + 1];
    assert(length > 0 && length < sizeof text && line[length - 1] == '\n');
    memcpy(text, line, length - 1);
    text[length - 1] = '\0';
    h->sink(h->sink_user, (enum harvest_log_level)level, text);
}

struct harvest *harvest_new(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return NULL;
    }
    struct harvest *h = hv_calloc(1, sizeof *h);
    h->wake_fd = fd;
    h->logger = (struct hv_logger){.bare = true, .sink = pass_line_on, .wall_clock = wall_clock, .user = h};
    atomic_init(&h->state, HARVEST_CREATED);
    atomic_init(&h->wishes, 0);
    hv_settings_init(&h->settings);
    return h;
}

static int check_created(const struct harvest *h, struct harvest_error *err) {
    if (harvest_state(h) == HARVEST_CREATED) {
        return 0;
    }
    return hv_api_fail(err, "settings cannot be changed any more: the harvest was started already");
}

int harvest_set(struct harvest *h, const char *section, const char *name, const char *value, struct harvest_error *err) {
    struct hv_error why;
    if (check_created(h, err) != 0) {
        return -1;
    }
    return hv_settings_set(&h->settings, section, name, value, &why) == 0 ? 0 : hv_api_fail(err, why.text);
}

int harvest_load(struct harvest *h, const char *path, struct harvest_error *err) {
    if (check_created(h, err) != 0) {
        return -1;
    }
    char *lines = NULL;
    size_t size = 0;
    FILE *errors = hv_must(open_memstream(&lines, &size));
    const struct hv_config_source source = {.path = path, .more = true};
    int bad = hv_config_load(&source, &h->settings, errors);
    fclose(errors);
    if (bad != 0) {
        h->unfit = true;
        return hv_api_fail_with(lines, err);
    }
    free(lines);
    return 0;
}

void harvest_on_event(struct harvest *h, harvest_event_handler *handler, void *user) {
    h->on_event = handler;
    h->event_user = user;
}

void harvest_on_log(struct harvest *h, harvest_log_sink *sink, void *user) {
    h->sink = sink;
    h->sink_user = user;
}

void harvest_on_stopped(struct harvest *h, harvest_stopped_handler *handler, void *user) {
    h->on_stopped = handler;
    h->stopped_user = user;
}

/* ---- being told ---- */

static bool tell(struct harvest *h, enum harvest_event_type type, const char *reason, const struct harvest_meter *meter) {
    bool has_id = type == HARVEST_ACQUIRED || type == HARVEST_REFRESHED;
    const struct harvest_event event = {
        .type = type, .leader_id = has_id ? h->leader_id : NULL, .reason = reason, .meter = meter};
    return h->on_event == NULL || h->on_event(h->event_user, h, &event) != HARVEST_LATER;
}

static bool tell_meter(struct harvest *h, const struct hv_meter_reading *reading) {
    const struct harvest_meter meter = {
        .name = h->settings.name,
        .start = hv_runtime_wall_clock(h->runtime, reading->start),
        .total_count = reading->total_count,
        .total_rate = reading->total_rate,
        .lap_count = reading->lap_count,
        .lap_rate = reading->lap_rate,
    };
    return tell(h, HARVEST_METER_READ, NULL, &meter);
}

bool hv_api_notice(void *user, const struct hv_action *action) {
    struct harvest *h = user;
    switch (action->notice) {
    case HV_NOTICE_ACQUIRED:
        hv_ident_text(action->uuid, h->leader_id);
        return tell(h, HARVEST_ACQUIRED, NULL, NULL);
    case HV_NOTICE_REFRESHED:
        hv_ident_text(action->uuid, h->leader_id);
        return tell(h, HARVEST_REFRESHED, action->reason, NULL);
    case HV_NOTICE_REVOKED:
        atomic_fetch_and(&h->wishes, ~(unsigned)HV_WISH_DONE); /* one that came too late for an earlier revoke */
        return tell(h, HARVEST_REVOKED, NULL, NULL);
    case HV_NOTICE_FENCED:
        return tell(h, HARVEST_FENCED, action->reason, NULL);
    case HV_NOTICE_METER:
        return tell_meter(h, &action->meter);
    default:
        return true;
    }
}

/* ---- asking ---- */

enum harvest_state harvest_state(const struct harvest *h) {
    return (enum harvest_state)atomic_load(&h->state);
}

bool harvest_is_leader(const struct harvest *h) {
    return h->runtime != NULL && hv_runtime_leads(h->runtime);
}

const char *harvest_leader_id(const struct harvest *h) {
    return harvest_is_leader(h) ? h->leader_id : NULL;
}

size_t harvest_in_flight(const struct harvest *h) {
    struct hv_harvest_figures figures = {0};
    if (h->runtime != NULL) {
        hv_runtime_look(h->runtime, &figures);
    }
    return figures.in_flight;
}

struct visit {
    harvest_key_visitor *visit;
    void *user;
};

static void visit_record(void *user, void *payload) {
    const struct visit *v = user;
    const struct hv_record *record = payload;
    v->visit(v->user, record->id, (const char *)record->key, (size_t)record->key_length);
}

void harvest_in_flight_keys(const struct harvest *h, harvest_key_visitor *visit, void *user) {
    struct visit v = {visit, user};
    if (h->runtime != NULL) {
        hv_runtime_each_in_flight(h->runtime, visit_record, &v);
    }
}

void harvest_blocked_keys(const struct harvest *h, harvest_blocked_visitor *visit, void *user) {
    struct hv_blocked blocked;
    uint32_t at = 0;
    while (h->runtime != NULL && hv_runtime_next_blocked(h->runtime, &at, &blocked)) {
        const struct harvest_blocked_key key = {
            .key = blocked.key,
            .key_size = blocked.key_length,
            .id = blocked.id,
            .topic = blocked.topic,
            .failure_class = hv_runtime_failure_class(blocked.code),
            .reason = blocked.reason,
            .since = hv_runtime_wall_clock(h->runtime, blocked.since),
            .attempts = blocked.attempts,
            .next_try = blocked.next_try == HV_NEVER ? INT64_MAX : hv_runtime_wall_clock(h->runtime, hv_time_max(blocked.next_try, 0)),
        };
        visit(user, &key);
    }
}

const char *harvest_error(const struct harvest *h) {
    return h->error.text[0] != '\0' ? h->error.text : NULL;
}

const char *harvest_version(void) {
    return HV_VERSION;
}
