/* The control socket: answers questions about a running daemon, on its loop. The protocol is made for scripts as well:
 *
 *     client: one line, the name of a question, such as "blocked\n"
 *     daemon: lines of JSON, an object each with a member "type"; the last one is of type "end" (the answer is whole) or "error" (with the
 *             members "error", a text), then the connection is closed. Clients pass over types and members that they do not know.
 *
 * Nothing waits for a client: an answer is made page by page, the next one when the client took the one before, and a client that is not
 * done within its time is dropped. A few are served at once, others wait in the socket's queue. Only processes of the daemon's user and of root
 * are answered. */
#ifndef HV_APP_CONTROL_H
#define HV_APP_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/text.h"
#include "base/time.h"

#define HV_CONTROL_CLIENTS 4        /* at once */
#define HV_CONTROL_REQUEST_MAX 64   /* bytes, the line's end included */
#define HV_CONTROL_LINE_MAX 16384   /* of an answer, likewise */
#define HV_CONTROL_PAGE (32 * 1024) /* what a client costs while it is being answered */
#define HV_CONTROL_PATIENCE HV_SECONDS(30)

struct hv_control;

/* How far an answer is; what the members mean is the question's affair. Zero at its start. */
struct hv_control_position {
    uint32_t part, at;
    uint64_t counted[2];
};

struct hv_control_question {
    const char *name;
    /* Appends the next lines to `page`, at least one and each of HV_CONTROL_LINE_MAX bytes at most, as long as there is room for
     * another one so long. Returns true when that was the last one. */
    bool (*answer)(void *user, struct hv_control_position *position, struct hv_text *page);
};

/* Listens at `path`, see control_place.h. `path` and `questions` (up to the one whose name is NULL) have to outlive it. A client has `patience` for
 * everything. Returns 0 and *ret, or -1 with err. */
int hv_control_open(uv_loop_t *loop, const char *path, const struct hv_control_question *questions, void *user, hv_time patience,
                    struct hv_control **ret, struct hv_error *err);

/* Removes the file; for processes that end without closing. NULL is fine. */
void hv_control_remove(const struct hv_control *control);

/* Drops all clients, removes the file, and is gone when the loop has run. NULL is fine. */
void hv_control_close(struct hv_control *control);

#endif
