/* See kafka_election_parts.h: what goes wrong, told once in a while and with what there is to do about it. */
#include "io/kafka_election_parts.h"

#include <inttypes.h>
#include <stdio.h>

enum { TROUBLE_REPEAT_MS = 30000 };

void hv_election_tell(struct hv_election *e, bool beats, int code, const char *reason) {
    if (e->handler == NULL) {
        return;
    }
    hv_time now = hv_loop_now(e->loop);
    for (unsigned i = 0; i < HV_TROUBLES && i < e->trouble_count; i++) {
        if (e->troubles[i].code == code && e->troubles[i].beats == beats && now - e->troubles[i].at < HV_MS(TROUBLE_REPEAT_MS)) {
            return;
        }
    }
    e->troubles[e->trouble_count % HV_TROUBLES].code = code;
    e->troubles[e->trouble_count % HV_TROUBLES].beats = beats;
    e->troubles[e->trouble_count % HV_TROUBLES].at = now;
    e->trouble_count++;
    e->handler->trouble(e->user, code, reason);
}

/* ---- errors of the consumer ---- */

/* Says what to do about an error where librdkafka's words do not. */
static void explain(const struct hv_election *e, rd_kafka_resp_err_t code, char *reason, size_t size) {
    switch (code) {
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
        snprintf(reason, size,
                 "the brokers refuse a session of %" PRId64 " ms, which is three times heartbeat_timeout: change heartbeat_timeout, or "
                 "the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms",
                 e->heartbeat_timeout * 3 / 1000);
        break;
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
        snprintf(reason, size, "not allowed to join group %s: grant READ on it (kafka-acls.sh --add --operation Read --group %s)",
                 e->group_id, e->group_id);
        break;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        snprintf(reason, size,
                 "not allowed to read topic %s: grant READ and WRITE on it, and CREATE if it does not exist (kafka-acls.sh --add "
                 "--operation Read --operation Write --topic %s)",
                 e->topic, e->topic);
        break;
    case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
        snprintf(reason, size, "other members of group %s use another assignor than %s: set leader_assignor to theirs",
                 e->group_id, e->assignor);
        break;
    default:
        break;
    }
}

void hv_election_error(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    char reason[HV_ERROR_MAX];
    snprintf(reason, sizeof reason, "%s", rd_kafka_event_error_string(event));
    if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
        code = rd_kafka_fatal_error(e->consumer, reason, sizeof reason);
        hv_election_tell(e, false, code, reason);
        hv_election_lose(e);
        e->fatal = true; /* let go when this drain is over */
        if (e->handler != NULL) {
            hv_election_do_later(e);
        }
        return;
    }
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
        hv_election_make_topic(e);
        return;
    }
    explain(e, code, reason, sizeof reason);
    hv_election_tell(e, false, code, reason);
}
