/* A member of a leader group that takes down what its election tells, answers revokes and sends heartbeats while it owns the partition. */
#ifndef HV_TESTS_KAFKA_MEMBER_H
#define HV_TESTS_KAFKA_MEMBER_H

#include "kafka_bed.h"

#include "io/kafka_election.h"

struct member {
    const char *name;
    struct hv_election *election;
    uv_timer_t timer; /* does what may not be done inside a handler */
    bool owns, left;
    int assigned, revoked, lost, joined, logs;
    int beats; /* of its own that it read since the last revoke */
    int foreign_beats, stale_beats;
    int trouble, trouble_code, sessions_refused;
    char trouble_reason[512];

    bool late;   /* may be set: it does not answer a revoke */
    bool silent; /* may be set: it sends no heartbeats */

    bool inside, closed; /* a call into the API is under way, or was the last: no handler may be called */
    bool answer_due;
    int64_t last_stamp;
};

/* Makes it anew; its topic is the group's name and ".neli". With a mock cluster it is quick to find out that a broker is away. */
void member_join(struct bed *bed, struct member *m, const char *name, const char *group, const char *assignor, hv_time heartbeat_timeout);

void member_start_leaving(struct member *m, hv_time limit);
void member_leave(struct bed *bed, struct member *m); /* ... and has left */

/* For bed_until, with a member. */
bool member_leads(void *arg); /* it reads its own heartbeats */
bool member_has_joined(void *arg);
bool member_has_left(void *arg);
bool member_has_trouble(void *arg);

#endif
