/* The embedding API (include/harvest.h) as far as it needs no server: setting, starting, failing to start, stopping, freeing. The address
 * that is used refuses connections. tests/system/test_embedding.py has the rest. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harvest.h"

#define NOWHERE "127.0.0.1:1"

static void set(struct harvest *h, const char *section, const char *name, const char *value) {
    struct harvest_error err = {""};
    if (harvest_set(h, section, name, value, &err) != 0) {
        fail_msg("%s", err.text);
    }
}

static struct harvest *make(void) {
    struct harvest *h = harvest_new();
    assert_non_null(h);
    set(h, "harvest", "data_source", "host=127.0.0.1 port=1 user=nobody dbname=none");
    set(h, "kafka", "bootstrap.servers", NOWHERE);
    set(h, "limits", "drain_timeout", "1s");
    return h;
}

static void assert_says(const struct harvest_error *err, const char *part) {
    if (strstr(err->text, part) == NULL) {
        fail_msg("%s\nlacks: %s", err->text, part);
    }
}

/* ---- settings ---- */

static void test_free_without_start(void **state) {
    (void)state;
    harvest_free(NULL);
    harvest_free(harvest_new());
    struct harvest *h = make();
    assert_int_equal(harvest_state(h), HARVEST_CREATED);
    assert_false(harvest_is_leader(h));
    assert_null(harvest_leader_id(h));
    assert_int_equal(harvest_in_flight(h), 0);
    assert_null(harvest_error(h));
    assert_int_equal(harvest_fd(h), -1);
    assert_int_equal(harvest_timeout(h), -1);
    harvest_process(h); /* nothing to do */
    harvest_done(h);
    harvest_free(h);
}

static void test_settings_that_are_refused(void **state) {
    (void)state;
    static const char *const cases[][4] = {
        {"harvest", "data_sauce", "x", "data_source"},
        {"harvst", "name", "x", "harvst"},
        {"limits", "drain_timeout", "soon", "drain_timeout"},
        {"limits", "send_concurrency", "0", "send_concurrency"},
    };
    struct harvest *h = make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct harvest_error err = {""};
        assert_int_equal(harvest_set(h, cases[i][0], cases[i][1], cases[i][2], &err), -1);
        assert_says(&err, cases[i][3]);
        assert_int_equal(harvest_set(h, cases[i][0], cases[i][1], cases[i][2], NULL), -1);
    }
    assert_int_equal(harvest_state(h), HARVEST_CREATED);
    assert_null(harvest_error(h)); /* none that ended it */
    harvest_free(h);
}

static void test_settings_that_contradict_each_other(void **state) {
    (void)state;
    struct harvest *h = make();
    struct harvest_error err = {""};
    set(h, "limits", "heartbeat_timeout", "1s");
    set(h, "limits", "min_poll_interval", "2s");
    set(h, "limits", "mark_backoff", "50ms");
    set(h, "limits", "idle_backoff_max", "20ms");
    assert_int_equal(harvest_start(h, NULL, &err), -1);
    assert_non_null(strchr(err.text, '\n')); /* all of them */
    assert_says(&err, "min_poll_interval");
    assert_says(&err, "idle_backoff_max");
    assert_int_not_equal(err.text[strlen(err.text) - 1], '\n');
    assert_string_equal(harvest_error(h), err.text);
    assert_int_equal(harvest_state(h), HARVEST_STOPPED);
    assert_int_equal(harvest_start(h, NULL, &err), -1);
    harvest_free(h);
}

