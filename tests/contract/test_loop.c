/* The turn machinery over real libuv: when turns come, that the loop blocks without spinning, that it
 * closes cleanly. */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/ident.h"
#include "io/loop.h"

struct host {
    struct hv_loop *loop;
    int turns, limit; /* closes at this turn */
    void (*on_turn)(struct host *host);
    bool closed, in_callback;
    hv_time turn_at;
    uv_timer_t timer;
    uv_async_t async;
    uv_poll_t poll;
    int pipe[2];
    int work_done;
    unsigned iterations;
    uv_check_t check;
};

static void turn(void *user) {
    struct host *host = user;
    assert_false(host->in_callback);
    host->turns++;
    host->turn_at = hv_loop_now(host->loop);
    if (host->on_turn != NULL) {
        host->on_turn(host);
    }
}

static void closed(void *user) {
    ((struct host *)user)->closed = true;
}

static void open_own(struct host *host) {
    struct hv_error err;
    assert_int_equal(hv_loop_open(NULL, turn, host, &host->loop, &err), 0);
}

static void run(struct host *host) {
    struct hv_error err = {""};
    if (hv_loop_run(host->loop, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_true(host->closed);
}

static void close_now(struct host *host) {
    hv_loop_close(host->loop, closed);
}

static void test_wake_before_run(void **state) {
    (void)state;
    struct host host = {.on_turn = close_now};
    open_own(&host);
    hv_loop_wake(host.loop);
    hv_loop_wake(host.loop);
    run(&host);
    assert_int_equal(host.turns, 1);
}

static void wake_again(struct host *host) {
    if (host->turns == 1000) {
        close_now(host);
    } else {
        hv_loop_wake(host->loop);
    }
}

static void test_wake_from_the_turn(void **state) {
    (void)state;
    struct host host = {.on_turn = wake_again};
    open_own(&host);
    hv_loop_wake(host.loop);
    run(&host);
    assert_int_equal(host.turns, 1000);
}

static void count_iteration(uv_check_t *check) {
    ((struct host *)check->data)->iterations++;
}

static void close_all_after_deadline(struct host *host) {
    uv_close((uv_handle_t *)&host->check, NULL);
    close_now(host);
}

/* A deadline comes at or after its time, and the loop sleeps until then: a handful of iterations, not
 * thousands. */
static void test_deadline_without_spinning(void **state) {
    (void)state;
    for (int us = 1; us < 40000; us = us * 3 + 700) {
        struct host host = {.on_turn = close_all_after_deadline};
        open_own(&host);
        host.check.data = &host;
        uv_check_init(hv_loop_uv(host.loop), &host.check);
        uv_check_start(&host.check, count_iteration);
        hv_time when = hv_loop_clock() + us;
        hv_loop_set_deadline(host.loop, when);
        hv_loop_set_deadline(host.loop, when);
        run(&host);
        assert_int_equal(host.turns, 1);
        assert_true(host.turn_at >= when);
        assert_true(host.iterations < 10);
    }
}

static void test_past_deadline_and_never(void **state) {
    (void)state;
    struct host host = {.on_turn = close_now};
    open_own(&host);
    hv_loop_set_deadline(host.loop, HV_NEVER);
    hv_loop_set_deadline(host.loop, hv_loop_clock() + HV_SECONDS(3600));
    hv_loop_set_deadline(host.loop, 0);
    run(&host);
    assert_int_equal(host.turns, 1);
}

static void wake_from(struct host *host) {
    host->in_callback = true;
    hv_loop_wake(host->loop);
    assert_int_equal(host->turns, host->limit); /* not from within */
    host->in_callback = false;
    host->limit++;
}

static void on_closing(uv_handle_t *handle) {
    wake_from(handle->data);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    struct host *host = poll->data;
    char c;
    assert_int_equal(read(host->pipe[0], &c, 1), 1);
    wake_from(host);
}

static void on_async(uv_async_t *async) {
    wake_from(async->data);
}

static void on_timer(uv_timer_t *timer) {
    wake_from(timer->data);
}

/* Each turn sets off the next kind of callback; none of them has anything else that would wake the loop. */
static void next_kind(struct host *host) {
    switch (host->turns) {
    case 1:
        uv_async_send(&host->async);
        break;
    case 2:
        assert_int_equal(write(host->pipe[1], "x", 1), 1);
        break;
    case 3:
        uv_timer_start(&host->timer, on_timer, 3, 0);
        break;
    case 4:
        uv_poll_stop(&host->poll);
        uv_close((uv_handle_t *)&host->poll, on_closing);
        break;
    default:
        uv_close((uv_handle_t *)&host->async, NULL);
        uv_close((uv_handle_t *)&host->timer, NULL);
        close_now(host);
    }
}

static void open_kinds(struct host *host) {
    uv_loop_t *uv = hv_loop_uv(host->loop);
    assert_int_equal(pipe(host->pipe), 0);
    host->async.data = host->timer.data = host->poll.data = host;
    uv_async_init(uv, &host->async, on_async);
    uv_timer_init(uv, &host->timer);
    uv_poll_init(uv, &host->poll, host->pipe[0]);
    uv_poll_start(&host->poll, UV_READABLE, on_poll);
    host->limit = 1;
    hv_loop_wake(host->loop);
}

static void test_every_kind_of_callback_leads_to_a_turn(void **state) {
    (void)state;
    struct host host = {.on_turn = next_kind};
    open_own(&host);
    open_kinds(&host);
    run(&host);
    assert_int_equal(host.turns, 5);
    close(host.pipe[0]);
    close(host.pipe[1]);
}

/* A host's own loop, run in single steps and told by uv_backend_timeout() how long it may sleep. */
static void test_foreign_loop_in_steps(void **state) {
    (void)state;
    for (int mode = 0; mode < 3; mode++) {
        uv_loop_t uv;
        uv_loop_init(&uv);
        struct host host = {.on_turn = next_kind};
        struct hv_error err;
        assert_int_equal(hv_loop_open(&uv, turn, &host, &host.loop, &err), 0);
        assert_ptr_equal(hv_loop_uv(host.loop), &uv);
        open_kinds(&host);
        assert_int_equal(uv_backend_timeout(&uv), 0);
        while (uv_run(&uv, mode == 0 ? UV_RUN_DEFAULT : mode == 1 ? UV_RUN_ONCE : UV_RUN_NOWAIT) != 0) {
        }
        assert_true(host.closed);
        assert_int_equal(host.turns, 5);
        assert_int_equal(uv_loop_close(&uv), 0);
        close(host.pipe[0]);
        close(host.pipe[1]);
    }
}

struct work {
    struct host *host;
    uv_sem_t gate;
    bool ran;
};

static void work(void *arg) {
    struct work *w = arg;
    uv_sem_wait(&w->gate);
    w->ran = true;
}

static void work_done(void *arg) {
    struct work *w = arg;
    assert_true(w->ran);
    assert_false(w->host->closed);
    w->host->work_done++;
}

static void on_open_gate(uv_timer_t *timer) {
    struct work *w = timer->data;
    uv_sem_post(&w->gate);
    uv_close((uv_handle_t *)timer, NULL);
}

static void test_close_waits_for_offloaded_work(void **state) {
    (void)state;
    struct host host = {0};
    open_own(&host);
    struct work w = {.host = &host};
    uv_sem_init(&w.gate, 0);
    assert_int_equal(hv_loop_offload(host.loop, work, work_done, &w), 0);
    close_now(&host);
    /* Added while closing, and finished only by something that happens on the loop. */
    uv_timer_t timer = {.data = &w};
    uv_timer_init(hv_loop_uv(host.loop), &timer);
    uv_timer_start(&timer, on_open_gate, 5, 0);
    run(&host);
    assert_int_equal(host.work_done, 1);
    assert_int_equal(host.turns, 0);
    uv_sem_destroy(&w.gate);
}

static void compare_clocks(struct host *host) {
    hv_time now = hv_loop_now(host->loop);
    hv_time read = hv_loop_clock();
    assert_true(now <= read);
    while (hv_loop_clock() < read + 2500) {
    }
    assert_int_equal(hv_loop_now(host->loop), now); /* stands still within a turn */
    assert_true(hv_loop_wall_clock() > (int64_t)1600000000 * 1000000);
    close_now(host);
}

static void test_clock_stands_still(void **state) {
    (void)state;
    struct host host = {.on_turn = compare_clocks};
    open_own(&host);
    hv_loop_wake(host.loop);
    run(&host);
}

static void test_idents_differ(void **state) {
    (void)state;
    uint8_t a[16], b[16];
    hv_ident_new(a);
    hv_ident_new(b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(a[6] >> 4, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wake_before_run),
        cmocka_unit_test(test_wake_from_the_turn),
        cmocka_unit_test(test_deadline_without_spinning),
        cmocka_unit_test(test_past_deadline_and_never),
        cmocka_unit_test(test_every_kind_of_callback_leads_to_a_turn),
        cmocka_unit_test(test_foreign_loop_in_steps),
        cmocka_unit_test(test_close_waits_for_offloaded_work),
        cmocka_unit_test(test_clock_stands_still),
        cmocka_unit_test(test_idents_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
