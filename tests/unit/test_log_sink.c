/* app/log_sink: never waits, loses whole lines only and says so, and leaves the descriptor it was given as it
 * was. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/log_sink.h"

static struct hv_logger new_logger(void) {
    return (struct hv_logger){.level = HV_INFO, .format = HV_LOGFMT};
}

/* Everything that can be read now, at most `size`; the descriptor is set non-blocking (it is the reader's
 * own). */
static size_t read_now(int fd, char *out, size_t size) {
    size_t n = 0;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    for (;;) {
        ssize_t got = read(fd, out + n, size - 1 - n);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    out[n] = '\0';
    return n;
}

static void pipe_or_socket(bool socket, int fds[2]) {
    if (socket) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    } else {
        assert_int_equal(pipe(fds), 0);
    }
}

/* Keeps a loop alive, as the daemon's other handles do. */
static void on_idle(uv_idle_t *idle) {
    (void)idle;
}

static void open_loop(uv_loop_t *loop, uv_idle_t *idle) {
    assert_int_equal(uv_loop_init(loop), 0);
    assert_int_equal(uv_idle_init(loop, idle), 0);
    assert_int_equal(uv_idle_start(idle, on_idle), 0);
}

static void close_loop(uv_loop_t *loop, uv_idle_t *idle) {
    uv_close((uv_handle_t *)idle, NULL);
    assert_int_equal(uv_run(loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(loop), 0);
}

static char text[2 * HV_LOG_SINK_BUFFER + 2 * 1024 * 1024];

/* Reads the numbers of the lines; each line has to be whole. Returns how many lines, and the sum of
 * `dropped`. */
static unsigned check_lines(const char *all, unsigned *dropped) {
    unsigned count = 0;
    int last = -1;
    for (const char *line = all; *line != '\0'; line = strchr(line, '\n') + 1) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        assert_memory_equal(line, "time=", 5);
        const char *n = memmem(line, (size_t)(end - line), " n=", 3), *lost = memmem(line, (size_t)(end - line), " dropped=", 9);
        if (lost != NULL) {
            *dropped += (unsigned)atoi(lost + 9);
            continue;
        }
        assert_non_null(n);
        assert_true(atoi(n + 3) > last);
        last = atoi(n + 3);
        assert_memory_equal(end - 4, " z=z", 4);
        count++;
    }
    return count;
}

/* Far more lines than pipe and buffer hold, nobody reads, a loop is there but does not run: nothing waits (or
 * the test hangs). Then the loop runs and somebody reads: whole lines, in order, and their number and the
 * dropped ones add up. */
static void flood(bool socket, bool another_user) {
    enum { LINES = HV_LOG_SINK_BUFFER / 64 }; /* each is longer */
    struct hv_logger logger = new_logger();
    struct hv_error err;
    int fds[2];
    uv_loop_t loop;
    uv_idle_t idle;
    pipe_or_socket(socket, fds);
    int flags = fcntl(fds[1], F_GETFL);
    if (another_user) {
        assert_int_equal(seteuid(65534), 0);
    }
    struct hv_log_sink *sink = hv_log_sink_open(fds[1], &logger);
    if (another_user) {
        assert_int_equal(seteuid(0), 0);
    }
    open_loop(&loop, &idle);
    assert_int_equal(hv_log_sink_attach(sink, &loop, &err), 0);
    for (int i = 0; i < LINES; i++) {
        hv_log(&logger, HV_INFO, "test", "a line", HV_FIELDS(HV_INT("n", i), HV_STR("z", "z")));
    }
    assert_int_equal(fcntl(fds[1], F_GETFL), flags); /* others write to this description, too */

    size_t n = 0;
    for (int quiet = 0; quiet < 3;) {
        uv_run(&loop, UV_RUN_NOWAIT);
        size_t got = read_now(fds[0], text + n, sizeof text - n);
        quiet = got == 0 ? quiet + 1 : 0;
        n += got;
    }
    unsigned dropped = 0;
    unsigned lines = check_lines(text, &dropped);
    assert_true(lines > 1000);
    assert_true(dropped > 1000);
    assert_int_equal(lines + dropped, LINES);

    hv_log(&logger, HV_INFO, "test", "after", HV_FIELDS(HV_INT("n", LINES))); /* all is as before */
    assert_true(read_now(fds[0], text, sizeof text) > 0);
    hv_log_sink_detach(sink);
    close_loop(&loop, &idle);
    hv_log_sink_close(sink, 0);
    close(fds[0]);
    close(fds[1]);
}

static void a_pipe_that_nobody_reads(void **state) {
    (void)state;
    flood(false, false);
}

static void a_socket_that_nobody_reads(void **state) {
    (void)state;
    flood(true, false);
}

/* Made by root, used by a daemon that is somebody else: it may not be opened anew. */
static void a_pipe_of_another_user(void **state) {
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    flood(false, true);
}

