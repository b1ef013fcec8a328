/* See signals.h. */
#include "app/signals.h"

#include <assert.h>

int hv_signals_open(struct hv_signals *signals, uv_loop_t *loop, const int *numbers, unsigned count, uv_signal_cb on_signal,
                    void *user, struct hv_error *err) {
    assert(count <= HV_SIGNALS_MAX);
    for (; signals->open < count; signals->open++) {
        uv_signal_t *handle = &signals->handles[signals->open];
        int bad = uv_signal_init(loop, handle);
        if (bad == 0) {
            handle->data = user;
            bad = uv_signal_start(handle, on_signal, numbers[signals->open]);
            if (bad != 0) {
                uv_close((uv_handle_t *)handle, NULL);
            }
        }
        if (bad != 0) {
            return hv_error_set(err, "signals cannot be caught: %s", uv_strerror(bad));
        }
    }
    return 0;
}

void hv_signals_close(struct hv_signals *signals) {
    while (signals->open > 0) {
        uv_close((uv_handle_t *)&signals->handles[--signals->open], NULL);
    }
}
