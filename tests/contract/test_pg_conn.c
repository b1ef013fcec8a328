/* The connection against a real server (HV_TEST_PG), scripted ones and a resolver of our own. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/pg_conn.h"
#include "pg_help.h"

/* ---- the resolver, in place of libc's, for libuv and libpq alike ---- */

#define EXPORTED __attribute__((visibility("default")))

static pthread_t main_thread;
static bool resolved_on_loop; /* a name was looked up on the loop's thread */
static uv_sem_t gate;         /* slow.test waits for it */
static uv_mutex_t names_lock;
static int look_ups, slow_look_ups;

static struct addrinfo *make_address(const char *numeric, const char *service, struct addrinfo *next) {
    struct addrinfo *a = calloc(1, sizeof *a + sizeof(struct sockaddr_in));
    struct sockaddr_in *in = (struct sockaddr_in *)(a + 1);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)(service == NULL ? 0 : atoi(service)));
    if (inet_pton(AF_INET, numeric, &in->sin_addr) != 1) {
        free(a);
        return NULL;
    }
    a->ai_family = AF_INET;
    a->ai_socktype = SOCK_STREAM;
    a->ai_addr = (struct sockaddr *)in;
    a->ai_addrlen = sizeof *in;
    a->ai_next = next;
    return a;
}

EXPORTED void freeaddrinfo(struct addrinfo *list) {
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;
        free(list);
        list = next;
    }
}

EXPORTED int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                         struct addrinfo **ret) {
    (void)hints;
    *ret = make_address(node, service, NULL);
    if (*ret != NULL) {
        return 0;
    }
    uv_mutex_lock(&names_lock);
    resolved_on_loop = resolved_on_loop || pthread_equal(pthread_self(), main_thread);
    look_ups++;
    slow_look_ups += strcmp(node, "slow.test") == 0;
    uv_mutex_unlock(&names_lock);
    if (strcmp(node, "gone.test") == 0) {
        return EAI_NONAME;
    }
    if (strcmp(node, "slow.test") == 0) {
        uv_sem_wait(&gate);
    }
    *ret = make_address("127.0.0.1", service, NULL);
    if (strcmp(node, "two.test") == 0) {
        *ret = make_address("127.0.0.2", service, *ret);
    }
    return 0;
}

static int count_slow_look_ups(void) {
    uv_mutex_lock(&names_lock);
    int n = slow_look_ups;
    uv_mutex_unlock(&names_lock);
    return n;
}

/* What the library sets on its sockets. */
static int user_timeout_seen, keepalive_idle_seen;

EXPORTED int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    if (level == IPPROTO_TCP && name == TCP_USER_TIMEOUT) {
        user_timeout_seen = *(const int *)value;
    }
    if (level == IPPROTO_TCP && name == TCP_KEEPIDLE) {
        keepalive_idle_seen = *(const int *)value;
    }
    return (int)syscall(SYS_setsockopt, fd, level, name, value, length);
}

/* ---- one connection and what it told ---- */

struct client {
    struct bench bench;
    struct hv_pg *pg;
    int ups, downs, results, refusals;
    bool closed;
    char host[256];
    struct hv_pg_failure failure;
    char value[64]; /* first column of the first row of the last result, or its command tag */
    int rows;
    bool in_call; /* a call into the API is under way: no handler may be called */
    void (*then)(struct client *client);
};

static void check_not_in_call(struct client *client) {
    assert_false(client->in_call);
    assert_false(client->closed);
}

static void on_up(void *user, const char *host) {
    struct client *client = user;
    check_not_in_call(client);
    client->ups++;
    snprintf(client->host, sizeof client->host, "%s", host);
    if (client->then != NULL) {
        client->then(client);
    }
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    struct client *client = user;
    check_not_in_call(client);
    client->downs++;
    client->failure = *failure;
    if (client->then != NULL) {
        client->then(client);
    }
}

static void on_result(void *user, PGresult *result) {
    struct client *client = user;
    check_not_in_call(client);
    client->results++;
    client->rows = PQntuples(result);
    const char *value = client->rows > 0 ? PQgetvalue(result, 0, 0) : PQcmdStatus(result);
    snprintf(client->value, sizeof client->value, "%s", value);
    if (client->then != NULL) {
        client->then(client);
    }
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    struct client *client = user;
    check_not_in_call(client);
    client->refusals++;
    client->failure = *failure;
}

static const struct hv_pg_handler handler = {.up = on_up, .down = on_down, .result = on_result, .refused = on_refused};

/* Long enough between two attempts to look at what goes on. */
static struct hv_pg_options patient_options_for(const char *conninfo) {
    struct hv_pg_options options = options_for(conninfo);
    options.backoff_min = HV_MS(20);
    options.backoff_max = HV_MS(100);
    return options;
}

static void client_open_with(struct client *client, const struct hv_pg_options *options) {
    struct hv_error err = {""};
    memset(client, 0, sizeof *client);
    bench_open(&client->bench);
    if (hv_pg_open(client->bench.loop, options, &handler, client, &client->pg, &err) != 0) {
        fail_msg("%s", err.text);
    }
}

static void client_open(struct client *client, const char *conninfo) {
    struct hv_pg_options options = patient_options_for(conninfo);
    client_open_with(client, &options);
}

static void on_closed(void *user) {
    ((struct client *)user)->closed = true;
}

static bool is_closed(void *arg) {
    return ((struct client *)arg)->closed;
}