/* The loop writes by itself once it can: no further line is needed. */
static void the_loop_writes_what_was_kept(void **state) {
    (void)state;
    struct hv_logger logger = new_logger();
    int fds[2];
    uv_loop_t loop;
    uv_idle_t idle;
    pipe_or_socket(false, fds);
    struct hv_log_sink *sink = hv_log_sink_open(fds[1], &logger);
    open_loop(&loop, &idle);
    for (int i = 0; i < 1500; i++) { /* a pipe takes 64 KiB */
        hv_log(&logger, HV_INFO, "test", "a line", HV_FIELDS(HV_INT("n", i), HV_STR("z", "z")));
    }
    assert_int_equal(hv_log_sink_attach(sink, &loop, NULL), 0); /* with lines kept already */
    uv_idle_stop(&idle);
    assert_int_equal(uv_run(&loop, UV_RUN_NOWAIT), 0); /* the sink does not keep it alive */
    uv_idle_start(&idle, on_idle);
    size_t n = 0;
    unsigned dropped = 0;
    for (int i = 0; i < 10; i++) {
        n += read_now(fds[0], text + n, sizeof text - n);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(check_lines(text, &dropped), 1500);
    assert_int_equal(dropped, 0);
    hv_log_sink_detach(sink);
    close_loop(&loop, &idle);
    hv_log_sink_close(sink, 0);
    close(fds[0]);
    close(fds[1]);
}

static void closing_waits_no_longer_than_it_may(void **state) {
    (void)state;
    for (int socket = 0; socket < 2; socket++) {
        struct hv_logger logger = new_logger();
        int fds[2];
        pipe_or_socket(socket, fds);
        struct hv_log_sink *sink = hv_log_sink_open(fds[1], &logger);
        for (int i = 0; i < 20000; i++) {
            hv_log(&logger, HV_INFO, "test", "a line", HV_FIELDS(HV_INT("n", i), HV_STR("z", "z")));
        }
        hv_log_sink_close(sink, HV_MS(20)); /* hangs if it waits for a reader */
        close(fds[0]);
        close(fds[1]);
    }
}

static void a_reader_that_is_gone(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    for (int socket = 0; socket < 2; socket++) {
        struct hv_logger logger = new_logger();
        uv_loop_t loop;
        uv_idle_t idle;
        int fds[2];
        pipe_or_socket(socket, fds);
        open_loop(&loop, &idle);
        struct hv_log_sink *sink = hv_log_sink_open(fds[1], &logger);
        assert_int_equal(hv_log_sink_attach(sink, &loop, NULL), 0);
        for (int i = 0; i < 5000; i++) {
            hv_log(&logger, HV_INFO, "test", "a line", HV_FIELDS(HV_INT("n", i), HV_STR("z", "z")));
        }
        close(fds[0]);
        uv_run(&loop, UV_RUN_NOWAIT);
        for (int i = 0; i < 5000; i++) {
            hv_log(&logger, HV_INFO, "test", "a line", HV_FIELDS(HV_INT("n", i), HV_STR("z", "z")));
        }
        hv_log_sink_detach(sink);
        close_loop(&loop, &idle);
        hv_log_sink_close(sink, HV_SECONDS(1));
        close(fds[1]);
    }
}

static void a_plain_file_is_written_in_place(void **state) {
    (void)state;
    char path[] = "/tmp/harvestd-sink-XXXXXX";
    struct hv_logger logger = new_logger();
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "before\n", 7), 7);
    struct hv_log_sink *sink = hv_log_sink_open(fd, &logger);
    hv_log(&logger, HV_INFO, "test", "inside", NULL);
    assert_int_equal(write(fd, "after\n", 6), 6); /* the position is shared, so nothing is written over */
    hv_log_sink_close(sink, 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    read_now(fd, text, sizeof text);
    assert_memory_equal(text, "before\ntime=", 12);
    assert_non_null(strstr(text, "msg=\"inside\"\nafter\n"));
    close(fd);
    unlink(path);
}

static void a_descriptor_that_is_closed(void **state) {
    (void)state;
    struct hv_logger logger = new_logger();
    struct hv_log_sink *sink = hv_log_sink_open(999, &logger);
    hv_log(&logger, HV_INFO, "test", "nowhere", NULL);
    hv_log_sink_close(sink, HV_SECONDS(1));
    hv_log_sink_close(NULL, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipe_that_nobody_reads),
        cmocka_unit_test(a_socket_that_nobody_reads),
        cmocka_unit_test(a_pipe_of_another_user),
        cmocka_unit_test(the_loop_writes_what_was_kept),
        cmocka_unit_test(closing_waits_no_longer_than_it_may),
        cmocka_unit_test(a_reader_that_is_gone),
        cmocka_unit_test(a_plain_file_is_written_in_place),
        cmocka_unit_test(a_descriptor_that_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
