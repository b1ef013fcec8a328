/* The event loop (libuv) and the turn: library callbacks only take down what happened and call
 * hv_loop_wake(); after the callbacks of an iteration, the turn function runs once. Everything here
 * belongs to the loop's thread. */
#ifndef HV_IO_LOOP_H
#define HV_IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/time.h"

struct hv_loop;

/* Makes the turn machinery on `uv`, which stays the caller's, or on a loop of its own when uv is NULL.
 * `turn(user)` is called at most once per iteration, before the loop may block, never from within a
 * library's callback and only after hv_loop_wake() or a deadline. It may be called from a caller's own
 * uv_run in any mode. Returns 0, or -1 with err. */
int hv_loop_open(uv_loop_t *uv, void (*turn)(void *user), void *user, struct hv_loop **ret,
                 struct hv_error *err);

/* Runs an own uv loop until hv_loop_close() was called and everything on it is closed, then closes the uv
 * loop and frees the object. Not for a foreign loop (asserted): there its owner runs uv_run. Returns 0, or
 * -1 with err when somebody left a handle open (which then refers to memory of the object: that is left as
 * it is). */
int hv_loop_run(struct hv_loop *loop, struct hv_error *err);

/* No turn runs afterwards. Closes the handles; `closed(user)` (may be NULL) is called from the loop when
 * the last one is gone and the last offloaded call is done. The object is then freed (an own one: by
 * hv_loop_run). Close the adapters that were opened on this loop first and wait until they are closed. */
void hv_loop_close(struct hv_loop *loop, void (*closed)(void *user));

uv_loop_t *hv_loop_uv(struct hv_loop *loop);
/* monotonic, as uv_now: stands still while callbacks run; microseconds */
hv_time hv_loop_now(struct hv_loop *loop);
hv_time hv_loop_clock(void);                       /* monotonic, the same clock, read now */
hv_time hv_loop_waking_clock(void);                /* goes on while the machine sleeps; microseconds, read now */
hv_time hv_loop_suspended(void);                    /* how long the machine slept since it was booted, which hv_loop_clock leaves out */
int64_t hv_loop_wall_clock(void);                  /* microseconds since the Unix epoch, read now */
void hv_loop_wake(struct hv_loop *loop);           /* a turn is due before the loop blocks (idempotent) */
/* a turn is due at `when`, up to 1 ms later; HV_NEVER: none */
void hv_loop_set_deadline(struct hv_loop *loop, hv_time when);
/* `first(user)` (the turn's user) is called when the deadline is passed, before descriptors are looked at: for what must not wait
 * until the turn. A process that was stopped comes here first when it wakes. */
void hv_loop_do_first(struct hv_loop *loop, void (*first)(void *user));

/* A call on libuv's thread pool for what blocks by nature. `work(arg)` runs there, `done(arg)` (may be
 * NULL) on the loop after it. Counted: hv_loop_close waits for all of them, and more may be added until it
 * is done. Returns 0, or -1 without memory. */
int hv_loop_offload(struct hv_loop *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg);

#endif
