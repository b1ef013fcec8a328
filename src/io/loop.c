/* See loop.h. The turn runs in the prepare phase, which comes after the callbacks of timers of this
 * iteration and those of polls, async handles and closing handles of the one before, and right before the
 * loop computes how long it may block. A pending wake also keeps an idle handle active: that makes the
 * computed time zero, for a turn that asks for another one and for hosts that embed the loop by
 * uv_backend_timeout(). */
#include "io/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

struct hv_loop {
    uv_loop_t *uv;
    uv_loop_t own;
    bool is_own, closing, woken;
    void (*turn)(void *user);
    void (*closed)(void *user);
    void *user;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    int handles;          /* of ours that are not closed yet */
    unsigned offloaded;   /* calls whose `done` is still to come */
    hv_time deadline;
    void (*first)(void *user);
    hv_time now;
    uint64_t now_ms;      /* uv_now() when `now` was read */
};

struct offload {
    uv_work_t request;
    struct hv_loop *loop;
    void (*work)(void *arg);
    void (*done)(void *arg);
    void *arg;
};

hv_time hv_loop_clock(void) {
    return (hv_time)(uv_hrtime() / 1000);
}

static hv_time read_posix_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (hv_time)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

hv_time hv_loop_waking_clock(void) {
    return read_posix_clock(CLOCK_BOOTTIME);
}

hv_time hv_loop_suspended(void) {
    hv_time monotonic = read_posix_clock(CLOCK_MONOTONIC);
    return read_posix_clock(CLOCK_BOOTTIME) - monotonic;
}

int64_t hv_loop_wall_clock(void) {
    return read_posix_clock(CLOCK_REALTIME);
}

uv_loop_t *hv_loop_uv(struct hv_loop *loop) {
    return loop->uv;
}

static void read_clock(struct hv_loop *loop) {
    loop->now = hv_loop_clock();
    loop->now_ms = uv_now(loop->uv);
}

hv_time hv_loop_now(struct hv_loop *loop) {
    /* libuv moved its own clock (after blocking) since we read ours: follow it. */
    if (uv_now(loop->uv) != loop->now_ms) {
        read_clock(loop);
    }
    return loop->now;
}

static void on_idle(uv_idle_t *handle) {
    (void)handle; /* its being active is all that is wanted */
}

void hv_loop_wake(struct hv_loop *loop) {
    if (loop->woken || loop->closing) {
        return;
    }
    loop->woken = true;
    uv_idle_start(&loop->idle, on_idle);
}

static void on_deadline(uv_timer_t *handle) {
    struct hv_loop *loop = handle->data;
    loop->deadline = HV_NEVER;
    if (loop->first != NULL) {
        loop->first(loop->user);
    }
    hv_loop_wake(loop);
}

void hv_loop_do_first(struct hv_loop *loop, void (*first)(void *user)) {
    loop->first = first;
}

void hv_loop_set_deadline(struct hv_loop *loop, hv_time when) {
    if (loop->closing || when == loop->deadline) {
        return;
    }
    loop->deadline = when;
    if (when == HV_NEVER) {
        uv_timer_stop(&loop->timer);
        return;
    }
    /* The timer fires once libuv's clock, which counts whole milliseconds, reads `due`: rounded up, never
     * before `when`. */
    uint64_t due = when <= 0 ? 0 : (uint64_t)when / 1000 + ((uint64_t)when % 1000 != 0);
    uint64_t now = uv_now(loop->uv);
    uv_timer_start(&loop->timer, on_deadline, due > now ? due - now : 0, 0);
}

static void on_prepare(uv_prepare_t *handle) {
    struct hv_loop *loop = handle->data;
    read_clock(loop);
    if (!loop->woken) {
        return;
    }
    loop->woken = false;
    uv_idle_stop(&loop->idle);
    loop->turn(loop->user);
}

static void finish_if_done(struct hv_loop *loop) {
    if (!loop->closing || loop->handles > 0 || loop->offloaded > 0) {
        return;
    }
    loop->handles = -1; /* told once */
    if (loop->closed != NULL) {
        loop->closed(loop->user);
    }
    if (!loop->is_own) {
        free(loop);
    }
}

static void on_closed(uv_handle_t *handle) {
    struct hv_loop *loop = handle->data;
    loop->handles--;
    finish_if_done(loop);
}

void hv_loop_close(struct hv_loop *loop, void (*closed)(void *user)) {
    assert(!loop->closing);
    loop->closing = true;
    loop->closed = closed;
    uv_close((uv_handle_t *)&loop->prepare, on_closed);
    uv_close((uv_handle_t *)&loop->idle, on_closed);
    uv_close((uv_handle_t *)&loop->timer, on_closed);
}

int hv_loop_open(uv_loop_t *uv, void (*turn)(void *user), void *user, struct hv_loop **ret,
                 struct hv_error *err) {
    struct hv_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        return hv_error_set(err, "out of memory for the event loop");
    }
    loop->is_own = uv == NULL;
    loop->uv = loop->is_own ? &loop->own : uv;
    if (loop->is_own) {
        int rc = uv_loop_init(&loop->own);
        if (rc < 0) {
            free(loop);
            return hv_error_set(err, "cannot make an event loop: %s", uv_strerror(rc));
        }
    }
    loop->turn = turn;
    loop->user = user;
    loop->deadline = HV_NEVER;
    uv_prepare_init(loop->uv, &loop->prepare);
    uv_idle_init(loop->uv, &loop->idle);
    uv_timer_init(loop->uv, &loop->timer);
    loop->prepare.data = loop->idle.data = loop->timer.data = loop;
    loop->handles = 3;
    uv_prepare_start(&loop->prepare, on_prepare);
    read_clock(loop);
    *ret = loop;
    return 0;
}

int hv_loop_run(struct hv_loop *loop, struct hv_error *err) {
    assert(loop->is_own);
    while (uv_run(&loop->own, UV_RUN_DEFAULT) != 0 || !loop->closing) {
        /* Someone called uv_stop(): not how this loop ends. */
    }
    int rc = uv_loop_close(&loop->own);
    if (rc < 0) {
        /* A handle that is still open refers to memory inside the object: better leaked than used after it
         * is gone. */
        return hv_error_set(err, "the event loop ended with open handles: %s", uv_strerror(rc));
    }
    free(loop);
    return 0;
}

static void on_work(uv_work_t *request) {
    struct offload *o = request->data;
    o->work(o->arg);
}

static void on_work_done(uv_work_t *request, int status) {
    (void)status; /* nobody cancels */
    struct offload *o = request->data;
    struct hv_loop *loop = o->loop;
    if (o->done != NULL) {
        o->done(o->arg);
    }
    free(o);
    loop->offloaded--;
    finish_if_done(loop);
}

int hv_loop_offload(struct hv_loop *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg) {
    assert(loop->handles >= 0);
    struct offload *o = calloc(1, sizeof *o);
    if (o == NULL) {
        return -1;
    }
    *o = (struct offload){.loop = loop, .work = work, .done = done, .arg = arg};
    o->request.data = o;
    if (uv_queue_work(loop->uv, &o->request, on_work, on_work_done) < 0) {
        free(o);
        return -1;
    }
    loop->offloaded++;
    return 0;
}
