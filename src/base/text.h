/* Text: bounded building, durations, sizes and counts as people write them, the nearest of some names,
 * UTF-8. Pure; the locale plays no part. */
#ifndef HV_BASE_TEXT_H
#define HV_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/time.h"

/* A text that grows inside memory of the caller and never beyond it. Always NUL-terminated. */
struct hv_text {
    char *out;
    size_t size;   /* of out, the NUL included */
    size_t length; /* without the NUL */
    bool cut;      /* something did not fit; nothing was added since */
};

void hv_text_init(struct hv_text *text, char *out, size_t size); /* size >= 1 */
/* Adds all of these bytes or, when they do not fit, none: then `cut` is set and nothing is added from then
 * on. */
void hv_text_add(struct hv_text *text, const char *bytes, size_t length);
void hv_text_puts(struct hv_text *text, const char *string);
void hv_text_printf(struct hv_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hv_text_int(struct hv_text *text, int64_t number);

/* Length in bytes (1 to 4) of the valid UTF-8 character at the start of `bytes`, or 0 if there is none
 * (overlong forms, surrogates and a character that is cut are none). *code (may be NULL) is its number.
 * length >= 1. */
size_t hv_utf8_length(const char *bytes, size_t length, uint32_t *code);

/* 'text' in single quotes for a message to a person: at most 60 bytes of it, what is not printable as \xNN.
 * Returns out. size >= 80. */
const char *hv_text_show(const char *text, char *out, size_t size);

/* "250us", "100ms", "5s", "2m", "1h": digits and a unit, nothing else. Returns 0, or -1 with err (the text,
 * and what was expected). */
int hv_parse_duration(const char *text, hv_time *ret, struct hv_error *err);
/* "65536", "64KiB", "8MiB", "1GiB". */
int hv_parse_size(const char *text, uint64_t *ret, struct hv_error *err);
/* Digits only. */
int hv_parse_count(const char *text, uint64_t *ret, struct hv_error *err);

/* The shortest form that hv_parse_duration or hv_parse_size reads back exactly. Not negative. Returns out.
 * size >= 24. */
const char *hv_show_duration(hv_time duration, char *out, size_t size);
const char *hv_show_size(uint64_t bytes, char *out, size_t size);

/* A number as people write it: digits, a size, or a duration in microseconds. */
enum hv_number { HV_NUMBER_COUNT, HV_NUMBER_SIZE, HV_NUMBER_DURATION };

/* Returns 0, or -1 with err: not of this form, or not from min to max (both inclusive, not negative). */
int hv_parse_number(enum hv_number kind, const char *text, int64_t min, int64_t max, uint64_t *ret, struct hv_error *err);
/* As it would be written. Not negative. Returns out. size >= 24. */
const char *hv_show_number(enum hv_number kind, int64_t number, char *out, size_t size);

/* How many letters have to be put in, left out, replaced or swapped with their neighbour to make b of a;
 * case and '-' or '_' make no difference. Texts over 63 bytes are as far apart as can be (UINT_MAX). */
unsigned hv_text_distance(const char *a, const char *b);

/* Looks for the candidate nearest to a name, one at a time. Start with {.name = name}. */
struct hv_nearest {
    const char *name;
    const char *best; /* NULL while none is near enough to be what was meant */
    unsigned distance;
};
void hv_nearest_try(struct hv_nearest *nearest, const char *candidate);

#endif