static void test_files(void **state) {
    (void)state;
    char path[] = "/tmp/harvest-embed-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char good[] = "[harvest]\nname = from-the-file\n[limits]\ndrain_timeout = 2s\n";
    assert_int_equal(write(fd, good, sizeof good - 1), sizeof good - 1);
    struct harvest *h = make();
    struct harvest_error err = {"untouched"};
    assert_int_equal(harvest_load(h, path, &err), 0);
    assert_string_equal(err.text, "untouched");
    set(h, "harvest", "name", "set-later");
    static const char bad[] = "nonsense\n[limits]\nno_such_thing = 1\n";
    assert_int_equal(write(fd, bad, sizeof bad - 1), sizeof bad - 1);
    close(fd);
    assert_int_equal(harvest_load(h, path, &err), -1);
    assert_says(&err, ":5: ");
    assert_says(&err, ":7: ");
    assert_says(&err, "no_such_thing");
    unlink(path);
    assert_int_equal(harvest_start(h, NULL, &err), -1); /* what is set is not whole */
    assert_says(&err, "configuration");
    harvest_free(h);

    h = make();
    assert_int_equal(harvest_load(h, path, &err), -1);
    assert_says(&err, path);
    assert_int_equal(harvest_load(h, "/", NULL), -1);
    harvest_free(h);
}

/* ---- starting ---- */

static void test_stop_before_start(void **state) {
    (void)state;
    struct harvest_error err = {""};
    struct harvest *h = make();
    harvest_stop(h);
    harvest_stop(h);
    assert_int_equal(harvest_state(h), HARVEST_CREATED);
    assert_int_equal(harvest_run(h, &err), -1);
    assert_says(&err, "stopped before");
    assert_int_equal(harvest_state(h), HARVEST_STOPPED);
    harvest_hurry(h);
    assert_int_equal(harvest_await(h, 0, &err), -1);
    harvest_free(h);
}

static void test_start_twice_and_set_after(void **state) {
    (void)state;
    struct harvest_error err = {""};
    struct harvest *h = make();
    assert_int_equal(harvest_start(h, NULL, &err), 0);
    assert_string_equal(err.text, "");
    assert_int_equal(harvest_state(h), HARVEST_RUNNING);
    assert_int_equal(harvest_set(h, "harvest", "name", "other", &err), -1);
    assert_says(&err, "started");
    assert_int_equal(harvest_load(h, "/dev/null", &err), -1);
    assert_says(&err, "started");
    assert_int_equal(harvest_start(h, NULL, &err), -1);
    assert_int_equal(harvest_run(h, &err), -1);
    assert_int_equal(harvest_state(h), HARVEST_RUNNING); /* undisturbed */
    assert_null(harvest_error(h));
    harvest_stop(h);
    assert_int_equal(harvest_await(h, 60000, &err), 0);
    assert_int_equal(harvest_state(h), HARVEST_STOPPED);
    harvest_stop(h);
    harvest_hurry(h);
    harvest_done(h);
    assert_int_equal(harvest_await(h, 60000, &err), 0); /* still so */
    assert_int_equal(harvest_timeout(h), -1);
    harvest_process(h);
    harvest_free(h);
}

static void test_await_before_start(void **state) {
    (void)state;
    struct harvest_error err = {""};
    struct harvest *h = make();
    assert_int_equal(harvest_await(h, 0, &err), -1);
    assert_says(&err, "not started");
    harvest_free(h);
}

/* ---- a start that fails ---- */

static struct harvest *make_refused(void) {
    struct harvest *h = make();
    set(h, "kafka", "security.protocol", "ssl"); /* only librdkafka looks for the file */
    set(h, "kafka", "ssl.ca.location", "/nonexistent/ca.pem");
    return h;
}

static void stopped(void *user, struct harvest *h) {
    (void)h;
    ++*(int *)user;
}

static void test_refused_on_a_loop_of_its_own(void **state) {
    (void)state;
    struct harvest_error err = {""};
    int told = 0;
    struct harvest *h = make_refused();
    harvest_on_stopped(h, stopped, &told);
    assert_int_equal(harvest_start(h, NULL, &err), -1);
    assert_says(&err, "ssl.ca.location");
    assert_int_equal(harvest_state(h), HARVEST_STOPPED);
    assert_string_equal(harvest_error(h), err.text);
    assert_int_equal(harvest_await(h, 1000, &err), -1);
    harvest_free(h);
    assert_int_equal(told, 0); /* it never ran */

    h = make_refused();
    assert_int_equal(harvest_run(h, NULL), -1);
    harvest_free(h);
}