static void client_close(struct client *client) {
    client->in_call = true;
    hv_pg_close(client->pg, on_closed);
    client->in_call = false;
    bench_run_until(&client->bench, is_closed, client);
    bench_close(&client->bench);
    assert_false(resolved_on_loop);
}

static void client_send(struct client *client, const char *sql) {
    client->in_call = true;
    hv_pg_send(client->pg, sql, 0, NULL, NULL, NULL, NULL);
    client->in_call = false;
}

static bool has_up(void *arg) {
    return ((struct client *)arg)->ups > 0;
}

static bool has_down(void *arg) {
    return ((struct client *)arg)->downs > 0;
}

static bool has_three_downs(void *arg) {
    return ((struct client *)arg)->downs >= 3;
}

static bool has_answer(void *arg) {
    struct client *client = arg;
    return client->results + client->refusals + client->downs > 0;
}

static void wait_up(struct client *client) {
    client->ups = 0;
    bench_run_until(&client->bench, has_up, client);
    assert_true(hv_pg_is_idle(client->pg));
}

static void wait_down(struct client *client) {
    client->downs = 0;
    bench_run_until(&client->bench, has_down, client);
}

static void run_statement(struct client *client, const char *sql) {
    client->results = client->refusals = client->downs = 0;
    client_send(client, sql);
    assert_false(hv_pg_is_idle(client->pg));
    bench_run_until(&client->bench, has_answer, client);
}

static void assert_failure(const struct client *client, enum hv_pg_trouble trouble, const char *sqlstate,
                           bool unknown,
                           const char *text) {
    assert_int_equal(client->failure.trouble, trouble);
    assert_string_equal(client->failure.sqlstate, sqlstate);
    assert_int_equal(client->failure.outcome_unknown, unknown);
    if (strstr(client->failure.error.text, text) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", client->failure.error.text, text);
    }
    assert_null(strchr(client->failure.error.text, '\n'));
}

/* ---- plain use ---- */

static void test_connects_and_answers(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with(""));
    assert_false(hv_pg_is_up(c.pg));
    wait_up(&c);
    assert_non_null(strstr(c.host, "127.0.0.1:"));
    run_statement(&c, "SELECT current_setting('application_name')");
    assert_string_equal(c.value, "contract");
    run_statement(&c, "SELECT current_setting('client_encoding')");
    assert_string_equal(c.value, "UTF8");
    run_statement(&c, "SELECT 'x' FROM generate_series(1, 0)");
    assert_int_equal(c.results, 1);
    assert_int_equal(c.rows, 0);
    run_statement(&c, "SET search_path = public");
    assert_string_equal(c.value, "SET");
    assert_int_equal(user_timeout_seen, 10000);
    assert_int_equal(keepalive_idle_seen, 10);
    assert_int_equal(c.downs, 0);
    client_close(&c);
}

static void test_settings_of_the_user_win(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with("application_name=mine client_encoding=LATIN1 tcp_user_timeout=1234 keepalives_idle=77"));
    wait_up(&c);
    run_statement(&c, "SELECT current_setting('application_name')");
    assert_string_equal(c.value, "mine");
    run_statement(&c, "SELECT current_setting('client_encoding')");
    assert_string_equal(c.value, "LATIN1");
    assert_int_equal(user_timeout_seen, 1234);
    assert_int_equal(keepalive_idle_seen, 77);
    client_close(&c);
}

static void test_refused_statement_keeps_the_session(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with(""));
    wait_up(&c);
    run_statement(&c, "SELECT * FROM no_such_table");
    assert_int_equal(c.refusals, 1);
    assert_failure(&c, HV_PG_NO_TABLE, "42P01", false, "no_such_table");
    run_statement(&c, "SELECT no_such_column FROM pg_class");
    assert_failure(&c, HV_PG_NO_COLUMN, "42703", false, "no_such_column");
    run_statement(&c, "this is no SQL");
    assert_failure(&c, HV_PG_STATEMENT, "42601", false, "syntax error");
    assert_true(hv_pg_is_idle(c.pg));
    run_statement(&c, "SELECT 'fine'");
    assert_string_equal(c.value, "fine");
    client_close(&c);
}

/* The commit fails after the statement itself succeeded: the command's own result must not count. */
static void test_failure_at_commit_is_a_refusal(void **state) {
    (void)state;
    PGconn *admin = admin_open(conninfo_with(""));
    admin_sql(admin, "DROP TABLE IF EXISTS deferred_b, deferred_a");
    admin_sql(admin, "CREATE TABLE deferred_a (id int PRIMARY KEY)");
    admin_sql(admin, "CREATE TABLE deferred_b (id int REFERENCES deferred_a DEFERRABLE INITIALLY DEFERRED)");
    struct client c;
    client_open(&c, conninfo_with(""));
    wait_up(&c);
    run_statement(&c, "INSERT INTO deferred_b VALUES (1) RETURNING 'inserted'");
    assert_int_equal(c.results, 0);
    assert_int_equal(c.refusals, 1);
    assert_failure(&c, HV_PG_STATEMENT, "23503", false, "violates foreign key");
    client_close(&c);
    admin_sql(admin, "DROP TABLE deferred_b, deferred_a");
    admin_close(admin);
}

