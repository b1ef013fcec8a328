/* How the points of `harvestd check` are told; see cmd_check.h. */
#include <stdarg.h>
#include <stdio.h>

#include "app/cmd_check.h"

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
