/* What the core is told (events) and what it wants done (actions). Plain data; nothing here points into a library.
 *
 * Who owns what: arrays of an event are lent for the call. A claimed row's payload passes to the core with HV_EV_CLAIMED and comes
 * back, exactly once, with HV_ACT_RELEASE. Arrays of an action (ids, gaps, keys) are lent until the next call of hv_harvest_step. */
#ifndef HV_CORE_EVENT_H
#define HV_CORE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/time.h"
#include "core/delivery.h"

#define HV_UUID_BYTES 16

/* The two clients that carry records: the fast one for all, the careful one for records under suspicion, one at a time a shard. */
enum hv_lane_id { HV_LANE_RECORDS, HV_LANE_SUSPECTS, HV_LANES };

enum hv_event_type {
    HV_EV_TURN,         /* nothing more to tell now: decide what is to be done. The last event of each turn of the loop */
    HV_EV_LEADER_ID,    /* uuid: a fresh random identity, asked for by HV_ACT_NEED_LEADER_ID */
    HV_EV_ASSIGNED,     /* flag: the leader partition is ours (true) or not (false) */
    HV_EV_REVOKED,      /* flag: it is lost already (true), or the group waits for our answer (false) */
    HV_EV_HEARTBEAT,    /* stamp: a heartbeat that carries our name was read from the leader topic */
    HV_EV_HANDED_OVER,  /* the application is done with HV_NOTICE_REVOKED */
    HV_EV_LEFT,         /* the group was left */
    HV_EV_CLAIM_UP,     /* the claiming connection is ready */
    HV_EV_CLAIM_DOWN,   /* it is gone; flag: a statement was out and may have taken effect */
    HV_EV_CLAIM_REFUSED, /* the database refused the statement, which did nothing */
    HV_EV_CLAIMED,      /* rows, count: the whole reply to HV_ACT_MARK or HV_ACT_SCAN, ids ascending; flag: it may have ended before the
                         * limit, because it grew large */
    HV_EV_LISTED,       /* rows (id, key_hash and key only), count: the reply to HV_ACT_LIST, ids ascending */
    HV_EV_WRITERS,      /* hashes, count: the reply to HV_ACT_WRITERS */
    HV_EV_LISTENING,    /* the reply to HV_ACT_LISTEN */
    HV_EV_WAKE,         /* rows may have been written. May come for nothing, and may be missing */
    HV_EV_SETTLE_UP,    /* as the three above, for the settling connection */
    HV_EV_SETTLE_DOWN,
    HV_EV_SETTLE_REFUSED, /* flag: because of one of the rows (true) or of the table as a whole (rights, missing...); code, not 0:
                         * somebody keeps a row locked */
    HV_EV_PURGED,       /* count: the reply to HV_ACT_PURGE, so many were deleted */
    HV_EV_FETCHED,      /* rows, count: the reply to HV_ACT_FETCH, those that were still in the table, ids ascending; flag: it ended with
                         * the last one because it grew large */
    HV_EV_PARKED,       /* count: the reply to HV_ACT_PARK, so many were moved */
    HV_EV_CLIENT_READY, /* lane: the reply to HV_ACT_OPEN_CLIENT */
    HV_EV_CLIENT_FAILED, /* lane: it could not be made, or is finished (fatal error) */
    HV_EV_REPORTS,      /* lane, reports, count: what became of records handed over */
    HV_EV_BOUNCED,      /* ticket, flag: the client did not take it; just full (false), or refused for good (true): then delivery
                         * (a refusal), code, reason */
    HV_EV_RETRY,        /* what keeps records from going may have been mended: try all of them now */
    HV_EV_STOP,         /* drain, purge, leave */
    HV_EV_HURRY,        /* ... without waiting any more */
};

struct hv_claimed {
    int64_t id;
    uint32_t key_hash; /* records of one key have one hash, which decides on their shard */
    uint64_t key;      /* stands for the key: records of one key have the same. Should two keys have it, they share their troubles */
    uint32_t version;  /* stands for the content: a row that is changed has another one, and so has another row that is given the same id */
    uint32_t was;      /* ... before the claim, which changes it by marking; else the same */
    uint32_t topic;    /* stands for the topic; should two have the same, they share their troubles, too */
    bool bare;         /* only id and key were read, since the claim named the key; the payload is NULL */
    uint32_t bytes;    /* what the payload costs to keep */
    bool defective;    /* cannot be sent as it is */
    void *payload;     /* not NULL (bare and HV_EV_LISTED: NULL); means nothing to the core */
};

struct hv_event {
    enum hv_event_type type;
    bool flag;
    uint8_t lane; /* enum hv_lane_id */
    int code;            /* with HV_EV_BOUNCED, see struct hv_report */
    enum hv_delivery delivery;
    uint64_t ticket;
    int64_t stamp;
    const char *reason;  /* static text, with HV_EV_BOUNCED, HV_EV_CLIENT_FAILED, HV_EV_REVOKED; or NULL */
    const uint8_t *uuid; /* HV_UUID_BYTES */
    union {
        const struct hv_claimed *rows;
        const struct hv_report *reports;
        const int64_t *ids;
        const uint64_t *hashes;
    };
    size_t count;
};