static void test_large_statement_and_large_reply(void **state) {
    (void)state;
    static const char *const modes[] = {"", "sslmode=require"};
    size_t size = 30 * 1000 * 1000;
    char *big = malloc(size);
    memset(big, 7, size);
    for (int i = 0; i < 2; i++) { /* the server must offer TLS */
        struct client c;
        client_open(&c, conninfo_with(modes[i]));
        wait_up(&c);
        int length = (int)size, format = 1;
        const Oid type = 17;
        const char *const value = big;
        hv_pg_send(c.pg, "SELECT length($1)::text", 1, &type, &value, &length, &format);
        bench_run_until(&c.bench, has_answer, &c);
        assert_string_equal(c.value, "30000000");
        for (int rows = 1; rows < 60000; rows = rows * 7 + 1) {
            char sql[128];
            snprintf(sql, sizeof sql, "SELECT repeat('x', 500) FROM generate_series(1, %d)", rows);
            run_statement(&c, sql);
            assert_int_equal(c.rows, rows);
        }
        client_close(&c);
    }
    free(big);
}

/* libpq would print them on standard error. */
static void test_notices_are_taken_over(void **state) {
    (void)state;
    FILE *file = tmpfile();
    int standard_error = dup(2);
    assert_true(file != NULL && standard_error >= 0);
    struct client c;
    client_open(&c, conninfo_with(""));
    wait_up(&c);
    dup2(fileno(file), 2);
    run_statement(&c, "DO $$ BEGIN RAISE WARNING 'NOTICED'; END $$");
    dup2(standard_error, 2);
    close(standard_error);
    assert_int_equal(c.results, 1);
    fseek(file, 0, SEEK_END);
    assert_int_equal(ftell(file), 0);
    fclose(file);
    client_close(&c);
}

static void send_again(struct client *client) {
    if (client->results < 100 && hv_pg_is_idle(client->pg)) {
        hv_pg_send(client->pg, "SELECT 'again'", 0, NULL, NULL, NULL, NULL);
    }
}

static bool has_hundred(void *arg) {
    return ((struct client *)arg)->results == 100;
}

static void test_sending_from_a_handler(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with(""));
    c.then = send_again;
    bench_run_until(&c.bench, has_hundred, &c);
    client_close(&c);
}

/* ---- connecting ---- */

static void test_refused_until_a_server_comes(void **state) {
    (void)state;
    struct client c;
    char conninfo[256];
    snprintf(conninfo, sizeof conninfo, "host=127.0.0.1 port=%d dbname=d", unused_port());
    client_open(&c, conninfo);
    bench_run_until(&c.bench, has_three_downs, &c);
    assert_failure(&c, HV_PG_UNREACHABLE, "", false, "Connection refused");
    assert_non_null(strstr(c.failure.host, "127.0.0.1:"));
    client_close(&c);
}

static char *server_port(void) {
    PGconn *admin = admin_open(conninfo_with(""));
    char *port = strdup(PQport(admin));
    admin_close(admin);
    return port;
}

static void test_hosts_are_tried_in_turn(void **state) {
    (void)state;
    char *port = server_port();
    char more[256];
    struct client c;
    snprintf(more, sizeof more, "host=127.0.0.1,127.0.0.1 port=%d,%s", unused_port(), port);
    client_open(&c, conninfo_with(more));
    wait_up(&c);
    assert_int_equal(c.downs, 0);
    assert_non_null(strstr(c.host, port));
    client_close(&c);
    /* All dead: each one's reason is told. */
    snprintf(more, sizeof more, "host=127.0.0.1,127.0.0.1 port=%d,%d", unused_port(), unused_port());
    client_open(&c, more);
    wait_down(&c);
    const char *text = c.failure.error.text;
    assert_non_null(strstr(strstr(text, "refused") + 1, "refused"));
    client_close(&c);
    free(port);
}

static void test_black_hole_does_not_hide_the_next_host(void **state) {
    (void)state;
    int fds[8], hole = black_hole(fds);
    char *port = server_port();
    char more[256];
    struct client c;
    snprintf(more, sizeof more, "host=127.0.0.1,127.0.0.1,127.0.0.1 port=%d,%d,%s", hole, hole, port);
    struct hv_pg_options options = patient_options_for(conninfo_with(more));
    options.connect_timeout = HV_MS(400);
    client_open_with(&c, &options);
    wait_down(&c);
    assert_failure(&c, HV_PG_UNREACHABLE, "", false, "did not answer within 400 ms");
    wait_up(&c);
    assert_non_null(strstr(c.host, port));
    client_close(&c);
    free(port);
    black_hole_close(fds);
}

static void say_nothing(struct fake *fake, int fd, int nth) {
    (void)fake;
    (void)nth;
    fake_wait_end(fd);
}

static void test_server_that_never_answers(void **state) {
    (void)state;
    struct fake fake;
    struct client c;
    fake_start(&fake, say_nothing, NULL);
    struct hv_pg_options options = patient_options_for(fake_conninfo(&fake, ""));
    options.connect_timeout = HV_MS(100);
    client_open_with(&c, &options);
    bench_run_until(&c.bench, has_three_downs, &c);
    assert_failure(&c, HV_PG_UNREACHABLE, "", false, "did not answer within 100 ms");
    client_close(&c);
    assert_true(fake_accepted(&fake) >= 3);
    fake_stop(&fake);
}

static void login_then_nothing(struct fake *fake, int fd, int nth) {
    (void)fake;
    (void)nth;
    fake_login(fd);
    fake_wait_end(fd);
}

