/* See cmd_stash_json.h. Strict, because a member that is overlooked is a message that is wrong: unknown and repeated members
 * are errors, and a value has to be there, be it null, since "no value" deletes things at the other end. */
#include "app/cmd_stash_json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

/* What `kcat -C -J` prints beside; where a record came from says nothing of where it goes. */
static const char *const passed_over[] = {"partition", "offset", "tstype", "ts", "broker"};

static const char *const members[] = {"topic", "key", "key_base64", "value", "value_base64", "payload", "headers"};

/* ---- base64 ---- */

static int base64_digit(unsigned char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c == 0 ? NULL : strchr(digits, c);
    return at == NULL ? -1 : (int)(at - digits);
}

/* RFC 4648, padded. Returns what the caller frees, or NULL. */
static uint8_t *base64_decode(const char *text, size_t length, size_t *ret_length) {
    size_t padding = length > 0 && text[length - 1] == '=' ? 1 + (length > 1 && text[length - 2] == '=') : 0;
    if (length % 4 != 0) {
        return NULL;
    }
    uint8_t *out = hv_must(malloc(length / 4 * 3 + 1));
    uint32_t bits = 0;
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        int digit = i >= length - padding ? 0 : base64_digit((unsigned char)text[i]);
        if (digit < 0) {
            free(out);
            return NULL;
        }
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 == 3) {
            out[n++] = (uint8_t)(bits >> 16);
            out[n++] = (uint8_t)(bits >> 8);
            out[n++] = (uint8_t)bits;
        }
    }
    *ret_length = n - padding;
    return out;
}

/* ---- members ---- */

static const char *kind_of(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        break;
    }
    return "null";
}

static struct harvest_stash_bytes bytes_of(const json_t *string) {
    return (struct harvest_stash_bytes){json_string_value(string), json_string_length(string)};
}

