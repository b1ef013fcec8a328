/* Log lines: levels, fields, and their text form (logfmt or JSON). No I/O: a finished line goes to a sink. */
#ifndef HV_BASE_LOG_H
#define HV_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hv_log_level { HV_ERROR, HV_WARN, HV_INFO, HV_DEBUG };
enum hv_log_format { HV_LOGFMT, HV_JSON };

enum hv_field_type { HV_FIELD_STRING, HV_FIELD_INT, HV_FIELD_FLOAT, HV_FIELD_UUID };

struct hv_field {
    const char *key; /* NULL ends a list */
    enum hv_field_type type;
    const char *string; /* may be NULL: the field is left out */
    int64_t integer;
    double real;
    const uint8_t *uuid; /* 16 bytes */
};

#define HV_STR(k, v) ((struct hv_field){.key = (k), .type = HV_FIELD_STRING, .string = (v)})
#define HV_INT(k, v) ((struct hv_field){.key = (k), .type = HV_FIELD_INT, .integer = (v)})
#define HV_REAL(k, v) ((struct hv_field){.key = (k), .type = HV_FIELD_FLOAT, .real = (v)})
#define HV_UUID(k, v) ((struct hv_field){.key = (k), .type = HV_FIELD_UUID, .uuid = (v)})
#define HV_FIELDS(...) ((const struct hv_field[]){__VA_ARGS__, {.key = NULL}})

/* A longer line is cut at a character boundary, stays well-formed, carries cut=true and ends in a newline. */
#define HV_LOG_LINE_MAX 4096

/* Repeats: the same (component, message) more often than `HV_LOG_BURST` times within `HV_LOG_WINDOW_US` is
 * held back; the next one that passes carries `repeats=<number held back>`. Lines about single records (those
 * with a number as field `id`) tell different things in the same words, so more of them pass:
 * `HV_LOG_BURST_OF_RECORDS`. Levels error and warn only; info and debug always pass, and so does what is logged by
 * hv_log_each. */
#define HV_LOG_BURST 5
#define HV_LOG_BURST_OF_RECORDS 64
#define HV_LOG_WINDOW_US 10000000

struct hv_log_limit {
    uint64_t hash; /* 0: free */
    int64_t window_start;
    uint32_t passed, held_back;
};

struct hv_logger {
    enum hv_log_level level;
    enum hv_log_format format;
    bool bare; /* lines without time and level, for a sink that adds its own */
    /* Takes one finished line, newline included; must not block. */
    void (*sink)(void *user, enum hv_log_level level, const char *line, size_t length);
    /* Wall clock in microseconds since the Unix epoch. */
    int64_t (*wall_clock)(void *user);
    void *user;
    struct hv_log_limit limits[64];
};

/* Formats and passes on one line when `level` is enabled. `fields` is a list made by HV_FIELDS or NULL. A
 * value that is no UTF-8 has the bad bytes replaced; control characters are escaped. */
void hv_log(struct hv_logger *logger, enum hv_log_level level, const char *component, const char *message,
            const struct hv_field *fields);

/* The same for a line of which each has to be there, or that its caller limits: it is neither held back nor counted. */
void hv_log_each(struct hv_logger *logger, enum hv_log_level level, const char *component, const char *message,
                 const struct hv_field *fields);

#define HV_LOG_BARE INT64_MIN /* in place of the time: neither time nor level in the line */

/* The text of one line. Pure. `micros` is wall clock since the epoch. Returns its length (newline
 * included, NUL added), at most size - 1. size is at least 128. */
size_t hv_log_format_line(char *out, size_t size, enum hv_log_format format, int64_t micros,
                          enum hv_log_level level, const char *component, const char *message,
                          const struct hv_field *fields, uint32_t repeats);

#endif
