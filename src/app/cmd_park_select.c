/* See cmd_park_select.h. */
#include "app/cmd_park_select.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

/* ---- ids ---- */

/* Reads a number; moves *at behind it. */
static bool take_id(const char **at, int64_t *ret) {
    char *end;
    if (!isdigit((unsigned char)(*at)[(*at)[0] == '-'])) {
        return false;
    }
    errno = 0;
    long long id = strtoll(*at, &end, 10);
    if (errno != 0) {
        return false;
    }
    *ret = id;
    *at = end;
    return true;
}

int hv_park_parse_id(const char *text, int64_t *ret) {
    return take_id(&text, ret) && *text == 0 ? 0 : -1;
}

static bool take_range(const char **at, int64_t *lo, int64_t *hi) {
    if (!take_id(at, lo)) {
        return false;
    }
    *hi = *lo;
    if (**at == '-') {
        ++*at;
        *hi = INT64_MAX;
        return **at == 0 || **at == ',' || take_id(at, hi);
    }
    return true;
}

static void add_range(struct hv_park_ranges *ranges, int64_t lo, int64_t hi) {
    ranges->lo = hv_realloc(ranges->lo, ranges->count + 1, sizeof *ranges->lo);
    ranges->hi = hv_realloc(ranges->hi, ranges->count + 1, sizeof *ranges->hi);
    ranges->lo[ranges->count] = lo;
    ranges->hi[ranges->count++] = hi;
}

static int parse_text(const char *text, struct hv_park_ranges *ret, struct hv_error *err) {
    char shown[100];
    for (const char *at = text;; at++) {
        int64_t lo, hi;
        if (!take_range(&at, &lo, &hi) || (*at != 0 && *at != ',')) {
            return hv_error_set(err, "--id: %s is no list of ids; write 7, 10-20, 30- or several with commas between",
                                hv_text_show(text, shown, sizeof shown));
        }
        if (lo > hi) {
            return hv_error_set(err, "--id: the range %" PRId64 "-%" PRId64 " is empty; write the lower id first", lo, hi);
        }
        add_range(ret, lo, hi);
        if (*at == 0) {
            return 0;
        }
    }
}

int hv_park_parse_ids(const struct hv_option_texts *texts, struct hv_park_ranges *ret, struct hv_error *err) {
    *ret = (struct hv_park_ranges){0};
    for (size_t i = 0; i < texts->count; i++) {
        if (parse_text(texts->list[i], ret, err) != 0) {
            hv_park_ranges_free(ret);
            return -1;
        }
    }
    return 0;
}

void hv_park_ranges_free(struct hv_park_ranges *ranges) {
    free(ranges->lo);
    free(ranges->hi);
    *ranges = (struct hv_park_ranges){0};
}

/* ---- parameters ---- */

char *hv_park_id_array(const int64_t *ids, size_t count) {
    size_t size = 3 + 21 * count;
    char *array = hv_calloc(size, 1);
    struct hv_text text;
    hv_text_init(&text, array, size);
    hv_text_puts(&text, "{");
    for (size_t i = 0; i < count; i++) {
        hv_text_puts(&text, i == 0 ? "" : ",");
        hv_text_int(&text, ids[i]);
    }
    hv_text_puts(&text, "}");
    return array;
}

static char *text_array(const struct hv_option_texts *texts) {
    size_t size = 3;
    if (texts->count == 0) {
        return NULL;
    }
    for (size_t i = 0; i < texts->count; i++) {
        size += 3 + 2 * strlen(texts->list[i]);
    }
    char *array = hv_calloc(size, 1), *at = array;
    *at++ = '{';
    for (size_t i = 0; i < texts->count; i++) {
        at += sprintf(at, i == 0 ? "\"" : ",\"");
        for (const char *p = texts->list[i]; *p != 0; p++) {
            if (*p == '"' || *p == '\\') {
                *at++ = '\\';
            }
            *at++ = *p;
        }
        *at++ = '"';
    }
    *at = '}';
    return array;
}

static char *number(int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    return hv_must(strdup(text));
}

void hv_park_select(const struct hv_options *options, uint64_t most, struct hv_park_selection *ret) {
    const struct hv_park_options *o = &options->park;
    struct hv_park_ranges ranges;
    struct hv_error err;
    *ret = (struct hv_park_selection){0};
    hv_park_parse_ids(&options->park_ids, &ranges, &err);
    if (ranges.count > 0) {
        ret->values[HV_PARK_LO] = hv_park_id_array(ranges.lo, ranges.count);
        ret->values[HV_PARK_HI] = hv_park_id_array(ranges.hi, ranges.count);
    }
    hv_park_ranges_free(&ranges);
    ret->values[HV_PARK_KEYS] = text_array(&options->park_keys);
    ret->values[HV_PARK_TOPICS] = text_array(&options->park_topics);
    ret->values[HV_PARK_CLASSES] = text_array(&options->park_classes);
    ret->values[HV_PARK_OLDER] = o->older_than > 0 ? number(o->older_than) : NULL;
    ret->values[HV_PARK_NEWER] = o->newer_than > 0 ? number(o->newer_than) : NULL;
    ret->values[HV_PARK_AFTER] = o->after != NULL ? hv_must(strdup(o->after)) : NULL;
    ret->values[HV_PARK_MOST] = most > 0 ? number((int64_t)most) : NULL;
}

void hv_park_selection_free(struct hv_park_selection *selection) {
    for (int i = 0; i < HV_PARK_SELECTION; i++) {
        free(selection->values[i]);
    }
}

#define CONDITION(key) \
    "($1::int8[] IS NULL OR EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2::int8[])) AS r (lo, hi) " \
    "WHERE p.id BETWEEN r.lo AND r.hi)) AND ($3::text[] IS NULL OR " key ") " \
    "AND ($4::text[] IS NULL OR p.kafka_topic::text = ANY ($4)) AND ($5::text[] IS NULL OR p.class = ANY ($5)) " \
    "AND ($6::int8 IS NULL OR p.parked_at < pg_catalog.now() - $6 * interval '1 microsecond') " \
    "AND ($7::int8 IS NULL OR p.parked_at >= pg_catalog.now() - $7 * interval '1 microsecond') AND ($8::int8 IS NULL OR p.id > $8)"

const char *hv_park_condition(bool key_is_bytea) {
    return key_is_bytea ? CONDITION("p.kafka_key IN (SELECT pg_catalog.convert_to(k, 'UTF8') FROM pg_catalog.unnest($3) AS k)")
                        : CONDITION("p.kafka_key::text = ANY ($3)");
}