static void test_server_that_stops_after_the_login(void **state) {
    (void)state;
    struct fake fake;
    struct client c;
    fake_start(&fake, login_then_nothing, NULL);
    struct hv_pg_options options = patient_options_for(fake_conninfo(&fake, ""));
    options.connect_timeout = HV_MS(100);
    client_open_with(&c, &options);
    wait_down(&c);
    assert_int_equal(c.ups, 0);
    assert_failure(&c, HV_PG_UNREACHABLE, "", false, "then did not answer");
    client_close(&c);
    fake_stop(&fake);
}

/* The server agrees to TLS and hangs up; libpq opens another socket, mostly with the same number, and goes
 * without. */
static void hang_up_on_tls(struct fake *fake, int fd, int nth) {
    (void)fake;
    char head[8];
    if (nth == 0) {
        assert_int_equal(recv(fd, head, sizeof head, MSG_WAITALL), 8);
        fake_write(fd, "S", 1);
        recv(fd, head, 1, 0);
        return;
    }
    if (fake_login(fd) && fake_statement(fd)) {
        fake_setup_answer(fd);
        fake_wait_end(fd);
    }
}

static void test_socket_changes_while_connecting(void **state) {
    (void)state;
    struct fake fake;
    struct client c;
    fake_start(&fake, hang_up_on_tls, NULL);
    client_open(&c, fake_conninfo(&fake, "sslmode=prefer"));
    wait_up(&c);
    assert_int_equal(c.downs, 0);
    assert_int_equal(fake_accepted(&fake), 2);
    client_close(&c);
    fake_stop(&fake);
}

static int ticks;

static void on_tick(uv_timer_t *timer) {
    (void)timer;
    ticks++;
}

struct hole {
    int port, before;
};

/* Connections of this host that ask the port and have no answer. */
static int count_asking(int port) {
    FILE *file = fopen("/proc/net/tcp", "r");
    assert_non_null(file);
    char line[256];
    int count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned remote_port, state;
        if (sscanf(line, "%*d: %*x:%*x %*x:%x %x", &remote_port, &state) == 2) {
            count += (int)remote_port == port && state == 2;
        }
    }
    fclose(file);
    return count;
}

static bool one_more_asks(void *arg) {
    const struct hole *hole = arg;
    uv_sleep(1);
    return count_asking(hole->port) > hole->before;
}

/* A connection attempt that is refused late: libpq closes the socket in its poll call and opens the next host's, with the
 * same number and again to be watched for writing. */
static void test_late_refusal_while_connecting(void **state) {
    (void)state;
    struct client c;
    int fds[8];
    struct hole hole = {.port = black_hole(fds)};
    char more[128], *port = server_port();
    hole.before = count_asking(hole.port);
    snprintf(more, sizeof more, "host=127.0.0.1,127.0.0.1 port=%d,%s", hole.port, port);
    client_open(&c, conninfo_with(more));
    /* Keeps the loop from sleeping while we look. */
    uv_timer_t tick;
    uv_timer_init(&c.bench.uv, &tick);
    uv_timer_start(&tick, on_tick, 1, 1);
    bench_run_until(&c.bench, one_more_asks, &hole);
    black_hole_close(fds);
    for (int i = 0; i < 8; i++) {
        fds[i] = dup(0); /* so that the next socket gets the number of the last one */
    }
    wait_up(&c);
    assert_int_equal(c.downs, 0);
    uv_close((uv_handle_t *)&tick, NULL);
    client_close(&c);
    black_hole_close(fds);
    free(port);
}

static void test_wrong_password_database_and_rights(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with("password=topsecret"));
    bench_run_until(&c.bench, has_three_downs, &c);
    assert_failure(&c, HV_PG_AUTHENTICATION, "28P01", false, "password authentication failed");
    assert_null(strstr(c.failure.error.text, "topsecret"));
    assert_null(strstr(c.failure.error.text, "28P01"));
    client_close(&c);

    client_open(&c, conninfo_with("password=''"));
    wait_down(&c);
    assert_failure(&c, HV_PG_AUTHENTICATION, "", false, "no password supplied");
    client_close(&c);

    client_open(&c, conninfo_with("dbname=no_such_database"));
    wait_down(&c);
    assert_failure(&c, HV_PG_NO_DATABASE, "3D000", false, "no_such_database");
    client_close(&c);
}

static void starting_up(struct fake *fake, int fd, int nth) {
    (void)fake;
    (void)nth;
    uint8_t head[8];
    char body[256];
    if (recv(fd, head, 8, MSG_WAITALL) == 8 && recv(fd, body, sizeof body, 0) > 0) {
        struct buffer out = {.length = 0};
        static const char error[] = "SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0";
        put_message(&out, 'E', error, sizeof error);
        fake_write(fd, out.data, out.length);
    }
}

static void test_server_that_is_starting_up(void **state) {
    (void)state;
    struct fake fake;
    struct client c;
    fake_start(&fake, starting_up, NULL);
    client_open(&c, fake_conninfo(&fake, ""));
    bench_run_until(&c.bench, has_three_downs, &c);
    assert_failure(&c, HV_PG_NOT_READY, "57P03", false, "the database system is starting up");
    client_close(&c);
    fake_stop(&fake);
}

static void assert_config_error(const char *conninfo, const char *text, const char *hidden) {
    struct bench bench;
    struct hv_pg *pg;
    struct hv_error err = {""};
    bench_open(&bench);
    struct hv_pg_options options = patient_options_for(conninfo);
    assert_int_equal(hv_pg_open(bench.loop, &options, &handler, NULL, &pg, &err), -1);
    if (strstr(err.text, text) == NULL || (hidden != NULL && strstr(err.text, hidden) != NULL)) {
        fail_msg("unexpected: %s", err.text);
    }
    bench_close(&bench);
}

