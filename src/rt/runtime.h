/* One harvest at work: the core, and the adapters that carry out what it wants, on a caller's libuv loop. */
#ifndef HV_RT_RUNTIME_H
#define HV_RT_RUNTIME_H

#include <uv.h>

#include "base/error.h"
#include "base/log.h"
#include "core/harvest.h"
#include "rt/settings.h"

struct hv_runtime;

/* Makes a harvest on `loop` and starts connecting; nothing blocks. `settings` (finished without complaint) and `logger` must outlive
 * it. `stopped(user, status)` is called once from the loop after hv_runtime_stop, when every handle is closed and the object is gone; status 0:
 * everything in flight was settled; 1: time ran out, so some rows will be published again. Everything belongs to the loop's thread.
 * Returns 0 and *ret, or -1 with err (a setting that a library refuses, no memory): then nothing was started; handles that
 * were made are closed by the loop's next iterations. */
int hv_runtime_open(uv_loop_t *loop, const struct hv_settings *settings, struct hv_logger *logger,
                    void (*stopped)(void *user, int status), void *user, struct hv_runtime **ret, struct hv_error *err);

/* Stops claiming, drains what is in flight within drain_timeout, purges what was acknowledged, leaves the group. Idempotent. */
void hv_runtime_stop(struct hv_runtime *runtime);

/* ... without waiting for what is in flight. */
void hv_runtime_hurry(struct hv_runtime *runtime);

void hv_runtime_look(const struct hv_runtime *runtime, struct hv_harvest_figures *ret);

#endif
