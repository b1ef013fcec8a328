/* See cmd_blocked_lines.h. */
#include "app/cmd_blocked_lines.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#include "app/cmd_json.h"

#define TOPIC_SHOWN 249
#define TEXT_SHOWN 500

/* A line is never too long: all of a key, a topic, a class, a reason and a policy as \u00NN, and the rest. */
_Static_assert(6 * (HV_BLOCKED_KEY_SHOWN + TOPIC_SHOWN + 2 * TEXT_SHOWN) + 6 * 64 + 1000 < HV_CONTROL_LINE_MAX, "a line has room");

/* ---- writing ---- */

/* At most so many bytes of a text; not in the middle of a character. */
static size_t beginning(const char *text, size_t length, size_t most) {
    if (length <= most) {
        return length;
    }
    while (most > 0 && ((unsigned char)text[most] & 0xC0) == 0x80) {
        most--;
    }
    return most;
}

static void put_text(json_t *object, const char *name, const char *text, size_t most) {
    hv_json_put_bytes(object, name, text, text == NULL ? 0 : beginning(text, strlen(text), most));
}

static void put_time(json_t *object, const char *name, int64_t micros) {
    char text[40];
    time_t seconds = (time_t)(micros / 1000000);
    struct tm parts;
    bool known = micros > 0 && gmtime_r(&seconds, &parts) != NULL && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) > 0;
    json_object_set_new(object, name, known ? json_string(text) : json_null());
}

/* Adds the line and lets go of the object. */
static void put_line(struct hv_text *page, json_t *object) {
    char line[HV_CONTROL_LINE_MAX];
    size_t length = json_dumpb(object, line, sizeof line - 1, JSON_COMPACT);
    assert(length > 0 && length < sizeof line);
    line[length] = '\n';
    hv_text_add(page, line, length + 1);
    json_decref(object);
}

static json_t *line_of(const char *type) {
    json_t *object = json_object();
    json_object_set_new(object, "type", json_string(type));
    return object;
}

static void write_topic(struct hv_text *page, const struct hv_told_topic *topic) {
    json_t *line = line_of("topic");
    put_text(line, "topic", topic->topic, TOPIC_SHOWN);
    put_text(line, "reason", topic->reason, TEXT_SHOWN);
    put_time(line, "since", topic->since);
    json_object_set_new(line, "keys", json_integer(topic->keys));
    put_line(page, line);
}

static void write_key(struct hv_text *page, const struct hv_told_key *key) {
    json_t *line = line_of("key");
    size_t shown = key->key == NULL ? 0 : beginning(key->key, key->key_length, HV_BLOCKED_KEY_SHOWN);
    hv_json_put_bytes(line, "key", key->key, shown);
    if (key->key != NULL && shown < key->key_length) {
        json_object_set_new(line, "key_bytes", json_integer((json_int_t)key->key_length));
    }
    if (key->shard >= 0) {
        json_object_set_new(line, "shard", json_integer(key->shard));
    }
    json_object_set_new(line, "id", json_integer(key->id));
    put_text(line, "topic", key->topic, TOPIC_SHOWN);
    put_text(line, "class", key->class, 32);
    put_text(line, "reason", key->reason, TEXT_SHOWN);
    put_time(line, "since", key->since);
    json_object_set_new(line, "attempts", json_integer(key->attempts));
    json_object_set_new(line, "retry_in",
                        key->retry_in == HV_NEVER ? json_null() : json_real((double)(hv_time_max(key->retry_in, 0) / 1000) / 1e3));
    put_text(line, "policy", key->policy, 32);
    put_line(page, line);
}

static void write_end(struct hv_text *page, const struct hv_blocked_source *source, const struct hv_control_position *position) {
    json_t *line = line_of("end");
    put_text(line, "name", source->name, TEXT_SHOWN);
    json_object_set_new(line, "leads", json_boolean(source->leads(source->user)));
    json_object_set_new(line, "topics", json_integer((json_int_t)position->counted[0]));
    json_object_set_new(line, "keys", json_integer((json_int_t)position->counted[1]));
    put_line(page, line);
}

bool hv_blocked_answer(const struct hv_blocked_source *source, struct hv_control_position *position, struct hv_text *page) {
    enum { TOPICS, KEYS, END };
    struct hv_told_topic topic;
    struct hv_told_key key;
    while (page->size - page->length > HV_CONTROL_LINE_MAX) {
        if (position->part == END) {
            write_end(page, source, position);
            return true;
        }
        if (position->part == TOPICS && source->next_topic(source->user, &position->at, &topic)) {
            write_topic(page, &topic);
            position->counted[0]++;
        } else if (position->part == KEYS && source->next_key(source->user, &position->at, &key)) {
            write_key(page, &key);
            position->counted[1]++;
        } else {
            position->part++;
            position->at = 0;
        }
    }
    return false;
}

/* ---- reading ---- */

static int take_line(struct hv_blocked_list *list, const char *text, size_t length, struct hv_error *err) {
    json_t *object = json_loadb(text, length, JSON_ALLOW_NUL, NULL);
    const char *type = json_string_value(json_object_get(object, "type"));
    int bad = 0;
    if (type == NULL) {
        bad = hv_error_set(err, "what answers there is not harvestd");
    } else if (strcmp(type, "error") == 0) {
        const char *why = json_string_value(json_object_get(object, "error"));
        bad = hv_error_set(err, "the daemon says: %s", why == NULL ? "it cannot answer" : why);
    } else if (strcmp(type, "topic") == 0) {
        json_array_append(list->topics, object);
    } else if (strcmp(type, "key") == 0) {
        json_array_append(list->keys, object);
    } else if (strcmp(type, "end") == 0) {
        list->end = json_incref(object);
    }
    json_decref(object);
    return bad;
}

int hv_blocked_parse(const char *text, size_t length, struct hv_blocked_list *ret, struct hv_error *err) {
    *ret = (struct hv_blocked_list){json_array(), json_array(), NULL};
    int bad = 0;
    while (length > 0 && bad == 0 && ret->end == NULL) {
        const char *end = memchr(text, '\n', length);
        if (end == NULL) {
            break;
        }
        bad = take_line(ret, text, (size_t)(end - text), err);
        length -= (size_t)(end + 1 - text);
        text = end + 1;
    }
    if (bad == 0 && ret->end == NULL) {
        bad = hv_error_set(err, "the answer is cut off: the daemon ended meanwhile, or gave up waiting; try again");
    }
    if (bad != 0) {
        hv_blocked_free(ret);
    }
    return bad;
}

void hv_blocked_free(struct hv_blocked_list *list) {
    json_decref(list->topics);
    json_decref(list->keys);
    json_decref(list->end);
    *list = (struct hv_blocked_list){0};
}