static void test_bad_conninfo(void **state) {
    (void)state;
    assert_config_error("host=h pasword=p", "did you mean password", NULL);
    assert_config_error("host=h password=my secret", "'=' is missing", "secret");
    assert_config_error("host=h password=my sec ret=x", "'=' is missing", "ret");
    assert_config_error("postgresql://u:secret@[::1/d", "URI", "secret");
    assert_config_error("host=h password='secret", "not closed", "secret");
    assert_config_error("host=a,b,c port=1,2", "port", NULL);
    assert_config_error("host=a sslmode=perhaps", "perhaps", NULL);
    assert_config_error("host=a target_session_attrs=perhaps", "perhaps", NULL);
    assert_config_error("service=no-such-service", "no-such-service", NULL);
}

/* ---- names ---- */

static bool slow_is_asked(void *arg) {
    (void)arg;
    return count_slow_look_ups() > 0;
}

static bool has_ticked(void *arg) {
    (void)arg;
    return ticks >= 10;
}

static void test_slow_resolver_does_not_block_the_loop(void **state) {
    (void)state;
    struct client c;
    slow_look_ups = ticks = 0;
    client_open(&c, conninfo_with("host=slow.test"));
    uv_timer_t tick;
    uv_timer_init(&c.bench.uv, &tick);
    uv_timer_start(&tick, on_tick, 1, 1);
    bench_run_until(&c.bench, slow_is_asked, NULL);
    bench_run_until(&c.bench, has_ticked, NULL);
    assert_int_equal(c.ups + c.downs, 0);
    uv_sem_post(&gate);
    wait_up(&c);
    assert_non_null(strstr(c.host, "slow.test:"));
    uv_close((uv_handle_t *)&tick, NULL);
    client_close(&c);
}

static void test_all_addresses_and_names_anew(void **state) {
    (void)state;
    struct client c;
    look_ups = 0;
    client_open(&c, conninfo_with("host=two.test"));
    wait_up(&c); /* its first address refuses */
    assert_int_equal(look_ups, 1);
    hv_pg_drop(c.pg, HV_PG_STATEMENT, "because");
    wait_down(&c);
    assert_failure(&c, HV_PG_STATEMENT, "", false, "because");
    wait_up(&c);
    assert_int_equal(look_ups, 2);
    client_close(&c);
}

static void test_unknown_names(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with("host=gone.test"));
    bench_run_until(&c.bench, has_three_downs, &c);
    assert_failure(&c, HV_PG_UNREACHABLE, "", false, "could not translate host name \"gone.test\"");
    assert_string_equal(c.failure.host, "gone.test");
    client_close(&c);
    client_open(&c, conninfo_with("host=gone.test,two.test,127.0.0.1"));
    wait_up(&c);
    assert_int_equal(c.downs, 0);
    client_close(&c);
}

static void test_hung_name_does_not_hide_the_next_host(void **state) {
    (void)state;
    struct client c;
    struct hv_pg_options options = patient_options_for(conninfo_with("host=slow.test,two.test"));
    options.connect_timeout = HV_SECONDS(2);
    client_open_with(&c, &options);
    wait_up(&c);
    assert_non_null(strstr(c.host, "two.test"));
    /* Alone, it fails in time. */
    struct client d;
    options.conninfo = conninfo_with("host=slow.test");
    options.connect_timeout = HV_MS(100);
    client_open_with(&d, &options);
    wait_down(&d);
    assert_failure(&d, HV_PG_UNREACHABLE, "", false, "resolver does not answer");
    for (int i = 0; i < 64; i++) {
        uv_sem_post(&gate); /* whoever still waits */
    }
    client_close(&d);
    client_close(&c);
    while (uv_sem_trywait(&gate) == 0) {
    }
}

static void test_service_passfile_and_uri(void **state) {
    (void)state;
    char directory[] = "/tmp/harvestd-contract-XXXXXX", path[2][64];
    assert_non_null(mkdtemp(directory));
    PGconn *admin = admin_open(conninfo_with(""));
    const char *names[2] = {"service", "passfile"};
    FILE *files[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", directory, names[i]);
        files[i] = fopen(path[i], "w");
        assert_non_null(files[i]);
        assert_int_equal(fchmod(fileno(files[i]), 0600), 0);
    }
    fprintf(files[0], "[there]\nhost=gone.test,two.test\nport=%s\nuser=%s\ndbname=%s\nsslmode=disable\n",
            PQport(admin),
            PQuser(admin), PQdb(admin));
    fprintf(files[1], "two.test:%s:*:%s:", PQport(admin), PQuser(admin));
    for (const char *p = PQpass(admin); *p != 0; p++) {
        fprintf(files[1], "%s%c", strchr(":\\", *p) != NULL ? "\\" : "", *p);
    }
    fprintf(files[1], "\n");
    fclose(files[0]);
    fclose(files[1]);
    setenv("PGSERVICEFILE", path[0], 1);
    setenv("PGPASSFILE", path[1], 1);

    struct client c;
    client_open(&c, "service=there");
    wait_up(&c);
    assert_non_null(strstr(c.host, "two.test"));
    client_close(&c);
    char uri[512];
    snprintf(uri, sizeof uri, "postgresql://%s@gone.test:%s,two.test:%s/%s?sslmode=disable", PQuser(admin),
             PQport(admin),
             PQport(admin), PQdb(admin));
    client_open(&c, uri);
    wait_up(&c);
    client_close(&c);
    setenv("PGHOST", "two.test", 1);
    snprintf(uri, sizeof uri, "user=%s port=%s dbname=%s sslmode=disable", PQuser(admin), PQport(admin),
             PQdb(admin));
    client_open(&c, uri);
    wait_up(&c);
    client_close(&c);

    unsetenv("PGHOST");
    unsetenv("PGSERVICEFILE");
    unsetenv("PGPASSFILE");
    unlink(path[0]);
    unlink(path[1]);
    rmdir(directory);
    admin_close(admin);
}

