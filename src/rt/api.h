/* The inside of a `struct harvest` (include/harvest.h), shared by the files of the embedding API. */
#ifndef HV_RT_API_H
#define HV_RT_API_H

#include <stdatomic.h>
#include <uv.h>

#include "harvest.h"
#include "io/ident.h"
#include "rt/runtime.h"

/* What other threads and signal handlers want, until the loop takes it up. */
enum hv_wish { HV_WISH_STOP = 1, HV_WISH_HURRY = 2, HV_WISH_DONE = 4 };

struct harvest {
    struct hv_settings settings;
    struct hv_logger logger;
    harvest_log_sink *sink;
    harvest_event_handler *on_event;
    harvest_stopped_handler *on_stopped;
    void *sink_user, *event_user, *stopped_user;
    bool unfit; /* a configuration could not be read: what is set is not whole */

    atomic_int state;    /* enum harvest_state */
    atomic_uint wishes;  /* enum hv_wish */
    int wake_fd;         /* an eventfd: wishes came. As old as the harvest, so that wishing is safe at any time */
    char leader_id[HV_IDENT_TEXT];
    struct harvest_error error; /* empty: none */

    /* The loop. */
    uv_loop_t own_loop;
    bool has_own_loop, inside; /* inside uv_run of its own loop */
    uv_timer_t limit;          /* of harvest_await, on its own loop */
    bool limit_over;
    struct hv_runtime *runtime; /* NULL: not started, or gone */
    uv_poll_t wake;
    bool attached; /* handles of it are on the loop */
    bool refused;  /* the runtime could not be made: what is on the loop is only to be closed */
    bool freed;    /* by its owner, while attached */
};

/* api.c: what the runtime tells of leadership and throughput, for the application. */
bool hv_api_notice(void *user, const struct hv_action *action);
/* Puts a text into err, which may be NULL. Returns -1. */
int hv_api_fail(struct harvest_error *err, const char *text);
/* The lines that a memory stream gathered, without the last line break, as err; frees them. Returns -1. */
int hv_api_fail_with(char *lines, struct harvest_error *err);

#endif
