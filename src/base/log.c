/* See log.h. A line is built of atoms (a character, an escape, a whole number): each goes in entirely or not
 * at all, so a cut line is still well-formed text. */
#include "base/log.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static void add_digits(struct hv_text *t, int64_t number, int width) {
    char digits[20];
    for (int i = width - 1; i >= 0; i--, number /= 10) {
        digits[i] = (char)('0' + number % 10);
    }
    hv_text_add(t, digits, (size_t)width);
}

/* 2026-01-02T03:04:05.678Z. Years 0 to 9999 (the civil calendar from day numbers, by Howard Hinnant). */
static void add_time(struct hv_text *t, int64_t micros) {
    int64_t seconds = micros / 1000000, rest = micros % 1000000;
    if (rest < 0) {
        rest += 1000000;
        seconds--;
    }
    int64_t days = seconds / 86400, of_day = seconds % 86400;
    if (of_day < 0) {
        of_day += 86400;
        days--;
    }
    days += 719468; /* since 0000-03-01 */
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted_month = (5 * day_of_year + 2) / 153; /* from March */
    int64_t day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    int64_t month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
    year = year < 0 ? 0 : year > 9999 ? 9999 : year;
    const int64_t parts[] = {year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60, rest / 1000};
    static const char after[] = "--T::.Z";
    for (int i = 0; i < 7; i++) {
        add_digits(t, parts[i], i == 0 ? 4 : i == 6 ? 3 : 2);
        hv_text_add(t, after + i, 1);
    }
}

/* Three decimals at most, without trailing zeros, by hand: printf would ask the locale for the point. */
static void add_real(struct hv_text *t, double real) {
    double size = fabs(real);
    if (size >= 1e15) {
        hv_text_printf(t, "%.0f", size < 1e40 ? real : real < 0 ? -1e40 : 1e40);
        return;
    }
    uint64_t thousandths = (uint64_t)(size * 1000 + 0.5);
    char digits[40];
    struct hv_text number;
    hv_text_init(&number, digits, sizeof digits);
    if (real < 0 && thousandths != 0) {
        hv_text_puts(&number, "-");
    }
    hv_text_int(&number, (int64_t)(thousandths / 1000));
    int fraction = (int)(thousandths % 1000), width = 3;
    while (width > 0 && fraction % 10 == 0) {
        fraction /= 10;
        width--;
    }
    if (width > 0) {
        hv_text_puts(&number, ".");
        add_digits(&number, fraction, width);
    }
    hv_text_add(t, number.out, number.length);
}

static void add_uuid(struct hv_text *t, const uint8_t *uuid) {
    static const char hex[] = "0123456789abcdef";
    char out[36];
    size_t at = 0;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            out[at++] = '-';
        }
        out[at++] = hex[uuid[i] >> 4];
        out[at++] = hex[uuid[i] & 15];
    }
    hv_text_add(t, out, at);
}

static void add_escape(struct hv_text *t, uint32_t code) {
    static const char hex[] = "0123456789abcdef";
    char other[6] = {'\\', 'u', '0', '0', hex[code >> 4 & 15], hex[code & 15]};
    switch (code) {
    case '\n':
        hv_text_puts(t, "\\n");
        break;
    case '\r':
        hv_text_puts(t, "\\r");
        break;
    case '\t':
        hv_text_puts(t, "\\t");
        break;
    case '"':
        hv_text_puts(t, "\\\"");
        break;
    case '\\':
        hv_text_puts(t, "\\\\");
        break;
    default:
        hv_text_add(t, other, sizeof other);
    }
}

/* Control characters (those of C1 too: terminals obey them) are escaped, what is no UTF-8 becomes U+FFFD. */
static void add_escaped(struct hv_text *t, const char *string) {
    size_t left = strlen(string);
    while (left > 0 && !t->cut) {
        uint32_t code = 0;
        size_t n = hv_utf8_length(string, left, &code);
        if (n == 0) {
            hv_text_add(t, "\xef\xbf\xbd", 3);
            n = 1;
        } else if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '"' || code == '\\') {
            add_escape(t, code);
        } else {
            hv_text_add(t, string, n);
        }
        string += n;
        left -= n;
    }
}

