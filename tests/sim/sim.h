/* The simulator of harvestd's core: a model of one outbox table, one topic with several partitions, a group
 * and its members, in virtual time. Everything that happens is drawn from one seeded generator, so a seed is
 * a schedule.
 *
 *   heap.c        what happens when: tasks in virtual time
 *   table.c       rows, the application's transactions, the checks that concern the table
 *   statements.c  a member's two connections: marks, purges, resets, the question for writers
 *   topic.c       what was appended, and the checks of order and truth
 *   kafka.c       a member's clients: queues, batches, reports, purges, late requests
 *   group.c       who owns the leader partition, heartbeats, revokes
 *   member.c      a process: inbox, turns, actions carried out as the runtime does
 *   weather.c     what goes wrong in a run, and how often
 *   world.c       one run from its seed to its verdict
 *
 * A broken promise is noted by sim_fail and ends the run. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random.h"
#include "base/time.h"
#include "core/harvest.h"

#define SIM_ROWS 6000
#define SIM_KEYS 16
#define SIM_MEMBERS 2
#define SIM_PARTITIONS 4
#define SIM_TXS 4000
#define SIM_TX_ROWS 6
#define SIM_SHARDS_MAX 8

struct sim;
struct sim_member;

/* ---- weather ---- */

/* Chances in 1/10000: of a statement, a row, a batch, a transaction, or a tick (every 20 ms), as the
 * comments say. */
struct sim_trouble {
    uint32_t refused;     /* because of the table */
    uint32_t lost_before; /* the connection is lost, the statement does nothing */
    uint32_t lost_after;  /* ... after it took effect */
    uint32_t lost_later;  /* ... and it takes effect later, when nobody waits for it */
    uint32_t slow;
};

struct sim_weather {
    const char *name;
    struct sim_trouble claim, settle; /* a statement */
    /* a tick */
    uint32_t claim_drops, settle_drops, database_restarts;
    /* a batch, a hand-over, a client */
    uint32_t batch_fails, queue_full, open_fails, slow_purges;
    /* a tick */
    uint32_t client_fatal, hangs, closes;
    /* a row */
    uint32_t poison, defective, oversize, puzzle, undeletable, locked;
    uint32_t reused; /* a tick: an id is given again */
    /* a tick */
    uint32_t revokes, loses, cuts, kills, pauses, stops;
    /* a transaction */
    uint32_t late, prepared, aborted;
    uint32_t cached_keys; /* a key: its ids come from a sequence cache */
    bool restarts; /* the sequence starts again, once */
    int members;
    /* what this weather promises beyond order and completeness */
    bool no_duplicates, no_rewind, no_refresh;
    hv_time forgotten; /* for how long one transaction stays open, at least */
    /* from commit to append, of keys that have no trouble of their own; 0: no promise. Where there may be more keys in
     * trouble than there is room for, those whose shard has none */
    hv_time latency_max;
    /* ... of the others, once nothing of their key (or shard) has a flaw, beyond blocked_backoff_max and the time
     * that each row which was bad takes to be read anew, one after the other */
    hv_time recovery_max;
};

/* ---- the table ---- */

enum sim_row_state { SIM_ROW_UNUSED, SIM_ROW_DRAWN, SIM_ROW_COMMITTED, SIM_ROW_ABORTED, SIM_ROW_GONE };
enum sim_flaw { SIM_SOUND, SIM_POISON, SIM_DEFECTIVE, SIM_OVERSIZE, SIM_PUZZLE };

struct sim_row {
    uint8_t state, key, flaw;
    bool undeletable;
    bool by_operator; /* an operator deleted it */
    bool was_bad;     /* it had a flaw, which Kafka refuses */
    bool removed;     /* it was parked, or skipped */
    bool keyless;     /* its key is missing until it is mended: of no key, when it comes to order */
    bool marked;
    uint8_t leader[HV_UUID_BYTES];
    int version;
    uint32_t xmin;  /* who wrote it last: no two writes have the same */
    uint32_t born;  /* the first of these: of another row under the same id, another one */
    bool again;     /* its id was another row's */
    hv_time locked_until;
    int64_t before; /* the row drawn for the same key before, 0: none */
    uint32_t appended;
    hv_time drawn_at, committed_at;
};

struct sim_key {
    uint32_t hash;
    uint64_t id; /* what the core knows it by; two keys may have the same */
    char bytes[4]; /* the key itself */
    bool locked, cached;
    bool troubled;     /* it has, or had, a row with a flaw */
    uint32_t flaws, flaws_ever; /* rows of it that have one, or had */
    hv_time mended_at;          /* the last of them */
    int64_t last;      /* drawn */
    int64_t cache_next, cache_end;
};

struct sim_tx {
    uint64_t hash;
    bool open;
    int count;
    int64_t ids[SIM_TX_ROWS];
};

/* ---- tasks ---- */

typedef void sim_fire(struct sim *sim, void *arg);