static void test_unix_socket_and_hostaddr(void **state) {
    (void)state;
    PGconn *admin = admin_open(conninfo_with(""));
    char *directories = admin_value(admin, "SELECT current_setting('unix_socket_directories')"), more[512];
    struct client c;
    snprintf(more, sizeof more, "host=%s", directories);
    client_open(&c, conninfo_with(more));
    wait_up(&c);
    client_close(&c);
    snprintf(more, sizeof more, "host=gone.test,two.test hostaddr=127.0.0.3,127.0.0.1 port=%s",
             PQport(admin));
    client_open(&c, conninfo_with(more)); /* nothing to look up */
    wait_up(&c);
    assert_non_null(strstr(c.host, "two.test"));
    client_close(&c);
    free(directories);
    admin_close(admin);
}

/* ---- losing a session ---- */

static void terminate(PGconn *admin) {
    admin_sql(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'contract'");
}

static bool is_sleeping(PGconn *admin) {
    char *n = admin_value(admin, "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'contract' AND "
                                 "state = 'active' AND wait_event = 'PgSleep'");
    bool yes = strcmp(n, "1") == 0;
    free(n);
    return yes;
}

static void test_session_ended_by_the_server(void **state) {
    (void)state;
    PGconn *admin = admin_open(conninfo_with(""));
    struct client c;
    client_open(&c, conninfo_with(""));
    wait_up(&c);
    terminate(admin); /* while idle */
    wait_down(&c);
    assert_failure(&c, HV_PG_LOST, "57P01", false, "terminating connection");
    assert_false(hv_pg_is_up(c.pg));
    wait_up(&c);
    c.downs = 0;
    client_send(&c, "SELECT pg_sleep(600)");
    while (!is_sleeping(admin)) {
        bench_step(&c.bench);
    }
    terminate(admin); /* while a statement runs */
    wait_down(&c);
    assert_failure(&c, HV_PG_LOST, "57P01", true, "terminating connection");
    assert_int_equal(c.results + c.refusals, 0);
    wait_up(&c);
    run_statement(&c, "SELECT 'fine'");
    assert_string_equal(c.value, "fine");
    client_close(&c);
    admin_close(admin);
}

static void test_server_ends_a_slow_statement(void **state) {
    (void)state;
    struct client c;
    struct hv_pg_options options = patient_options_for(conninfo_with(""));
    options.statement_timeout = HV_SECONDS(4);
    client_open_with(&c, &options);
    wait_up(&c);
    run_statement(&c, "SELECT current_setting('statement_timeout')");
    assert_string_equal(c.value, "3s");
    run_statement(&c, "SELECT current_setting('jit')"); /* on by default */
    assert_string_equal(c.value, "off");
    run_statement(&c, "SELECT current_setting('enable_seqscan') || current_setting('enable_bitmapscan')");
    assert_string_equal(c.value, "offoff");
    run_statement(&c, "SELECT pg_sleep(600)");
    assert_int_equal(c.refusals, 1);
    assert_failure(&c, HV_PG_TIMEOUT, "57014", false, "statement timeout");
    assert_true(hv_pg_is_idle(c.pg));
    client_close(&c);
}

static void ignore_statements(struct fake *fake, int fd, int nth) {
    (void)fake;
    (void)nth;
    if (fake_login(fd) && fake_statement(fd)) {
        fake_setup_answer(fd);
        fake_wait_end(fd);
    }
}

static void test_statement_without_an_answer(void **state) {
    (void)state;
    struct fake fake;
    struct client c;
    fake_start(&fake, ignore_statements, NULL);
    struct hv_pg_options options = patient_options_for(fake_conninfo(&fake, ""));
    options.statement_timeout = HV_MS(50);
    client_open_with(&c, &options);
    wait_up(&c);
    run_statement(&c, "SELECT 1");
    assert_int_equal(c.downs, 1);
    assert_failure(&c, HV_PG_TIMEOUT, "", true, "no answer to a statement within 50 ms");
    wait_up(&c);
    client_close(&c);
    fake_stop(&fake);
}

/* Serves one statement with the first fake->reply_cut bytes of a reply, then hangs up; with a reset when
 * that is odd. */
static void cut_reply(struct fake *fake, int fd, int nth) {
    (void)nth;
    if (!fake_login(fd) || !fake_statement(fd)) {
        return;
    }
    fake_setup_answer(fd);
    if (!fake_statement(fd)) {
        return;
    }
    struct buffer reply = {.length = 0};
    put_reply(&reply, 3, "UPDATE 3");
    uv_mutex_lock(&fake->lock);
    int cut = fake->reply_cut;
    uv_mutex_unlock(&fake->lock);
    fake_write(fd, reply.data, (size_t)cut);
    if (cut % 2 == 1) {
        struct linger reset = {1, 0};
        syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
}

/* Cut after every one of its bytes: no rows until the server said that it is ready again. */
static void test_cut_reply_never_counts(void **state) {
    (void)state;
    struct buffer whole = {.length = 0};
    put_reply(&whole, 3, "UPDATE 3");
    struct fake fake;
    struct client c;
    fake_start(&fake, cut_reply, NULL);
    struct hv_pg_options options = patient_options_for(fake_conninfo(&fake, ""));
    options.backoff_min = options.backoff_max = HV_MS(1);
    client_open_with(&c, &options);
    for (int cut = 0; cut < (int)whole.length; cut++) {
        uv_mutex_lock(&fake.lock);
        fake.reply_cut = cut;
        uv_mutex_unlock(&fake.lock);
        wait_up(&c);
        run_statement(&c, "UPDATE");
        assert_int_equal(c.results + c.refusals, 0);
        assert_int_equal(c.downs, 1);
        assert_int_equal(c.failure.trouble, HV_PG_LOST);
        assert_true(c.failure.outcome_unknown);
    }
    uv_mutex_lock(&fake.lock);
    fake.reply_cut = (int)whole.length;
    uv_mutex_unlock(&fake.lock);
    wait_up(&c);
    run_statement(&c, "UPDATE");
    assert_int_equal(c.results, 1);
    assert_int_equal(c.rows, 3);
    client_close(&c);
    fake_stop(&fake);
}

/* Hangs up, with a reset, while a large statement is on its way. */
static void reset_while_reading(struct fake *fake, int fd, int nth) {
    (void)fake;
    (void)nth;
    char some[1000];
    if (fake_login(fd) && fake_statement(fd)) {
        fake_setup_answer(fd);
        recv(fd, some, sizeof some, MSG_WAITALL);
    }
}

/* SIGPIPE stays as it is, and would end this program. */
static void test_hang_up_while_sending(void **state) {
    (void)state;
    struct fake fake;
    struct client c;
    size_t size = 20 * 1000 * 1000;
    char *big = calloc(1, size);
    fake_start(&fake, reset_while_reading, NULL);
    client_open(&c, fake_conninfo(&fake, ""));
    for (int i = 0; i < 10; i++) {
        wait_up(&c);
        c.downs = 0;
        int length = (int)size, format = 1;
        const Oid type = 17;
        const char *const value = big;
        hv_pg_send(c.pg, "SELECT $1", 1, &type, &value, &length, &format);
        bench_run_until(&c.bench, has_answer, &c);
        assert_int_equal(c.results + c.refusals, 0);
        assert_int_equal(c.failure.trouble, HV_PG_LOST);
        assert_true(c.failure.outcome_unknown);
        assert_true(c.failure.error.text[0] != 0);
    }
    client_close(&c);
    fake_stop(&fake);
    free(big);
}

static void talk_nonsense(struct fake *fake, int fd, int nth) {
    (void)fake;
    static const char *const answers[] = {"?????????????????", "T\0\0\0\x06\xff\xff", "D\x7f\xff\xff\xff",
                                          "W\0\0\0\x07\0\0\0",
                                          "Z\0\0\0\x05I", "E\0\0\0\x05\0Z\0\0\0\x05I"};
    static const size_t lengths[] = {17, 7, 5, 8, 6, 12};
    if (fake_login(fd) && fake_statement(fd)) {
        fake_setup_answer(fd);
        if (fake_statement(fd)) {
            fake_write(fd, answers[nth % 6], lengths[nth % 6]);
        }
    }
}

static void test_nonsense_ends_the_session(void **state) {
    (void)state;
    struct fake fake;
    struct client c;
    fake_start(&fake, talk_nonsense, NULL);
    client_open(&c, fake_conninfo(&fake, ""));
    for (int i = 0; i < 6; i++) {
        wait_up(&c);
        run_statement(&c, "SELECT 1");
        assert_int_equal(c.results, 0);
        if (!hv_pg_is_up(c.pg)) {
            assert_int_equal(c.failure.outcome_unknown, c.refusals == 0);
        }
    }
    client_close(&c);
    fake_stop(&fake);
}

static void test_standby_after_switch_over_is_left(void **state) {
    (void)state;
    PGconn *admin = admin_open(conninfo_with(""));
    struct client c;
    client_open(&c, conninfo_with(""));
    wait_up(&c);
    run_statement(&c, "SET default_transaction_read_only = on");
    run_statement(&c, "CREATE TABLE never ()");
    assert_int_equal(c.downs, 1);
    assert_failure(&c, HV_PG_NOT_READY, "25006", false, "read-only");
    wait_up(&c);
    client_close(&c);
    admin_close(admin);
}

static void test_drop_while_busy(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with(""));
    hv_pg_drop(c.pg, HV_PG_STATEMENT, "nothing is up"); /* no-op */
    wait_up(&c);
    client_send(&c, "SELECT pg_sleep(600)");
    c.in_call = true;
    hv_pg_drop(c.pg, HV_PG_STATEMENT, "because");
    hv_pg_drop(c.pg, HV_PG_STATEMENT, "twice");
    c.in_call = false;
    wait_down(&c);
    assert_failure(&c, HV_PG_STATEMENT, "", true, "because");
    assert_int_equal(c.downs, 1);
    wait_up(&c);
    client_close(&c);
}

/* A database without an encoding takes and gives bytes that are no UTF-8. */
static void test_database_without_encoding(void **state) {
    (void)state;
    PGconn *admin = admin_open(conninfo_with(""));
    admin_sql(admin, "DROP DATABASE IF EXISTS contract_ascii");
    admin_sql(admin, "CREATE DATABASE contract_ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    struct client c;
    client_open(&c, conninfo_with("dbname=contract_ascii"));
    wait_up(&c);
    run_statement(&c, "SELECT E'\\xe9t\\xe9'");
    assert_int_equal(c.results, 1);
    assert_string_equal(c.value, "\xe9t\xe9");
    client_close(&c);
    admin_sql(admin, "DROP DATABASE contract_ascii WITH (FORCE)");
    admin_close(admin);
}

/* ---- closing ---- */

static bool close_after(struct client *c, const char *conninfo, int steps, const char *sql) {
    client_open(c, conninfo);
    bool used = false;
    for (int i = 0; i < steps; i++) {
        bench_step(&c->bench);
        if (sql != NULL && !used && hv_pg_is_idle(c->pg)) {
            client_send(c, sql);
            used = true;
        }
        if (!used) {
            uv_sleep(1);
        }
    }
    client_close(c);
    return used;
}

static void test_close_in_every_state(void **state) {
    (void)state;
    struct client c;
    int reached = 0;
    for (int steps = 0; steps < 60; steps++) {
        reached += close_after(&c, conninfo_with("host=two.test"), steps,
                               "SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
    }
    assert_true(reached > 5);
    for (int steps = 0; steps < 30; steps += 3) {
        close_after(&c, "host=127.0.0.2,gone.test port=1", steps, NULL);
    }
}

static void test_close_while_a_name_is_looked_up(void **state) {
    (void)state;
    struct client c;
    slow_look_ups = 0;
    client_open(&c, conninfo_with("host=slow.test"));
    bench_run_until(&c.bench, slow_is_asked, NULL);
    hv_pg_close(c.pg, on_closed);
    for (int i = 0; i < 10; i++) {
        bench_step(&c.bench);
    }
    assert_false(c.closed);
    uv_sem_post(&gate);
    bench_run_until(&c.bench, is_closed, &c);
    bench_close(&c.bench);
}

static void close_from_handler(struct client *client) {
    hv_pg_close(client->pg, on_closed);
}

static void close_after_result(struct client *client) {
    if (client->results == 0) {
        hv_pg_send(client->pg, "SELECT 'x'", 0, NULL, NULL, NULL, NULL);
    } else {
        hv_pg_close(client->pg, on_closed);
    }
}

static void test_close_from_a_handler(void **state) {
    (void)state;
    struct client c;
    client_open(&c, conninfo_with(""));
    c.then = close_from_handler;
    bench_run_until(&c.bench, is_closed, &c);
    bench_close(&c.bench);
    client_open(&c, conninfo_with(""));
    c.then = close_after_result;
    bench_run_until(&c.bench, is_closed, &c);
    bench_close(&c.bench);
    client_open(&c, "host=127.0.0.1 port=1");
    c.then = close_from_handler;
    bench_run_until(&c.bench, is_closed, &c);
    bench_close(&c.bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connects_and_answers),
        cmocka_unit_test(test_settings_of_the_user_win),
        cmocka_unit_test(test_refused_statement_keeps_the_session),
        cmocka_unit_test(test_failure_at_commit_is_a_refusal),
        cmocka_unit_test(test_large_statement_and_large_reply),
        cmocka_unit_test(test_notices_are_taken_over),
        cmocka_unit_test(test_sending_from_a_handler),
        cmocka_unit_test(test_refused_until_a_server_comes),
        cmocka_unit_test(test_hosts_are_tried_in_turn),
        cmocka_unit_test(test_black_hole_does_not_hide_the_next_host),
        cmocka_unit_test(test_server_that_never_answers),
        cmocka_unit_test(test_server_that_stops_after_the_login),
        cmocka_unit_test(test_socket_changes_while_connecting),
        cmocka_unit_test(test_late_refusal_while_connecting),
        cmocka_unit_test(test_wrong_password_database_and_rights),
        cmocka_unit_test(test_server_that_is_starting_up),
        cmocka_unit_test(test_bad_conninfo),
        cmocka_unit_test(test_slow_resolver_does_not_block_the_loop),
        cmocka_unit_test(test_all_addresses_and_names_anew),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_hung_name_does_not_hide_the_next_host),
        cmocka_unit_test(test_service_passfile_and_uri),
        cmocka_unit_test(test_unix_socket_and_hostaddr),
        cmocka_unit_test(test_session_ended_by_the_server),
        cmocka_unit_test(test_server_ends_a_slow_statement),
        cmocka_unit_test(test_statement_without_an_answer),
        cmocka_unit_test(test_cut_reply_never_counts),
        cmocka_unit_test(test_hang_up_while_sending),
        cmocka_unit_test(test_nonsense_ends_the_session),
        cmocka_unit_test(test_standby_after_switch_over_is_left),
        cmocka_unit_test(test_drop_while_busy),
        cmocka_unit_test(test_database_without_encoding),
        cmocka_unit_test(test_close_in_every_state),
        cmocka_unit_test(test_close_while_a_name_is_looked_up),
        cmocka_unit_test(test_close_from_a_handler),
    };
    main_thread = pthread_self();
    cmocka_set_test_filter(getenv("HV_TEST"));
    uv_sem_init(&gate, 0);
    uv_mutex_init(&names_lock);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
