/* core/harvest: the parts together, fed by hand. What the simulator found stands here by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/harvest.h"
#include "core/isolation.h"

#define IDS 50
#define ACTIONS 64

static const struct hv_core_config config = {
    .gaps_max = 8,
    .list_limit = 100,
    .list_span = 1000,
    .send_concurrency = 2,
    .max_in_flight_records = 16,
    .max_in_flight_bytes = 1 << 20,
    .send_buffer = 10,
    .mark_query_records = 10,
    .mark_query_bytes = 1 << 20,
    .purge_query_records = 10,
    .mark_backoff = HV_MS(10),
    .idle_backoff_max = HV_MS(10),
    .io_error_backoff = HV_MS(100),
    .io_error_backoff_max = HV_SECONDS(1),
    .blocked_backoff_max = HV_SECONDS(1),
    .blocked_keys_max = 4,
    .blocked_keys_bytes = 1000,
    .queue_timeout = HV_SECONDS(3),
    .rescan_interval = HV_SECONDS(5),
    .heartbeat_interval = HV_MS(100),
    .heartbeat_timeout = HV_SECONDS(5),
    .drain_timeout = HV_SECONDS(10),
    .hand_over_limit = HV_SECONDS(60),
    .min_metrics_interval = HV_SECONDS(5),
    .seed = 1,
};

struct bed {
    struct hv_harvest *core;
    struct hv_actions out;
    hv_time now;
    bool beats; /* heartbeats come back */
    bool winds_up; /* the application takes its time over a revoke */
    uint64_t uuids;
    char payloads[IDS];
    /* payloads of an id that the core has: told minus released; one block stands for all of them */
    int held[IDS];
    uint64_t tickets[IDS];
    int sent[IDS];
    int done[ACTIONS]; /* how often an action of a type came */
    int notices[ACTIONS];
};

static void tell(struct bed *bed, struct hv_event event) {
    hv_harvest_step(bed->core, &event, bed->now, &bed->out);
}

static void act(struct bed *bed, const struct hv_action *action) {
    uint64_t uuid[2] = {0, ++bed->uuids};
    bed->done[action->type]++;
    switch (action->type) {
    case HV_ACT_NEED_LEADER_ID:
        tell(bed, (struct hv_event){.type = HV_EV_LEADER_ID, .uuid = (const uint8_t *)uuid});
        break;
    case HV_ACT_HEARTBEAT:
        if (bed->beats) {
            tell(bed, (struct hv_event){.type = HV_EV_HEARTBEAT, .stamp = action->stamp});
        }
        break;
    case HV_ACT_OPEN_CLIENT:
        tell(bed, (struct hv_event){.type = HV_EV_CLIENT_READY, .lane = action->lane});
        break;
    case HV_ACT_LIST:
        tell(bed, (struct hv_event){.type = HV_EV_LISTED});
        break;
    case HV_ACT_WRITERS:
        tell(bed, (struct hv_event){.type = HV_EV_WRITERS});
        break;
    case HV_ACT_PRODUCE:
        bed->tickets[(char *)action->payload - bed->payloads] = action->ticket;
        bed->sent[(char *)action->payload - bed->payloads]++;
        break;
    case HV_ACT_RELEASE:
        assert_true(bed->held[(char *)action->payload - bed->payloads]-- > 0);
        break;
    case HV_ACT_NOTIFY:
        bed->notices[action->notice]++;
        if (action->notice == HV_NOTICE_REVOKED && !bed->winds_up) {
            tell(bed, (struct hv_event){.type = HV_EV_HANDED_OVER});
        }
        break;
    default:
        break;
    }
}

/* Some turns at one time. */
static void turns(struct bed *bed) {
    for (int i = 0; i < 5; i++) {
        tell(bed, (struct hv_event){.type = HV_EV_TURN});
        struct hv_actions actions = bed->out;
        bed->out = (struct hv_actions){0};
        for (size_t k = 0; k < actions.count; k++) {
            act(bed, &actions.list[k]);
        }
        hv_actions_free(&actions);
    }
}

static void pass(struct bed *bed, hv_time span) {
    for (hv_time end = bed->now + span; bed->now < end;) {
        bed->now = hv_time_min(end, bed->now + HV_MS(5));
        turns(bed);
    }
}