struct sim_task {
    hv_time at;
    uint64_t order;
    sim_fire *fire;
    void *arg; /* owned */
};

/* ---- members ---- */

struct sim_payload {
    int64_t id;
    int version;
    uint8_t key, flaw;
    const char *key_bytes; /* NULL: it has none */
    bool released;
    int in_clients; /* queues of living clients that it is in */
    struct sim_member *holder; /* whose core holds it; NULL before it was told */
    struct sim_payload *next;
};

struct sim_mail {
    struct hv_event event;
    struct hv_report report; /* of HV_EV_REPORTS */
    void *owned;
    uint64_t client; /* uid of the client that it came from, 0: none */
    int key;         /* of a report or bounce; -1 */
};

/* One of a member's connections to the database. */
struct sim_link {
    bool up;
    bool busy;    /* a statement is out, as far as the member knows */
    bool listens; /* is told of commits */
    bool remarks; /* rows that were marked before are marked anew, and the reply is on its way */
    uint64_t uid; /* of the connection: a reply to an older one is dropped */
};

struct sim_entry {
    uint64_t ticket;
    struct sim_payload *payload;
    int64_t id;
    int version;
    uint8_t flaw;
    uint8_t key;
    bool appended, alone;
};

struct sim_queue {
    struct sim_entry *list;
    uint32_t count, capacity;
    uint32_t underway; /* first entries that a request carries */
    bool gapped;       /* a record was not taken: nothing behind it is */
    bool scheduled;
};

struct sim_client {
    uint64_t uid;
    struct sim_member *member;
    uint8_t lane;
    bool ready, dead, purged;
    bool draining; /* only what is underway is still answered */
    bool deaf;     /* dead, and not even that is */
    uint32_t unreported;
    struct sim_queue queues[SIM_PARTITIONS];
};

#define SIM_BEATS 64

struct sim_member {
    struct sim *sim;
    int index;
    uint64_t life; /* rises with each start of the process; 0: never started */
    struct hv_harvest *core; /* NULL: not running */
    struct hv_core_config config;
    struct hv_actions actions;
    struct sim_mail *inbox;
    size_t inbox_count, inbox_capacity;
    hv_time turn_at, paused_until;
    hv_time idle_second;
    uint32_t idle_turns;
    struct sim_link links[2]; /* claim, settle */
    struct sim_client *clients[HV_LANES];
    bool bounced;
    uint32_t in_flight[SIM_KEYS][HV_LANES];
    uint32_t payloads; /* held by the core */
    /* leading, by our own books */
    bool entitled; /* was told that the partition is its */
    bool leads;    /* told its application so */
    uint8_t leader_id[HV_UUID_BYTES];
    bool lost;     /* it is lost, which it will hear of later */
    hv_time lease_end;
    bool answer_expected, stopping, hurrying;
    hv_time answer_due, stop_due;
    bool winding_up;        /* its application was told of a revoke and is not done */
    hv_time revoked_at;
    hv_time cut_until; /* its heartbeats are lost */
    bool gone;         /* said that it stopped */
};

struct sim_group {
    int owner; /* -1: nobody */
    bool revoking; /* its answer is awaited */
    hv_time assign_at;
};

/* ---- one run ---- */

enum sim_corruption {
    SIM_HONEST,
    SIM_DROP_APPEND,     /* an acknowledged record is not in the topic */
    SIM_SWAP_APPENDS,    /* two records of a key change places */
    SIM_LOSE_ROW,        /* a committed row vanishes */
    SIM_APPEND_ABORTED,  /* a record of a rolled-back transaction appears */
    SIM_APPEND_TWICE,    /* in calm weather */
    SIM_CORRUPTIONS,
};

struct sim_options {
    uint64_t seed;
    const char *weather; /* NULL: drawn */
    bool trace;
    enum sim_corruption corruption;
};

struct sim {
    struct sim_options options;
    struct hv_random dice;
    struct sim_weather weather;
    struct hv_core_config config;
    hv_time now;
    struct sim_task *heap;
    size_t heap_count, heap_capacity;
    uint64_t order, uid;
    uint32_t xid;
    bool faults, writing, finished, failed;
    char failure[256];
    hv_time writing_until, deadline;
    hv_time progress; /* a row left the table */
    hv_time rest; /* all has arrived: until then nothing happens */
    hv_time kafka_pace, database_pace; /* what a request, a statement takes */
    hv_time pause_max; /* of a writer, between two transactions */
    uint32_t deaf;     /* percent of the notifications that do not come */

