/* harvestd check: looks at what the daemon will need, and says what is not right and what to do. It changes
 * nothing. It ends by itself and serves nobody, so it may block; nothing else in the program may. */
#include "app/cmd_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app/commands.h"

/* Not wrong in itself: container platforms hand secrets out like this, in places that others cannot enter. */
static void check_secrets(struct hv_check *check) {
    for (const char *file = check->settings->open_files; file != NULL && *file != '\0'; file += strcspn(file, "\n") + 1) {
        hv_check_note(check, "secrets: every user of this machine may read %.*s; chmod 600 it, unless its directory is closed",
                      (int)strcspn(file, "\n"), file);
    }
}

/* harvestd does not start without it. Rights are not looked at: this may be run by another user. */
static void check_control_socket(struct hv_check *check) {
    const char *path = check->settings->control_socket;
    char directory[128];
    struct stat there;
    if (path[0] == '\0') {
        return;
    }
    size_t length = (size_t)(strrchr(path, '/') - path);
    snprintf(directory, sizeof directory, "%.*s", length == 0 ? 1 : (int)length, path);
    if (stat(directory, &there) != 0 || !S_ISDIR(there.st_mode)) {
        hv_check_bad(check, "make that directory, owned by the user that harvestd runs as, or set another control_socket",
                     "control socket: %s is no directory", directory);
    } else if (lstat(path, &there) == 0 && !S_ISSOCK(there.st_mode)) {
        hv_check_bad(check, "remove it, or set another control_socket", "control socket: %s is there and is no socket", path);
    } else {
        hv_check_ok(check, "control socket");
    }
}

int hv_cmd_check(const struct hv_settings *settings) {
    struct hv_check check = {.settings = settings};
    hv_check_ok(&check, "configuration");
    check_secrets(&check);
    check_control_socket(&check);
    hv_check_database(&check);
    hv_check_kafka(&check);
    for (size_t i = 0; i < check.topic_count; i++) {
        free(check.topics[i]);
    }
    if (check.bad > 0) {
        printf("%u point%s not ok\n", check.bad, check.bad == 1 ? " is" : "s are");
    }
    return check.bad == 0 ? 0 : 1;
}
