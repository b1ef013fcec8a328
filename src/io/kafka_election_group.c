/* See kafka_election_parts.h: our part in the group. What the group gives and takes, answered in the words of its protocol, and what
 * is read from the partition that it gave. */
#include "io/kafka_election_parts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { BEAT_MAX = 1024 };

/* ---- telling ---- */

void hv_election_tell_assigned(struct hv_election *e) {
    if (e->told_owns == e->owns || e->handler == NULL) {
        return;
    }
    e->told_owns = e->owns;
    e->handler->assigned(e->user, e->owns);
}

void hv_election_lose(struct hv_election *e) {
    e->told_joined = false;
    if (!e->owns) {
        return;
    }
    e->owns = false;
    if (e->handler != NULL) {
        e->handler->revoked(e->user, true);
    }
    hv_election_tell_assigned(e);
}

/* ---- answers ---- */

static bool is_cooperative(rd_kafka_t *consumer) {
    const char *protocol = rd_kafka_rebalance_protocol(consumer);
    return protocol != NULL && strcmp(protocol, "COOPERATIVE") == 0;
}

/* Gives librdkafka the list, in the words of the group's protocol. Waits for a thread of librdkafka's, which answers at once unless the
 * consumer is being closed. */
static rd_kafka_resp_err_t answer(rd_kafka_t *consumer, bool add, const rd_kafka_topic_partition_list_t *list) {
    if (list == NULL || !is_cooperative(consumer)) {
        return rd_kafka_assign(consumer, add ? list : NULL);
    }
    rd_kafka_error_t *error = add ? rd_kafka_incremental_assign(consumer, list) : rd_kafka_incremental_unassign(consumer, list);
    rd_kafka_resp_err_t code = error == NULL ? RD_KAFKA_RESP_ERR_NO_ERROR : rd_kafka_error_code(error);
    rd_kafka_error_destroy(error);
    return code;
}

static void apply(struct hv_election *e, bool add, const rd_kafka_topic_partition_list_t *list) {
    rd_kafka_resp_err_t code = answer(e->consumer, add, list);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        hv_election_tell(e, false, code, rd_kafka_err2str(code));
    }
}

static void give_late_answer(void *arg) {
    struct hv_late_answer *late = arg;
    answer(late->consumer, late->add, rd_kafka_event_topic_partition_list(late->event));
}

static void late_answer_given(void *arg) {
    struct hv_late_answer *late = arg;
    rd_kafka_event_destroy(late->event);
    if (late->election != NULL) {
        late->election->late = NULL;
    } else {
        hv_kafka_destroy(late->loop, late->consumer);
    }
    free(late);
}

/* While closing. librdkafka 2.0.2 may end the group's business with our answer on its way and drop it; who waits for the reply to
 * that waits for ever. It must not be the loop. */
static enum hv_queue_next answer_late(struct hv_election *e, bool add, rd_kafka_event_t *event) {
    if (e->late != NULL) {
        return HV_QUEUE_MORE; /* one after the other */
    }
    struct hv_late_answer *late = hv_calloc(1, sizeof *late);
    *late = (struct hv_late_answer){.loop = e->loop, .consumer = e->consumer, .event = event, .add = add, .election = e};
    if (hv_loop_offload(e->loop, give_late_answer, late_answer_given, late) != 0) {
        free(late);
        return HV_QUEUE_DONE; /* no memory: the limit of the closing ends it */
    }
    e->late = late;
    return HV_QUEUE_KEPT;
}

void hv_election_let_through(struct hv_election *e) {
    rd_kafka_event_t *event = e->pending;
    e->pending = NULL;
    apply(e, false, rd_kafka_event_topic_partition_list(event));
    rd_kafka_event_destroy(event);
}

/* ---- what the group says ---- */

static bool has_leader_partition(const struct hv_election *e, const rd_kafka_topic_partition_list_t *list) {
    return rd_kafka_topic_partition_list_find((rd_kafka_topic_partition_list_t *)(uintptr_t)list, e->topic, 0) != NULL;
}

static void on_assign(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    hv_election_tell_assigned(e); /* an answered revoke before this */
    for (int i = 0; i < list->cnt; i++) {
        list->elems[i].offset = RD_KAFKA_OFFSET_END; /* the heartbeats of earlier leaders mean nothing to us */
    }
    apply(e, true, list);
    e->trouble_count = 0;
    hv_backoff_reset(&e->backoff);
    e->owns = e->owns || has_leader_partition(e, list);
    hv_beats_warm(e->beats);
    if (!e->told_joined) {
        e->told_joined = true;
        e->handler->joined(e->user);
    }
    hv_election_tell_assigned(e);
}

static enum hv_queue_next on_revoke(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    bool ours = e->owns && has_leader_partition(e, list);
    bool lost = rd_kafka_assignment_lost(e->consumer);
    if (ours && !lost) {
        assert(e->pending == NULL); /* librdkafka waits for the answer */
        e->pending = event;
        e->handler->revoked(e->user, false);
        return HV_QUEUE_KEPT;
    }
    /* The handler first: the answer lets the group go on. */
    if (ours || lost) {
        hv_election_lose(e);
    }
    apply(e, false, list);
    return HV_QUEUE_DONE;
}

enum hv_queue_next hv_election_rebalance(struct hv_election *e, rd_kafka_event_t *event) {
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    if (e->handler == NULL) { /* librdkafka takes whatever we say as an empty assignment */
        return answer_late(e, code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, event);
    }
    if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        on_assign(e, event);
        return HV_QUEUE_DONE;
    }
    if (code == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        return on_revoke(e, event);
    }
    hv_election_lose(e);
    rd_kafka_assign(e->consumer, NULL);
    return HV_QUEUE_DONE;
}

/* ---- heartbeats ---- */

void hv_election_heartbeats(struct hv_election *e, rd_kafka_event_t *event) {
    char text[BEAT_MAX];
    const rd_kafka_message_t *message;
    while ((message = rd_kafka_event_message_next(event)) != NULL) {
        if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            hv_election_tell(e, false, message->err, rd_kafka_message_errstr(message));
            continue;
        }
        if (message->partition != 0 || message->payload == NULL || message->len >= sizeof text || !e->owns) {
            continue;
        }
        memcpy(text, message->payload, message->len);
        text[message->len] = '\0';
        char *end;
        errno = 0;
        int64_t stamp = strtoll(text, &end, 10);
        if (errno == 0 && end != text && *end == '%' && strlen(text) == message->len && e->handler != NULL) {
            e->handler->heartbeat(e->user, stamp, end + 1);
        }
    }
}