/* logfmt: may the value stand without quotes? */
static bool is_plain(const char *string) {
    if (*string == '\0') {
        return false;
    }
    for (const unsigned char *p = (const unsigned char *)string; *p != '\0'; p++) {
        if (*p <= ' ' || *p == '"' || *p == '=' || *p == '\\' || *p >= 0x7f) {
            return false;
        }
    }
    return true;
}

/* A line in the making. The last bytes of the buffer are kept for closing a cut line. */
struct line {
    struct hv_text text;
    enum hv_log_format format;
    bool first;
};

enum { LINE_RESERVE = 24 }; /* a closing quote, the note that the line was cut, brace, newline and NUL */

/* The part before a value, whole or not at all. */
static bool begin_field(struct line *line, const char *key, const char *open) {
    char head[128];
    struct hv_text t;
    hv_text_init(&t, head, sizeof head);
    if (line->format == HV_JSON) {
        hv_text_printf(&t, "%s\"%s\":%s", line->first ? "{" : ",", key, open);
    } else {
        hv_text_printf(&t, "%s%s=%s", line->first ? "" : " ", key, open);
    }
    assert(!t.cut);
    line->first = false;
    hv_text_add(&line->text, head, t.length);
    return !line->text.cut;
}

/* A quote was opened and there is always room to close it. */
static void end_quote(struct line *line) {
    bool cut = line->text.cut;
    line->text.cut = false;
    line->text.size++;
    hv_text_add(&line->text, "\"", 1);
    if (!cut) {
        line->text.size--;
    }
    line->text.cut = cut;
}

static void add_string(struct line *line, const char *key, const char *value, bool always_quoted) {
    if (line->format == HV_LOGFMT && !always_quoted && is_plain(value)) {
        if (begin_field(line, key, "")) {
            for (; *value != '\0' && !line->text.cut; value++) {
                hv_text_add(&line->text, value, 1);
            }
        }
    } else if (begin_field(line, key, "\"")) {
        add_escaped(&line->text, value);
        end_quote(line);
    }
}

/* Numbers and the like: head and value together or nothing. */
static void add_value(struct line *line, const char *key, const char *value) {
    size_t before = line->text.length;
    if (begin_field(line, key, "")) {
        hv_text_puts(&line->text, value);
    }
    if (line->text.cut) {
        line->text.length = before;
        line->text.out[before] = '\0';
    }
}

static void add_field(struct line *line, const struct hv_field *field) {
    char value[64];
    struct hv_text t;
    hv_text_init(&t, value, sizeof value);
    switch (field->type) {
    case HV_FIELD_STRING:
        if (field->string != NULL) {
            add_string(line, field->key, field->string, false);
        }
        return;
    case HV_FIELD_UUID:
        if (field->uuid != NULL) {
            add_uuid(&t, field->uuid);
            add_string(line, field->key, value, false);
        }
        return;
    case HV_FIELD_INT:
        hv_text_int(&t, field->integer);
        break;
    case HV_FIELD_FLOAT:
        if (isfinite(field->real)) {
            add_real(&t, field->real);
        } else {
            hv_text_puts(&t, line->format == HV_JSON ? "null"
                             : isnan(field->real)    ? "NaN"
                             : field->real > 0       ? "Inf"
                                                     : "-Inf");
        }
        break;
    }
    add_value(line, field->key, value);
}

