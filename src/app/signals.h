/* Signals of the process, caught on a loop. */
#ifndef HV_APP_SIGNALS_H
#define HV_APP_SIGNALS_H

#include <uv.h>

#include "base/error.h"

#define HV_SIGNALS_MAX 3

struct hv_signals {
    uv_signal_t handles[HV_SIGNALS_MAX];
    unsigned open;
};

/* Catches `count` signals; on_signal gets the handle, whose data is `user`, and the number. `signals` starts zeroed and stays where it is until
 * the loop ran after hv_signals_close. Returns 0, or -1 with err: then some may be caught, hv_signals_close is still to be called. */
int hv_signals_open(struct hv_signals *signals, uv_loop_t *loop, const int *numbers, unsigned count, uv_signal_cb on_signal,
                    void *user, struct hv_error *err);

/* They have their dispositions of before again. Idempotent. */
void hv_signals_close(struct hv_signals *signals);

#endif
