/* harvestd check: looks at what the daemon will need, and says what is not right and what to do. It changes
 * nothing. It ends by itself and serves nobody, so it may block; nothing else in the program may. */
#include "app/cmd_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands.h"

/* Not wrong in itself: container platforms hand secrets out like this, in places that others cannot enter. */
static void check_secrets(struct hv_check *check) {
    for (const char *file = check->settings->open_files; file != NULL && *file != '\0'; file += strcspn(file, "\n") + 1)
        hv_check_note(check, "secrets: every user of this machine may read %.*s; chmod 600 it, unless its directory is closed",
                      (int)strcspn(file, "\n"), file);
}

int hv_cmd_check(const struct hv_settings *settings) {
    struct hv_check check = {.settings = settings};
    hv_check_ok(&check, "configuration");
    check_secrets(&check);
    hv_check_database(&check);
    hv_check_kafka(&check);
    for (size_t i = 0; i < check.topic_count; i++)
        free(check.topics[i]);
    if (check.bad > 0)
        printf("%u point%s not ok\n", check.bad, check.bad == 1 ? " is" : "s are");
    return check.bad == 0 ? 0 : 1;
}
