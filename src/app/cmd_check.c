/* harvestd check: looks at what the daemon will need, and says what is not right and what to do. It changes
 * nothing. It ends by itself and serves nobody, so it may block; nothing else in the program may. */
#include "app/cmd_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "app/commands.h"

static void print_point(const char *verdict, const char *format, va_list args) {
    printf("%-8s", verdict);
    vprintf(format, args);
    putchar('\n');
    fflush(stdout); /* some points take seconds */
}

void hv_check_ok(struct hv_check *check, const char *format, ...) {
    (void)check;
    va_list args;
    va_start(args, format);
    print_point("ok", format, args);
    va_end(args);
}

void hv_check_note(struct hv_check *check, const char *format, ...) {
    (void)check;
    va_list args;
    va_start(args, format);
    print_point("note", format, args);
    va_end(args);
}

void hv_check_bad(struct hv_check *check, const char *advice, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_point("not ok", format, args);
    va_end(args);
    printf("        -> %s\n", advice);
    check->bad++;
}

int hv_cmd_check(const struct hv_settings *settings) {
    struct hv_check check = {.settings = settings};
    hv_check_ok(&check, "configuration");
    hv_check_database(&check);
    hv_check_kafka(&check);
    for (size_t i = 0; i < check.topic_count; i++)
        free(check.topics[i]);
    if (check.bad > 0)
        printf("%u point%s not ok\n", check.bad, check.bad == 1 ? " is" : "s are");
    return check.bad == 0 ? 0 : 1;
}