static bool is_known(const char *name) {
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (strcmp(members[i], name) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof passed_over / sizeof passed_over[0]; i++) {
        if (strcmp(passed_over[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static int check_names(json_t *root, struct hv_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value) {
        struct hv_nearest nearest = {.name = name};
        char shown[100];
        if (is_known(name)) {
            continue;
        }
        for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
            hv_nearest_try(&nearest, members[i]);
        }
        hv_text_show(name, shown, sizeof shown);
        return nearest.best != NULL
                   ? hv_error_set(err, "unknown member %s; did you mean %s?", shown, nearest.best)
                   : hv_error_set(err, "unknown member %s; there are topic, key, key_base64, value, value_base64 and headers",
                                  shown);
    }
    return 0;
}

/* The one member of these that is there; NULL with err for none or several. */
static const json_t *the_one(const json_t *root, const char *const names[], const char *missing, const char **ret_name,
                             struct hv_error *err) {
    const json_t *found = NULL;
    for (size_t i = 0; names[i] != NULL; i++) {
        const json_t *member = json_object_get(root, names[i]);
        if (member != NULL && found != NULL) {
            hv_error_set(err, "%s and %s are both given; leave one of the two", *ret_name, names[i]);
            return NULL;
        }
        if (member != NULL) {
            found = member;
            *ret_name = names[i];
        }
    }
    if (found == NULL) {
        hv_error_set(err, "%s", missing);
    }
    return found;
}

static int take_bytes(const json_t *member, const char *name, void **owned, struct harvest_stash_bytes *ret,
                      struct hv_error *err) {
    size_t length;
    if (!json_is_string(member)) {
        return hv_error_set(err, "%s is %s; it has to be a string", name, kind_of(member));
    }
    *ret = bytes_of(member);
    if (strstr(name, "base64") == NULL) {
        return 0;
    }
    *owned = base64_decode(ret->data, ret->length, &length);
    if (*owned == NULL) {
        return hv_error_set(err, "%s is no base64 (A-Z a-z 0-9 + /, padded with = to a multiple of 4)", name);
    }
    *ret = (struct harvest_stash_bytes){*owned, length};
    return 0;
}

static int take_key_and_value(struct hv_stash_line *line, struct hv_error *err) {
    static const char *const keys[] = {"key", "key_base64", NULL};
    static const char *const values[] = {"value", "value_base64", "payload", NULL};
    const char *name = "";
    const json_t *key = the_one(line->root, keys, "key is missing", &name, err);
    if (key == NULL || take_bytes(key, name, &line->key, &line->record.key, err) != 0) {
        return -1;
    }
    const json_t *value = the_one(line->root, values, "value is missing; null makes a tombstone", &name, err);
    if (value == NULL) {
        return -1;
    }
    return json_is_null(value) ? 0 : take_bytes(value, name, &line->value, &line->record.value, err);
}

static int take_topic(struct hv_stash_line *line, const char *otherwise, struct hv_error *err) {
    const json_t *topic = json_object_get(line->root, "topic");
    line->record.topic = otherwise;
    if (topic == NULL) {
        return otherwise != NULL ? 0 : hv_error_set(err, "topic is missing; --topic is for lines without one");
    }
    if (!json_is_string(topic) || strlen(json_string_value(topic)) != json_string_length(topic)) {
        return hv_error_set(err, "topic is %s; it has to be a string", json_is_string(topic) ? "cut by a zero byte"
                                                                                             : kind_of(topic));
    }
    line->record.topic = json_string_value(topic);
    return 0;
}

/* ---- headers ---- */

static int put_header(struct hv_stash_line *line, const char *name, const json_t *value, struct hv_error *err) {
    size_t n = line->record.header_count;
    if (value == NULL || !json_is_string(value)) {
        return hv_error_set(err, "the value of header %zu is %s; it has to be a string", n,
                            value == NULL ? "missing" : kind_of(value));
    }
    line->headers[n] = (struct harvest_stash_header){name, bytes_of(value)};
    line->record.header_count = n + 1;
    return 0;
}

static int put_named_header(struct hv_stash_line *line, const json_t *name, const json_t *value, struct hv_error *err) {
    if (!json_is_string(name) || strlen(json_string_value(name)) != json_string_length(name)) {
        return hv_error_set(err, "the name of header %zu is %s; it has to be a string without zero bytes",
                            line->record.header_count, kind_of(name));
    }
    return put_header(line, json_string_value(name), value, err);
}

/* [["name", "value"], ...], or as kcat prints them: ["name", "value", "name", "value", ...]. */
static int take_header_array(struct hv_stash_line *line, const json_t *array, struct hv_error *err) {
    size_t size = json_array_size(array);
    bool pairs = size > 0 && json_is_array(json_array_get(array, 0));
    if (!pairs && size % 2 != 0) {
        return hv_error_set(err, "headers has %zu elements; they have to be [\"name\", \"value\"] each", size);
    }
    for (size_t i = 0; i < size; i += pairs ? 1 : 2) {
        const json_t *one = json_array_get(array, i);
        if (pairs && (!json_is_array(one) || json_array_size(one) != 2)) {
            return hv_error_set(err, "header %zu is %s; it has to be [\"name\", \"value\"]", i,
                                json_is_array(one) ? "an array of another size" : kind_of(one));
        }
        const json_t *name = pairs ? json_array_get(one, 0) : one;
        const json_t *value = pairs ? json_array_get(one, 1) : json_array_get(array, i + 1);
        if (put_named_header(line, name, value, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int take_headers(struct hv_stash_line *line, struct hv_error *err) {
    json_t *headers = json_object_get(line->root, "headers");
    if (headers == NULL || json_is_null(headers)) {
        return 0;
    }
    size_t most = json_is_object(headers) ? json_object_size(headers) : json_array_size(headers);
    line->headers = hv_calloc(most, sizeof *line->headers);
    line->record.headers = line->headers;
    if (json_is_array(headers)) {
        return take_header_array(line, headers, err);
    }
    if (!json_is_object(headers)) {
        return hv_error_set(err, "headers is %s; it has to be an object or an array of pairs", kind_of(headers));
    }
    const char *name;
    json_t *value;
    json_object_foreach(headers, name, value) {
        if (put_header(line, name, value, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- a line ---- */

int hv_stash_line_parse(const char *text, size_t length, const char *topic, struct hv_stash_line *ret,
                        struct hv_error *err) {
    json_error_t why;
    struct hv_stash_line line = {.root = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why)};
    if (line.root == NULL) {
        return hv_error_set(err, "no JSON: %s (character %d)", why.text, why.column);
    }
    int rc = json_is_object(line.root) ? 0 : hv_error_set(err, "it is %s; it has to be an object", kind_of(line.root));
    rc = rc != 0 ? rc : check_names(line.root, err);
    rc = rc != 0 ? rc : take_topic(&line, topic, err);
    rc = rc != 0 ? rc : take_key_and_value(&line, err);
    rc = rc != 0 ? rc : take_headers(&line, err);
    if (rc != 0) {
        hv_stash_line_free(&line);
        return -1;
    }
    *ret = line;
    return 0;
}

void hv_stash_line_free(struct hv_stash_line *line) {
    json_decref(line->root);
    free(line->headers);
    free(line->key);
    free(line->value);
}
