/* See cmd_pump_batch.h. One statement for a whole transaction: arrays in, rows out. Their elements consist of characters
 * that need no escaping. */
#include "app/cmd_pump_batch.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cmd_pump_record.h"
#include "base/memory.h"
#include "io/pg_outbox.h"

enum { TOPICS, KEYS, VALUES, SEQS, TAGS };

static void add(struct hv_pump_text *text, const char *bytes, size_t length) {
    if (text->room - text->length < length) {
        text->room = text->room * 2 + length;
        text->bytes = hv_realloc(text->bytes, text->room, 1);
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

/* One element of an array literal. NULL: a NULL. */
static void add_element(struct hv_pump_text *text, const char *bytes, size_t length) {
    add(text, text->length == 0 ? "{" : ",", 1);
    if (bytes == NULL) {
        add(text, "NULL", 4);
        return;
    }
    add(text, "\"", 1);
    add(text, bytes, length);
    add(text, "\"", 1);
}

static bool dice(struct hv_pump_work *work, uint64_t percent) {
    return percent > 0 && hv_random_below(&work->random, 100) < percent;
}

/* One of the keys that leave the remainder `index`. */
static uint32_t pick_key(struct hv_pump_work *work, uint32_t index) {
    uint64_t connections = work->options->pump.connections, keys = work->options->pump.keys;
    uint64_t own = (keys - index + connections - 1) / connections;
    return (uint32_t)(hv_random_below(&work->random, own) * connections + index);
}

static void add_record(struct hv_pump_batch *batch, struct hv_pump_work *work, uint32_t key) {
    const struct hv_pump_options *o = &work->options->pump;
    const char *topic = work->options->pump_topics.list[key % work->options->pump_topics.count];
    const char *value = dice(work, o->blank) ? NULL : work->letters + hv_random_below(&work->random, HV_PUMP_LETTERS);
    struct hv_pump_tag tag = {.run = work->run, .key = key, .seq = hv_ledger_issue(work->ledger, key), .doomed = batch->doomed};
    char name[32], seq[32], pump[HV_PUMP_TAG_MAX];
    hv_pump_tag_fill(&tag, value, o->value_size);
    add_element(&batch->arrays[TOPICS], topic, strlen(topic));
    add_element(&batch->arrays[KEYS], name, (size_t)snprintf(name, sizeof name, HV_PUMP_KEY_PREFIX "%" PRIu32, key));
    add_element(&batch->arrays[VALUES], value, o->value_size);
    add_element(&batch->arrays[SEQS], seq, (size_t)snprintf(seq, sizeof seq, "%" PRIu64, tag.seq));
    add_element(&batch->arrays[TAGS], pump, hv_pump_tag_write(&tag, pump));
    batch->items[batch->count++] = (struct hv_pump_item){.key = key, .seq = tag.seq};
}

void hv_pump_batch_fill(struct hv_pump_batch *batch, struct hv_pump_work *work, uint32_t index, uint64_t count) {
    assert(count > 0);
    if (batch->room < count) {
        batch->items = hv_realloc(batch->items, count, sizeof batch->items[0]);
        batch->room = count;
    }
    batch->count = 0;
    batch->doomed = dice(work, work->options->pump.rollback);
    for (int i = 0; i < HV_BATCH_ARRAYS; i++) {
        batch->arrays[i].length = 0;
    }
    while (batch->count < count) {
        add_record(batch, work, pick_key(work, index));
    }
    for (int i = 0; i < HV_BATCH_ARRAYS; i++) {
        add(&batch->arrays[i], "}", 2); /* with its NUL */
    }
}

int hv_pump_batch_sql(const char *table, bool binary, char *out, size_t size, struct hv_error *err) {
    char quoted[600];
    if (hv_outbox_quote_table(table, quoted, sizeof quoted, err) != 0) {
        return -1;
    }
    int length = snprintf(
        out, size,
        "INSERT INTO %s (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) "
        "SELECT pg_catalog.now(), r.topic, r.key, %s, '{Seq,Pump}'::pg_catalog.text[], ARRAY[r.seq, r.tag] "
        "FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), "
        "pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.text[]), "
        "pg_catalog.unnest($5::pg_catalog.text[])) WITH ORDINALITY AS r(topic, key, value, seq, tag, n) ORDER BY r.n",
        quoted, binary ? "pg_catalog.convert_to(r.value, 'UTF8')" : "r.value");
    assert((size_t)length < size);
    (void)length;
    return 0;
}

void hv_pump_batch_free(struct hv_pump_batch *batch) {
    for (int i = 0; i < HV_BATCH_ARRAYS; i++) {
        free(batch->arrays[i].bytes);
    }
    free(batch->items);
}
