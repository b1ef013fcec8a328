/* See kafka_member.h. */
#include "kafka_member.h"

#include <stdio.h>
#include <string.h>

/* ---- what the election tells ---- */

static struct member *told(void *user) {
    struct member *m = user;
    assert_false(m->inside || m->closed);
    return m;
}

static void on_assigned(void *user, bool owns) {
    struct member *m = told(user);
    assert_true(m->owns != owns); /* told only on change */
    m->owns = owns;
    m->assigned++;
}

static void on_revoked(void *user, bool lost) {
    struct member *m = told(user);
    assert_true(m->owns);
    m->revoked += !lost;
    m->lost += lost;
    m->answer_due = !lost;
    m->beats = 0;
}

static void on_heartbeat(void *user, int64_t stamp, const char *name) {
    struct member *m = told(user);
    if (strcmp(name, m->name) != 0) {
        m->foreign_beats++;
        return;
    }
    m->stale_beats += stamp <= m->last_stamp;
    m->last_stamp = stamp;
    m->beats++;
}

static void on_joined(void *user) {
    told(user)->joined++;
}

static void on_trouble(void *user, int code, const char *reason) {
    struct member *m = told(user);
    m->trouble++;
    m->sessions_refused += code == RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT;
    m->trouble_code = code;
    snprintf(m->trouble_reason, sizeof m->trouble_reason, "%s", reason);
}

static void on_log(void *user, int level, const char *facility, const char *text) {
    struct member *m = user;
    (void)level;
    (void)facility;
    (void)text;
    assert_false(m->closed);
    m->logs++;
}

static const struct hv_election_handler handler = {.assigned = on_assigned,
                                                   .revoked = on_revoked,
                                                   .heartbeat = on_heartbeat,
                                                   .joined = on_joined,
                                                   .trouble = on_trouble,
                                                   .log = on_log};

/* ---- what it does ---- */

static void on_timer(uv_timer_t *timer) {
    struct member *m = timer->data;
    m->inside = true;
    if (m->answer_due && !m->late) {
        m->answer_due = false;
        hv_election_answer(m->election);
    }
    if (m->owns && !m->silent) {
        hv_election_beat(m->election, hv_loop_wall_clock() * 1000, m->name);
    }
    m->inside = false;
}

void member_join(struct bed *bed, struct member *m, const char *name, const char *group, const char *assignor, hv_time heartbeat_timeout) {
    struct hv_kafka_property list[] = {{"bootstrap.servers", bed->bootstrap}, {"topic.metadata.refresh.interval.ms", "1000"},
                                       {"socket.timeout.ms", "1000"}};
    struct hv_kafka_properties base = {list, bed->cluster != NULL ? 3 : 1};
    char topic[128];
    snprintf(topic, sizeof topic, "%s.neli", group);
    struct hv_election_options options = {
        .base = &base, .client_id = name, .group_id = group, .topic = topic, .assignor = assignor,
        .heartbeat_timeout = heartbeat_timeout, .poll_interval = HV_MS(50), .poll_duration = HV_MS(1),
    };
    struct hv_error err = {""};
    *m = (struct member){.name = name, .inside = true};
    if (hv_election_open(bed->loop, &options, &handler, m, &m->election, &err) != 0) {
        fail_msg("%s", err.text);
    }
    m->inside = false;
    uv_timer_init(hv_loop_uv(bed->loop), &m->timer);
    m->timer.data = m;
    uv_timer_start(&m->timer, on_timer, 20, 20);
}

static void on_left(void *user) {
    struct member *m = user;
    assert_false(m->inside);
    m->left = true;
}

void member_start_leaving(struct member *m, hv_time limit) {
    uv_close((uv_handle_t *)&m->timer, NULL);
    m->inside = true;
    hv_election_close(m->election, limit, on_left);
    m->inside = false;
    m->closed = true;
}

void member_leave(struct bed *bed, struct member *m) {
    member_start_leaving(m, HV_SECONDS(20));
    bed_until(bed, member_has_left, m, HV_SECONDS(40), "the member left");
}

/* ---- what may be waited for ---- */

bool member_leads(void *arg) {
    return ((struct member *)arg)->beats >= 3;
}

bool member_has_joined(void *arg) {
    return ((struct member *)arg)->joined > 0;
}

bool member_has_left(void *arg) {
    return ((struct member *)arg)->left;
}

bool member_has_trouble(void *arg) {
    return ((struct member *)arg)->trouble > 0;
}
