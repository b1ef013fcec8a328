/* See cmd_blocked_print.h. */
#include "app/cmd_blocked_print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "app/cells.h"
#include "base/memory.h"

/* What is left of a list after choosing; the objects are the list's. */
struct chosen {
    json_t **rows;
    size_t count; /* in all */
    size_t shown;
};

/* ---- choosing ---- */

static int by_id(const void *a, const void *b) {
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "id")), y = json_integer_value(json_object_get(*(json_t *const *)b, "id"));
    return (x > y) - (x < y);
}

static struct chosen choose(json_t *list, const char *topic, uint64_t limit) {
    struct chosen chosen = {.rows = hv_calloc(json_array_size(list), sizeof(json_t *))};
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *row = json_array_get(list, i);
        const char *its = json_string_value(json_object_get(row, "topic"));
        if (topic == NULL || (its != NULL && strcmp(its, topic) == 0)) {
            chosen.rows[chosen.count++] = row;
        }
    }
    qsort(chosen.rows, chosen.count, sizeof *chosen.rows, by_id);
    chosen.shown = limit > 0 && limit < chosen.count ? (size_t)limit : chosen.count;
    return chosen;
}

/* ---- tables ---- */

static const char *const topic_columns[] = {"closed topic", "since", "keys", "reason"};
static const char *const topic_members[] = {"topic", "since", "keys", "reason"};
static const char *const key_columns[] = {"key", "id", "topic", "class", "since", "attempts", "retry_in", "policy", "reason"};
enum { TOPIC_COLUMNS = sizeof topic_columns / sizeof topic_columns[0], KEY_COLUMNS = sizeof key_columns / sizeof key_columns[0] };

static const char *key_cell_text(const json_t *row, char *out) {
    const json_t *text = json_object_get(row, "key"), *base64 = json_object_get(row, "key_base64"), *shard = json_object_get(row, "shard");
    if (json_is_string(text) && json_string_length(text) == 0) {
        return "(empty)";
    }
    if (json_is_string(text)) {
        hv_cell_text(json_string_value(text), json_string_length(text), 40, out, HV_CELL_MAX - 3);
        return json_object_get(row, "key_bytes") != NULL && json_string_length(text) <= 40 ? strcat(out, "...") : out;
    }
    if (json_is_string(base64)) {
        snprintf(out, HV_CELL_MAX, "base64:%.40s%s", json_string_value(base64), json_string_length(base64) > 40 ? "..." : "");
        return out;
    }
    if (json_is_integer(shard)) {
        snprintf(out, HV_CELL_MAX, "shard %" JSON_INTEGER_FORMAT, json_integer_value(shard));
        return out;
    }
    return "?";
}

static const char *cell_of(const json_t *row, const char *member, char *out) {
    const json_t *value = json_object_get(row, member);
    if (json_is_integer(value)) {
        snprintf(out, HV_CELL_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return out;
    }
    if (json_is_number(value)) {
        double seconds = json_number_value(value);
        snprintf(out, HV_CELL_MAX, seconds < 10 ? "%.1fs" : "%.0fs", seconds);
        return out;
    }
    if (!json_is_string(value)) {
        return "-";
    }
    return hv_cell_text(json_string_value(value), json_string_length(value), strcmp(member, "reason") == 0 ? 200 : 60, out, HV_CELL_MAX);
}

static const char *topic_cell(const void *user, long row, int column, char *out) {
    const struct chosen *chosen = user;
    return row < 0 ? topic_columns[column] : cell_of(chosen->rows[row], topic_members[column], out);
}

static const char *key_cell(const void *user, long row, int column, char *out) {
    const struct chosen *chosen = user;
    if (row < 0) {
        return key_columns[column];
    }
    return column == 0 ? key_cell_text(chosen->rows[row], out) : cell_of(chosen->rows[row], key_columns[column], out);
}

static void print_summary(const struct chosen *topics, const struct chosen *keys, const json_t *end, FILE *out) {
    if (keys->count == 0 && topics->count == 0) {
        fputs("no key is blocked\n", out);
    } else {
        fprintf(out, "%zu key%s blocked, %zu topic%s closed", keys->count, keys->count == 1 ? "" : "s", topics->count, topics->count == 1 ? "" : "s");
        if (keys->shown < keys->count) {
            fprintf(out, "; %zu not shown", keys->count - keys->shown);
        }
        fputc('\n', out);
    }
    if (json_is_false(json_object_get(end, "leads"))) {
        fputs("this instance does not lead: ask the one that does\n", out);
    }
}

static void print_tables(const struct chosen *topics, const struct chosen *keys, const json_t *end, FILE *out) {
    if (topics->shown > 0) {
        hv_cells_print(out, topic_cell, topics, (long)topics->shown, TOPIC_COLUMNS);
        fputc('\n', out);
    }
    if (keys->shown > 0) {
        hv_cells_print(out, key_cell, keys, (long)keys->shown, KEY_COLUMNS);
        fputc('\n', out);
    }
    print_summary(topics, keys, end, out);
}

/* ---- JSON ---- */

static void print_json(const json_t *object, FILE *out) {
    json_dumpf(object, out, JSON_COMPACT);
    fputc('\n', out);
}

void hv_blocked_print(const struct hv_blocked_list *list, const struct hv_blocked_options *options, FILE *out) {
    struct chosen topics = choose(list->topics, options->topic, 0), keys = choose(list->keys, options->topic, options->limit);
    if (options->json) {
        for (size_t i = 0; i < topics.shown; i++) {
            print_json(topics.rows[i], out);
        }
        for (size_t i = 0; i < keys.shown; i++) {
            print_json(keys.rows[i], out);
        }
        print_json(list->end, out);
    } else {
        print_tables(&topics, &keys, list->end, out);
    }
    free(topics.rows);
    free(keys.rows);
}
