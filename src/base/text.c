/* See text.h. */
#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void hv_text_init(struct hv_text *text, char *out, size_t size) {
    assert(size >= 1);
    *text = (struct hv_text){.out = out, .size = size};
    out[0] = '\0';
}

void hv_text_add(struct hv_text *text, const char *bytes, size_t length) {
    if (text->cut || length >= text->size - text->length) {
        text->cut = true;
        return;
    }
    memcpy(text->out + text->length, bytes, length);
    text->length += length;
    text->out[text->length] = '\0';
}

void hv_text_puts(struct hv_text *text, const char *string) {
    hv_text_add(text, string, strlen(string));
}

void hv_text_printf(struct hv_text *text, const char *format, ...) {
    if (text->cut) {
        return;
    }
    size_t room = text->size - text->length;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text->out + text->length, room, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= room) {
        text->out[text->length] = '\0';
        text->cut = true;
    } else {
        text->length += (size_t)length;
    }
}

void hv_text_int(struct hv_text *text, int64_t number) {
    char digits[24];
    size_t at = sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do
        digits[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (number < 0) {
        digits[--at] = '-';
    }
    hv_text_add(text, digits + at, sizeof digits - at);
}

size_t hv_utf8_length(const char *bytes, size_t length, uint32_t *code) {
    const unsigned char *b = (const unsigned char *)bytes;
    size_t need = b[0] < 0x80                   ? 1
                  : b[0] >= 0xc2 && b[0] < 0xe0 ? 2
                  : (b[0] & 0xf0) == 0xe0       ? 3
                  : b[0] >= 0xf0 && b[0] < 0xf5 ? 4
                                                : 0;
    if (need == 0 || need > length) {
        return 0;
    }
    uint32_t c = need == 1 ? b[0] : b[0] & (0x7fu >> need);
    for (size_t i = 1; i < need; i++) {
        if ((b[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (b[i] & 0x3f);
    }
    bool surrogate = c >= 0xd800 && c < 0xe000;
    if ((need == 3 && (c < 0x800 || surrogate)) || (need == 4 && (c < 0x10000 || c > 0x10ffff))) {
        return 0;
    }
    if (code != NULL) {
        *code = c;
    }
    return need;
}

const char *hv_text_show(const char *text, char *out, size_t size) {
    assert(size >= 80);
    struct hv_text t;
    hv_text_init(&t, out, size - 6); /* leaves room for "...'" */
    hv_text_puts(&t, "'");
    size_t length = strlen(text), limit = length > 60 ? 60 : length, at = 0;
    while (at < limit && !t.cut) {
        uint32_t code = 0;
        size_t n = hv_utf8_length(text + at, length - at, &code);
        if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
            hv_text_printf(&t, "\\x%02x", (unsigned char)text[at]);
            n = 1;
        } else {
            hv_text_add(&t, text + at, n);
        }
        if (!t.cut) {
            at += n;
        }
    }
    bool whole = at >= length && !t.cut;
    t.size = size;
    t.cut = false;
    hv_text_puts(&t, whole ? "'" : "...'");
    return out;
}

/* Digits at the start of text as a number; *end is what follows. -1 when there are none or the number is
 * over `max`. */
static int parse_digits(const char *text, uint64_t max, uint64_t *ret, const char **end) {
    uint64_t n = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (n > (max - digit) / 10) {
            return -1;
        }
        n = n * 10 + digit;
    }
    *ret = n;
    *end = p;
    return p == text ? -1 : 0;
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* From large to small. */
static const struct unit duration_units[] = {{"h", 3600000000u}, {"m", 60000000}, {"s", 1000000},
                                             {"ms", 1000},       {"us", 1},       {NULL, 0}};
static const struct unit size_units[] = {
    {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}, {NULL, 0}};
static const struct unit count_units[] = {{"", 1}, {NULL, 0}};

static int parse_with_unit(const char *text, const struct unit *units, const char *expected, uint64_t *ret,
                           struct hv_error *err) {
    char shown[100];
    uint64_t number;
    const char *end;
    if (parse_digits(text, INT64_MAX, &number, &end) == 0) {
        for (const struct unit *u = units; u->name != NULL; u++) {
            if (strcmp(end, u->name) != 0) {
                continue;
            }
            if (number > (uint64_t)INT64_MAX / u->factor) {
                return hv_error_set(err, "%s is too large", hv_text_show(text, shown, sizeof shown));
            }
            *ret = number * u->factor;
            return 0;
        }
    }
    return hv_error_set(err, "%s is not %s", hv_text_show(text, shown, sizeof shown), expected);
}

int hv_parse_duration(const char *text, hv_time *ret, struct hv_error *err) {
    static const char expected[] =
        "a duration; write digits and a unit (us, ms, s, m or h), such as 100ms or 5s";
    uint64_t micros;
    if (parse_with_unit(text, duration_units, expected, &micros, err) != 0) {
        return -1;
    }
    *ret = (hv_time)micros;
    return 0;
}

int hv_parse_size(const char *text, uint64_t *ret, struct hv_error *err) {
    static const char expected[] =
        "a size; write bytes as digits, or digits with KiB, MiB or GiB, such as 8MiB";
    return parse_with_unit(text, size_units, expected, ret, err);
}

int hv_parse_count(const char *text, uint64_t *ret, struct hv_error *err) {
    return parse_with_unit(text, count_units, "a number; write digits only, such as 1000", ret, err);
}

static const char *show_with_unit(uint64_t number, const struct unit *units, char *out, size_t size) {
    assert(size >= 24);
    const struct unit *u = units;
    while (number % u->factor != 0 || (number == 0 && u->factor > 1000000)) {
        u++;
    }
    snprintf(out, size, "%llu%s", (unsigned long long)(number / u->factor), u->name);
    return out;
}

const char *hv_show_duration(hv_time duration, char *out, size_t size) {
    assert(duration >= 0);
    return show_with_unit((uint64_t)duration, duration_units, out, size);
}

const char *hv_show_size(uint64_t bytes, char *out, size_t size) {
    return show_with_unit(bytes, bytes == 0 ? count_units : size_units, out, size);
}

const char *hv_show_number(enum hv_number kind, int64_t number, char *out, size_t size) {
    if (kind == HV_NUMBER_DURATION) {
        return hv_show_duration(number, out, size);
    }
    if (kind == HV_NUMBER_SIZE) {
        return hv_show_size((uint64_t)number, out, size);
    }
    snprintf(out, size, "%" PRId64, number);
    return out;
}

int hv_parse_number(enum hv_number kind, const char *text, int64_t min, int64_t max, uint64_t *ret, struct hv_error *err) {
    char shown[100], low[32], high[32];
    uint64_t number = 0;
    hv_time duration = 0;
    int bad = kind == HV_NUMBER_DURATION ? hv_parse_duration(text, &duration, err)
              : kind == HV_NUMBER_SIZE   ? hv_parse_size(text, &number, err)
                                         : hv_parse_count(text, &number, err);
    if (bad) {
        return -1;
    }
    if (kind == HV_NUMBER_DURATION) {
        number = (uint64_t)duration;
    }
    if (number < (uint64_t)min || number > (uint64_t)max) {
        return hv_error_set(err, "%s is out of range; it is %s to %s", hv_text_show(text, shown, sizeof shown),
                            hv_show_number(kind, min, low, sizeof low), hv_show_number(kind, max, high, sizeof high));
    }
    *ret = number;
    return 0;
}

enum { DISTANCE_MAX_LENGTH = 63 };

static char fold(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c == '-' ? '_' : c;
}

static unsigned min2(unsigned a, unsigned b) {
    return a < b ? a : b;
}

/* Optimal string alignment: three rows of the usual table. */
unsigned hv_text_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > DISTANCE_MAX_LENGTH || m > DISTANCE_MAX_LENGTH) {
        return UINT_MAX;
    }
    unsigned rows[3][DISTANCE_MAX_LENGTH + 1];
    for (size_t j = 0; j <= m; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            char x = fold(a[i - 1]), y = fold(b[j - 1]);
            now[j] = min2(min2(last[j] + 1, now[j - 1] + 1), last[j - 1] + (x == y ? 0 : 1));
            if (i > 1 && j > 1 && x == fold(b[j - 2]) && fold(a[i - 2]) == y) {
                now[j] = min2(now[j], before[j - 2] + 1);
            }
        }
    }
    return rows[n % 3][m];
}

void hv_nearest_try(struct hv_nearest *nearest, const char *candidate) {
    unsigned distance = hv_text_distance(nearest->name, candidate);
    size_t longer = strlen(nearest->name) > strlen(candidate) ? strlen(nearest->name) : strlen(candidate);
    if (distance > longer * 2 / 5) { /* more than two letters of five are wrong: something else was meant */
        return;
    }
    if (nearest->best == NULL || distance < nearest->distance) {
        nearest->best = candidate;
        nearest->distance = distance;
    }
}