static void refuse_on_a_foreign_loop(bool free_at_once, int *told) {
    struct harvest_error err = {""};
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct harvest *h = make_refused();
    harvest_on_stopped(h, stopped, told);
    assert_int_equal(harvest_start(h, &loop, &err), -1);
    assert_says(&err, "ssl.ca.location");
    if (free_at_once) {
        harvest_free(h);
    }
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0); /* nothing of it keeps the loop alive */
    assert_int_equal(uv_loop_close(&loop), 0);
    if (!free_at_once) {
        harvest_free(h);
    }
}

static void test_refused_on_a_foreign_loop(void **state) {
    (void)state;
    int told = 0;
    refuse_on_a_foreign_loop(false, &told);
    refuse_on_a_foreign_loop(true, &told);
    assert_int_equal(told, 0);
}

/* ---- while the servers are away ---- */

/* How long the loop waited for events at most, by what it asked of the kernel. Found before libc's. */
static int longest_wait;

__attribute__((visibility("default"))) int epoll_pwait(int fd, struct epoll_event *events, int count, int timeout,
                                                       const sigset_t *set) {
    longest_wait = timeout < 0 || timeout > longest_wait ? timeout : longest_wait;
    return (int)syscall(SYS_epoll_pwait, fd, events, count, timeout, set, sizeof(unsigned long));
}

__attribute__((visibility("default"))) int epoll_wait(int fd, struct epoll_event *events, int count, int timeout) {
    return epoll_pwait(fd, events, count, timeout, NULL);
}

static void test_await_without_time_does_not_wait(void **state) {
    (void)state;
    struct harvest *h = make();
    assert_int_equal(harvest_start(h, NULL, NULL), 0);
    longest_wait = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(harvest_await(h, 0, NULL), 1);
    }
    assert_int_equal(longest_wait, 0);
    assert_int_equal(harvest_await(h, 50, NULL), 1);
    assert_int_not_equal(longest_wait, 0); /* what is measured is what is called */
    harvest_stop(h);
    assert_int_equal(harvest_await(h, 60000, NULL), 0);
    harvest_free(h);
}

static void test_await_has_a_limit(void **state) {
    (void)state;
    struct harvest_error err = {"untouched"};
    struct harvest *h = make();
    assert_int_equal(harvest_start(h, NULL, &err), 0);
    assert_int_equal(harvest_await(h, 0, &err), 1);
    assert_int_equal(harvest_await(h, 200, &err), 1);
    assert_string_equal(err.text, "untouched");
    assert_int_equal(harvest_state(h), HARVEST_RUNNING);
    harvest_stop(h);
    assert_int_equal(harvest_state(h), HARVEST_STOPPING);
    assert_int_equal(harvest_await(h, -1, &err), 0);
    assert_null(harvest_error(h));
    harvest_free(h);
}

static uint64_t now_ms(void) {
    return uv_hrtime() / 1000000;
}

/* A timeout is told from now on, however long ago the last call of harvest_process was. */
static void test_timeout_counts_from_now(void **state) {
    (void)state;
    struct harvest *h = make();
    set(h, "limits", "io_error_backoff", "20s");
    set(h, "limits", "io_error_backoff_max", "20s");
    assert_int_equal(harvest_start(h, NULL, NULL), 0);
    assert_int_equal(harvest_timeout(h), 0);
    bool tried = false;
    for (uint64_t end = now_ms() + 20000; !tried && now_ms() < end;) {
        harvest_process(h);
        if (harvest_timeout(h) > 0) {
            usleep(1100000); /* the group is looked at every second */
            assert_int_equal(harvest_timeout(h), 0);
            tried = true;
        }
    }
    assert_true(tried);
    harvest_hurry(h);
    assert_int_equal(harvest_await(h, 60000, NULL), 0);
    harvest_free(h);
}

/* Wishes of other threads and of signal handlers reach it whenever they come. */
static struct harvest *signalled;

static void on_signal(int number) {
    (void)number;
    harvest_stop(signalled);
}

