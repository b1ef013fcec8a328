/* Troubles of the Kafka clients, for the log: each is told once, by whichever client noticed it first, and again after ten
 * minutes or when all was well in between. What merely follows from a trouble that was told is not told. */
#include <string.h>

#include "base/hash.h"
#include "io/kafka_failure.h"
#include "rt/state.h"

#define TOLD_FOR HV_SECONDS(600)
#define QUIET HV_SECONDS(60)

/* Takes down that this is told now; false when it was. */
static bool is_news(struct hv_rt_told *told, const char *reason, hv_time now) {
    enum { ROOM = sizeof told->list / sizeof told->list[0] };
    uint64_t hash = hv_hash64(HV_HASH64_START, reason, strlen(reason));
    for (unsigned i = 0; i < ROOM && i < told->count; i++) {
        if (told->list[i].hash == hash && now - told->list[i].at < TOLD_FOR) {
            return false;
        }
    }
    told->list[told->count % ROOM].hash = hash;
    told->list[told->count % ROOM].at = now;
    told->count++;
    return true;
}

void hv_rt_kafka_trouble(struct hv_runtime *rt, const char *client, int code, const char *reason) {
    struct hv_rt_told *told = &rt->kafka_told;
    char text[HV_ERROR_MAX];
    hv_time now = hv_loop_now(rt->loop);
    bool consequence = hv_kafka_is_consequence(code, reason);
    if (consequence && told->count > 0 && now - told->last < QUIET) {
        return;
    }
    told->last = now;
    hv_kafka_clean_reason(reason, text, sizeof text);
    if (is_news(told, text, now)) {
        hv_log(rt->logger, HV_WARN, "kafka", "trouble",
               HV_FIELDS(HV_STR("client", client), HV_STR("reason", text), HV_STR("advice", hv_kafka_advice(code, text))));
    }
}

void hv_rt_kafka_works(struct hv_runtime *rt, bool all) {
    struct hv_rt_told *told = &rt->kafka_told;
    if (told->count > 0 && (all || hv_loop_now(rt->loop) - told->last > QUIET)) {
        told->count = 0;
    }
}

void hv_rt_kafka_log(struct hv_runtime *rt, const char *client, const char *facility, const char *text) {
    if (hv_kafka_log_is_trouble(facility)) {
        hv_rt_kafka_trouble(rt, client, 0, text);
    } else {
        hv_log(rt->logger, HV_DEBUG, "librdkafka", text, HV_FIELDS(HV_STR("facility", facility)));
    }
}
