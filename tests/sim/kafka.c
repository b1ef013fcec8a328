/* A member's Kafka clients. A client keeps a queue a partition; a request carries the first entries of one,
 * one request a partition at a time; the broker appends a batch as a whole or not at all, in order. What a
 * client was given and did not report may be appended up to some entry, never with a gap, and also after the
 * client is gone. */
#include "sim.h"

#include <string.h>

#include "base/memory.h"

struct client_arg {
    int member;
    uint8_t lane;
    int partition;
    uint64_t uid;
    uint64_t ticket;
    enum hv_delivery delivery;
};

struct late_arg {
    uint32_t count;
    struct {
        int64_t id;
        int version;
        uint8_t flaw;
    } list[];
};

static void dispatch_later(struct sim_client *client, int partition);

int sim_partition_of(const struct sim *sim, uint8_t key) {
    return key % sim->partition_count;
}

static struct sim_client *find(struct sim *sim, const struct client_arg *arg) {
    struct sim_client *client = sim->members[arg->member].clients[arg->lane];
    return client != NULL && client->uid == arg->uid ? client : NULL;
}

static struct client_arg *client_later(struct sim_client *client, int partition, hv_time delay,
                                       sim_fire *fire) {
    struct client_arg *arg = sim_later(client->member->sim, delay, fire, sizeof *arg);
    *arg = (struct client_arg){client->member->index, client->lane, partition, client->uid, 0, HV_DELIVERED};
    return arg;
}

/* ---- entries ---- */

static void push(struct sim_queue *queue, struct sim_entry entry) {
    if (queue->count == queue->capacity) {
        queue->capacity = queue->capacity == 0 ? 16 : queue->capacity * 2;
        queue->list = hv_realloc(queue->list, queue->capacity, sizeof *queue->list);
    }
    queue->list[queue->count++] = entry;
    entry.payload->in_clients++;
}

static struct sim_entry shift(struct sim_queue *queue) {
    struct sim_entry first = queue->list[0];
    queue->count--;
    memmove(queue->list, queue->list + 1, queue->count * sizeof first);
    return first;
}

static void report_entry(struct sim_client *client, struct sim_entry entry, enum hv_delivery delivery, const char *reason) {
    entry.payload->in_clients--;
    client->unreported--;
    struct hv_report report = {.ticket = entry.ticket, .delivery = delivery, .reason = reason};
    sim_tell_report(client->member, report, client, entry.key);
}

static void report_first(struct sim_client *client, struct sim_queue *queue, enum hv_delivery delivery,
                         const char *reason) {
    report_entry(client, shift(queue), delivery, reason);
}

static void append_entry(struct sim *sim, struct sim_entry *entry) {
    if (!entry->appended) {
        entry->appended = true;
        sim_append(sim, entry->id, entry->version, entry->flaw);
    }
}

/* ---- requests that outlive their client ---- */

static void append_late(struct sim *sim, void *arg) {
    const struct late_arg *late = arg;
    for (uint32_t i = 0; i < late->count; i++) {
        sim_append(sim, late->list[i].id, late->list[i].version, late->list[i].flaw);
    }
}

/* Entries from..to (those not appended yet and with no flaw) may still be appended, up to some of them. */
static void leave_behind(struct sim *sim, const struct sim_queue *queue, uint32_t from, uint32_t to) {
    while (from < to && queue->list[from].appended) {
        from++;
    }
    if (from >= to || queue->gapped || !sim_coin(sim, 40)) {
        return;
    }
    uint32_t count = 1 + (uint32_t)hv_random_below(&sim->dice, to - from);
    struct late_arg *late = sim_later(sim, sim_span(sim, HV_US(10), sim_coin(sim, 70) ? HV_MS(200)
                                                    : HV_SECONDS(8)), append_late,
                                      sizeof *late + count * sizeof late->list[0]);
    for (uint32_t i = 0; i < count && queue->list[from + i].flaw == SIM_SOUND; i++) {
        const struct sim_entry *entry = &queue->list[from + i];
        late->list[i].id = entry->id;
        late->list[i].version = entry->version;
        late->list[i].flaw = entry->flaw;
        late->count++;
    }
}

