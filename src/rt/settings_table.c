/* The table of settings, see settings.h: the one place where names, units, defaults, ranges and help are
 * written down. */
#include <stddef.h>
#include <string.h>

#include "io/kafka_login.h"
#include "rt/settings.h"

#define KIB ((int64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define HOUR HV_SECONDS(3600)

#define IN(section_, name_, field)                                                                           \
    .section = (section_), .name = (name_), .offset = offsetof(struct hv_settings, field)
#define DEFAULT(text) .default_text = (text)
#define RANGE(low, high) .min = (low), .max = (high)
#define RELOAD .reloadable = true

#define TEXT(field) IN("harvest", #field, field), .type = HV_SET_STRING
#define DURATION(field) IN("limits", #field, field), .type = HV_SET_DURATION
#define COUNT(field) IN("limits", #field, field), .type = HV_SET_COUNT
#define SIZE(field) IN("limits", #field, field), .type = HV_SET_SIZE

static const struct hv_setting table[] = {
    {TEXT(name), DEFAULT("<host>_<pid>_<unix time>"), .derived = true, RANGE(1, 200),
     .help = "name of this instance, in log lines and leader heartbeats"},
    {TEXT(data_source),
     DEFAULT("host=localhost port=5432 user=postgres dbname=postgres sslmode=disable"),
     RANGE(1, 65536), .secret = true, .continues = true,
     .help = "how to reach Postgres: libpq's option=value string or URI, also with several hosts"},
    {TEXT(password), DEFAULT("<that of data_source, of PGPASSWORD or of the password file>"), .derived = true, RANGE(1, 1000),
     .secret = true,
     .help = "password for Postgres, over one in data_source; better as password_file = PATH, or as ${NAME} of the "
             "environment"},
    {TEXT(outbox_table), DEFAULT("outbox"), RANGE(1, 260),
     .help = "the outbox: table or schema.table, folded to lower case as in SQL unless in \"double quotes\""},
    {IN("harvest", "claim", claim), .type = HV_SET_CHOICE, DEFAULT("cursor"), .choices = {"mark", "cursor"},
     .help = "how rows are taken: cursor reads what is new and writes nothing; mark writes leader_id into each row first, as goharvest "
             "does and as sharing a table with it needs: rows cost the database three times as much"},
    {IN("harvest", "wakeup", wakeup), .type = HV_SET_CHOICE, DEFAULT("poll"), .choices = {"poll", "listen"},
     .help = "how new rows are noticed while there were none: poll looks for them; listen is told of them by a trigger (harvestd schema "
             "--notify), which slows inserts down, and looks all the same, more seldom"},
    {TEXT(leader_group_id), DEFAULT("harvestd"), RANGE(1, 249),
     .help = "Kafka consumer group of the instances of which one leads (goharvest: file name of the program; "
             "here fixed, so that a renamed program does not found a second group)"},
    {TEXT(leader_topic), DEFAULT("<leader_group_id>.neli"), .derived = true, RANGE(1, 249),
     .help = "Kafka topic of the leader's heartbeats; made when missing, if rights allow"},
    {IN("harvest", "leader_assignor", leader_assignor), .type = HV_SET_CHOICE, DEFAULT("cooperative-sticky"),
     .choices = {"cooperative-sticky", "range"},
     .help = "how the group picks its leader; goharvest: range, needed to share a group with it, but with it "
             "each standby that joins or restarts can take the lead for seconds, so the default here is not "
             "that"},
    {TEXT(id_header), DEFAULT(""), RANGE(0, 249),
     .help = "name of a header that carries the row's id as decimal text, behind the row's own headers, so that consumers can "
             "tell duplicates; empty: no such header (goharvest has none)"},
    {IN("harvest", "on_poison", on_poison), .type = HV_SET_CHOICE, DEFAULT("block"), .choices = {"block", "park", "skip"},
     .help = "what happens to a record that Kafka refuses for good: block, its key waits and it is tried again; park, its row moves to the table of "
             "parked records (harvestd schema --park); skip, its row is deleted after a line in the log"},
    {TEXT(on_poison_topics), DEFAULT(""), RANGE(0, 8000),
     .help = "other policies than on_poison for topics by pattern, the first that fits: audit.*=park, metrics-?=skip"},
    {TEXT(control_socket), DEFAULT(""), RANGE(0, 107),
     .help = "path of a socket through which harvestd blocked asks the running daemon, such as /run/harvestd/control.sock; its directory has to be "
             "there; only harvestd's user and root can open it; empty: none"},
    {IN("harvest", "core_dumps", core_dumps), .type = HV_SET_CHOICE, DEFAULT("off"), .choices = {"off", "on"},
     .help = "whether harvestd may leave a core dump, which holds passwords and records; off also keeps debuggers of its "
             "own user away"},

    {DURATION(min_poll_interval), DEFAULT("100ms"), RANGE(HV_MS(1), HV_SECONDS(60)), RELOAD,
     .help = "least interval of the leader's heartbeats: the next follows so soon while one has not come back, otherwise a twentieth "
             "of heartbeat_timeout later if that is more (goharvest: always so soon)"},
    {DURATION(heartbeat_timeout), DEFAULT("5s"), RANGE(HV_MS(100), HV_SECONDS(600)),
     .help = "a leader that reads no heartbeat of its own for so long stops; the group's session time-out is "
             "three times this, and brokers refuse one below 6s unless set up otherwise"},
    {DURATION(queue_timeout), DEFAULT("30s"), RANGE(HV_SECONDS(1), 24 * HOUR), RELOAD,
     .help = "a record that was marked and waits longer to be sent leads to a new mark of everything"},
    {DURATION(mark_backoff), DEFAULT("10ms"), RANGE(HV_MS(1), HV_SECONDS(60)), RELOAD,
     .help = "longest wait between two claims while rows have come within the last second; right after rows a tenth of it"},
    {DURATION(idle_backoff_max), DEFAULT("<100ms; 1s with wakeup = listen>"), .derived = true, RANGE(HV_MS(1), HV_SECONDS(60)), RELOAD,
     .help = "the wait between claims grows to this after a second without rows (goharvest: always mark_backoff, which keeps "
             "an idle machine busy)"},
    {DURATION(io_error_backoff), DEFAULT("500ms"), RANGE(HV_MS(1), HOUR), RELOAD,
     .help = "first wait after an error of the database"},
    {DURATION(io_error_backoff_max), DEFAULT("10s"), RANGE(HV_MS(1), HOUR), RELOAD,
     .help = "io_error_backoff doubles up to this while errors last (goharvest: always io_error_backoff)"},
    {DURATION(blocked_backoff_max), DEFAULT("30s"), RANGE(HV_MS(1), HOUR), RELOAD,
     .help = "longest wait before a record that Kafka refused is tried again"},
    {DURATION(poll_duration), DEFAULT("1ms"), RANGE(HV_US(100), HV_SECONDS(1)), RELOAD,
     .help = "longest time for reading delivery reports before other work gets its turn"},
    {COUNT(max_in_flight_records), DEFAULT("5000"), RANGE(1, 1000000), RELOAD,
     .help = "records handed to the Kafka client and not acknowledged, all shards together (goharvest: 1000; "
             "here one client serves all shards and needs more in flight to fill its batches)"},
    {SIZE(max_in_flight_bytes), DEFAULT("8MiB"), RANGE(64 * KIB, 4 * GIB), RELOAD,
     .help = "bytes of those records, of which a shard may have a quarter; bounds the memory of large values"},
    {COUNT(send_concurrency), DEFAULT("64"), RANGE(1, 4096),
     .help =
         "number of shards, in-memory queues by key, each in order: the unit of fairness "
         "(goharvest: 8, because there each shard is a Kafka client; here all share one)"},
    {COUNT(send_buffer), DEFAULT("2000"), RANGE(1, 1000000), RELOAD,
     .help = "unsent records a shard may hold before claiming halts (goharvest: 10, without effect; here one "
             "hot key has to fill its batches from a single shard)"},
    {COUNT(mark_query_records), DEFAULT("1000"), RANGE(1, 100000), RELOAD,
     .help = "rows of one mark at most (goharvest: 100; larger statements spare round trips)"},
    {SIZE(mark_query_bytes), DEFAULT("1MiB"), RANGE(4 * KIB, 1 * GIB), RELOAD,
     .help = "a claim ends with the row whose value brings it to this, so that a reply is not much larger, whatever the rows"},
    {COUNT(purge_query_records), DEFAULT("2000"), RANGE(1, 100000), RELOAD,
     .help = "rows of one purge at most (goharvest: 1, a statement for each record)"},
    {DURATION(min_metrics_interval), DEFAULT("5s"), RANGE(HV_MS(100), 24 * HOUR), RELOAD,
     .help = "least time between two reports of throughput"},
    {DURATION(connect_timeout), DEFAULT("10s"), RANGE(HV_MS(100), HV_SECONDS(600)), RELOAD,
     .help = "of one attempt to connect to the database: name resolution, all hosts, authentication"},
    {DURATION(statement_timeout), DEFAULT("30s"), RANGE(HV_MS(100), HOUR), RELOAD,
     .help = "of one statement, its reply included; then the connection is dropped and made anew"},
    {DURATION(drain_timeout), DEFAULT("10s"), RANGE(0, HOUR), RELOAD,
     .help = "how long stopping waits for acknowledgements and their purge"},
    {DURATION(rescan_interval), DEFAULT("5s"), RANGE(HV_MS(100), HOUR), RELOAD,
     .help = "how often all ids are looked at again, for those that were drawn long before they were written"},

    {IN("log", "level", log_level), .type = HV_SET_CHOICE, DEFAULT("info"), RELOAD,
     .choices = {"error", "warn", "info", "debug"}, .help = "least severe level that is logged"},
    {IN("log", "format", log_format), .type = HV_SET_CHOICE, DEFAULT("logfmt"), RELOAD,
     .choices = {"logfmt", "json"}, .help = "form of the log lines on standard error"},
};

