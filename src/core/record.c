/* See record.h. A record is laid out as: struct, headers, then the bytes of topic, key, value, header
 * names and header values, where topic and names end in a NUL, and the digits of the id if it is a header. A first
 * pass over the row checks it and adds up the size, a second one copies. */
#include "core/record.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"

#define FNV32_START 2166136261u
#define FNV32_PRIME 16777619u
#define SMALL (HV_RECORD_BLOCK / 4) /* larger records have blocks of their own */

struct hv_record_block {
    uint32_t live; /* records */
    uint16_t used; /* bytes */
    bool filling;  /* a maker may put more records into it */
};

/* A one-dimensional array of Postgres' binary format, checked to be whole. */
struct array {
    const uint8_t *next; /* the next element's length */
    int32_t count;
    bool is_null, has_null_element, has_nul; /* the last: only if it was looked for */
    size_t bytes; /* of all elements */
};

struct element {
    const uint8_t *data;
    int32_t length; /* -1 for NULL */
};

static int32_t read_i32(const uint8_t *p) {
    return (int32_t)hv_get_be32(p);
}

/* Only on an array that array_open took. */
static struct element array_next(struct array *array) {
    struct element e = {array->next + 4, read_i32(array->next)};
    array->next += 4 + (e.length > 0 ? e.length : 0);
    return e;
}

static bool array_check_elements(struct array *array, size_t left, bool look_for_nul) {
    const uint8_t *p = array->next;
    size_t bytes = 0;
    for (int32_t i = 0; i < array->count; i++) {
        if (left < 4) {
            return false;
        }
        int32_t length = read_i32(p);
        left -= 4;
        p += 4;
        if (length == -1) {
            array->has_null_element = true;
            continue;
        }
        if (length < 0 || (size_t)length > left) {
            return false;
        }
        if (look_for_nul && memchr(p, 0, (size_t)length) != NULL) {
            array->has_nul = true;
        }
        p += length;
        left -= (size_t)length;
        bytes += (size_t)length;
    }
    array->bytes = bytes;
    return left == 0;
}

/* False when the column is no one-dimensional array (or none at all). */
static bool array_open(const struct hv_column *column, struct array *array, bool look_for_nul) {
    *array = (struct array){.is_null = column->length < 0};
    if (array->is_null) {
        return true;
    }
    size_t left = (size_t)column->length;
    if (left < 12) {
        return false;
    }
    int32_t dimensions = read_i32(column->data);
    if (dimensions == 0) {
        return left == 12;
    }
    if (dimensions != 1 || left < 20) {
        return false;
    }
    array->count = read_i32(column->data + 12);
    array->next = column->data + 20;
    return array->count >= 0 && array_check_elements(array, left - 20, look_for_nul);
}

static bool topic_char(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
        c == '_' || c == '-';
}

bool hv_topic_is_legal(const char *topic, size_t length) {
    if (length < 1 || length > HV_TOPIC_MAX) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (!topic_char((uint8_t)topic[i])) {
            return false;
        }
    }
    return !(topic[0] == '.' && (length == 1 || (length == 2 && topic[1] == '.')));
}

static enum hv_defect check_headers(const struct hv_row *row, struct array *names, struct array *values) {
    bool names_whole = array_open(&row->header_keys, names, true);
    bool values_whole = array_open(&row->header_values, values, false);
    if (!names_whole || !values_whole) {
        return HV_DEFECT_HEADER_FORM;
    }
    if (names->is_null != values->is_null && names->count + values->count > 0) {
        return HV_DEFECT_NULL_HEADERS;
    }
    if (names->count != values->count) {
        return HV_DEFECT_HEADER_LENGTHS;
    }
    if (names->has_null_element || values->has_null_element) {
        return HV_DEFECT_HEADER_NULL;
    }
    return names->has_nul ? HV_DEFECT_HEADER_FORM : HV_SOUND;
}

/* Most topics are those of the row before. */
static bool is_legal(struct hv_record_maker *maker, const struct hv_column *topic) {
    if (topic->length > 0 && topic->length == maker->legal_length && memcmp(topic->data, maker->legal, (size_t)topic->length) == 0) {
        return true;
    }
    if (!hv_topic_is_legal((const char *)topic->data, (size_t)topic->length)) {
        return false;
    }
    memcpy(maker->legal, topic->data, (size_t)topic->length);
    maker->legal_length = topic->length;
    return true;
}

