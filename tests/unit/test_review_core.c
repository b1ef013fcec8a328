/* The core, fed by hand with the orders of events that random schedules seldom make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/harvest.h"
#include "core/slots.h"

#define SENT_MAX 100
#define OTHER_SHARD 80 /* ids from here on go to the second shard */

/* A core that leads, with both connections up; takes down what it wants done. */
struct rig {
    struct hv_harvest *core;
    struct hv_actions actions;
    hv_time now;
    char payloads[SENT_MAX]; /* payload of id i: its address */
    bool released[SENT_MAX];
    struct {
        int64_t id;
        uint64_t ticket;
        uint8_t lane;
    } sent[SENT_MAX];
    size_t sent_count;
    size_t claims, replies;
    struct hv_action claim; /* the latest */
    bool blocked, refreshed;
};

static const struct hv_core_config config = {
    .gaps_max = 8,
    .list_limit = 100,
    .list_span = 1000,
    .send_concurrency = 2,
    .max_in_flight_records = 16,
    .max_in_flight_bytes = 1 << 20,
    .send_buffer = 100,
    .mark_query_records = 10,
    .mark_query_bytes = 1 << 20,
    .purge_query_records = 10,
    .mark_backoff = HV_MS(10),
    .idle_backoff_max = HV_MS(10),
    .io_error_backoff = HV_MS(500),
    .io_error_backoff_max = HV_SECONDS(10),
    .blocked_backoff_max = HV_SECONDS(30),
    .blocked_keys_max = 4,
    .queue_timeout = HV_SECONDS(30),
    .rescan_interval = HV_SECONDS(5),
    .heartbeat_interval = HV_MS(100),
    .heartbeat_timeout = HV_SECONDS(5),
    .drain_timeout = HV_SECONDS(10),
    .hand_over_limit = HV_SECONDS(60),
    .min_metrics_interval = HV_SECONDS(5),
    .seed = 1,
};

static void turn(struct rig *rig);

static void feed(struct rig *rig, struct hv_event event) {
    hv_harvest_step(rig->core, &event, rig->now, &rig->actions);
}

static int64_t id_of(const struct rig *rig, const void *payload) {
    return (const char *)payload - rig->payloads;
}

static void carry_out(struct rig *rig, const struct hv_action *action) {
    static const uint8_t uuid[HV_UUID_BYTES] = {1};
    switch (action->type) {
    case HV_ACT_NEED_LEADER_ID:
        feed(rig, (struct hv_event){.type = HV_EV_LEADER_ID, .uuid = uuid});
        break;
    case HV_ACT_HEARTBEAT:
        feed(rig, (struct hv_event){.type = HV_EV_HEARTBEAT, .stamp = action->stamp});
        break;
    case HV_ACT_OPEN_CLIENT:
        feed(rig, (struct hv_event){.type = HV_EV_CLIENT_READY, .lane = action->lane});
        break;
    case HV_ACT_PRODUCE:
        assert_true(rig->sent_count < SENT_MAX);
        rig->sent[rig->sent_count].id = id_of(rig, action->payload);
        rig->sent[rig->sent_count].ticket = action->ticket;
        rig->sent[rig->sent_count++].lane = action->lane;
        break;
    case HV_ACT_RELEASE:
        assert_false(rig->released[id_of(rig, action->payload)]);
        rig->released[id_of(rig, action->payload)] = true;
        break;
    case HV_ACT_MARK:
        rig->claims++;
        rig->claim = *action;
        break;
    case HV_ACT_LIST:
        feed(rig, (struct hv_event){.type = HV_EV_LISTED});
        break;
    case HV_ACT_WRITERS:
        feed(rig, (struct hv_event){.type = HV_EV_WRITERS});
        break;
    case HV_ACT_NOTIFY:
        rig->blocked = rig->blocked || action->notice == HV_NOTICE_BLOCKED;
        rig->refreshed = rig->refreshed || action->notice == HV_NOTICE_REFRESHED;
        break;
    default:
        break;
    }
}

static void turn(struct rig *rig) {
    feed(rig, (struct hv_event){.type = HV_EV_TURN});
    struct hv_actions actions = rig->actions;
    rig->actions = (struct hv_actions){0};
    for (size_t i = 0; i < actions.count; i++) {
        carry_out(rig, &actions.list[i]);
    }
    hv_actions_free(&actions);
}

static void turns(struct rig *rig, int count) {
    while (count-- > 0) {
        turn(rig);
    }
}

static struct rig *rig_open(void) {
    struct rig *rig = calloc(1, sizeof *rig);
    rig->now = HV_SECONDS(1000);
    rig->core = hv_harvest_new(&config, rig->now);
    feed(rig, (struct hv_event){.type = HV_EV_CLAIM_UP});
    feed(rig, (struct hv_event){.type = HV_EV_SETTLE_UP});
    feed(rig, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = true});
    turns(rig, 4);
    assert_int_equal(rig->claims, 1);
    return rig;
}

