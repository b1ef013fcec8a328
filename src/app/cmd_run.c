/* harvestd run: the daemon. Sets the process up (signals, allocator, log, loop), runs the runtime on the
 * loop, ends when it has stopped. First SIGTERM or SIGINT: stop in order; second: hurry; third: end at
 * once. Stopping is bounded: what a library does not end in time (a Kafka client that waits for its own threads) is left behind.
 *
 * Who closes what: the signal handles, the timers, the control socket and the log's poll handle are closed when the runtime reports that
 * it has stopped; the loop then runs dry and is closed; last the log is flushed. */
#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "app/answers.h"
#include "app/commands.h"
#include "app/footprint.h"
#include "app/log_sink.h"
#include "app/signals.h"
#include "io/kafka_producer.h"
#include "rt/runtime.h"

enum { SIGNALS = 3, START_MS = 5000, TIDY_MS = 60000 };

/* Beyond drain_timeout: leaving the group takes 5 s at most, ending a client that long again while a broker hangs. */
#define STOP_LIMIT HV_SECONDS(20)

static const int signal_numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP};

struct daemon {
    const struct hv_settings *settings;
    struct hv_logger logger;
    struct hv_log_sink *sink;
    uv_loop_t loop;
    struct hv_signals signals;
    unsigned stop_signals;
    uv_timer_t stop_timer; /* from the first signal on */
    uv_timer_t tidy_timer;
    bool timers_open;
    uint64_t acknowledged, tidied; /* records: when it was looked last, when memory was given back last */
    struct hv_runtime *runtime; /* NULL once it has stopped */
    struct hv_answers answers;
    struct hv_control *control; /* NULL: none */
    bool drained;               /* everything that was in flight was settled before it stopped */
};

static const char *signal_name(int number) {
    return number == SIGTERM ? "SIGTERM" : number == SIGINT ? "SIGINT" : "SIGHUP";
}

/* The third signal: someone does not want to wait, not even for the log. */
static void end_at_once(struct daemon *d) {
    hv_log(&d->logger, HV_WARN, "main", "ended at once: what was in flight may be sent again", NULL);
    hv_control_remove(d->control);
    _exit(1);
}

/* All that concerns records may be done; then it is only a library that does not come to an end. */
static void on_stop_limit(uv_timer_t *timer) {
    struct daemon *d = timer->data;
    struct hv_harvest_figures figures;
    hv_runtime_look(d->runtime, &figures);
    hv_log(&d->logger, HV_WARN, "main", "ended without waiting any longer for its libraries",
           HV_FIELDS(HV_STR("drained", figures.in_flight + figures.unpurged + figures.given_up == 0 ? "yes" : "no")));
    hv_control_remove(d->control);
    _exit(figures.stopped ? 0 : 1);
}

static void start_stop_timer(struct daemon *d) {
    hv_time limit = d->settings->drain_timeout + STOP_LIMIT;
    uv_timer_start(&d->stop_timer, on_stop_limit, (uint64_t)limit / 1000, 0);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct daemon *d = handle->data;
    const struct hv_field *fields = HV_FIELDS(HV_STR("signal", signal_name(number)));
    if (number == SIGHUP) {
        hv_log(&d->logger, HV_INFO, "main", "blocked keys are tried now; a new configuration is not read while running: restart for that",
               fields);
        if (d->runtime != NULL) {
            hv_runtime_retry(d->runtime);
        }
        return;
    }
    if (d->runtime == NULL) {
        return;
    }
    switch (++d->stop_signals) {
    case 1:
        hv_log(&d->logger, HV_INFO, "main", "stopping", fields);
        hv_runtime_stop(d->runtime);
        start_stop_timer(d);
        break;
    case 2:
        hv_log(&d->logger, HV_INFO, "main", "hurrying: not waiting for what is in flight", fields);
        hv_runtime_hurry(d->runtime);
        break;
    default:
        end_at_once(d);
    }
}

/* Nothing of ours keeps the loop alive after this. */
static void let_go_of_loop(struct daemon *d) {
    hv_signals_close(&d->signals);
    if (d->timers_open) {
        uv_close((uv_handle_t *)&d->stop_timer, NULL);
        uv_close((uv_handle_t *)&d->tidy_timer, NULL);
    }
    d->timers_open = false;
    hv_control_close(d->control);
    d->control = NULL;
    hv_log_sink_detach(d->sink);
}