/* ---- a request ---- */

static void respond(struct sim *sim, void *arg) {
    const struct client_arg *a = arg;
    struct sim_client *client = find(sim, a);
    if (client == NULL || client->purged) {
        return;
    }
    struct sim_queue *queue = &client->queues[a->partition];
    for (; queue->underway > 0; queue->underway--) {
        report_first(client, queue, HV_DELIVERED, NULL);
    }
    dispatch_later(client, a->partition);
}

static bool has(const struct sim_queue *queue, enum sim_flaw flaw) {
    for (uint32_t i = 0; i < queue->underway; i++) {
        if (queue->list[i].flaw == flaw) {
            return true;
        }
    }
    return false;
}

static void not_taken(struct sim_client *client, struct sim_queue *queue, enum hv_delivery delivery,
                      const char *reason) {
    for (; queue->underway > 0; queue->underway--) {
        report_first(client, queue, delivery, reason);
    }
}

static void refuse(struct sim_client *client, struct sim_queue *queue, enum hv_delivery how) {
    struct sim *sim = client->member->sim;
    not_taken(client, queue, how, how == HV_UNREACHED ? "there is no such topic" : "the broker refuses the batch");
    if (client->lane == HV_LANE_RECORDS) {
        queue->gapped = true;
    }
    if (sim_coin(sim, client->lane == HV_LANE_RECORDS ? 60 : 10)) {
        sim_client_fatal(client->member, client->lane);
    }
}

/* The request fails for another reason: it may have been appended, or be appended later. */
static void fail_batch(struct sim_client *client, struct sim_queue *queue) {
    struct sim *sim = client->member->sim;
    if (sim_coin(sim, 50)) {
        for (uint32_t i = 0; i < queue->underway; i++) {
            append_entry(sim, &queue->list[i]);
        }
    } else {
        leave_behind(sim, queue, 0, queue->underway);
        queue->gapped = client->lane == HV_LANE_RECORDS;
    }
    not_taken(client, queue, HV_FAILED, "the request failed");
}

static void arrive(struct sim *sim, void *arg) {
    const struct client_arg *a = arg;
    struct sim_client *client = find(sim, a);
    if (client == NULL || client->purged || client->deaf) {
        return;
    }
    struct sim_queue *queue = &client->queues[a->partition];
    hv_time hang = sim->hang_until[a->partition];
    if (hang > sim->now) {
        client_later(client, a->partition, hang - sim->now + sim_span(sim, 0, HV_MS(5)), arrive);
    } else if (has(queue, SIM_POISON) || sim->closed_until[a->partition] > sim->now) {
        enum hv_delivery how = sim_coin(sim, 50) ? HV_REFUSED : HV_OVERSIZE;
        refuse(client, queue, sim->closed_until[a->partition] > sim->now ? HV_UNREACHED : how);
        dispatch_later(client, a->partition);
    } else if (has(queue, SIM_PUZZLE)) {
        refuse(client, queue, HV_PUZZLING);
        dispatch_later(client, a->partition);
    } else if (sim_chance(sim, sim->weather.batch_fails)) {
        fail_batch(client, queue);
        dispatch_later(client, a->partition);
    } else {
        for (uint32_t i = 0; i < queue->underway; i++) {
            append_entry(sim, &queue->list[i]);
        }
        client_later(client, a->partition, sim_span(sim, HV_US(50), sim_coin(sim, 10) ? HV_MS(30)
                                                    : sim->kafka_pace), respond);
    }
}

