/* What the Postgres contract tests share: a loop that is run until something happened, a blocking
 * connection beside the one under test, and scripted servers. */
#ifndef PG_HELP_H
#define PG_HELP_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "io/loop.h"
#include "io/pg_conn.h"

#define DEADLINE_S 30 /* a test that waits longer for one thing has failed */

struct bench {
    uv_loop_t uv;
    struct hv_loop *loop;
    uv_timer_t watchdog;
    bool late;
    int closing; /* `bench_closed` calls to come */
};

void bench_open(struct bench *bench);
/* Runs the loop until cond(arg); fails the test when that takes longer than DEADLINE_S. */
void bench_run_until(struct bench *bench, bool (*cond)(void *arg), void *arg);
/* One iteration that does not wait. */
void bench_step(struct bench *bench);
/* Closes the loop's handles and asserts that nothing else was left open. */
void bench_close(struct bench *bench);

/* HV_TEST_PG and what is to be added to it (later settings win). Valid until the eighth call after it. */
const char *conninfo_with(const char *more);

/* Of a connection under test: time-outs of 20 s, short waits between attempts. */
struct hv_pg_options options_for(const char *conninfo);

/* A blocking connection, and statements on it; they fail the test on an error. */
PGconn *admin_open(const char *conninfo);
void admin_sql(PGconn *admin, const char *sql);
char *admin_value(PGconn *admin, const char *sql); /* first column of the first row, "" for none; the caller frees it */
void admin_close(PGconn *admin);

/* ---- a scripted server: a thread that serves one connection after the other ---- */

struct fake {
    int listener, port;
    uv_thread_t thread;
    uv_mutex_t lock;
    int accepted; /* read under the lock: fake_accepted() */
    void (*script)(struct fake *fake, int fd, int nth);
    void *arg;
    int reply_cut; /* for scripts */
};

/* script(fake, fd, n) is called in the thread for the n-th connection (0...); the descriptor is closed
 * after it. */
void fake_start(struct fake *fake, void (*script)(struct fake *fake, int fd, int nth), void *arg);
int fake_accepted(struct fake *fake);
void fake_stop(struct fake *fake);
const char *fake_conninfo(const struct fake *fake, const char *more);

/* answers the start-up (TLS refused, any user is fine). False when the client went away */
bool fake_login(int fd);
bool fake_statement(int fd);  /* reads up to and including a Sync. False at the end */
void fake_setup_answer(int fd); /* answers the adapter's own first statement */
void fake_wait_end(int fd);   /* reads until the client closes */
void fake_write(int fd, const void *data, size_t length);

struct buffer {
    uint8_t data[8192];
    size_t length;
};
void put_message(struct buffer *buffer, char type, const void *body, size_t length);
/* A whole reply of `rows` rows with one int8 column "id" (1, 2, ...), binary. */
void put_reply(struct buffer *buffer, int rows, const char *tag);

int unused_port(void);
/* A port that drops connection attempts without a word (its queue is full). The descriptors to close:
 * fds[0..7]. */
int black_hole(int fds[8]);
void black_hole_close(int fds[8]);

#endif
