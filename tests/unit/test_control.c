/* app/control and control_place: one daemon a path, what dead ones leave is replaced; questions in any pieces; answers of any length to clients
 * of any speed, a page at a time; nobody holds up anybody for longer than his time. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/control.h"
#include "app/control_place.h"

enum { LONG_LINES = 5000, LONG_LINE = 1000 };

static char directory[] = "/tmp/harvestd-test-XXXXXX", path[60];
static uv_loop_t loop;
static struct hv_control *control;
static struct hv_error err;
static unsigned pages;

static bool answer_short(void *user, struct hv_control_position *position, struct hv_text *page) {
    (void)user, (void)position;
    hv_text_puts(page, "{\"type\":\"end\"}\n");
    return true;
}

/* Numbered lines. */
static bool answer_long(void *user, struct hv_control_position *position, struct hv_text *page) {
    (void)user;
    pages++;
    while (page->size - page->length > HV_CONTROL_LINE_MAX) {
        if (position->at == LONG_LINES) {
            hv_text_puts(page, "end\n");
            return true;
        }
        hv_text_printf(page, "%0*u\n", LONG_LINE - 1, position->at++);
    }
    return false;
}

static const struct hv_control_question questions[] = {{"short", answer_short}, {"long", answer_long}, {NULL, NULL}};

static void open_control(hv_time patience) {
    assert_int_equal(uv_loop_init(&loop), 0);
    if (hv_control_open(&loop, path, questions, NULL, patience, &control, &err) != 0) {
        fail_msg("%s", err.text);
    }
    pages = 0;
}

static void close_control(void) {
    hv_control_close(control);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(access(path, F_OK), -1);
}

static void turn(void) {
    for (int i = 0; i < 20; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
    }
}

static int ask(const char *text) {
    int fd = hv_control_connect(path, HV_SECONDS(10), &err);
    assert_true(fd >= 0);
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    return fd;
}

static char received[LONG_LINES * LONG_LINE + 100];

/* Reads `most` bytes at a time while the loop runs until the daemon closes. Returns how many there were; *ret_bad has what ended it. */
static size_t read_to_end(int fd, size_t most, int *ret_bad) {
    size_t length = 0;
    for (;;) {
        uv_run(&loop, UV_RUN_NOWAIT);
        size_t room = sizeof received - 1 - length;
        ssize_t n = recv(fd, received + length, room < most ? room : most, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            continue;
        }
        if (n <= 0) {
            *ret_bad = n < 0 ? errno : 0;
            received[length] = '\0';
            close(fd);
            return length;
        }
        length += (size_t)n;
    }
}

static void expect_answer(int fd, const char *text) {
    int bad;
    read_to_end(fd, sizeof received, &bad);
    assert_string_equal(received, text);
    assert_int_equal(bad, 0);
}

#define SHORT "{\"type\":\"end\"}\n"
#define UNKNOWN "{\"type\":\"error\",\"error\":\"unknown question; this daemon answers: short long\"}\n"

static void answers(void **state) {
    (void)state;
    char request[2 * HV_CONTROL_REQUEST_MAX];
    struct stat file;
    open_control(HV_SECONDS(10));
    assert_int_equal(lstat(path, &file), 0);
    assert_int_equal(file.st_mode, S_IFSOCK | 0600);
    expect_answer(ask("short\n"), SHORT);
    expect_answer(ask("short\nand more that nobody reads"), SHORT);
    expect_answer(ask("shorter\n"), UNKNOWN);
    expect_answer(ask("\n"), UNKNOWN);
    memset(request, 's', sizeof request - 1);
    request[sizeof request - 1] = '\0';
    int bad;
    read_to_end(ask(request), sizeof received, &bad); /* what was not read may reset the connection */
    assert_true(received[0] == '\0' || strcmp(received, UNKNOWN) == 0);
    close_control();
}

static void question_in_pieces(void **state) {
    (void)state;
    open_control(HV_SECONDS(10));
    int fd = ask("s");
    for (const char *rest = "hort\n"; *rest != '\0'; rest++) {
        turn();
        assert_int_equal(send(fd, rest, 1, MSG_NOSIGNAL), 1);
    }
    shutdown(fd, SHUT_WR); /* as `nc -N` does */
    expect_answer(fd, SHORT);
    close_control();
}

static void long_answer(void **state) {
    static const size_t speeds[] = {1000003, 7001};
    (void)state;
    open_control(HV_SECONDS(60));
    for (size_t i = 0; i < sizeof speeds / sizeof speeds[0]; i++) {
        int bad;
        assert_int_equal(read_to_end(ask("long\n"), speeds[i], &bad), LONG_LINES * LONG_LINE + 4);
        assert_int_equal(bad, 0);
        for (int n = 0; n < LONG_LINES; n++) {
            assert_int_equal(atoi(received + n * LONG_LINE), n);
        }
        assert_string_equal(received + LONG_LINES * LONG_LINE, "end\n");
    }
    close_control();
}

/* It costs one page beyond what the socket holds, and goes after its time; others are answered meanwhile. */
static void client_that_never_reads(void **state) {
    (void)state;
    open_control(HV_MS(300));
    int fd = ask("long\n");
    turn();
    unsigned made = pages;
    assert_in_range(made, 1, LONG_LINES * LONG_LINE / HV_CONTROL_PAGE / 2);
    expect_answer(ask("short\n"), SHORT);
    turn();
    assert_int_equal(pages, made);
    while (send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 || errno == EAGAIN) { /* until the daemon closed */
        uv_run(&loop, UV_RUN_ONCE);
    }
    assert_int_equal(pages, made);
    close(fd);
    expect_answer(ask("short\n"), SHORT);
    close_control();
}