static void claimed(struct bed *bed, const int64_t *ids, size_t count) {
    struct hv_claimed rows[10];
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct hv_claimed){.id = ids[i], .key_hash = (uint32_t)ids[i] & 1, .key = (uint64_t)ids[i] & 1, .bytes = 10};
        rows[i].payload = &bed->payloads[ids[i]];
        bed->held[ids[i]]++;
    }
    tell(bed, (struct hv_event){.type = HV_EV_CLAIMED, .rows = rows, .count = count});
}

#define CLAIMED(bed, ...) \
    claimed(bed, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / 8)

static void report(struct bed *bed, int64_t id, enum hv_delivery delivery) {
    const struct hv_report report = {.ticket = bed->tickets[id], .delivery = delivery, .reason = "told"};
    tell(bed, (struct hv_event){.type = HV_EV_REPORTS, .reports = &report, .count = 1});
}

static struct hv_harvest_figures look(const struct bed *bed) {
    struct hv_harvest_figures figures;
    hv_harvest_look(bed->core, &figures);
    return figures;
}

/* Assigned, leading, a mark out. */
static int open_bed(void **state) {
    struct bed *bed = calloc(1, sizeof *bed);
    bed->now = HV_SECONDS(10);
    bed->beats = true;
    bed->core = hv_harvest_new(&config, bed->now);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_UP});
    tell(bed, (struct hv_event){.type = HV_EV_SETTLE_UP});
    tell(bed, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = true});
    turns(bed);
    assert_int_equal(look(bed).role, HV_LEADER);
    assert_int_equal(bed->done[HV_ACT_MARK], 1);
    *state = bed;
    return 0;
}

static void count_release(void *user, void *payload) {
    struct bed *bed = user;
    bed->held[(char *)payload - bed->payloads]--;
}

static int close_bed(void **state) {
    struct bed *bed = *state;
    hv_actions_free(&bed->out);
    hv_harvest_free(bed->core, count_release, bed);
    for (int i = 0; i < IDS; i++) {
        assert_int_equal(bed->held[i], 0); /* each payload came back, once */
    }
    free(bed);
    return 0;
}

static void a_row_goes_its_way(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1, 2, 3);
    turns(bed);
    assert_int_equal(bed->sent[1] + bed->sent[2] + bed->sent[3], 3);
    report(bed, 1, HV_DELIVERED);
    report(bed, 2, HV_DELIVERED);
    report(bed, 3, HV_DELIVERED);
    pass(bed, HV_MS(20));
    assert_int_equal(bed->done[HV_ACT_PURGE], 1);
    assert_int_equal(look(bed).unpurged, 3);
    tell(bed, (struct hv_event){.type = HV_EV_PURGED, .count = 3});
    assert_int_equal(look(bed).held, 0);
    assert_int_equal(look(bed).acknowledged, 3);
}

static void without_a_lease_nothing_is_sent_and_all_is_given_up(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1, 2);
    pass(bed, HV_MS(20));
    bed->beats = false;
    bed->now += config.heartbeat_timeout;
    tell(bed, (struct hv_event){.type = HV_EV_SETTLE_UP}); /* any event: the lease is looked at first */
    turns(bed);
    assert_int_equal(look(bed).role, HV_FENCED);
    assert_int_equal(bed->done[HV_ACT_PURGE_CLIENT], 1);
    report(bed, 1, HV_PURGED);
    bed->beats = true;
    pass(bed, HV_MS(200));
    assert_int_equal(look(bed).role, HV_FENCED); /* not before all is reported */
    report(bed, 2, HV_DELIVERED);
    pass(bed, HV_MS(200));
    assert_int_equal(look(bed).role, HV_LEADER);
    assert_int_equal(bed->sent[1], 1); /* forgotten: it is claimed anew */
    CLAIMED(bed, 3); /* the reply to a mark of before: under another leader id */
    turns(bed);
    assert_int_equal(bed->sent[3], 0);
    assert_int_equal(bed->notices[HV_NOTICE_ACQUIRED], 2);
}