static enum hv_defect check_row(struct hv_record_maker *maker, const struct hv_row *row, struct array *names, struct array *values) {
    enum hv_defect headers = check_headers(row, names, values);
    if (headers != HV_SOUND) {
        *names = *values = (struct array){0};
    }
    if (row->topic.length < 0) {
        return HV_DEFECT_NULL_TOPIC;
    }
    if (!is_legal(maker, &row->topic)) {
        return HV_DEFECT_TOPIC_NAME;
    }
    if (row->key.length < 0) {
        return HV_DEFECT_NULL_KEY;
    }
    return headers;
}

static size_t column_bytes(const struct hv_column *column) {
    return column->length > 0 ? (size_t)column->length : 0;
}

/* Copies length bytes to *at and moves it behind them. */
static const uint8_t *put(uint8_t **at, const uint8_t *data, size_t length) {
    uint8_t *start = *at;
    if (length > 0) {
        memcpy(start, data, length);
    }
    *at += length;
    return start;
}

static const char *put_string(uint8_t **at, const uint8_t *data, size_t length) {
    const uint8_t *start = put(at, data, length);
    *(*at)++ = 0;
    return (const char *)start;
}

static void put_headers(struct hv_header *headers, uint8_t **at, struct array names, struct array values) {
    for (int32_t i = 0; i < names.count; i++) {
        struct element name = array_next(&names), value = array_next(&values);
        headers[i].name = put_string(at, name.data, (size_t)name.length);
        headers[i].value = put(at, value.data, (size_t)value.length);
        headers[i].value_length = value.length;
        headers[i].name_length = name.length;
    }
}

/* The last of the headers: of several with one name, consumers commonly take the last. */
static void put_id_header(struct hv_header *header, uint8_t **at, const char *name, const char *digits, size_t length) {
    header->name = name;
    header->name_length = (int32_t)strlen(name);
    header->value = put(at, (const uint8_t *)digits, length);
    header->value_length = (int32_t)length;
}

static int32_t length_or_null(const struct hv_column *column) {
    return column->length < 0 ? -1 : column->length;
}

/* ---- memory ---- */

/* The maker does without its block from now on. */
static void leave_block(struct hv_record_maker *maker) {
    struct hv_record_block *block = maker->block;
    maker->block = NULL;
    if (block != NULL && block->live == 0) {
        free(block);
    } else if (block != NULL) {
        block->filling = false;
    }
}

void hv_record_maker_fini(struct hv_record_maker *maker) {
    leave_block(maker);
}

static struct hv_record_block *new_block(size_t size) {
    struct hv_record_block *block = malloc(size);
    if (block != NULL) {
        *block = (struct hv_record_block){.used = sizeof *block};
    }
    return block;
}

static struct hv_record_block *block_for(struct hv_record_maker *maker, size_t size) {
    if (size > SMALL) {
        return new_block(sizeof(struct hv_record_block) + size);
    }
    if (maker->block != NULL && maker->block->live == 0) {
        maker->block->used = sizeof *maker->block;
    }
    if (maker->block == NULL || maker->block->used + size > HV_RECORD_BLOCK) {
        leave_block(maker);
        maker->block = new_block(HV_RECORD_BLOCK);
        if (maker->block != NULL) {
            maker->block->filling = true;
        }
    }
    return maker->block;
}

/* Room for a record of so many bytes; NULL without memory. */
static struct hv_record *new_record(struct hv_record_maker *maker, size_t size) {
    static_assert(sizeof(struct hv_record_block) % _Alignof(struct hv_record) == 0, "records follow it");
    size = (size + _Alignof(struct hv_record) - 1) / _Alignof(struct hv_record) * _Alignof(struct hv_record);
    struct hv_record_block *block = block_for(maker, size);
    if (block == NULL) {
        return NULL;
    }
    struct hv_record *record = (struct hv_record *)(void *)((char *)block + block->used);
    record->block = block;
    block->used = (uint16_t)(block->used + (size <= SMALL ? size : 0));
    block->live++;
    return record;
}

void hv_record_free(struct hv_record *record) {
    if (record == NULL) {
        return;
    }
    struct hv_record_block *block = record->block;
    assert(block->live > 0);
    if (--block->live == 0 && !block->filling) {
        free(block);
    }
}

/* ---- building ---- */

/* What of a row is known once it was checked. */
struct plan {
    enum hv_defect defect;
    struct array names, values;
    char digits[24]; /* of the id, if it is a header */
    size_t digit_count, header_count, before, size; /* before: what stands in front of the bytes */
};

