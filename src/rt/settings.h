/* Everything that can be set: one table, and one structure with a field for each of its rows. The table
 * feeds the INI reader, `--set`, `--help-config` and the embedding API; nothing else knows names, units,
 * defaults or ranges.
 *
 * The way of a configuration: hv_settings_init (defaults), any number of hv_settings_set,
 * hv_settings_finish (what follows from other settings, and checks across settings), use,
 * hv_settings_free. A structure that was not finished without complaint is not used. */
#ifndef HV_RT_SETTINGS_H
#define HV_RT_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "base/time.h"
#include "io/kafka_conf.h"

enum hv_claiming { HV_CLAIM_BY_MARK, HV_CLAIM_BY_CURSOR };
enum hv_wakeup { HV_WAKE_BY_POLL, HV_WAKE_BY_LISTEN };
enum hv_assignor { HV_COOPERATIVE_STICKY, HV_RANGE };

/* Durations are microseconds, sizes are bytes. Strings are owned by the structure and never NULL after
 * hv_settings_finish. What each one means is in the table (`harvestd --help-config`). */
struct hv_settings {
    /* [harvest] */
    char *name;
    char *data_source; /* holds a password: never print it, see hv_pg_dsn_redact */
    char *password;    /* NULL: none but those that libpq finds. After hv_settings_finish it is in data_source as well */
    char *outbox_table;
    int claim; /* enum hv_claiming */
    int wakeup; /* enum hv_wakeup */
    char *leader_group_id;
    char *leader_topic;
    int leader_assignor; /* enum hv_assignor; hv_assignor_name gives Kafka's name */
    char *id_header;     /* "": none */
    int on_poison;          /* enum hv_poison */
    char *on_poison_topics; /* see poison.h; "": none */
    char *control_socket; /* "": none; the daemon's, as the next */
    int core_dumps; /* bool; the daemon's, an embedding program decides for itself */

    /* [limits] */
    hv_time min_poll_interval;
    hv_time heartbeat_timeout;
    hv_time queue_timeout;
    hv_time mark_backoff;
    hv_time idle_backoff_max;
    hv_time io_error_backoff;
    hv_time io_error_backoff_max;
    hv_time blocked_backoff_max;
    hv_time poll_duration;
    hv_time min_metrics_interval;
    hv_time connect_timeout;
    hv_time statement_timeout;
    hv_time drain_timeout;
    hv_time rescan_interval;
    uint32_t max_in_flight_records;
    uint64_t max_in_flight_bytes;
    uint32_t send_concurrency; /* number of shards */
    uint32_t send_buffer;      /* unsent records a shard may hold */
    uint32_t mark_query_records;
    uint64_t mark_query_bytes;
    uint32_t purge_query_records;

    /* [log] level, format */
    int log_level;  /* enum hv_log_level */
    int log_format; /* enum hv_log_format */

    char *open_files; /* names of files that secrets were read from and that everybody may read, each in a line; or NULL */

    /* Passed through to librdkafka. Lists and strings are owned by this structure; at most one entry a
     * name. */
    struct hv_kafka_properties kafka;          /* [kafka]: all clients; starts with bootstrap.servers */
    struct hv_kafka_properties kafka_producer; /* [kafka.producer]: producers of records, over [kafka] */
    struct hv_kafka_properties kafka_consumer; /* [kafka.consumer]: the election's consumer, over [kafka] */
};

const char *hv_assignor_name(enum hv_assignor assignor); /* "cooperative-sticky", "range" */

enum hv_setting_type { HV_SET_STRING, HV_SET_DURATION, HV_SET_COUNT, HV_SET_SIZE, HV_SET_CHOICE };

#define HV_SETTING_CHOICES_MAX 4

/* One row of the table. */
struct hv_setting {
    const char *section; /* "harvest", "limits", "log" */
    const char *name;
    enum hv_setting_type type;
    const char *default_text; /* as a user would write it; for derived defaults a description in <> */
    bool derived;             /* the default follows from other settings or the machine */
    bool reloadable;          /* may change while the daemon runs */
    bool secret;              /* the value is never printed */
    bool continues;           /* in a file the value may go on in lines that are indented */
    int64_t min, max;         /* numbers: microseconds, records or bytes, both inclusive; strings: bytes */
    const char *choices[HV_SETTING_CHOICES_MAX + 1]; /* NULL-terminated; the index is the value */
    const char *help;                                /* one line */
    size_t offset;                                   /* of the field in struct hv_settings */
};

/* How the numbers of a setting are written; not for texts and choices. */
static inline enum hv_number hv_setting_number(const struct hv_setting *setting) {
    return setting->type == HV_SET_DURATION ? HV_NUMBER_DURATION
           : setting->type == HV_SET_SIZE   ? HV_NUMBER_SIZE
                                            : HV_NUMBER_COUNT;
}

/* The table, grouped by section. Sets *count. */
const struct hv_setting *hv_settings_table(size_t *count);

/* The row, or NULL. */
const struct hv_setting *hv_settings_find(const char *section, const char *name);

/* All sections, NULL-terminated; those passed through to librdkafka included. */
const char *const *hv_settings_sections(void);
bool hv_settings_section_known(const char *section);
bool hv_settings_section_passed_through(const char *section); /* kafka, kafka.producer, kafka.consumer */

/* Must the value of this setting or librdkafka property stay out of logs and messages? */
bool hv_settings_is_secret(const char *section, const char *name);

/* Is this the name of a file that holds a secret, as sasl.password_file for sasl.password? Then `secret` (size bytes) gets the
 * secret's name. There is one for each secret setting and property; hv_settings_set reads it. */
bool hv_settings_is_file_of(const char *section, const char *name, char *secret, size_t size);

/* Adds a name to open_files. */
void hv_settings_note_open_file(struct hv_settings *settings, const char *path);

/* Fills in the defaults. Aborts when memory is exhausted (as the others here do: nothing was started yet). */
void hv_settings_init(struct hv_settings *settings);

/* Sets one setting from its text; NAME_file with a path sets the secret NAME to what is in that file now. Returns 0, or -1 with
 * err (no such section or name with the nearest known one; not of its form; out of range; a file that cannot be used; refused by
 * hv_kafka_property_check): then nothing was changed. A later value replaces an earlier. */
int hv_settings_set(struct hv_settings *settings, const char *section, const char *name, const char *value,
                    struct hv_error *err);

/* Fills in derived defaults and checks what depends on several settings. Calls complain(user, section,
 * name, message) once for each trouble, naming the setting that is best changed. Returns how many there
 * were: 0 means that the settings can be used. */
typedef void hv_settings_complain(void *user, const char *section, const char *name, const char *message);
unsigned hv_settings_finish(struct hv_settings *settings, hv_settings_complain *complain, void *user);

/* Frees what the structure owns; the structure itself is the caller's. */
void hv_settings_free(struct hv_settings *settings);

/* The value as a user would write it ("100ms", "8MiB", "info"). "(secret)" for secrets. Returns out. size
 * >= 32. */
const char *hv_settings_text(const struct hv_settings *settings, const struct hv_setting *setting, char *out,
                             size_t size);

#endif