static void on_stopped(void *user, int status) {
    struct daemon *d = user;
    d->runtime = NULL;
    d->drained = status == 0;
    let_go_of_loop(d);
}

/* A leader's start is over when it leads, and what comes then needs the room; that of others after a while. */
static bool on_notice(void *user, const struct hv_action *action) {
    (void)user;
    if (action->notice == HV_NOTICE_ACQUIRED) {
        hv_footprint_start_is_over();
    }
    return true;
}

/* Nothing came for a minute, and something had before. */
static void on_tidy(uv_timer_t *timer) {
    struct daemon *d = timer->data;
    struct hv_harvest_figures figures;
    if (d->runtime == NULL) {
        return;
    }
    hv_runtime_look(d->runtime, &figures);
    if (figures.acknowledged == d->acknowledged && figures.acknowledged != d->tidied) {
        hv_footprint_work_is_over();
        d->tidied = figures.acknowledged;
    }
    d->acknowledged = figures.acknowledged;
}

static void on_start_over(uv_timer_t *timer) {
    hv_footprint_start_is_over();
    uv_timer_start(timer, on_tidy, TIDY_MS, TIDY_MS);
}

static const struct hv_runtime_handler runtime_handler = {.notice = on_notice, .stopped = on_stopped};

static int open_control(struct daemon *d, struct hv_error *err) {
    d->answers = (struct hv_answers){d->settings, &d->runtime};
    return d->settings->control_socket[0] == '\0'
               ? 0
               : hv_control_open(&d->loop, d->settings->control_socket, hv_answers_questions, &d->answers, HV_CONTROL_PATIENCE, &d->control, err);
}

static int start(struct daemon *d, struct hv_error *err) {
    uv_timer_init(&d->loop, &d->stop_timer); /* cannot fail */
    uv_timer_init(&d->loop, &d->tidy_timer);
    d->stop_timer.data = d->tidy_timer.data = d;
    d->timers_open = true;
    uv_timer_start(&d->tidy_timer, on_start_over, START_MS, 0);
    if (hv_log_sink_attach(d->sink, &d->loop, err) != 0 ||
        hv_signals_open(&d->signals, &d->loop, signal_numbers, SIGNALS, on_signal, d, err) != 0 ||
        open_control(d, err) != 0) {
        return -1;
    }
    hv_log(
        &d->logger, HV_INFO, "main", "started",
        HV_FIELDS(HV_STR("version", HV_VERSION), HV_INT("pid", getpid()), HV_STR("name", d->settings->name)));
    return hv_runtime_open(&d->loop, d->settings, &d->logger, &runtime_handler, d, &d->runtime, err);
}

/* On the loop until it is empty. 0, or -1 with err: nothing was started. */
static int run_loop(struct daemon *d, struct hv_error *err) {
    int bad = uv_loop_init(&d->loop);
    if (bad != 0) {
        return hv_error_set(err, "no event loop: %s", uv_strerror(bad));
    }
    bad = start(d, err);
    if (bad != 0) {
        let_go_of_loop(d);
    }
    uv_run(&d->loop, UV_RUN_DEFAULT);
    int open = uv_loop_close(&d->loop);
    assert(open == 0);
    (void)open;
    return bad;
}

int hv_cmd_run(const struct hv_settings *settings) {
    struct daemon d = {.settings = settings};
    struct hv_error err = {""};
    signal(SIGPIPE, SIG_IGN);
    hv_producer_use_signal(SIGRTMIN); /* before there are threads */
    hv_footprint_set_up();
    d.logger.level = (enum hv_log_level)settings->log_level;
    d.logger.format = (enum hv_log_format)settings->log_format;
    d.sink = hv_log_sink_open(STDERR_FILENO, &d.logger);
    int bad = run_loop(&d, &err);
    if (bad != 0) {
        hv_log(&d.logger, HV_ERROR, "main", "cannot start", HV_FIELDS(HV_STR("reason", err.text)));
    } else {
        hv_log(&d.logger, HV_INFO, "main", "stopped", HV_FIELDS(HV_STR("drained", d.drained ? "yes" : "no")));
    }
    hv_log_sink_close(d.sink, HV_SECONDS(1));
    return bad == 0 ? 0 : 1;
}
