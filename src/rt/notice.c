/* What the core has to say, as log lines: state changes at info, each once; troubles of a record with its id and what to do. */
#include <string.h>

#include "core/record.h"
#include "rt/runtime.h"
#include "rt/state.h"

#define BLOCKED_LINES 50 /* at most, in... */
#define KEY_SHOWN 4100 /* bytes of a key in the log, escaped; those that are longer are cut */
#define BLOCKED_WHILE HV_SECONDS(10)

static double seconds(hv_time duration) {
    return (double)duration / 1e6;
}

static void say_leading(struct hv_runtime *rt, const char *message, const struct hv_action *action, const uint8_t *uuid) {
    bool often = action->notice == HV_NOTICE_REFRESHED && action->flag; /* as long as keys in trouble move */
    enum hv_log_level level = action->notice == HV_NOTICE_FENCED ? HV_WARN : often ? HV_DEBUG : HV_INFO;
    const struct hv_settings *s = rt->settings;
    if (uuid != NULL) {
        hv_log(rt->logger, level, "leader", message,
               HV_FIELDS(HV_UUID("leader_id", uuid), HV_STR("name", s->name), HV_STR("reason", action->reason)));
    } else {
        hv_log(rt->logger, level, "leader", message, HV_FIELDS(HV_STR("name", s->name), HV_STR("reason", action->reason)));
    }
}

void hv_rt_say_how_many_more(struct hv_runtime *rt) {
    if (rt->blocked.more > 0) {
        struct hv_harvest_figures figures;
        hv_harvest_look(rt->core, &figures);
        hv_log_each(rt->logger, HV_WARN, "record", "more were blocked or parked",
                    HV_FIELDS(HV_INT("records", rt->blocked.more), HV_INT("blocked_keys", figures.blocked_keys)));
    }
    rt->blocked = (struct hv_rt_blocked){.since = rt->last_now};
}

static void look_at_the_clock(struct hv_runtime *rt) {
    if (rt->last_now - rt->blocked.since >= BLOCKED_WHILE) {
        hv_rt_say_how_many_more(rt);
    }
}

hv_time hv_rt_notice_turn(struct hv_runtime *rt) {
    look_at_the_clock(rt);
    return rt->blocked.more > 0 ? rt->blocked.since + BLOCKED_WHILE : HV_NEVER;
}

/* A storm of bad records must not become one of log lines. */
static enum hv_log_level level_of_news(struct hv_runtime *rt, bool again) {
    look_at_the_clock(rt);
    if (again) {
        return HV_DEBUG; /* The first time it is news, later tries are detail. */
    }
    if (rt->blocked.told < BLOCKED_LINES) {
        rt->blocked.told++;
        return HV_WARN;
    }
    rt->blocked.more++;
    return HV_DEBUG;
}

static void say_blocked(struct hv_runtime *rt, const struct hv_action *action) {
    const struct hv_record *record = action->payload;
    const char *reason = action->reason;
    const char *advice = strstr(reason, "authorization failed") != NULL
                             ? "grant this user WRITE on the topic; the records of its key wait behind it"
                             : "mend or delete the row, or mend the topic; the records of its key wait behind it";
    hv_log_each(rt->logger, level_of_news(rt, action->count > 1), "record", "blocked",
                HV_FIELDS(HV_INT("id", action->id), HV_STR("topic", record->topic), HV_STR("reason", reason),
                          HV_INT("size", record->value_length), HV_REAL("retry_in", seconds(action->duration)),
                          HV_STR("advice", advice)));
}

/* The key as text: what is not printable ASCII, and the backslash, as \xNN. */
static const char *show_key(const uint8_t *key, size_t key_length, char *out, size_t size) {
    size_t length = 0;
    if (key == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < key_length && length + 5 < size; i++) {
        uint8_t byte = key[i];
        bool plain = byte >= 0x20 && byte < 0x7f && byte != '\\';
        length += (size_t)snprintf(out + length, size - length, plain ? "%c" : "\\x%02x", byte);
    }
    out[length] = '\0';
    return out;
}

