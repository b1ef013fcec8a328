/* See kafka_bed.h. */
#include "kafka_bed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void no_turn(void *user) {
    (void)user;
}

static void on_closed(void *user) {
    (void)user;
}

void bed_open(struct bed *bed, int brokers) {
    struct hv_error err = {""};
    memset(bed, 0, sizeof *bed);
    if (hv_loop_open(NULL, no_turn, bed, &bed->loop, &err) != 0) {
        fail_msg("%s", err.text);
    }
    if (brokers == 0) {
        snprintf(bed->bootstrap, sizeof bed->bootstrap, "127.0.0.1:1");
        return;
    }
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "0", NULL, 0);
    bed->owner = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(bed->owner);
    bed->cluster = rd_kafka_mock_cluster_new(bed->owner, brokers);
    assert_non_null(bed->cluster);
    snprintf(bed->bootstrap, sizeof bed->bootstrap, "%s", rd_kafka_mock_cluster_bootstraps(bed->cluster));
}

static void free_kept(struct bed *bed);

void bed_close(struct bed *bed) {
    struct hv_error err = {""};
    hv_loop_close(bed->loop, on_closed);
    if (hv_loop_run(bed->loop, &err) != 0) {
        fail_msg("the loop does not close cleanly: %s", err.text);
    }
    if (bed->cluster != NULL) {
        rd_kafka_mock_cluster_destroy(bed->cluster);
    }
    if (bed->owner != NULL) {
        rd_kafka_destroy(bed->owner);
    }
    free_kept(bed);
}

static void on_timeout(uv_timer_t *timer) {
    *(bool *)timer->data = true;
}

static void on_timer_closed(uv_handle_t *handle) {
    *(bool *)handle->data = true;
}

static bool run(struct bed *bed, bool (*so)(void *arg), void *arg, hv_time limit) {
    uv_loop_t *uv = hv_loop_uv(bed->loop);
    uv_timer_t timer;
    bool over = false, closed = false;
    uv_timer_init(uv, &timer);
    timer.data = &over;
    uv_update_time(uv);
    uv_timer_start(&timer, on_timeout, (uint64_t)(limit / 1000), 0);
    bool result;
    while (!(result = so(arg)) && !over) {
        uv_run(uv, UV_RUN_ONCE);
    }
    timer.data = &closed;
    uv_close((uv_handle_t *)&timer, on_timer_closed);
    while (!closed) {
        uv_run(uv, UV_RUN_NOWAIT);
    }
    return result;
}

void bed_until(struct bed *bed, bool (*so)(void *arg), void *arg, hv_time limit, const char *what) {
    if (!run(bed, so, arg, limit)) {
        fail_msg("not so within %d ms: %s", (int)(limit / 1000), what);
    }
}

static bool never(void *arg) {
    (void)arg;
    return false;
}

void bed_run_for(struct bed *bed, hv_time time) {
    run(bed, never, NULL, time);
}

double bed_cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- the producer's handler ---- */

static void on_reports(void *user, const struct hv_report *list, size_t count) {
    struct reports *r = user;
    assert_false(r->inside);
    assert_true(count > 0 && count <= 1000);
    r->largest = count > r->largest ? count : r->largest;
    for (size_t i = 0; i < count; i++) {
        r->count++;
        r->delivered += list[i].delivery == HV_DELIVERED;
        r->purged += list[i].delivery == HV_PURGED;
        r->failed += list[i].delivery == HV_FAILED || list[i].delivery == HV_PUZZLING;
        r->refused += hv_is_refusal(list[i].delivery);
        if (list[i].code != 0) {
            r->last_code = list[i].code;
        }
        assert_non_null(list[i].reason);
        assert_true(list[i].ticket < sizeof r->seen);
        assert_int_equal(r->seen[list[i].ticket]++, 0); /* exactly one report a ticket */
    }
}

static void on_fatal(void *user, const char *reason) {
    struct reports *r = user;
    assert_false(r->inside);
    r->fatal++;
    snprintf(r->fatal_reason, sizeof r->fatal_reason, "%s", reason);
}

static void on_trouble(void *user, int code, const char *reason) {
    struct reports *r = user;
    assert_false(r->inside);
    r->trouble++;
    r->trouble_code = code;
    snprintf(r->trouble_reason, sizeof r->trouble_reason, "%s", reason);
}