static void rig_close(struct rig *rig) {
    hv_harvest_free(rig->core, NULL, NULL);
    hv_actions_free(&rig->actions);
    free(rig);
}

/* Time passes without events: the lease is kept up, and never may a turn be wanted at once for long. */
static void rest(struct rig *rig, hv_time span) {
    hv_time end = rig->now + span;
    int at_once = 0;
    while (rig->now < end) {
        hv_time deadline = hv_harvest_deadline(rig->core);
        at_once = deadline <= rig->now ? at_once + 1 : 0;
        assert_true(at_once < 10);
        rig->now = deadline <= rig->now ? rig->now : deadline < end ? deadline : end;
        turn(rig);
    }
}

/* The reply to the mark that is out, or goes out next: `count` ids, ascending. */
static void claimed(struct rig *rig, const int64_t *ids, size_t count) {
    struct hv_claimed rows[SENT_MAX];
    while (rig->claims == rig->replies) {
        rest(rig, HV_MS(1));
    }
    rig->replies = rig->claims;
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct hv_claimed){.id = ids[i], .bytes = 100, .payload = &rig->payloads[ids[i]]};
        rows[i].key_hash = ids[i] >= OTHER_SHARD;
        rows[i].key = rows[i].key_hash;
        rig->released[ids[i]] = false;
    }
    feed(rig, (struct hv_event){.type = HV_EV_CLAIMED, .rows = rows, .count = count});
}

/* What became of the latest hand-over of a record. */
static void report(struct rig *rig, int64_t id, enum hv_delivery delivery) {
    for (size_t i = rig->sent_count; i-- > 0;) {
        if (rig->sent[i].id == id) {
            const struct hv_report report = {.ticket = rig->sent[i].ticket, .delivery = delivery, .reason = "told by the test"};
            feed(rig, (struct hv_event){.type = HV_EV_REPORTS, .lane = rig->sent[i].lane, .reports = &report, .count = 1});
            return;
        }
    }
    fail_msg("record %d was not sent", (int)id);
}

static size_t times_sent(const struct rig *rig, int64_t id) {
    size_t times = 0;
    for (size_t i = 0; i < rig->sent_count; i++) {
        times += rig->sent[i].id == id;
    }
    return times;
}

/* ---- the tests ---- */

/* The suspects' client may be silent for as long as message.timeout.ms. */
static void test_suspect_without_answer_does_not_spin(void **state) {
    (void)state;
    struct rig *rig = rig_open();
    claimed(rig, (const int64_t[]){1}, 1);
    turns(rig, 2);
    report(rig, 1, HV_REFUSED);
    turns(rig, 4);
    rest(rig, HV_MS(100));
    assert_int_equal(times_sent(rig, 1), 2);
    assert_int_equal(rig->sent[1].lane, HV_LANE_SUSPECTS);
    rest(rig, HV_SECONDS(200));
    report(rig, 1, HV_DELIVERED);
    rest(rig, HV_SECONDS(100));
    assert_true(rig->released[1]);
    rig_close(rig);
}

/* A record was refused, one behind it (of another key) was delivered, and the client that is being purged
 * keeps other reports to itself for a while: what came late must not go before the one that was refused. */
static void test_delivery_behind_a_refused_record(void **state) {
    (void)state;
    struct rig *rig = rig_open();
    /* Makes the suspects' client. */
    claimed(rig, (const int64_t[]){1}, 1);
    turns(rig, 2);
    report(rig, 1, HV_REFUSED);
    turns(rig, 4);
    report(rig, 1, HV_DELIVERED);
    rest(rig, HV_MS(50));
    size_t before = rig->sent_count;
    claimed(rig, (const int64_t[]){10, 11, 13, OTHER_SHARD}, 4);
    rest(rig, HV_MS(15));
    assert_int_equal(rig->sent_count, before + 4);
    claimed(rig, (const int64_t[]){12}, 1); /* late: may be of the same key as 10 */
    report(rig, 10, HV_REFUSED);
    report(rig, 13, HV_REFUSED);
    report(rig, 11, HV_DELIVERED);
    rest(rig, HV_MS(5));
    report(rig, OTHER_SHARD, HV_PURGED);
    rest(rig, HV_MS(5));
    for (size_t i = before + 4; i < rig->sent_count; i++) {
        assert_true(rig->sent[i].id != 12);
    }
    assert_int_equal(times_sent(rig, 10), 2);
    rig_close(rig);
}

/* A server that answers with more rows than were asked for. */
static void test_more_rows_than_asked(void **state) {
    (void)state;
    struct rig *rig = rig_open();
    int64_t ids[75];
    for (int i = 0; i < 75; i++) {
        ids[i] = i;
    }
    claimed(rig, ids, 75);
    turns(rig, 3);
    assert_true(rig->refreshed); /* what there was no room for is marked anew, in its order */
    assert_true(rig->released[74] && !rig->released[0]);
    rig_close(rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suspect_without_answer_does_not_spin),
        cmocka_unit_test(test_delivery_behind_a_refused_record),
        cmocka_unit_test(test_more_rows_than_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