static void dispatch(struct sim *sim, void *arg) {
    const struct client_arg *a = arg;
    struct sim_client *client = find(sim, a);
    if (client == NULL) {
        return;
    }
    struct sim_queue *queue = &client->queues[a->partition];
    queue->scheduled = false;
    if (client->purged || client->dead || client->draining || queue->gapped || queue->count == 0 || queue->underway > 0) {
        return;
    }
    uint32_t most = queue->count < 8 ? queue->count : 8;
    for (uint32_t i = 0; i < most; i++) { /* some want a request of their own */
        most = !queue->list[i].alone ? most : i == 0 ? 1 : i;
    }
    queue->underway = sim_coin(sim, 50) ? most : 1 + (uint32_t)hv_random_below(&sim->dice, most);
    client_later(client, a->partition, sim_span(sim, HV_US(50), sim->kafka_pace), arrive);
}

static void dispatch_later(struct sim_client *client, int partition) {
    struct sim_queue *queue = &client->queues[partition];
    if (!queue->scheduled && queue->count > 0 && queue->underway == 0) {
        queue->scheduled = true;
        client_later(client, partition, sim_span(client->member->sim, 0, HV_MS(1)), dispatch);
    }
}

/* ---- the client ---- */

static void opened(struct sim *sim, void *arg) {
    const struct client_arg *a = arg;
    struct sim_client *client = find(sim, a);
    if (client == NULL) {
        return;
    }
    struct hv_event event = {.type = HV_EV_CLIENT_READY, .lane = a->lane};
    if (sim_chance(sim, sim->weather.open_fails)) {
        event.type = HV_EV_CLIENT_FAILED;
        event.reason = "cannot make a client";
        struct sim_member *member = client->member;
        member->clients[a->lane] = NULL;
        free(client);
        sim_tell(member, event, NULL);
        return;
    }
    client->ready = true;
    sim_tell_of(client->member, event, client, -1);
}

void sim_client_open(struct sim_member *member, uint8_t lane) {
    if (member->clients[lane] != NULL) {
        sim_fail(member->sim, "a client is opened twice");
        return;
    }
    struct sim_client *client = hv_calloc(1, sizeof *client);
    *client = (struct sim_client){.uid = ++member->sim->uid, .member = member, .lane = lane};
    member->clients[lane] = client;
    client_later(client, 0, sim_span(member->sim, 0, sim_coin(member->sim, 90) ? HV_MS(3) : HV_MS(300)),
                 opened);
}

static void bounce(struct sim_member *member, const struct hv_action *action, bool for_good, int key) {
    member->bounced = true;
    struct hv_event event = {.type = HV_EV_BOUNCED, .lane = action->lane, .ticket = action->ticket,
                             .flag = for_good,
                             .delivery = HV_OVERSIZE,
                             .reason = for_good ? "the client refuses it" : NULL};
    sim_tell_of(member, event, member->clients[action->lane], key);
}

void sim_client_produce(struct sim_member *member, const struct hv_action *action) {
    struct sim *sim = member->sim;
    struct sim_payload *payload = action->payload;
    struct sim_client *client = member->clients[action->lane];
    int key = payload->key;
    if (client == NULL || !client->ready || client->purged) {
        sim_fail(sim, "a record for a client that is not open");
        return;
    }
    if (member->bounced || client->dead || sim_chance(sim, sim->weather.queue_full)) {
        bounce(member, action, false, key);
    } else if (payload->flaw == SIM_OVERSIZE) {
        bounce(member, action, true, key);
    } else {
        int partition = sim_partition_of(sim, payload->key);
        client->unreported++;
        push(&client->queues[partition], (struct sim_entry){.ticket = action->ticket,
                                                            .payload = payload,
                                                            .id = payload->id,
                                                            .version = payload->version,
                                                            .flaw = payload->flaw,
                                                            .alone = action->flag,
                                                            .key = (uint8_t)key});
        dispatch_later(client, partition);
    }
}

