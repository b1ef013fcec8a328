/* The file of a control socket: a Unix stream socket that only its owner and root can open. One daemon a path: a second one is refused, and
 * what a dead one left behind is replaced. */
#ifndef HV_APP_CONTROL_PLACE_H
#define HV_APP_CONTROL_PLACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/time.h"

struct hv_control_place {
    const char *path; /* lent */
    dev_t device;     /* of our file: another daemon's in its place is not ours to remove */
    ino_t inode;
};

/* Makes it, with mode 0600, and listens. `path` has to outlive the place. May wait for seconds when another daemon is at it at the same moment.
 * Returns a non-blocking descriptor, the caller's, or -1 with err (a living daemon has it; something is there that is no socket; rights). */
int hv_control_bind(const char *path, struct hv_control_place *ret, struct hv_error *err);

/* Removes the file if it is still ours. The descriptor is the caller's to close. */
void hv_control_unbind(const struct hv_control_place *place);

/* Connects, and makes every later read or write of the socket give up after `patience`. Blocks. Returns the descriptor, or -1 with err. */
int hv_control_connect(const char *path, hv_time patience, struct hv_error *err);

#endif
