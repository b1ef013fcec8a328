/* The inside of a runtime, shared by the files of rt/. */
#ifndef HV_RT_STATE_H
#define HV_RT_STATE_H

#include "io/kafka_election.h"
#include "io/kafka_producer.h"
#include "io/loop.h"
#include "io/pg_outbox.h"
#include "rt/inbox.h"
#include "rt/runtime.h"

/* One of the two connections, and what was last said of it in the log. */
struct hv_rt_database {
    struct hv_runtime *rt;
    const char *role; /* "claim", "settle" */
    bool claims;
    bool up;
    struct hv_outbox *outbox;
    char said[HV_ERROR_MAX]; /* the trouble that the log holds already */
    bool parks;              /* the statement that is out does */
    char said_of_parking[HV_ERROR_MAX]; /* the same of parking, which may fail while all else goes well */
};

struct hv_rt_client {
    struct hv_runtime *rt;
    enum hv_lane_id lane;
    struct hv_producer *producer; /* NULL: closed */
};

/* Troubles of Kafka that the log holds already, a ring. */
struct hv_rt_told {
    struct {
        uint64_t hash;
        hv_time at;
    } list[16];
    unsigned count;
    hv_time last; /* when there was a trouble, told or not */
};

/* Blocked records in the log: so many lines in a while, and how many more there were. */
struct hv_rt_blocked {
    hv_time since;
    unsigned told, more;
};

struct hv_runtime {
    const struct hv_settings *settings;
    struct hv_logger *logger;
    struct hv_loop *loop;
    struct hv_harvest *core;
    struct hv_inbox inbox;  /* of the next turn */
    struct hv_inbox feeding; /* of the turn that runs; room for the next inbox otherwise */
    struct hv_actions actions;
    struct hv_rt_database databases[2];
    struct hv_rt_client clients[HV_LANES];
    struct hv_election *election;
    struct hv_rt_told kafka_told;
    struct hv_rt_blocked blocked;
    hv_time last_now;
    hv_time wall_offset; /* the wall clock at time 0 of the core, as it was at the start */
    hv_time suspended; /* the core's clock is ahead of the loop's by this: a lease runs out while the machine sleeps, too */
    bool bounced; /* in the actions being carried out, a record was not taken: the later ones are not handed over */
    bool finished; /* the core has nothing more to do */
    bool left;     /* the election is closed, or never was: nothing of it calls us any more */
    bool closing;
    int databases_open;
    int status;
    const struct hv_runtime_handler *handler;
    void *user;
};

/* Takes down an event for the next turn, which is due now. `owned`: see hv_inbox_put. */
static inline void hv_rt_tell(struct hv_runtime *rt, struct hv_event event, void *owned) {
    hv_inbox_put(&rt->inbox, event, owned);
    hv_loop_wake(rt->loop);
}

/* rt/listen.c: what the adapters call. */
extern const struct hv_outbox_handler hv_rt_outbox_handler;       /* user: struct hv_rt_database */
extern const struct hv_producer_handler hv_rt_producer_handler;   /* user: struct hv_rt_client */
extern const struct hv_election_handler hv_rt_election_handler;   /* user: struct hv_runtime */
void hv_rt_left(void *user);

/* rt/act.c: carries out the actions of a turn, in order, and empties the list. Sets `finished` with the last one of all. */
void hv_rt_act(struct hv_runtime *rt);
/* The first thing in a turn: a process that was stopped for longer than its lease sends nothing of what it was about to send. */
void hv_rt_check_lease(void *runtime);

/* rt/notice.c: what is told to the log. */
void hv_rt_notice(struct hv_runtime *rt, const struct hv_action *action);
/* After the notices of a turn. Returns when a turn is needed to tell what is untold yet, or HV_NEVER. */
hv_time hv_rt_notice_turn(struct hv_runtime *rt);
/* Tells of records of which there was no line, if there are any, without waiting any longer. */
void hv_rt_say_how_many_more(struct hv_runtime *rt);

/* rt/trouble.c: what the Kafka clients complain of, and their log lines. */
void hv_rt_kafka_trouble(struct hv_runtime *rt, const char *client, int code, const char *reason);
void hv_rt_kafka_log(struct hv_runtime *rt, const char *client, const char *facility, const char *text);
/* Something worked; `all`: as it does only when nothing is in trouble any more. */
void hv_rt_kafka_works(struct hv_runtime *rt, bool all);

#endif
