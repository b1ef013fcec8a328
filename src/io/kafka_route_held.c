/* See kafka_route_parts.h. */
#include "io/kafka_route_parts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- held records ---- */

void hv_held_put(struct hv_held_queue *queue, struct hv_held held) {
    if (queue->first + queue->count == queue->capacity) {
        if (queue->first > 0) {
            memmove(queue->list, queue->list + queue->first, queue->count * sizeof *queue->list);
            queue->first = 0;
        } else {
            queue->capacity = queue->capacity == 0 ? 16 : queue->capacity * 2;
            queue->list = hv_realloc(queue->list, queue->capacity, sizeof *queue->list);
        }
    }
    queue->list[queue->first + queue->count++] = held;
}

struct hv_held hv_held_take(struct hv_held_queue *queue) {
    assert(queue->count > 0);
    struct hv_held held = queue->list[queue->first++];
    if (--queue->count == 0) {
        free(queue->list);
        *queue = (struct hv_held_queue){0};
    }
    return held;
}

void hv_held_report(struct hv_routes *routes, struct hv_held_queue *queue, rd_kafka_resp_err_t code) {
    while (queue->count > 0) {
        routes->handler->report(routes->user, hv_held_take(queue).ticket, code);
    }
}

/* ---- given records ---- */

static_assert(sizeof(void *) >= sizeof(uint64_t), "a place and a partition travel as a pointer");

/* What travels with a record through the client: its place, and its partition, which librdkafka may have to ask for (and a report need
 * not tell). */
static void *opaque_of(uint32_t place, int32_t partition) {
    return (void *)(uintptr_t)((uint64_t)place << 32 | (uint32_t)partition);
}

int32_t hv_given_partition(const void *opaque) {
    return (int32_t)(uint32_t)(uintptr_t)opaque;
}

void *hv_given_put(struct hv_given *given, uint64_t ticket, int32_t partition) {
    if (given->free == given->capacity) {
        given->capacity = given->capacity == 0 ? 64 : given->capacity * 2;
        given->tickets = hv_realloc(given->tickets, given->capacity, sizeof *given->tickets);
        for (uint32_t i = given->free; i < given->capacity; i++) {
            given->tickets[i] = i + 1;
        }
    }
    uint32_t place = given->free;
    given->free = (uint32_t)given->tickets[place];
    given->tickets[place] = ticket;
    return opaque_of(place, partition);
}

uint64_t hv_given_take(struct hv_given *given, const void *opaque) {
    uint32_t place = (uint32_t)((uintptr_t)opaque >> 32);
    assert(place < given->capacity);
    uint64_t ticket = given->tickets[place];
    given->tickets[place] = given->free;
    given->free = place;
    return ticket;
}