static void plan(struct hv_record_maker *maker, const struct hv_row *row, struct plan *plan) {
    plan->defect = check_row(maker, row, &plan->names, &plan->values);
    assert(plan->names.count == plan->values.count);
    bool with_id = row->id_header != NULL && plan->defect == HV_SOUND;
    size_t own = (size_t)plan->names.count;
    plan->digit_count = with_id ? (size_t)snprintf(plan->digits, sizeof plan->digits, "%" PRId64, row->id) : 0;
    plan->header_count = own + with_id;
    plan->before = sizeof(struct hv_record) + plan->header_count * sizeof(struct hv_header);
    plan->size = plan->before + column_bytes(&row->topic) + 1 + column_bytes(&row->key) + column_bytes(&row->value) +
                 plan->names.bytes + own + plan->values.bytes + plan->digit_count;
}

/* hv_fnv1a and hv_record_key_id, both at one go: neither has to wait for the other. */
static void hash_key(struct hv_record *record, const uint8_t *key, int32_t length) {
    uint32_t hash = FNV32_START;
    uint64_t id = HV_HASH64_START;
    for (int32_t i = 0; i < length; i++) {
        hash = (hash ^ key[i]) * FNV32_PRIME;
        id = hv_hash64(id, &key[i], 1);
    }
    record->key_hash = hash;
    record->key_id = length < 0 ? ~HV_HASH64_START : id;
}

int hv_record_make(struct hv_record_maker *maker, const struct hv_row *row, struct hv_record **ret) {
    struct plan is;
    plan(maker, row, &is);
    struct hv_record *record = new_record(maker, is.size);
    if (record == NULL) {
        return -1;
    }
    struct hv_header *headers = (struct hv_header *)(record + 1);
    uint8_t *at = (uint8_t *)record + is.before;
    *record = (struct hv_record){
        .id = row->id,
        .size = is.size < UINT32_MAX ? (uint32_t)is.size : UINT32_MAX,
        .defect = is.defect,
        .key_length = length_or_null(&row->key),
        .value_length = length_or_null(&row->value),
        .header_count = (int32_t)is.header_count,
        .headers = headers,
        .block = record->block,
    };
    hash_key(record, row->key.data, row->key.length);
    record->topic = put_string(&at, row->topic.data, column_bytes(&row->topic));
    /* NULL and empty are told apart by the pointer too: librdkafka looks at that. */
    const uint8_t *key = put(&at, row->key.data, column_bytes(&row->key));
    const uint8_t *value = put(&at, row->value.data, column_bytes(&row->value));
    record->key = row->key.length < 0 ? NULL : key;
    record->value = row->value.length < 0 ? NULL : value;
    put_headers(headers, &at, is.names, is.values);
    if (is.digit_count > 0) {
        put_id_header(&headers[is.names.count], &at, row->id_header, is.digits, is.digit_count);
    }
    assert(at == (uint8_t *)record + is.size);
    *ret = record;
    return 0;
}

uint64_t hv_record_key_id(const void *key, int32_t length) {
    return length < 0 ? ~HV_HASH64_START : hv_hash64(HV_HASH64_START, key, (size_t)length);
}

const char *hv_defect_text(enum hv_defect defect) {
    switch (defect) {
    case HV_SOUND:
        return "sound";
    case HV_DEFECT_NULL_TOPIC:
        return "kafka_topic is NULL";
    case HV_DEFECT_NULL_KEY:
        return "kafka_key is NULL";
    case HV_DEFECT_NULL_HEADERS:
        return "one of kafka_header_keys and kafka_header_values is NULL while the other holds elements";
    case HV_DEFECT_TOPIC_NAME:
        return "kafka_topic is no legal topic name (1 to 249 of a-z A-Z 0-9 . _ -, and not '.' or '..')";
    case HV_DEFECT_HEADER_LENGTHS:
        return "kafka_header_keys and kafka_header_values differ in length";
    case HV_DEFECT_HEADER_NULL:
        return "kafka_header_keys or kafka_header_values holds a NULL";
    case HV_DEFECT_HEADER_FORM:
        return "kafka_header_keys or kafka_header_values is no plain one-dimensional array of text";
    }
    return "unknown defect";
}

uint32_t hv_fnv1a(const void *data, size_t length) {
    const uint8_t *p = data;
    uint32_t hash = FNV32_START;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ p[i]) * FNV32_PRIME;
    }
    return hash;
}
