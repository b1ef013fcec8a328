/* See pg_help.h. */
#include "pg_help.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the loop ---- */

static void no_turn(void *user) {
    (void)user;
}

static void on_watchdog(uv_timer_t *timer) {
    ((struct bench *)timer->data)->late = true;
}

void bench_open(struct bench *bench) {
    struct hv_error err;
    memset(bench, 0, sizeof *bench);
    assert_int_equal(uv_loop_init(&bench->uv), 0);
    assert_int_equal(hv_loop_open(&bench->uv, no_turn, bench, &bench->loop, &err), 0);
    uv_timer_init(&bench->uv, &bench->watchdog);
    bench->watchdog.data = bench;
}

void bench_run_until(struct bench *bench, bool (*cond)(void *arg), void *arg) {
    uv_update_time(&bench->uv);
    uv_timer_start(&bench->watchdog, on_watchdog, DEADLINE_S * 1000, 0);
    bench->late = false;
    while (!cond(arg)) {
        uv_run(&bench->uv, UV_RUN_ONCE);
        if (bench->late) {
            fail_msg("it did not happen within %d s", DEADLINE_S);
        }
    }
    uv_timer_stop(&bench->watchdog);
}

void bench_step(struct bench *bench) {
    uv_run(&bench->uv, UV_RUN_NOWAIT);
}

static void print_handle(uv_handle_t *handle, void *arg) {
    (void)arg;
    print_error("left open: %s\n", uv_handle_type_name(handle->type));
}

void bench_close(struct bench *bench) {
    hv_loop_close(bench->loop, NULL);
    uv_close((uv_handle_t *)&bench->watchdog, NULL);
    for (int i = 0; i < 100 && uv_run(&bench->uv, UV_RUN_NOWAIT) != 0; i++) {
    }
    int rc = uv_loop_close(&bench->uv);
    if (rc != 0) {
        uv_walk(&bench->uv, print_handle, NULL);
        fail_msg("the loop does not close: %s", uv_strerror(rc));
    }
}

/* ---- the real server ---- */

const char *conninfo_with(const char *more) {
    static char texts[8][2048];
    static int next;
    const char *base = getenv("HV_TEST_PG");
    if (base == NULL) {
        fail_msg("HV_TEST_PG names no server");
    }
    char *text = texts[next++ % 8];
    snprintf(text, sizeof texts[0], "%s %s", base, more);
    return text;
}

struct hv_pg_options options_for(const char *conninfo) {
    return (struct hv_pg_options){
        .conninfo = conninfo,
        .application_name = "contract",
        .connect_timeout = HV_SECONDS(20),
        .statement_timeout = HV_SECONDS(20),
        .backoff_min = HV_MS(5),
        .backoff_max = HV_MS(20),
        .seed = 1,
    };
}

PGconn *admin_open(const char *conninfo) {
    PGconn *admin = PQconnectdb(conninfo);
    if (PQstatus(admin) != CONNECTION_OK) {
        fail_msg("%s", PQerrorMessage(admin));
    }
    return admin;
}

void admin_sql(PGconn *admin, const char *sql) {
    PQclear(PQexec(admin, "SET client_min_messages = error"));
    PGresult *result = PQexec(admin, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", sql, PQerrorMessage(admin));
    }
    PQclear(result);
}

char *admin_value(PGconn *admin, const char *sql) {
    PGresult *result = PQexec(admin, sql);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", sql, PQerrorMessage(admin));
    }
    char *value = strdup(PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    return value;
}

void admin_close(PGconn *admin) {
    PQfinish(admin);
}

/* ---- sockets ---- */

static int listen_on_loopback(int *port, int backlog) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

int unused_port(void) {
    int port;
    close(listen_on_loopback(&port, 1));
    return port;
}

int black_hole(int fds[8]) {
    int port;
    fds[0] = listen_on_loopback(&port, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 1; i < 8; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fds[i], (struct sockaddr *)&address, sizeof address);
    }
    return port;
}

void black_hole_close(int fds[8]) {
    for (int i = 0; i < 8; i++) {
        close(fds[i]);
    }
}

/* ---- the scripted server ---- */

static void serve(void *arg) {
    struct fake *fake = arg;
    for (int nth = 0;; nth++) {
        int fd = accept(fake->listener, NULL, NULL);
        if (fd < 0) {
            return; /* fake_stop shut the listener down */
        }
        uv_mutex_lock(&fake->lock);
        fake->accepted++;
        uv_mutex_unlock(&fake->lock);
        fake->script(fake, fd, nth);
        close(fd);
    }
}