static void after_an_unknown_mark_nothing_newer_is_claimed_first(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1);
    pass(bed, HV_MS(20));
    assert_int_equal(bed->done[HV_ACT_MARK], 2);
    uint8_t before[HV_UUID_BYTES];
    memcpy(before, look(bed).leader_id, sizeof before);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_DOWN, .flag = true});
    turns(bed);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_UP});
    turns(bed);
    assert_int_equal(bed->notices[HV_NOTICE_REFRESHED], 1);
    assert_memory_not_equal(before, look(bed).leader_id, sizeof before);
    assert_int_equal(bed->done[HV_ACT_MARK], 3);
    CLAIMED(bed, 1, 2); /* 1 is known, and in flight */
    turns(bed);
    assert_int_equal(bed->sent[1], 1);
    assert_int_equal(bed->sent[2], 1);
}

/* Row 1 is acknowledged while a mark under a new leader id is out, which gives it another version. */
static void a_row_is_purged_when_it_is_marked_anew(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1);
    pass(bed, HV_MS(20));
    report(bed, 1, HV_DELIVERED);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_DOWN, .flag = true});
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_UP});
    pass(bed, HV_MS(20));
    assert_int_equal(bed->done[HV_ACT_PURGE], 0);
    assert_int_equal(bed->done[HV_ACT_MARK], 3);
    CLAIMED(bed, 1, 2);
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_PURGE], 1);
    tell(bed, (struct hv_event){.type = HV_EV_PURGED, .count = 1});
    assert_int_equal(look(bed).held, 1);
    assert_int_equal(bed->sent[1], 1);
    assert_int_equal(bed->sent[2], 1);
}

/* ... and the mark waits for a purge that is out. */
static void what_is_held_is_not_marked_anew_while_it_is_purged(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1, 2);
    pass(bed, HV_MS(20));
    report(bed, 1, HV_DELIVERED);
    pass(bed, HV_MS(20));
    assert_int_equal(bed->done[HV_ACT_PURGE], 1);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_DOWN, .flag = true});
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_UP});
    pass(bed, HV_MS(20));
    assert_int_equal(bed->notices[HV_NOTICE_REFRESHED], 1);
    assert_int_equal(bed->done[HV_ACT_MARK], 2);
    tell(bed, (struct hv_event){.type = HV_EV_PURGED, .count = 1});
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_MARK], 3);
}

/* Marks are answered by nothing; none is out at the beginning. Returns how many there were. */
static int rest(struct bed *bed, hv_time span) {
    int count = 0;
    for (hv_time end = bed->now + span; bed->now < end;) {
        int before = bed->done[HV_ACT_MARK];
        pass(bed, HV_MS(5));
        if (bed->done[HV_ACT_MARK] > before) {
            tell(bed, (struct hv_event){.type = HV_EV_CLAIMED});
            count++;
        }
    }
    return count;
}

/* Row 1 cannot be deleted, for days perhaps, and all is marked anew. */
static void a_row_that_is_stuck_does_not_keep_marks_coming(void **state) {
    struct bed *bed = *state;
    struct hv_core_config patient = config;
    patient.idle_backoff_max = HV_SECONDS(1);
    patient.blocked_backoff_max = HV_SECONDS(3600);
    hv_harvest_free(bed->core, NULL, NULL);
    bed->core = hv_harvest_new(&patient, bed->now);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_UP});
    tell(bed, (struct hv_event){.type = HV_EV_SETTLE_UP});
    tell(bed, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = true});
    turns(bed);
    CLAIMED(bed, 1);
    turns(bed);
    report(bed, 1, HV_DELIVERED);
    for (int i = 0; i < 10; i++) { /* so that the wait grows */
        int purges = bed->done[HV_ACT_PURGE];
        while (bed->done[HV_ACT_PURGE] == purges) {
            pass(bed, HV_MS(100));
        }
        tell(bed, (struct hv_event){.type = HV_EV_SETTLE_REFUSED, .flag = true});
    }
    assert_true(bed->notices[HV_NOTICE_UNPURGEABLE] > 0);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_DOWN, .flag = true});
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_UP});
    turns(bed);
    assert_int_equal(bed->notices[HV_NOTICE_REFRESHED], 1);
    CLAIMED(bed, 1);
    rest(bed, HV_SECONDS(5));
    assert_true(rest(bed, HV_SECONDS(5)) <= 20);
}