static const char *const sections[] = {"harvest",        "limits", "kafka", "kafka.producer",
                                       "kafka.consumer", "log",    NULL};

const struct hv_setting *hv_settings_table(size_t *count) {
    *count = sizeof table / sizeof table[0];
    return table;
}

const struct hv_setting *hv_settings_find(const char *section, const char *name) {
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].section, section) == 0 && strcmp(table[i].name, name) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

const char *const *hv_settings_sections(void) {
    return sections;
}

bool hv_settings_section_known(const char *section) {
    for (const char *const *s = sections; *s != NULL; s++) {
        if (strcmp(*s, section) == 0) {
            return true;
        }
    }
    return false;
}

bool hv_settings_section_passed_through(const char *section) {
    return strncmp(section, "kafka", 5) == 0 && hv_settings_section_known(section);
}

bool hv_settings_is_secret(const char *section, const char *name) {
    if (!hv_settings_section_passed_through(section)) {
        const struct hv_setting *setting = hv_settings_find(section, name);
        return setting != NULL && setting->secret;
    }
    return hv_kafka_property_is_secret(name);
}

bool hv_settings_is_file_of(const char *section, const char *name, char *secret, size_t size) {
    size_t length = strlen(name), suffix = sizeof "_file" - 1;
    if (length <= suffix || length - suffix >= size || strcmp(name + length - suffix, "_file") != 0) {
        return false;
    }
    memcpy(secret, name, length - suffix);
    secret[length - suffix] = '\0';
    return hv_settings_is_secret(section, secret);
}

const char *hv_assignor_name(enum hv_assignor assignor) {
    return hv_settings_find("harvest", "leader_assignor")->choices[assignor];
}