static void say_parked(struct hv_runtime *rt, const struct hv_action *action) {
    char key[KEY_SHOWN];
    hv_log_each(rt->logger, level_of_news(rt, false), "record", "parked",
                HV_FIELDS(HV_INT("id", action->id), HV_STR("class", hv_runtime_failure_class(action->code)),
                          HV_STR("reason", action->reason), HV_INT("attempts", (int64_t)action->count),
                          HV_STR("topic", action->topic),
                          HV_STR("key", show_key(action->key.bytes, action->key.length, key, sizeof key))));
}

/* Of a row that is skipped nothing is left but this line, so it is never left out. The key comes last: a long one is what is cut. */
static void say_skipped(struct hv_runtime *rt, const struct hv_action *action) {
    const struct hv_record *record = action->payload;
    char key[KEY_SHOWN];
    size_t key_length = record->key_length > 0 ? (size_t)record->key_length : 0;
    hv_log_each(rt->logger, HV_ERROR, "record", "skipped: its row is deleted",
                HV_FIELDS(HV_STR("table", rt->settings->outbox_table), HV_INT("id", action->id),
                          HV_STR("class", hv_runtime_failure_class(action->code)), HV_STR("reason", action->reason),
                          HV_INT("attempts", (int64_t)action->count), HV_STR("topic", record->topic),
                          HV_INT("key_bytes", record->key_length), HV_STR("key", show_key(record->key, key_length, key, sizeof key))));
}

static void say_meter(struct hv_runtime *rt, const struct hv_meter_reading *meter) {
    hv_log(rt->logger, HV_DEBUG, "meter", "read",
           HV_FIELDS(HV_STR("name", rt->settings->name), HV_INT("total", (int64_t)meter->total_count),
                     HV_REAL("total_rate", meter->total_rate), HV_INT("lap", (int64_t)meter->lap_count),
                     HV_REAL("lap_rate", meter->lap_rate)));
}

void hv_rt_notice(struct hv_runtime *rt, const struct hv_action *action) {
    switch (action->notice) {
    case HV_NOTICE_ACQUIRED:
        say_leading(rt, "acquired", action, action->uuid);
        break;
    case HV_NOTICE_REFRESHED:
        say_leading(rt, "refreshed", action, action->uuid);
        break;
    case HV_NOTICE_REVOKED:
        say_leading(rt, "revoked", action, NULL);
        break;
    case HV_NOTICE_FENCED:
        say_leading(rt, "fenced", action, NULL);
        break;
    case HV_NOTICE_REWINDING:
        hv_log(rt->logger, HV_WARN, "kafka", "rewinding", HV_FIELDS(HV_STR("reason", action->reason)));
        break;
    case HV_NOTICE_STALLED:
        hv_log(rt->logger, HV_WARN, "kafka", "stalled",
               HV_FIELDS(HV_REAL("for", seconds(action->duration)),
                         HV_STR("advice", "Kafka acknowledges nothing; waiting as long as the lease holds")));
        break;
    case HV_NOTICE_FLOWING:
        hv_log(rt->logger, HV_INFO, "kafka", "flowing again", HV_FIELDS(HV_REAL("after", seconds(action->duration))));
        break;
    case HV_NOTICE_BLOCKED:
        say_blocked(rt, action);
        break;
    case HV_NOTICE_UNBLOCKED:
        hv_log(rt->logger, HV_INFO, "record", "unblocked",
               HV_FIELDS(HV_INT("id", action->id), HV_STR("how", action->flag ? "its row is gone" : "it was delivered")));
        break;
    case HV_NOTICE_PARKED:
        say_parked(rt, action);
        break;
    case HV_NOTICE_SKIPPED:
        say_skipped(rt, action);
        break;
    case HV_NOTICE_UNPURGEABLE:
        hv_log(rt->logger, HV_WARN, "record", "delivered, but its row cannot be deleted",
               HV_FIELDS(HV_INT("id", action->id), HV_REAL("retry_in", seconds(action->duration)),
                         HV_STR("advice", "see what refuses the DELETE: a trigger, a constraint, or who keeps the row locked")));
        break;
    case HV_NOTICE_METER:
        say_meter(rt, &action->meter);
        break;
    }
}