/* A purge of the client takes long, the queues' age is looked at meanwhile: 2 must not go before 1. */
static void a_failed_record_is_not_forgotten_while_others_are_in_flight(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 2, 4, 6, 8, 10, 12); /* one shard; four are in flight at once */
    turns(bed);
    assert_int_equal(bed->sent[8], 1);
    assert_int_equal(bed->sent[10], 0);
    pass(bed, HV_SECONDS(4)); /* a mark is out all the time */
    report(bed, 2, HV_FAILED);
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_REFUSED}); /* so that none is out for a while */
    pass(bed, HV_SECONDS(2));
    report(bed, 4, HV_PURGED);
    report(bed, 6, HV_PURGED);
    report(bed, 8, HV_PURGED);
    turns(bed);
    assert_int_equal(bed->sent[2], 2);
    assert_int_equal(bed->sent[4], 2);
}

/* Row 2 is refused alone; 4 is of its key, and left in the table until 2 went through. */
static void a_blocked_key_comes_back_in_order(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 2, 4);
    turns(bed);
    report(bed, 2, HV_REFUSED);
    report(bed, 4, HV_PURGED);
    for (int i = 0; i < 2; i++) { /* apart, and alone */
        turns(bed);
        report(bed, 2, HV_REFUSED);
    }
    assert_int_equal(look(bed).blocked_keys, 1);
    pass(bed, HV_SECONDS(1));
    assert_int_equal(bed->notices[HV_NOTICE_BLOCKED], 1);
    assert_int_equal(look(bed).held, 0);
    assert_int_equal(bed->done[HV_ACT_FETCH], 1);
    CLAIMED(bed, 6, 7); /* 6 comes behind 4, which is not there */
    turns(bed);
    assert_int_equal(bed->sent[6], 0);
    assert_int_equal(bed->sent[7], 1);
    pass(bed, HV_MS(20)); /* a mark is out */
    struct hv_claimed row = {.id = 2, .bytes = 10, .payload = &bed->payloads[2]};
    bed->held[2]++;
    int before = bed->sent[2];
    tell(bed, (struct hv_event){.type = HV_EV_FETCHED, .rows = &row, .count = 1});
    turns(bed);
    assert_int_equal(bed->sent[2], before + 1);
    report(bed, 2, HV_DELIVERED);
    turns(bed);
    assert_int_equal(bed->notices[HV_NOTICE_UNBLOCKED], 1);
    pass(bed, HV_MS(20));
    tell(bed, (struct hv_event){.type = HV_EV_PURGED, .count = 1});
    pass(bed, HV_SECONDS(2));
    assert_int_equal(bed->notices[HV_NOTICE_REFRESHED], 0);
    CLAIMED(bed, 8);
    turns(bed);
    assert_int_equal(bed->sent[8], 0);
    assert_int_equal(bed->notices[HV_NOTICE_REFRESHED], 1); /* as soon as no mark is out */
    CLAIMED(bed, 4, 6, 8);
    turns(bed);
    assert_int_equal(bed->sent[4], 2);
    assert_int_equal(bed->sent[6], 1);
    assert_int_equal(bed->sent[8], 1);
}

/* Row 2 fails again and again for a reason that we do not know: first all is sent again, then it goes alone, then its key is blocked. */
static void what_nobody_understands_blocks_its_key_after_a_while(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 2, 3);
    turns(bed);
    for (int i = 1; i <= HV_PUZZLES_MAX; i++) {
        assert_int_equal(look(bed).blocked_keys, 0);
        assert_int_equal(bed->sent[2], i);
        report(bed, 2, HV_PUZZLING);
        if (i <= HV_PUZZLES_TOGETHER) {
            assert_int_equal(bed->sent[3], i);
            report(bed, 3, HV_PURGED);
        }
        pass(bed, HV_SECONDS(12));
    }
    assert_int_equal(look(bed).blocked_keys, 1);
    assert_int_equal(bed->notices[HV_NOTICE_BLOCKED], 1);
    assert_int_equal(bed->sent[3], HV_PUZZLES_TOGETHER + 1); /* it goes on with all others */
}

