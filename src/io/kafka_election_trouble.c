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

void hv_election_explain(const struct hv_election *e, rd_kafka_resp_err_t code, char *reason, size_t size) {
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
