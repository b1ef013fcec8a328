/* One error: what went wrong, where, what was expected and what to do, as text for a person. */
#ifndef HV_BASE_ERROR_H
#define HV_BASE_ERROR_H

#define HV_ERROR_MAX 512

struct hv_error {
    char text[HV_ERROR_MAX]; /* NUL-terminated; empty when no error was set; never holds a secret */
};

/* Writes a message (printf form, cut at HV_ERROR_MAX - 1 bytes) into err, which may be NULL. Always returns -1, so that a
 * function can end with `return hv_error_set(err, ...)`. */
int hv_error_set(struct hv_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
