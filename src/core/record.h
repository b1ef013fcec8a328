/* One record: a row of the outbox as it goes to Kafka, decoded from Postgres' binary format. Pure: decoding and the checks that can be
 * made before Kafka sees the record. */
#ifndef HV_CORE_RECORD_H
#define HV_CORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_TOPIC_MAX 249 /* characters */

/* What is wrong with a row in itself, so that it cannot be sent; HV_SOUND if nothing is. */
enum hv_defect {
    HV_SOUND,
    HV_DEFECT_NULL_TOPIC,
    HV_DEFECT_NULL_KEY,
    /* one of the header arrays is NULL while the other holds elements; NULL beside NULL or an empty one means
     * no headers and is sound */
    HV_DEFECT_NULL_HEADERS,
    HV_DEFECT_TOPIC_NAME,     /* empty, ".", "..", longer than 249, or a character outside [a-zA-Z0-9._-] */
    HV_DEFECT_HEADER_LENGTHS, /* header arrays of unequal length */
    HV_DEFECT_HEADER_NULL,    /* NULL as a header's key or value */
    HV_DEFECT_HEADER_FORM,    /* not a one-dimensional array, or a header key that holds a NUL byte */
};

struct hv_header {
    const char *name; /* NUL-terminated */
    const uint8_t *value;
    int32_t value_length; /* bytes, 0 or more; so is... */
    int32_t name_length;
};

struct hv_record_block;

struct hv_record {
    int64_t id;
    /* FNV-1a 32 of the key's bytes (goharvest's shard hash); of nothing when the key is NULL */
    uint32_t key_hash;
    uint32_t size;     /* bytes of all this: what it costs to keep; UINT32_MAX also stands for more */
    uint64_t key_id;   /* see hv_record_key_id */
    uint32_t version, was; /* see struct hv_claimed; set by who reads the row */
    bool bare;         /* only id and key were read */
    enum hv_defect defect; /* the first found, in the order topic, key, headers */
    int32_t key_length;   /* -1 for NULL (then defect is set) */
    int32_t value_length; /* -1 for NULL: a tombstone; 0 is an empty value */
    int32_t header_count; /* the row's id as a header included, which is the last one */
    const char *topic; /* NUL-terminated; "" when NULL */
    const uint8_t *key;   /* NULL exactly when key_length is -1 */
    const uint8_t *value; /* NULL exactly when value_length is -1; an empty value has an address */
    const struct hv_header *headers; /* none (header_count 0) when the defect lies in the headers */
    struct hv_record_block *block;   /* the memory that this stands in */
};

/* A column's value in Postgres' binary format. */
struct hv_column {
    const uint8_t *data; /* not NUL-terminated, may be unaligned */
    int32_t length;      /* bytes; -1 for SQL NULL */
};

struct hv_row {
    int64_t id;
    struct hv_column topic, key, value; /* text, varchar or bytea: the bytes themselves */
    /* binary arrays: int32 dimensions, flags, element type; per dimension int32 length, lower bound; per
     * element int32 length (-1 NULL) and bytes; big-endian */
    struct hv_column header_keys, header_values;
    /* Name of the header that carries the id as decimal text, behind those of the row; NULL for none. Not copied: it must
     * outlive the record. */
    const char *id_header;
};

/* Makes records one after the other. Small ones share blocks of memory, a handful each: a block stays as long as one of its records, so
 * that one record holds no more than HV_RECORD_BLOCK bytes beside its own. */
struct hv_record_maker {
    struct hv_record_block *block; /* that is being filled, or NULL */
    int32_t legal_length;          /* the topic that was found legal last; 0: none */
    char legal[HV_TOPIC_MAX];
};
#define HV_RECORD_BLOCK 4080

/* A maker of zeros is fine to begin with. */
void hv_record_maker_fini(struct hv_record_maker *maker); /* records that were made stay */

/* Builds a record. On success 0 and *ret is the caller's, who gives it to hv_record_free.
 * Defects of the row's content are no errors: the record is built and carries `defect` (arrays that cannot
 * be decoded count as HV_DEFECT_HEADER_FORM). -1 only when memory is exhausted (ENOMEM). */
int hv_record_make(struct hv_record_maker *maker, const struct hv_row *row, struct hv_record **ret);
void hv_record_free(struct hv_record *record); /* NULL is fine */

/* Stands for a key, as good as unique. NULL (length -1) is a key of its own. */
uint64_t hv_record_key_id(const void *key, int32_t length);

/* 1 to 249 of a-z A-Z 0-9 . _ - and not "." or "..". */
bool hv_topic_is_legal(const char *topic, size_t length);

/* e.g. "kafka_header_keys and kafka_header_values differ in length" */
const char *hv_defect_text(enum hv_defect defect);

/* FNV-1a, 32 bits: offset basis 2166136261, prime 16777619. */
uint32_t hv_fnv1a(const void *data, size_t length);

#endif