void sim_client_fatal(struct sim_member *member, uint8_t lane) {
    struct sim_client *client = member->clients[lane];
    if (client == NULL || !client->ready || client->dead) {
        return;
    }
    client->dead = true;
    client->deaf = sim_coin(member->sim, 30);
    if (!client->purged) {
        struct hv_event event = {.type = HV_EV_CLIENT_FAILED, .lane = lane, .reason = "fatal"};
        sim_tell_of(member, event, client, -1);
    }
}

static void report_purged(struct sim *sim, void *arg) {
    const struct client_arg *a = arg;
    struct sim_client *client = find(sim, a);
    if (client != NULL) {
        report_first(client, &client->queues[a->partition], a->delivery, "given up");
    }
}

/* Everything that a queue holds is reported: first some that were appended, then the others, of which the
 * first may still be. */
static void purge_queue(struct sim_client *client, int partition) {
    struct sim *sim = client->member->sim;
    struct sim_queue *queue = &client->queues[partition];
    uint32_t delivered = 0;
    while (delivered < queue->count && queue->list[delivered].appended) {
        delivered++;
    }
    uint32_t appended = delivered;
    if (sim_coin(sim, 50)) {
        delivered = (uint32_t)hv_random_below(&sim->dice, delivered + 1);
    } else if (!queue->gapped && !client->dead && !has(queue, SIM_POISON) && !has(queue, SIM_PUZZLE) && sim_coin(sim, 30)) {
        for (uint32_t i = 0; i < queue->underway; i++) {
            append_entry(sim, &queue->list[i]);
        }
        delivered = appended = queue->underway > appended ? queue->underway : appended;
    }
    leave_behind(sim, queue, appended, queue->count);
    hv_time delay = sim_span(sim, 0, HV_MS(2));
    for (uint32_t i = 0; i < queue->count; i++) {
        delay += sim_chance(sim, sim->weather.slow_purges) ? sim_span(sim, HV_MS(10), HV_SECONDS(6))
        : sim_span(sim, 0, HV_US(300));
        struct client_arg *arg = client_later(client, partition, delay, report_purged);
        arg->delivery = i < delivered ? HV_DELIVERED : HV_PURGED;
    }
}

/* What no broker has is reported at once. */
static void drain_queue(struct sim_client *client, struct sim_queue *queue) {
    while (queue->count > queue->underway) {
        struct sim_entry entry = queue->list[queue->underway];
        queue->count--;
        memmove(queue->list + queue->underway, queue->list + queue->underway + 1,
                (queue->count - queue->underway) * sizeof entry);
        report_entry(client, entry, HV_PURGED, "given up");
    }
}

void sim_client_purge(struct sim_member *member, uint8_t lane, bool but_sent) {
    struct sim_client *client = member->clients[lane];
    if (client == NULL || client->purged || (but_sent && client->draining)) {
        sim_fail(member->sim, "a client is purged that is not there");
        return;
    }
    if (but_sent) {
        client->draining = true;
        for (int i = 0; i < SIM_PARTITIONS; i++) {
            drain_queue(client, &client->queues[i]);
        }
        return;
    }
    client->purged = true;
    for (int i = 0; i < SIM_PARTITIONS; i++) {
        purge_queue(client, i);
    }
}

void sim_client_close(struct sim_member *member, uint8_t lane) {
    struct sim_client *client = member->clients[lane];
    if (client == NULL) {
        return;
    }
    sim_drop_mail_of(member, client->uid);
    for (int i = 0; i < SIM_PARTITIONS; i++) {
        struct sim_queue *queue = &client->queues[i];
        if (!client->purged) {
            leave_behind(member->sim, queue, 0, queue->count);
        }
        while (queue->count > 0) {
            struct sim_entry entry = shift(queue);
            entry.payload->in_clients--;
            member->in_flight[entry.key][lane]--;
        }
        free(queue->list);
    }
    member->clients[lane] = NULL;
    free(client);
}