static void more_clients_than_places(void **state) {
    enum { MANY = 3 * HV_CONTROL_CLIENTS };
    (void)state;
    int fds[MANY];
    open_control(HV_MS(300));
    for (int i = 0; i < MANY; i++) {
        fds[i] = ask("");
    }
    turn();
    int late = ask("short\n");
    turn();
    char byte;
    assert_int_equal(recv(late, &byte, 1, MSG_DONTWAIT), -1); /* all places are taken by those that ask nothing */
    expect_answer(late, SHORT);                               /* ... until their time is over */
    for (int i = 0; i < MANY; i++) {
        close(fds[i]);
    }
    close_control();
}

static void closed_while_clients_are_there(void **state) {
    (void)state;
    open_control(HV_SECONDS(10));
    int silent = ask(""), half = ask("sho"), reading = ask("long\n"), never = ask("long\n"), queued = ask("long\n");
    turn();
    close_control();
    close(silent), close(half), close(reading), close(never), close(queued);
    open_control(HV_SECONDS(10));
    close_control();
}

static void client_that_dies(void **state) {
    (void)state;
    open_control(HV_SECONDS(10));
    for (int i = 0; i < 3 * HV_CONTROL_CLIENTS; i++) {
        int fd = ask(i % 3 == 0 ? "" : i % 3 == 1 ? "long\n" : "short\n");
        if (i % 2 == 0) {
            turn();
        }
        close(fd);
    }
    expect_answer(ask("short\n"), SHORT);
    close_control();
}

/* Only as root others can be tried. */
static void other_users(void **state) {
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    open_control(HV_SECONDS(10));
    assert_int_equal(chmod(directory, 0711), 0);
    assert_int_equal(chmod(path, 0777), 0); /* somebody loosened it */
    pid_t child = fork();
    if (child == 0) {
        char byte;
        int fd = setgid(65534) == 0 && setuid(65534) == 0 ? hv_control_connect(path, HV_SECONDS(10), NULL) : -1;
        int bad = fd < 0 ? 2 : send(fd, "short\n", 6, MSG_NOSIGNAL) < 0 ? 0 : recv(fd, &byte, 1, 0) > 0;
        _exit(bad);
    }
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) {
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close_control();
}

/* ---- the file ---- */

static void expect_refused(const char *where, const char *why) {
    struct hv_control_place place;
    assert_int_equal(hv_control_bind(where, &place, &err), -1);
    if (strstr(err.text, why) == NULL) {
        fail_msg("%s", err.text);
    }
}

static void leave_stale(void) {
    struct hv_control_place place;
    int fd = hv_control_bind(path, &place, &err);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(access(path, F_OK), 0);
}

static void places(void **state) {
    (void)state;
    struct hv_control_place place, other;
    leave_stale();
    assert_int_equal(hv_control_connect(path, HV_SECONDS(1), &err), -1);
    assert_non_null(strstr(err.text, "nobody listens"));
    int fd = hv_control_bind(path, &place, &err); /* over what is stale */
    assert_true(fd >= 0);
    expect_refused(path, "give each a path of its own");
    hv_control_unbind(&place);
    assert_int_equal(access(path, F_OK), -1);

    int next = hv_control_bind(path, &other, &err); /* ours was removed; another has the path now */
    assert_true(next >= 0);
    hv_control_unbind(&place);
    assert_int_equal(access(path, F_OK), 0);
    hv_control_unbind(&other);
    close(fd), close(next);

    int file = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(file >= 0);
    expect_refused(path, "is no socket");
    close(file), unlink(path);
    expect_refused("/nowhere/at/all/sock", "its directory has to be there");
    assert_int_equal(hv_control_connect("/nowhere/at/all/sock", HV_SECONDS(1), &err), -1);
    assert_non_null(strstr(err.text, "nobody listens"));
}

/* Several daemons that start over a stale file at once: one gets it, and it is the one that can be reached. */
static void many_at_once(void **state) {
    enum { ROUNDS = 60, RIVALS = 8 };
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int go[2], done[2], end[2], won = 0;
        char byte;
        leave_stale();
        assert_int_equal(pipe(go), 0);
        assert_int_equal(pipe(done), 0);
        assert_int_equal(pipe(end), 0);
        for (int i = 0; i < RIVALS; i++) {
            if (fork() == 0) {
                struct hv_control_place place;
                close(go[1]), close(done[0]);
                (void)!read(go[0], &byte, 1); /* all begin when it is closed */
                int fd = hv_control_bind(path, &place, NULL);
                (void)!write(done[1], fd < 0 ? "n" : "y", 1);
                close(end[1]);
                (void)!read(end[0], &byte, 1); /* stay alive until all are told */
                _exit(0);
            }
        }
        close(go[0]), close(go[1]);
        for (int i = 0; i < RIVALS; i++) {
            assert_int_equal(read(done[0], &byte, 1), 1);
            won += byte == 'y';
        }
        int fd = hv_control_connect(path, HV_SECONDS(10), &err);
        close(end[0]), close(end[1]);
        while (wait(NULL) > 0) {
        }
        close(done[0]), close(done[1]), close(fd);
        assert_true(fd >= 0);
        assert_int_equal(won, 1);
    }
    unlink(path);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),
        cmocka_unit_test(question_in_pieces),
        cmocka_unit_test(long_answer),
        cmocka_unit_test(client_that_never_reads),
        cmocka_unit_test(more_clients_than_places),
        cmocka_unit_test(closed_while_clients_are_there),
        cmocka_unit_test(client_that_dies),
        cmocka_unit_test(other_users),
        cmocka_unit_test(places),
        cmocka_unit_test(many_at_once),
    };
    if (mkdtemp(directory) == NULL) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/control.sock", directory);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(directory);
    return failed;
}