static void all_that_is_blocked_is_tried_at_once_when_somebody_says_so(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 2);
    turns(bed);
    report(bed, 2, HV_REFUSED);
    turns(bed);
    report(bed, 2, HV_REFUSED);
    turns(bed);
    for (int i = 0; i < 6; i++) { /* and no time passes */
        report(bed, 2, HV_REFUSED);
        turns(bed);
        assert_int_equal(bed->done[HV_ACT_FETCH], i);
        tell(bed, (struct hv_event){.type = HV_EV_RETRY});
        turns(bed);
        assert_int_equal(bed->done[HV_ACT_FETCH], i + 1);
        struct hv_claimed row = {.id = 2, .bytes = 10, .payload = &bed->payloads[2]};
        bed->held[2]++;
        tell(bed, (struct hv_event){.type = HV_EV_FETCHED, .rows = &row, .count = 1});
        turns(bed);
    }
    assert_int_equal(bed->notices[HV_NOTICE_BLOCKED], 6);
}

/* The database is away, so the hand-over waits for its purge; then the group takes the partition away, and
 * gives it back. */
static void an_assignment_after_a_lost_hand_over_counts(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1);
    turns(bed);
    tell(bed, (struct hv_event){.type = HV_EV_SETTLE_DOWN});
    report(bed, 1, HV_DELIVERED);
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED});
    pass(bed, HV_MS(50));
    assert_int_equal(look(bed).role, HV_REVOKING);
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED, .flag = true});
    tell(bed, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = true});
    pass(bed, HV_MS(50));
    assert_int_equal(look(bed).role, HV_LEADER);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 0);
    assert_int_equal(look(bed).unpurged, 1);
}

static void a_hand_over_is_answered_when_all_is_settled(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1);
    turns(bed);
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED});
    pass(bed, HV_MS(50));
    assert_int_equal(bed->done[HV_ACT_ANSWER], 0);
    report(bed, 1, HV_DELIVERED);
    pass(bed, HV_MS(50));
    assert_int_equal(bed->done[HV_ACT_ANSWER], 0);
    tell(bed, (struct hv_event){.type = HV_EV_PURGED, .count = 1});
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 1);
    assert_int_equal(bed->notices[HV_NOTICE_REVOKED], 1);
    assert_int_equal(look(bed).role, HV_STANDBY);
}

static void a_stop_does_not_prolong_a_hand_over(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1);
    turns(bed);
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED});
    pass(bed, HV_SECONDS(9));
    tell(bed, (struct hv_event){.type = HV_EV_STOP});
    pass(bed, HV_SECONDS(2));
    assert_int_equal(bed->done[HV_ACT_PURGE_CLIENT], 1);
    report(bed, 1, HV_PURGED);
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 1);
}

static void a_hand_over_waits_for_the_application(void **state) {
    struct bed *bed = *state;
    bed->winds_up = true;
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED});
    pass(bed, HV_SECONDS(59));
    assert_int_equal(bed->notices[HV_NOTICE_REVOKED], 1);
    assert_int_equal(look(bed).role, HV_STANDBY);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 0);
    tell(bed, (struct hv_event){.type = HV_EV_HANDED_OVER});
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 1);
}

static void a_hand_over_waits_for_the_application_no_longer_than_the_group_does(void **state) {
    struct bed *bed = *state;
    bed->winds_up = true;
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED});
    pass(bed, HV_SECONDS(59));
    assert_int_equal(bed->done[HV_ACT_ANSWER], 0);
    assert_true(hv_harvest_deadline(bed->core) <= bed->now + HV_SECONDS(1));
    pass(bed, HV_SECONDS(1));
    assert_int_equal(bed->done[HV_ACT_ANSWER], 1);
}

/* The group has another leader before the application is done: it has to stop at once. */
static void an_application_that_winds_up_is_told_when_the_group_does_not_wait(void **state) {
    struct bed *bed = *state;
    bed->winds_up = true;
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED});
    pass(bed, HV_SECONDS(1));
    assert_int_equal(bed->notices[HV_NOTICE_FENCED], 0);
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED, .flag = true});
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED, .flag = true});
    turns(bed);
    assert_int_equal(bed->notices[HV_NOTICE_FENCED], 1);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 0);
    tell(bed, (struct hv_event){.type = HV_EV_HANDED_OVER});
    tell(bed, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = true});
    pass(bed, HV_MS(50));
    assert_int_equal(look(bed).role, HV_LEADER);
}