static void *send_signal(void *thread) {
    usleep(50000);
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

static void test_stop_from_a_signal_handler(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_signal}, kept;
    signalled = make();
    assert_int_equal(sigaction(SIGUSR1, &action, &kept), 0);
    pthread_t self = pthread_self(), other;
    assert_int_equal(pthread_create(&other, NULL, send_signal, &self), 0);
    assert_int_equal(harvest_run(signalled, NULL), 0);
    pthread_join(other, NULL);
    sigaction(SIGUSR1, &kept, NULL);
    harvest_free(signalled);
}

static void *stop_it(void *h) {
    harvest_stop(h);
    return NULL;
}

/* Stopped by another thread at about the moment of the start: either it cannot be started any more, or it stops. */
static void test_stop_while_it_starts(void **state) {
    (void)state;
    int refused = 0;
    for (int i = 0; i < 20; i++) {
        struct harvest *h = make();
        pthread_t other;
        assert_int_equal(pthread_create(&other, NULL, stop_it, h), 0);
        if (i % 2 == 1) {
            usleep((useconds_t)(i * 10));
        }
        struct harvest_error err = {""};
        if (harvest_run(h, &err) != 0) {
            assert_says(&err, "stopped before");
            refused++;
        }
        pthread_join(other, NULL);
        assert_int_equal(harvest_state(h), HARVEST_STOPPED);
        harvest_free(h);
    }
    print_message("          %d of 20 were stopped before the start\n", refused);
}

/* ---- on the caller's loop ---- */

static void free_it(void *user, struct harvest *h) {
    *(bool *)user = true;
    harvest_free(h);
}

static void on_timer(uv_timer_t *timer) {
    harvest_stop(timer->data);
    uv_close((uv_handle_t *)timer, NULL);
}

static void test_freed_in_its_stopped_handler(void **state) {
    (void)state;
    uv_loop_t loop;
    uv_timer_t timer;
    bool freed = false;
    struct harvest_error err = {""};
    assert_int_equal(uv_loop_init(&loop), 0);
    struct harvest *h = make();
    harvest_on_stopped(h, free_it, &freed);
    assert_int_equal(harvest_start(h, &loop, NULL), 0);
    assert_int_equal(harvest_fd(h), -1);
    assert_int_equal(harvest_await(h, 0, &err), -1);
    assert_says(&err, "loop of its own");
    uv_timer_init(&loop, &timer);
    timer.data = h;
    uv_timer_start(&timer, on_timer, 50, 0);
    uv_run(&loop, UV_RUN_DEFAULT); /* ends by itself */
    assert_true(freed);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* Last: it is the process's. What the timer does then is in test_kafka_producer. */
static void test_a_signal_that_is_given(void **state) {
    (void)state;
    int number = SIGRTMIN + 3;
    struct sigaction action;
    sigset_t blocked;
    assert_int_equal(sigaction(number, NULL, &action), 0);
    assert_true(action.sa_handler == SIG_DFL);
    harvest_use_signal(number);
    assert_int_equal(sigaction(number, NULL, &action), 0);
    assert_true(action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
    assert_int_equal(sigismember(&blocked, number), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_without_start),
        cmocka_unit_test(test_settings_that_are_refused),
        cmocka_unit_test(test_settings_that_contradict_each_other),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_stop_before_start),
        cmocka_unit_test(test_start_twice_and_set_after),
        cmocka_unit_test(test_await_before_start),
        cmocka_unit_test(test_refused_on_a_loop_of_its_own),
        cmocka_unit_test(test_refused_on_a_foreign_loop),
        cmocka_unit_test(test_await_without_time_does_not_wait),
        cmocka_unit_test(test_await_has_a_limit),
        cmocka_unit_test(test_timeout_counts_from_now),
        cmocka_unit_test(test_stop_from_a_signal_handler),
        cmocka_unit_test(test_stop_while_it_starts),
        cmocka_unit_test(test_freed_in_its_stopped_handler),
        cmocka_unit_test(test_a_signal_that_is_given),
    };
    return cmocka_run_group_tests_name("embedding", tests, NULL, NULL);
}
