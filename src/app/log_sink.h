/* Where log lines go: standard error, without ever waiting for it. What a slow pipe, terminal or socket
 * does not take at once is kept in a bounded buffer and written when it can be; lines that do not fit are
 * dropped whole, and how many is told later.
 *
 * O_NONBLOCK belongs to the open file description, which we share with the shell and others who write to
 * the same terminal or pipe; so it is never set on the descriptor that we were given. */
#ifndef HV_APP_LOG_SINK_H
#define HV_APP_LOG_SINK_H

#include <uv.h>

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"

/* Some 25,000 lines: each skipped record has its own, and nothing else is left of it. Costs memory only once it is used. */
#define HV_LOG_SINK_BUFFER (8 * 1024 * 1024)

struct hv_log_sink;

/* A sink on `fd`, which stays the caller's and has to outlive it. Sets up the logger's sink, clock and
 * user; level and format are the caller's. Lines can be logged from here on. Never fails (memory apart). */
struct hv_log_sink *hv_log_sink_open(int fd, struct hv_logger *logger);

/* From now on what was held back is written from the loop. Returns 0, or -1 with err: then it is written
 * when the next line comes. Does not keep the loop alive. */
int hv_log_sink_attach(struct hv_log_sink *sink, uv_loop_t *loop, struct hv_error *err);

/* Lets go of the loop, which has to run once more before it is closed. Lines can still be logged. */
void hv_log_sink_detach(struct hv_log_sink *sink);

/* Writes what is held back, waiting `limit` at most, and frees the sink. Not while attached. NULL is fine. */
void hv_log_sink_close(struct hv_log_sink *sink, hv_time limit);

#endif
