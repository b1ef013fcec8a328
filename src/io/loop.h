/* The event loop (libuv) and the turn: library callbacks only take down what happened and call hv_loop_wake(); after the
 * callbacks of an iteration, the turn function runs once. Everything here belongs to the loop's thread. */
#ifndef HV_IO_LOOP_H
#define HV_IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/time.h"

struct hv_loop;

/* Makes the turn machinery on `uv`, which stays the caller's, or on a loop of its own when uv is NULL.
 * `turn(user)` is called at most once per iteration, never from within a library's callback. Returns 0, or -1 with err. */
int hv_loop_open(uv_loop_t *uv, void (*turn)(void *user), void *user, struct hv_loop **ret, struct hv_error *err);

/* Closes the handles; `closed(user)` (may be NULL) is called from the loop when the last one is gone, and the object freed.
 * An own uv loop is closed by hv_loop_run's return, see there. */
void hv_loop_close(struct hv_loop *loop, void (*closed)(void *user));

uv_loop_t *hv_loop_uv(struct hv_loop *loop);
hv_time hv_loop_now(const struct hv_loop *loop);   /* monotonic, read once per iteration (uv_now's rule) but in microseconds */
hv_time hv_loop_clock(void);                       /* monotonic, read now */
int64_t hv_loop_wall_clock(void);                  /* microseconds since the Unix epoch, read now */
void hv_loop_wake(struct hv_loop *loop);           /* a turn is due in this iteration (idempotent) */
void hv_loop_set_deadline(struct hv_loop *loop, hv_time when); /* a turn is due at `when` at the latest; HV_NEVER: none */

/* A call on libuv's thread pool for what blocks by nature. `work(arg)` runs there, `done(arg)` (may be NULL) on the loop after
 * it. Counted: hv_loop_close waits for all of them. Returns 0, or -1 when libuv refuses. */
int hv_loop_offload(struct hv_loop *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg);

#endif
