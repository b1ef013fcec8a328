/* include/harvest.h, the part that drives: starting, the loop, stopping, the end.
 *
 * A harvest on a loop has one handle of its own there, which listens to wishes, beside those of the runtime. It is closed after the runtime
 * has gone, and only then is the harvest STOPPED; one that its owner freed before that is disposed of then. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "io/kafka_producer.h"
#include "rt/api.h"

static void dispose(struct harvest *h) {
    hv_settings_free(&h->settings);
    close(h->wake_fd);
    free(h);
}

/* ---- leaving the loop ---- */

static void on_detached(uv_handle_t *handle) {
    struct harvest *h = handle->data;
    h->attached = false;
    if (h->freed) {
        dispose(h);
        return;
    }
    atomic_store(&h->state, HARVEST_STOPPED);
    if (h->on_stopped != NULL && !h->refused) {
        h->on_stopped(h->stopped_user, h); /* may free it */
    }
}

static void on_stopped(void *user, int status) {
    struct harvest *h = user;
    h->runtime = NULL;
    if (status != 0) {
        hv_api_fail(&h->error, "stopped before all that was in flight was acknowledged and deleted: it may be sent again; a longer "
                               "drain_timeout gives it more time");
    }
    uv_close((uv_handle_t *)&h->wake, on_detached);
}

static const struct hv_runtime_handler runtime_handler = {.notice = hv_api_notice, .stopped = on_stopped};

/* ---- wishes ---- */

static void wish(struct harvest *h, unsigned wishes) {
    int kept = errno; /* a signal handler may be what calls */
    uint64_t one = 1;
    atomic_fetch_or(&h->wishes, wishes);
    ssize_t written = write(h->wake_fd, &one, sizeof one);
    (void)written; /* it fails only when it is full: then the loop is woken anyhow */
    errno = kept;
}

static void note_stopping(struct harvest *h) {
    int running = HARVEST_RUNNING;
    atomic_compare_exchange_strong(&h->state, &running, HARVEST_STOPPING);
}

static void on_wake(uv_poll_t *handle, int status, int events) {
    struct harvest *h = handle->data;
    uint64_t count;
    (void)status;
    (void)events;
    ssize_t got = read(h->wake_fd, &count, sizeof count); /* before the wishes: none is overlooked */
    (void)got;
    unsigned wishes = atomic_exchange(&h->wishes, 0);
    if (h->runtime == NULL) {
        return;
    }
    if (wishes & HV_WISH_DONE) {
        hv_runtime_handed_over(h->runtime);
    }
    if (wishes & HV_WISH_STOP) {
        note_stopping(h); /* who wished for it may not have seen that it runs */
        hv_runtime_stop(h->runtime);
    }
    if (wishes & HV_WISH_HURRY) {
        hv_runtime_hurry(h->runtime);
    }
}

/* CREATED is left by the start alone: who stops before is noticed there. */
static void wish_to_stop(struct harvest *h, unsigned wishes) {
    note_stopping(h);
    wish(h, wishes);
}

void harvest_stop(struct harvest *h) {
    wish_to_stop(h, HV_WISH_STOP);
}

void harvest_hurry(struct harvest *h) {
    wish_to_stop(h, HV_WISH_STOP | HV_WISH_HURRY);
}

void harvest_done(struct harvest *h) {
    wish(h, HV_WISH_DONE);
}

void harvest_use_signal(int number) {
    hv_producer_use_signal(number);
}

/* ---- starting ---- */

static void complain(void *user, const char *section, const char *name, const char *message) {
    (void)section; /* the message names the setting */
    (void)name;
    fprintf(user, "%s\n", message);
}

static int check_settings(struct harvest *h, struct harvest_error *err) {
    char *lines = NULL;
    size_t size = 0;
    FILE *errors = hv_must(open_memstream(&lines, &size));
    unsigned troubles = hv_settings_finish(&h->settings, complain, errors);
    fclose(errors);
    if (troubles > 0) {
        return hv_api_fail_with(lines, err);
    }
    free(lines);
    return 0;
}

static int open_on(struct harvest *h, uv_loop_t *loop, struct harvest_error *err) {
    struct hv_error why;
    int bad = uv_poll_init(loop, &h->wake, h->wake_fd);
    if (bad != 0) {
        hv_error_set(&why, "the loop takes no more descriptors: %s", uv_strerror(bad));
        return hv_api_fail(err, why.text);
    }
    h->wake.data = h;
    h->attached = true;
    uv_poll_start(&h->wake, UV_READABLE, on_wake);
    h->logger.level = (enum hv_log_level)h->settings.log_level;
    h->logger.format = (enum hv_log_format)h->settings.log_format;
    if (hv_runtime_open(loop, &h->settings, &h->logger, &runtime_handler, h, &h->runtime, &why) != 0) {
        h->refused = true;
        return hv_api_fail(err, why.text);
    }
    return 0;
}