enum hv_action_type {
    HV_ACT_NEED_LEADER_ID, /* answer with HV_EV_LEADER_ID */
    HV_ACT_HEARTBEAT,      /* stamp */
    HV_ACT_ANSWER,         /* let the pending revoke go through */
    HV_ACT_LEAVE,          /* leave the group, then HV_EV_LEFT */
    HV_ACT_MARK,           /* uuid, from_id, gaps, limit, keys: mark, in one snapshot, up to `limit` rows of the lowest ids in the gaps and
                            * >= from_id that do not carry the mark. Rows of `keys` in gaps may be left out, and the others be bare, and not
                            * marked; flag: none of those >= from_id is held, and `was` need not be right; on the claiming connection */
    HV_ACT_SCAN,           /* from_id, gaps, limit, keys; ids, count: read, in one snapshot, up to `limit` rows of the lowest ids >= from_id,
                            * and as many out of each gap, but none of `ids`. Of `keys` as above; on the claiming connection */
    HV_ACT_LIST,           /* from_id, to_id, limit: read the highest ids between these, both inclusive; on the claiming connection */
    HV_ACT_WRITERS,        /* ask for the writing transactions on the claiming connection */
    HV_ACT_LISTEN,         /* flag: from now on this session of the claiming connection is told of rows (true) or not any more (false) */
    HV_ACT_PURGE,          /* ids, versions, count: delete those rows that are still of that version; flag: but those that somebody keeps
                            * locked; on the settling connection */
    HV_ACT_FETCH,          /* ids, count: read these rows; on the settling connection */
    HV_ACT_PARK,           /* removed, count: move those of these rows that are still of that version to the table of parked records; on the
                            * settling connection */
    HV_ACT_OPEN_CLIENT,    /* lane: make a client; answer HV_EV_CLIENT_READY or HV_EV_CLIENT_FAILED */
    HV_ACT_PURGE_CLIENT,   /* lane: give up all that is in flight; flag: but what brokers may have; reports follow. Nothing is sent any more */
    HV_ACT_CLOSE_CLIENT,   /* lane: destroy the client; no event of it may follow */
    HV_ACT_PRODUCE,        /* lane, ticket, payload; flag: in a request of its own. One that bounces takes all later ones of the same batch of
                            * actions with it */
    HV_ACT_RELEASE,        /* payload: not used any more */
    HV_ACT_NOTIFY,         /* notice (and uuid, reason, id, payload, duration): tell the application and the log */
    HV_ACT_STOPPED,        /* all is done after HV_EV_STOP */
};

enum hv_notice {
    HV_NOTICE_ACQUIRED,  /* uuid */
    HV_NOTICE_REFRESHED, /* uuid, reason; flag: it may come several times a second */
    HV_NOTICE_REVOKED,   /* the group waits until HV_EV_HANDED_OVER answers, or for hand_over_limit */
    HV_NOTICE_FENCED,    /* reason */
    HV_NOTICE_REWINDING, /* reason */
    HV_NOTICE_STALLED,   /* duration: nothing was acknowledged for so long though records are in flight */
    HV_NOTICE_FLOWING,   /* ... and now it is; duration: how long it lasted */
    HV_NOTICE_BLOCKED,   /* id, payload (valid while the actions are carried out): its key waits; reason;
                          * duration: until tried again; count: how often in a row */
    HV_NOTICE_UNBLOCKED, /* id: it went through, or (flag) was taken out of the table */
    HV_NOTICE_PARKED,    /* id, reason, code, count (as above), topic, key (where they are known; valid while the actions are carried
                          * out): its row is in the table of parked records, or was gone already */
    HV_NOTICE_SKIPPED,   /* id, payload, reason, code, count, before its row is deleted */
    HV_NOTICE_UNPURGEABLE, /* id: acknowledged, but the database refuses to delete it; duration: until tried again */
    HV_NOTICE_METER,     /* meter */
};

struct hv_meter_reading {
    hv_time start;           /* when counting began */
    uint64_t total_count;    /* records acknowledged since */
    double total_rate;       /* a second */
    uint64_t lap_count;      /* since the reading before */
    double lap_rate;
};

struct hv_gap;

struct hv_key_bytes {
    const void *bytes;
    uint32_t length;
};

#define HV_REMOVALS 500 /* rows of HV_ACT_PARK at most */

/* A row to be removed. */
struct hv_removed {
    int64_t id;
    uint32_t version;
    int code; /* see struct hv_report; 0: the record cannot be sent as it is */
    const char *reason; /* static text */
    uint32_t attempts;
    hv_time failing_for;
};

struct hv_action {
    enum hv_action_type type;
    enum hv_notice notice;
    uint8_t lane;
    bool flag;
    uint32_t limit;
    void *payload;
    const char *reason; /* static text */
    hv_time duration;
    /* There can be thousands of actions: what none has together shares its place. */
    union {
        uint64_t ticket;
        int64_t stamp; /* HV_ACT_HEARTBEAT: nanoseconds since the Unix epoch */
        int64_t id;    /* of a notice */
    };
    uint8_t uuid[HV_UUID_BYTES];
    const int64_t *ids;
    size_t count;
    union {
        struct {
            int64_t from_id;
            union {
                int64_t to_id;
                const struct hv_key_bytes *keys;
            };
            const struct hv_gap *gaps; /* apart from each other, ascending, below from_id; as many as gap_count */
            uint32_t gap_count, key_count;
        };
        const struct hv_removed *removed;
        const uint32_t *versions;
        struct {
            int code;
            struct hv_key_bytes key; /* HV_NOTICE_PARKED; no bytes: not known, or there is none */
            const char *topic;       /* the same; may be cut; NULL: not known */
        };
        struct hv_meter_reading meter;
    };
};

/* A growing list that the caller empties after carrying it out; bounded by what one step can ask for. */
struct hv_actions {
    struct hv_action *list;
    size_t count, capacity;
};

/* Appends an empty action of a type and returns it (valid until the next append). Aborts when memory is exhausted. */
struct hv_action *hv_actions_add(struct hv_actions *actions, enum hv_action_type type);
struct hv_action *hv_actions_notify(struct hv_actions *actions, enum hv_notice notice);
void hv_actions_free(struct hv_actions *actions);

#endif