size_t hv_log_format_line(char *out, size_t size, enum hv_log_format format, int64_t micros,
                          enum hv_log_level level, const char *component, const char *message,
                          const struct hv_field *fields, uint32_t repeats) {
    assert(size >= 128);
    struct line line = {.format = format, .first = true};
    hv_text_init(&line.text, out, size - LINE_RESERVE);
    if (micros != HV_LOG_BARE) {
        begin_field(&line, "time", format == HV_JSON ? "\"" : "");
        add_time(&line.text, micros);
        if (format == HV_JSON) {
            end_quote(&line);
        }
        add_string(&line, "level", level_names[level], false);
    }
    add_string(&line, "component", component, false);
    add_string(&line, "msg", message, true);
    if (repeats > 0) {
        add_field(&line, &HV_INT("repeats", repeats));
    }
    for (const struct hv_field *f = fields; f != NULL && f->key != NULL; f++) {
        add_field(&line, f);
    }

    bool cut = line.text.cut;
    line.text.cut = false;
    line.text.size = size;
    if (format == HV_JSON) {
        hv_text_puts(&line.text, cut ? ",\"cut\":true}\n" : "}\n");
    } else {
        hv_text_puts(&line.text, cut ? " cut=true\n" : "\n");
    }
    assert(!line.text.cut);
    return line.text.length;
}

/* The slot of this (component, message): its own, else the one of its group whose window is the oldest. */
static struct hv_log_limit *find_limit(struct hv_logger *logger, uint64_t hash) {
    enum { SLOTS = sizeof logger->limits / sizeof logger->limits[0], GROUP = 4 };
    struct hv_log_limit *group = &logger->limits[hash % (SLOTS / GROUP) * GROUP], *oldest = group;
    for (int i = 0; i < GROUP; i++) {
        if (group[i].hash == hash) {
            return &group[i];
        }
        if (group[i].window_start < oldest->window_start) {
            oldest = &group[i];
        }
    }
    *oldest = (struct hv_log_limit){.hash = hash, .window_start = INT64_MIN};
    return oldest;
}

/* How many lines of this kind may pass within a window. */
static uint32_t burst_of(const struct hv_field *fields) {
    for (const struct hv_field *f = fields; f != NULL && f->key != NULL; f++) {
        if (f->type == HV_FIELD_INT && strcmp(f->key, "id") == 0) {
            return HV_LOG_BURST_OF_RECORDS;
        }
    }
    return HV_LOG_BURST;
}

/* May this line pass? *repeats is how many like it were held back before. */
static bool may_pass(struct hv_logger *logger, const char *component, const char *message, uint32_t burst,
                     int64_t now, uint32_t *repeats) {
    uint64_t hash = hv_hash64(HV_HASH64_START, component, strlen(component) + 1);
    hash = hv_hash64(hash, message, strlen(message)) | 1; /* 0: a free slot */
    struct hv_log_limit *limit = find_limit(logger, hash);
    bool fresh = limit->window_start == INT64_MIN || now < limit->window_start /* the clock was set back */
                 || now - limit->window_start >= HV_LOG_WINDOW_US;
    if (fresh) {
        limit->window_start = now;
        limit->passed = 0;
    }
    if (limit->passed >= burst) {
        if (limit->held_back < UINT32_MAX) {
            limit->held_back++;
        }
        return false;
    }
    limit->passed++;
    *repeats = limit->held_back;
    limit->held_back = 0;
    return true;
}

static void pass_on(struct hv_logger *logger, enum hv_log_level level, const char *component, const char *message,
                    const struct hv_field *fields, int64_t now, uint32_t repeats) {
    char line[HV_LOG_LINE_MAX + 1];
    size_t length = hv_log_format_line(line, sizeof line, logger->format, logger->bare ? HV_LOG_BARE : now, level, component, message,
                                       fields, repeats);
    logger->sink(logger->user, level, line, length);
}

void hv_log(struct hv_logger *logger, enum hv_log_level level, const char *component, const char *message,
            const struct hv_field *fields) {
    if (level > logger->level) {
        return;
    }
    int64_t now = logger->wall_clock(logger->user);
    uint32_t repeats = 0;
    if (level > HV_WARN || may_pass(logger, component, message, burst_of(fields), now, &repeats)) {
        pass_on(logger, level, component, message, fields, now, repeats);
    }
}

void hv_log_each(struct hv_logger *logger, enum hv_log_level level, const char *component, const char *message,
                 const struct hv_field *fields) {
    if (level <= logger->level) {
        pass_on(logger, level, component, message, fields, logger->wall_clock(logger->user), 0);
    }
}
