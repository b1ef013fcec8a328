/* What the adapters tell: each callback takes down an event for the next turn, and says in the log what an operator must know of a
 * connection; nothing else. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "rt/state.h"

/* ---- Postgres ---- */

static void tell_database(struct hv_rt_database *db, enum hv_event_type claims, enum hv_event_type settles, bool flag) {
    hv_rt_tell(db->rt, (struct hv_event){.type = db->claims ? claims : settles, .flag = flag}, NULL);
}

static void on_up(void *user, const char *host) {
    struct hv_rt_database *db = user;
    db->up = true;
    db->said[0] = '\0';
    hv_log(db->rt->logger, HV_INFO, "database", "connected", HV_FIELDS(HV_STR("role", db->role), HV_STR("host", host)));
    tell_database(db, HV_EV_CLAIM_UP, HV_EV_SETTLE_UP, false);
}

/* Says a trouble once: again only when it is another one, or after the connection was up in between. */
static void say_trouble(struct hv_rt_database *db, const char *what, const struct hv_pg_failure *failure) {
    char *said = db->parks ? db->said_of_parking : db->said;
    if (strcmp(said, failure->error.text) == 0) {
        return;
    }
    snprintf(said, sizeof db->said, "%s", failure->error.text);
    hv_log(db->rt->logger, HV_WARN, "database", what,
           HV_FIELDS(HV_STR("role", db->role), HV_STR("host", failure->host[0] != '\0' ? failure->host : NULL),
                     HV_STR("reason", failure->error.text),
                     HV_STR("sqlstate", failure->sqlstate[0] != '\0' ? failure->sqlstate : NULL),
                     HV_STR("advice", hv_pg_advice(failure->trouble))));
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    struct hv_rt_database *db = user;
    bool was_up = db->up;
    db->up = db->parks = false;
    say_trouble(db, was_up ? "disconnected" : "cannot connect", failure);
    if (was_up) {
        tell_database(db, HV_EV_CLAIM_DOWN, HV_EV_SETTLE_DOWN, failure->outcome_unknown);
    }
}

/* Is one of the rows to blame (a trigger, a constraint), or would every statement fail like this? */
static bool because_of_a_row(const struct hv_pg_failure *failure) {
    static const char *const classes[] = {"22", "23", "44", "P0"};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (strncmp(failure->sqlstate, classes[i], 2) == 0) {
            return true;
        }
    }
    return false;
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    struct hv_rt_database *db = user;
    say_trouble(db, "statement refused", failure);
    db->parks = false;
    struct hv_event event = {
        .type = db->claims ? HV_EV_CLAIM_REFUSED : HV_EV_SETTLE_REFUSED,
        .flag = because_of_a_row(failure),
        .code = failure->trouble == HV_PG_LOCKED,
    };
    hv_rt_tell(db->rt, event, NULL);
}

static void tell_rows(struct hv_rt_database *db, enum hv_event_type type, struct hv_record **records, size_t count, bool cut) {
    db->said[0] = '\0';
    struct hv_claimed *rows = hv_calloc(count, sizeof *rows);
    const char *topic = NULL;
    uint32_t topic_hash = 0;
    for (size_t i = 0; i < count; i++) {
        const struct hv_record *record = records[i];
        rows[i] = (struct hv_claimed){.id = record->id, .key_hash = record->key_hash, .key = record->key_id, .bare = record->bare,
                                      .version = record->version, .was = record->was};
        if (record->bare) {
            hv_record_free(records[i]);
            continue;
        }
        if (topic == NULL || strcmp(topic, record->topic) != 0) { /* mostly they have the same */
            topic = record->topic;
            topic_hash = hv_fnv1a(topic, strlen(topic));
        }
        rows[i].topic = topic_hash;
        rows[i].bytes = record->size;
        rows[i].defective = record->defect != HV_SOUND;
        rows[i].payload = records[i];
    }
    hv_rt_tell(db->rt, (struct hv_event){.type = type, .rows = rows, .count = count, .flag = cut}, rows);
}

static void on_marked(void *user, struct hv_record **records, size_t count, bool cut) {
    tell_rows(user, HV_EV_CLAIMED, records, count, cut);
}

static void on_fetched(void *user, struct hv_record **records, size_t count, bool cut) {
    tell_rows(user, HV_EV_FETCHED, records, count, cut);
}

static void on_purged(void *user, size_t rows) {
    struct hv_rt_database *db = user;
    db->said[0] = '\0';
    hv_rt_tell(db->rt, (struct hv_event){.type = HV_EV_PURGED, .count = rows}, NULL);
}

static void on_parked(void *user, const int64_t *ids, size_t count) {
    struct hv_rt_database *db = user;
    (void)ids;
    db->said[0] = db->said_of_parking[0] = '\0';
    db->parks = false;
    hv_rt_tell(db->rt, (struct hv_event){.type = HV_EV_PARKED, .count = count}, NULL);
}

static void on_listed(void *user, const struct hv_claimed *rows, size_t count) {
    struct hv_rt_database *db = user;
    struct hv_claimed *copy = hv_inbox_copy(rows, count, sizeof *rows);
    hv_rt_tell(db->rt, (struct hv_event){.type = HV_EV_LISTED, .rows = copy, .count = count}, copy);
}