static int start(struct harvest *h, uv_loop_t *loop, struct harvest_error *err) {
    if (h->unfit) {
        return hv_api_fail(err, "its configuration could not be read");
    }
    if (atomic_load(&h->wishes) & HV_WISH_STOP) {
        return hv_api_fail(err, "it was stopped before it was started");
    }
    if (check_settings(h, err) != 0) {
        return -1;
    }
    if (loop != NULL) {
        return open_on(h, loop, err);
    }
    int bad = uv_loop_init(&h->own_loop);
    if (bad != 0) {
        struct hv_error why;
        hv_error_set(&why, "no event loop: %s", uv_strerror(bad));
        return hv_api_fail(err, why.text);
    }
    h->has_own_loop = true;
    uv_timer_init(&h->own_loop, &h->limit);
    h->limit.data = h;
    return open_on(h, &h->own_loop, err);
}

int harvest_start(struct harvest *h, struct uv_loop_s *loop, struct harvest_error *err) {
    if (harvest_state(h) != HARVEST_CREATED) {
        return hv_api_fail(err, "a harvest is started only once: make another");
    }
    atomic_store(&h->state, HARVEST_RUNNING);
    if (start(h, loop, &h->error) != 0) {
        atomic_store(&h->state, HARVEST_STOPPED);
        return hv_api_fail(err, h->error.text);
    }
    if (atomic_load(&h->wishes) & HV_WISH_STOP) { /* by another thread, before it could see that this one runs */
        harvest_stop(h);
    }
    return 0;
}

/* ---- the loop of its own ---- */

static void run_loop(struct harvest *h, uv_run_mode mode) {
    assert(!h->inside); /* from within a handler */
    h->inside = true;
    uv_run(&h->own_loop, mode);
    h->inside = false;
}

static void on_limit(uv_timer_t *timer) {
    ((struct harvest *)timer->data)->limit_over = true;
    uv_stop(timer->loop); /* or this round may wait for something else yet */
}

static void run_until_stopped(struct harvest *h, int limit) {
    h->limit_over = false;
    if (limit >= 0) {
        uv_update_time(&h->own_loop);
        uv_timer_start(&h->limit, on_limit, (uint64_t)limit, 0);
    }
    while (h->attached && !h->limit_over) {
        run_loop(h, UV_RUN_ONCE);
    }
    uv_timer_stop(&h->limit);
}

int harvest_await(struct harvest *h, int limit, struct harvest_error *err) {
    if (!h->has_own_loop) {
        return hv_api_fail(err, harvest_state(h) == HARVEST_CREATED ? "the harvest was not started"
                                                                    : "the harvest is not on a loop of its own");
    }
    run_until_stopped(h, limit);
    if (h->attached) {
        return 1;
    }
    return h->error.text[0] == '\0' ? 0 : hv_api_fail(err, h->error.text);
}

int harvest_run(struct harvest *h, struct harvest_error *err) {
    return harvest_start(h, NULL, err) == 0 ? harvest_await(h, -1, err) : -1;
}

int harvest_fd(const struct harvest *h) {
    return h->has_own_loop ? uv_backend_fd(&h->own_loop) : -1;
}

int harvest_timeout(const struct harvest *h) {
    int timeout = h->has_own_loop && h->attached ? uv_backend_timeout(&h->own_loop) : -1;
    if (timeout <= 0) {
        return timeout;
    }
    /* It counts from when the loop last looked at the clock; the caller may have done other things since. */
    uint64_t passed = uv_hrtime() / 1000000 - uv_now(&h->own_loop);
    return passed < (uint64_t)timeout ? timeout - (int)passed : 0;
}

void harvest_process(struct harvest *h) {
    if (h->has_own_loop) {
        run_loop(h, UV_RUN_NOWAIT);
    }
}

/* ---- the end ---- */

void harvest_free(struct harvest *h) {
    if (h == NULL) {
        return;
    }
    assert(harvest_state(h) == HARVEST_CREATED || harvest_state(h) == HARVEST_STOPPED); /* stop it first, and wait until it is */
    if (h->has_own_loop) {
        while (h->attached) { /* it could not be started: what was made of it goes */
            run_loop(h, UV_RUN_ONCE);
        }
        uv_close((uv_handle_t *)&h->limit, NULL);
        run_loop(h, UV_RUN_DEFAULT);
        int open = uv_loop_close(&h->own_loop);
        assert(open == 0);
        (void)open;
    }
    if (h->attached) {
        h->freed = true;
        h->sink = NULL; /* the application hears no more of it */
    } else {
        dispose(h);
    }
}