static void on_log(void *user, int level, const char *facility, const char *text) {
    struct reports *r = user;
    assert_false(r->inside);
    assert_true(level >= 0 && level <= 7);
    assert_non_null(facility);
    assert_non_null(text);
    r->logs++;
    r->awaited_logs += r->awaited_log != NULL && strstr(text, r->awaited_log) != NULL;
}

const struct hv_producer_handler reports_handler = {
    .reports = on_reports, .fatal = on_fatal, .trouble = on_trouble, .log = on_log};

struct hv_producer *bed_producer(struct bed *bed, enum hv_kafka_role role, struct reports *reports,
                                 const struct hv_kafka_property *more, size_t more_count) {
    struct hv_kafka_property list[16] = {{"bootstrap.servers", bed->bootstrap}};
    assert_true(more_count < 16);
    for (size_t i = 0; i < more_count; i++) {
        list[i + 1] = more[i];
    }
    struct hv_kafka_properties properties = {.list = list, .count = more_count + 1};
    struct hv_producer *producer;
    struct hv_error err = {""};
    memset(reports, 0, sizeof *reports);
    if (hv_producer_open(bed->loop, role, &properties, "test", HV_MS(1), &reports_handler, reports, &producer, &err) != 0) {
        fail_msg("%s", err.text);
    }
    return producer;
}

struct hv_record bed_record(const char *topic, const char *key, const void *value, int32_t length) {
    return (struct hv_record){.size = sizeof(struct hv_record) + (uint32_t)(value == NULL ? 0 : length),
                              .topic = topic,
                              .key = (const uint8_t *)key,
                              .key_length = (int32_t)strlen(key),
                              .value = value,
                              .value_length = value == NULL ? -1 : length};
}

struct kept {
    struct kept *next;
    struct hv_record record;
    char bytes[];
};

const struct hv_record *bed_keep(struct bed *bed, const struct hv_record *record) {
    size_t topic = strlen(record->topic) + 1, key = (size_t)record->key_length;
    size_t value = record->value_length < 0 ? 0 : (size_t)record->value_length;
    struct kept *kept = malloc(sizeof *kept + topic + key + value);
    if (kept == NULL) {
        abort();
    }
    kept->next = bed->kept;
    bed->kept = kept;
    kept->record = *record;
    kept->record.topic = memcpy(kept->bytes, record->topic, topic);
    kept->record.key = memcpy(kept->bytes + topic, record->key, key);
    if (record->value != NULL) {
        kept->record.value = memcpy(kept->bytes + topic + key, record->value, value);
    }
    return &kept->record;
}

static void free_kept(struct bed *bed) {
    while (bed->kept != NULL) {
        struct kept *kept = bed->kept;
        bed->kept = kept->next;
        free(kept);
    }
}

struct wanted {
    struct reports *reports;
    size_t count;
};

static bool has_reports(void *arg) {
    struct wanted *w = arg;
    return w->reports->count >= w->count;
}

void bed_reports(struct bed *bed, struct reports *reports, size_t count, hv_time limit) {
    struct wanted wanted = {reports, count};
    bed_until(bed, has_reports, &wanted, limit, "the reports came");
}

/* ---- side by side ---- */

static pid_t start_test(const struct bed_test *test, FILE *output) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    if (dup2(fileno(output), STDOUT_FILENO) < 0 || dup2(fileno(output), STDERR_FILENO) < 0) {
        _exit(1);
    }
    const struct CMUnitTest list[] = {{.name = test->name, .test_func = test->run}};
    int failed = _cmocka_run_group_tests(test->name, list, 1, NULL, NULL);
    fflush(NULL);
    _exit(failed == 0 ? 0 : 1);
}

static void print_output(FILE *output) {
    char line[1024];
    rewind(output);
    while (fgets(line, sizeof line, output) != NULL) {
        fputs(line, stdout);
    }
    fclose(output);
}

int bed_run_side_by_side(const struct bed_test *tests, size_t count) {
    FILE *outputs[64];
    pid_t pids[64];
    int failed = 0;
    if (count > 64) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        outputs[i] = tmpfile();
        pids[i] = outputs[i] == NULL ? -1 : start_test(&tests[i], outputs[i]);
        if (pids[i] < 0) {
            abort();
        }
    }
    for (size_t i = 0; i < count; i++) {
        int status = 0;
        bool passed = waitpid(pids[i], &status, 0) == pids[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0;
        print_output(outputs[i]);
        if (!passed) {
            printf("%s failed (status %d)\n", tests[i].name, status);
            failed++;
        }
    }
    return failed;
}