static void on_writers(void *user, const uint64_t *hashes, size_t count) {
    struct hv_rt_database *db = user;
    uint64_t *copy = hv_inbox_copy(hashes, count, sizeof *hashes);
    hv_rt_tell(db->rt, (struct hv_event){.type = HV_EV_WRITERS, .hashes = copy, .count = count}, copy);
}

static void on_listening(void *user) {
    struct hv_rt_database *db = user;
    hv_rt_tell(db->rt, (struct hv_event){.type = HV_EV_LISTENING}, NULL);
}

/* Both connections may be told: a pooler can have lent either one the session that listens. */
static void on_notified(void *user) {
    struct hv_rt_database *db = user;
    if (db->rt->settings->wakeup == HV_WAKE_BY_LISTEN) {
        hv_rt_tell(db->rt, (struct hv_event){.type = HV_EV_WAKE}, NULL);
    }
}

/* Nothing fails for it, but each statement costs the server more: an operator may wonder why. */
static void on_unprepared(void *user) {
    struct hv_rt_database *db = user;
    hv_log(db->rt->logger, HV_INFO, "database", "statements are not prepared any more",
           HV_FIELDS(HV_STR("role", db->role), HV_STR("reason", "a pooler is in between, or somebody discarded what was prepared")));
}

const struct hv_outbox_handler hv_rt_outbox_handler = {
    .up = on_up,
    .down = on_down,
    .marked = on_marked,
    .purged = on_purged,
    .listed = on_listed,
    .fetched = on_fetched,
    .parked = on_parked,
    .writers = on_writers,
    .listening = on_listening,
    .notified = on_notified,
    .refused = on_refused,
    .unprepared = on_unprepared,
};

/* ---- Kafka ---- */

static const char *client_name(const struct hv_rt_client *client) {
    return client->lane == HV_LANE_RECORDS ? "records" : "suspects";
}

static void on_reports(void *user, const struct hv_report *reports, size_t count) {
    struct hv_rt_client *client = user;
    for (size_t i = 0; i < count; i++) {
        if (reports[i].delivery == HV_DELIVERED) {
            hv_rt_kafka_works(client->rt, false);
            break;
        }
    }
    struct hv_report *copy = hv_inbox_copy(reports, count, sizeof *reports);
    hv_rt_tell(client->rt,
               (struct hv_event){.type = HV_EV_REPORTS, .lane = (uint8_t)client->lane, .reports = copy, .count = count}, copy);
}

static void on_fatal(void *user, const char *reason) {
    struct hv_rt_client *client = user;
    hv_log(client->rt->logger, HV_WARN, "kafka", "client is finished; a new one follows",
           HV_FIELDS(HV_STR("client", client_name(client)), HV_STR("reason", reason)));
    hv_rt_tell(client->rt,
               (struct hv_event){.type = HV_EV_CLIENT_FAILED, .lane = (uint8_t)client->lane, .reason = "fatal client error"},
               NULL);
}

static void on_trouble(void *user, int code, const char *reason) {
    struct hv_rt_client *client = user;
    hv_rt_kafka_trouble(client->rt, client_name(client), code, reason);
}

static void on_log(void *user, int level, const char *facility, const char *text) {
    struct hv_rt_client *client = user;
    (void)level; /* what matters of it comes as trouble */
    hv_rt_kafka_log(client->rt, client_name(client), facility, text);
}

const struct hv_producer_handler hv_rt_producer_handler = {
    .reports = on_reports,
    .fatal = on_fatal,
    .trouble = on_trouble,
    .log = on_log,
};

static void on_assigned(void *user, bool owns) {
    hv_rt_tell(user, (struct hv_event){.type = HV_EV_ASSIGNED, .flag = owns}, NULL);
}

static void on_revoked(void *user, bool lost) {
    hv_rt_tell(user, (struct hv_event){.type = HV_EV_REVOKED, .flag = lost}, NULL);
}

static void on_heartbeat(void *user, int64_t stamp, const char *name) {
    struct hv_runtime *rt = user;
    if (strcmp(name, rt->settings->name) == 0) {
        hv_rt_kafka_works(rt, false);
        hv_rt_tell(rt, (struct hv_event){.type = HV_EV_HEARTBEAT, .stamp = stamp}, NULL);
    }
}

static void on_joined(void *user) {
    struct hv_runtime *rt = user;
    hv_rt_kafka_works(rt, true);
    hv_log(rt->logger, HV_INFO, "leader", "joined",
           HV_FIELDS(HV_STR("group", rt->settings->leader_group_id), HV_STR("topic", rt->settings->leader_topic)));
}

static void on_election_trouble(void *user, int code, const char *reason) {
    hv_rt_kafka_trouble(user, "election", code, reason);
}

static void on_election_log(void *user, int level, const char *facility, const char *text) {
    (void)level;
    hv_rt_kafka_log(user, "election", facility, text);
}

const struct hv_election_handler hv_rt_election_handler = {
    .assigned = on_assigned,
    .revoked = on_revoked,
    .heartbeat = on_heartbeat,
    .joined = on_joined,
    .trouble = on_election_trouble,
    .log = on_election_log,
};

void hv_rt_left(void *user) {
    struct hv_runtime *rt = user;
    rt->left = true;
    hv_rt_tell(rt, (struct hv_event){.type = HV_EV_LEFT}, NULL);
}