static void a_stop_waits_for_the_application(void **state) {
    struct bed *bed = *state;
    bed->winds_up = true;
    tell(bed, (struct hv_event){.type = HV_EV_STOP});
    pass(bed, HV_SECONDS(30));
    assert_int_equal(bed->notices[HV_NOTICE_REVOKED], 1);
    assert_int_equal(bed->done[HV_ACT_LEAVE], 0);
    tell(bed, (struct hv_event){.type = HV_EV_HURRY});
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_LEAVE], 1);
}

/* The lease ends while what is in flight is drained: the application has to stop now, not to wind up. */
static void a_lease_that_ends_in_a_hand_over_fences(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1);
    turns(bed);
    bed->beats = false;
    tell(bed, (struct hv_event){.type = HV_EV_REVOKED});
    pass(bed, HV_SECONDS(6));
    assert_int_equal(bed->notices[HV_NOTICE_FENCED], 1);
    assert_int_equal(bed->notices[HV_NOTICE_REVOKED], 0);
    assert_int_equal(bed->done[HV_ACT_PURGE_CLIENT], 1);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 0);
    report(bed, 1, HV_PURGED);
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_ANSWER], 1);
}

/* The partition is assigned while the member leaves the group: no heartbeat is due any more. */
static void who_leaves_the_group_does_not_spin(void **state) {
    struct bed *bed = *state;
    tell(bed, (struct hv_event){.type = HV_EV_CLAIM_DOWN});
    tell(bed, (struct hv_event){.type = HV_EV_STOP});
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_LEAVE], 1);
    tell(bed, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = true});
    bed->now += HV_SECONDS(1);
    turns(bed);
    assert_true(hv_harvest_deadline(bed->core) > bed->now);
    tell(bed, (struct hv_event){.type = HV_EV_LEFT});
    turns(bed);
    assert_int_equal(bed->done[HV_ACT_STOPPED], 1);
    assert_int_equal(hv_harvest_deadline(bed->core), HV_NEVER);
}

static void a_hurried_stop_waits_for_nothing_but_the_client(void **state) {
    struct bed *bed = *state;
    CLAIMED(bed, 1, 2);
    turns(bed);
    report(bed, 1, HV_DELIVERED);
    tell(bed, (struct hv_event){.type = HV_EV_STOP});
    pass(bed, HV_SECONDS(1));
    assert_int_equal(bed->done[HV_ACT_PURGE_CLIENT], 0);
    tell(bed, (struct hv_event){.type = HV_EV_HURRY});
    pass(bed, HV_MS(50));
    assert_int_equal(bed->done[HV_ACT_PURGE_CLIENT], 1);
    /* its reports do not come, nor the answer to the purge, nor that the group was left */
    pass(bed, HV_SECONDS(6));
    assert_int_equal(bed->done[HV_ACT_LEAVE], 1);
    pass(bed, HV_SECONDS(11));
    assert_int_equal(bed->done[HV_ACT_STOPPED], 1);
    assert_int_equal(bed->sent[1] + bed->sent[2], 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_bed, close_bed)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_row_goes_its_way),
        TEST(without_a_lease_nothing_is_sent_and_all_is_given_up),
        TEST(after_an_unknown_mark_nothing_newer_is_claimed_first),
        TEST(a_row_is_purged_when_it_is_marked_anew),
        TEST(what_is_held_is_not_marked_anew_while_it_is_purged),
        TEST(a_row_that_is_stuck_does_not_keep_marks_coming),
        TEST(a_failed_record_is_not_forgotten_while_others_are_in_flight),
        TEST(a_blocked_key_comes_back_in_order),
        TEST(what_nobody_understands_blocks_its_key_after_a_while),
        TEST(all_that_is_blocked_is_tried_at_once_when_somebody_says_so),
        TEST(an_assignment_after_a_lost_hand_over_counts),
        TEST(a_hand_over_is_answered_when_all_is_settled),
        TEST(a_stop_does_not_prolong_a_hand_over),
        TEST(a_hand_over_waits_for_the_application),
        TEST(a_hand_over_waits_for_the_application_no_longer_than_the_group_does),
        TEST(an_application_that_winds_up_is_told_when_the_group_does_not_wait),
        TEST(a_stop_waits_for_the_application),
        TEST(a_lease_that_ends_in_a_hand_over_fences),
        TEST(who_leaves_the_group_does_not_spin),
        TEST(a_hurried_stop_waits_for_nothing_but_the_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
