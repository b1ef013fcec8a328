/* See error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int hv_error_set(struct hv_error *err, const char *format, ...) {
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return -1;
}
