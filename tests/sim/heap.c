/* Tasks in virtual time: a binary heap by time, then by the order in which they were made. */
#include "sim.h"

#include "base/memory.h"

static bool sooner(const struct sim_task *a, const struct sim_task *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void swap(struct sim_task *a, struct sim_task *b) {
    struct sim_task other = *a;
    *a = *b;
    *b = other;
}

void *sim_later(struct sim *sim, hv_time delay, sim_fire *fire, size_t size) {
    if (sim->heap_count == sim->heap_capacity) {
        sim->heap_capacity = sim->heap_capacity == 0 ? 256 : sim->heap_capacity * 2;
        sim->heap = hv_realloc(sim->heap, sim->heap_capacity, sizeof *sim->heap);
    }
    size_t at = sim->heap_count++;
    sim->heap[at] = (struct sim_task){
        .at = sim->now + delay, .order = sim->order++, .fire = fire, .arg = hv_calloc(1, size)};
    void *arg = sim->heap[at].arg;
    while (at > 0 && sooner(&sim->heap[at], &sim->heap[(at - 1) / 2])) {
        swap(&sim->heap[at], &sim->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    return arg;
}

static struct sim_task take(struct sim *sim) {
    struct sim_task first = sim->heap[0];
    sim->heap[0] = sim->heap[--sim->heap_count];
    size_t at = 0;
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < sim->heap_count; child++) {
            least = sooner(&sim->heap[child], &sim->heap[least]) ? child : least;
        }
        if (least == at) {
            return first;
        }
        swap(&sim->heap[at], &sim->heap[least]);
        at = least;
    }
}

bool sim_next(struct sim *sim) {
    if (sim->heap_count == 0) {
        return false;
    }
    struct sim_task task = take(sim);
    sim->now = task.at;
    task.fire(sim, task.arg);
    free(task.arg);
    return true;
}

void sim_heap_free(struct sim *sim) {
    for (size_t i = 0; i < sim->heap_count; i++) {
        free(sim->heap[i].arg);
    }
    free(sim->heap);
    sim->heap = NULL;
    sim->heap_count = sim->heap_capacity = 0;
}