void fake_start(struct fake *fake, void (*script)(struct fake *fake, int fd, int nth), void *arg) {
    memset(fake, 0, sizeof *fake);
    fake->script = script;
    fake->arg = arg;
    fake->listener = listen_on_loopback(&fake->port, 16);
    uv_mutex_init(&fake->lock);
    assert_int_equal(uv_thread_create(&fake->thread, serve, fake), 0);
}

int fake_accepted(struct fake *fake) {
    uv_mutex_lock(&fake->lock);
    int accepted = fake->accepted;
    uv_mutex_unlock(&fake->lock);
    return accepted;
}

void fake_stop(struct fake *fake) {
    shutdown(fake->listener, SHUT_RDWR);
    uv_thread_join(&fake->thread);
    close(fake->listener);
    uv_mutex_destroy(&fake->lock);
}

const char *fake_conninfo(const struct fake *fake, const char *more) {
    static char texts[8][512];
    static int next;
    char *text = texts[next++ % 8];
    snprintf(text, sizeof texts[0], "host=127.0.0.1 port=%d user=u dbname=d sslmode=disable %s", fake->port,
             more);
    return text;
}

void fake_write(int fd, const void *data, size_t length) {
    const uint8_t *p = data;
    while (length > 0) {
        ssize_t n = send(fd, p, length, MSG_NOSIGNAL);
        if (n <= 0) {
            return;
        }
        p += n;
        length -= (size_t)n;
    }
}

static bool read_all(int fd, void *data, size_t length) {
    return length == 0 || recv(fd, data, length, MSG_WAITALL) == (ssize_t)length;
}

static uint32_t get_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool skip_bytes(int fd, size_t length) {
    uint8_t waste[4096];
    while (length > 0) {
        size_t n = length < sizeof waste ? length : sizeof waste;
        if (!read_all(fd, waste, n)) {
            return false;
        }
        length -= n;
    }
    return true;
}

static void put_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> (24 - 8 * i));
    }
}

void put_message(struct buffer *buffer, char type, const void *body, size_t length) {
    assert_true(buffer->length + 5 + length <= sizeof buffer->data);
    uint8_t *p = buffer->data + buffer->length;
    p[0] = (uint8_t)type;
    put_u32(p + 1, (uint32_t)length + 4);
    if (length > 0) {
        memcpy(p + 5, body, length);
    }
    buffer->length += 5 + length;
}

bool fake_login(int fd) {
    uint8_t head[8];
    for (;;) {
        if (!read_all(fd, head, 8)) {
            return false;
        }
        uint32_t code = get_u32(head + 4);
        if (code == 80877103 || code == 80877104) { /* TLS, GSS */
            fake_write(fd, "N", 1);
            continue;
        }
        if (!skip_bytes(fd, get_u32(head) - 8)) {
            return false;
        }
        break;
    }
    struct buffer out = {.length = 0};
    put_message(&out, 'R', "\0\0\0\0", 4);
    put_message(&out, 'S', "server_encoding\0UTF8", 21);
    put_message(&out, 'S', "client_encoding\0UTF8", 21);
    put_message(&out, 'S', "standard_conforming_strings\0on", 31);
    put_message(&out, 'K', "\0\0\0\x01\0\0\0\x02", 8);
    put_message(&out, 'Z', "I", 1);
    fake_write(fd, out.data, out.length);
    return true;
}

bool fake_statement(int fd) {
    uint8_t head[5];
    do {
        if (!read_all(fd, head, 5) || head[0] == 'X' || !skip_bytes(fd, get_u32(head + 1) - 4)) {
            return false;
        }
    } while (head[0] != 'S');
    return true;
}

void put_reply(struct buffer *buffer, int rows, const char *tag) {
    static const uint8_t description[] = {0, 1, 'i', 'd', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 8, 255, 255,
                                          255, 255, 0, 1};
    put_message(buffer, '1', NULL, 0);
    put_message(buffer, '2', NULL, 0);
    put_message(buffer, 'T', description, sizeof description);
    for (int i = 1; i <= rows; i++) {
        uint8_t row[14] = {0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, (uint8_t)i};
        put_message(buffer, 'D', row, sizeof row);
    }
    put_message(buffer, 'C', tag, strlen(tag) + 1);
    put_message(buffer, 'Z', "I", 1);
}

void fake_setup_answer(int fd) {
    struct buffer out = {.length = 0};
    put_reply(&out, 1, "SELECT 1");
    fake_write(fd, out.data, out.length);
}

void fake_wait_end(int fd) {
    char waste[256];
    while (recv(fd, waste, sizeof waste, 0) > 0) {
    }
}