    struct sim_row rows[SIM_ROWS];
    int64_t lowest, next_id, top; /* rows below `lowest` are over; there are none from `top` on */
    hv_time restarted_at;
    hv_time settled_at; /* since then the rows of before are gone; a rescan later, all is as ever */
    hv_time restart_at; /* of the sequence, from 1 on; HV_NEVER: not */
    struct sim_key keys[SIM_KEYS];
    int key_count, partition_count;
    struct sim_tx txs[SIM_TXS];
    int tx_count;
    hv_time hang_until[SIM_PARTITIONS];
    enum hv_poison policies[SIM_PARTITIONS];
    hv_time closed_until[SIM_PARTITIONS]; /* each is a topic, which takes nothing until then */
    bool corrupted;
    int64_t held_back; /* SIM_SWAP_APPENDS */
    bool crowded;      /* there may be more keys in trouble than there is room for: shards are then */
    bool keyless;      /* there is, or was, a row without a key: shard 0 has trouble then */
    bool remarked_unseen; /* rows that may be held were marked anew by a mark whose reply was lost: they are of versions nobody knows of */

    struct sim_group group;
    struct sim_member members[SIM_MEMBERS];
    struct sim_payload *payloads;
    struct {
        uint64_t committed, appended, duplicates, turns, marks, purges, fetches;
        uint64_t removed, rewinds, refreshes, blocked, acquired, fenced, kills, stops, late, forced;
    } count;
};

/* world.c */
void sim_run(struct sim *sim, const struct sim_options *options);
void sim_free(struct sim *sim);
void sim_fail(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(const struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Draws. Chances are in 1/10000 and never come true when the faults are over. */
bool sim_chance(struct sim *sim, uint32_t chance);
bool sim_coin(struct sim *sim, uint32_t percent); /* at any time */
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high);
hv_time sim_span(struct sim *sim, hv_time low, hv_time high);

/* heap.c */
/* A task after `delay`: returns zeroed memory of `size` bytes that `fire` gets as its argument. */
void *sim_later(struct sim *sim, hv_time delay, sim_fire *fire, size_t size);
/* Carries out the next task; false when there is none. */
bool sim_next(struct sim *sim);
void sim_heap_free(struct sim *sim);

/* weather.c */
void sim_weather_choose(struct sim *sim);
void sim_weather_start(struct sim *sim);

/* table.c */
void sim_table_start(struct sim *sim);
/* Deletes a row that is there; it must have been appended. */
void sim_table_delete(struct sim *sim, int64_t id);
void sim_table_park(struct sim *sim, int64_t id);
/* Mends a row, or an operator deletes it. */
void sim_table_mend(struct sim *sim, int64_t id);
void sim_table_mend_all(struct sim *sim);
/* An operator deletes a row, if it is there still, and writes another one with its id. */
void sim_table_give_again(struct sim *sim);
bool sim_table_empty(struct sim *sim);
void sim_lose_row(struct sim *sim);

/* statements.c */
void sim_statement(struct sim_member *member, const struct hv_action *action);
void sim_link_down(struct sim_member *member, int which);
void sim_link_start(struct sim_member *member, int which);
void sim_links_end(struct sim_member *member);
/* A transaction committed, or (spurious) none did: who listens is told. */
void sim_notify(struct sim *sim, bool spurious);

/* topic.c */
void sim_append(struct sim *sim, int64_t id, int version, uint8_t flaw);

/* kafka.c */
void sim_client_open(struct sim_member *member, uint8_t lane);
void sim_client_purge(struct sim_member *member, uint8_t lane, bool but_sent);
void sim_client_close(struct sim_member *member, uint8_t lane); /* requests on their way may still arrive */
void sim_client_produce(struct sim_member *member, const struct hv_action *action);
void sim_client_fatal(struct sim_member *member, uint8_t lane);
int sim_partition_of(const struct sim *sim, uint8_t key);

/* group.c */
void sim_group_start(struct sim *sim);
void sim_group_revoke(struct sim *sim);
void sim_group_lose(struct sim *sim); /* without being asked; the member may hear of it late */
void sim_group_answered(struct sim_member *member);
void sim_group_left(struct sim_member *member);
void sim_group_tick(struct sim *sim);
void sim_group_died(struct sim_member *member);
void sim_heartbeat(struct sim_member *member, int64_t stamp);

/* member.c */
void sim_member_start(struct sim_member *member);
void sim_member_kill(struct sim_member *member);
void sim_member_pause(struct sim_member *member, hv_time span);
void sim_member_stop(struct sim_member *member, bool hurry);
/* Puts an event into the inbox; `owned` is freed after it was told. */
void sim_tell(struct sim_member *member, struct hv_event event, void *owned);
void sim_tell_report(struct sim_member *member, struct hv_report report, const struct sim_client *client, int key);
void sim_tell_of(struct sim_member *member, struct hv_event event, const struct sim_client *client,
                 int key);
void sim_drop_mail_of(struct sim_member *member, uint64_t client);
/* records handed over, and not told what became of them */
uint32_t sim_in_flight(const struct sim_member *member);
/* NULL when that life of the process is over. */
struct sim_member *sim_member_in(struct sim *sim, int index, uint64_t life);
struct sim_payload *sim_payload_new(struct sim *sim, int64_t id);

#endif
