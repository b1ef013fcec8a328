/* Reading, checking and keeping settings; see settings.h. What there is to set is in settings_table.c. */
#include "rt/settings.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text.h"
#include "core/record.h"
#include "io/kafka_login.h"
#include "io/pg_dsn.h"
#include "io/pg_outbox.h"
#include "rt/poison.h"
#include "rt/settings_secret.h"

/* ---- Single values ---- */

static void *field_of(const struct hv_settings *settings, const struct hv_setting *setting) {
    return (char *)settings + setting->offset;
}

static int set_number(void *field, const struct hv_setting *setting, const char *value,
                      struct hv_error *err) {
    uint64_t number;
    if (hv_parse_number(hv_setting_number(setting), value, setting->min, setting->max, &number, err) != 0) {
        return -1;
    }
    if (setting->type == HV_SET_DURATION) {
        *(hv_time *)field = (hv_time)number;
    } else if (setting->type == HV_SET_SIZE) {
        *(uint64_t *)field = number;
    } else {
        *(uint32_t *)field = (uint32_t)number;
    }
    return 0;
}

static int set_choice(int *field, const struct hv_setting *setting, const char *value, struct hv_error *err) {
    char list[128], shown[100];
    struct hv_text t;
    hv_text_init(&t, list, sizeof list);
    for (int i = 0; setting->choices[i] != NULL; i++) {
        if (strcmp(setting->choices[i], value) == 0) {
            *field = i;
            return 0;
        }
        const char *between = i == 0 ? "" : setting->choices[i + 1] == NULL ? " or " : ", ";
        hv_text_printf(&t, "%s%s", between, setting->choices[i]);
    }
    return hv_error_set(err, "%s is not one of %s", hv_text_show(value, shown, sizeof shown), list);
}

static int check_topic(const char *value, struct hv_error *err) {
    char shown[100];
    if (hv_topic_is_legal(value, strlen(value))) {
        return 0;
    }
    return hv_error_set(err, "%s cannot name a Kafka topic: 1 to 249 of a-z A-Z 0-9 . _ -, and not . or ..",
                        hv_text_show(value, shown, sizeof shown));
}

/* Kafka takes any text; what cannot be read in a log or a consumer's code is a slip. */
static int check_header_name(const char *value, struct hv_error *err) {
    char shown[100];
    size_t length = strlen(value);
    for (size_t i = 0; i < length;) {
        uint32_t code = 0;
        size_t n = hv_utf8_length(value + i, length - i, &code);
        if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
            return hv_error_set(err, "%s cannot name a header: it holds a control character or what is no UTF-8",
                                hv_text_show(value, shown, sizeof shown));
        }
        i += n;
    }
    return 0;
}

/* The daemon and the commands that ask it may be started in different directories. */
static int check_path(const char *value, struct hv_error *err) {
    char shown[100];
    if (value[0] == '\0' || (value[0] == '/' && value[strlen(value) - 1] != '/')) {
        return 0;
    }
    return hv_error_set(err, "%s is no path of a file from / on", hv_text_show(value, shown, sizeof shown));
}

static int check_string(const struct hv_setting *setting, const char *value, struct hv_error *err) {
    char shown[100], quoted[600];
    size_t length = strlen(value);
    if (length < (size_t)setting->min) {
        return hv_error_set(err, "the value is empty");
    }
    if (length > (size_t)setting->max) {
        return hv_error_set(err, "the value is %zu bytes long; %" PRId64 " are allowed", length,
                            setting->max);
    }
    if (strcmp(setting->name, "data_source") == 0) {
        return hv_pg_dsn_check(value, err);
    }
    if (strcmp(setting->name, "password") == 0) {
        return 0;
    }
    if (strcmp(setting->name, "outbox_table") == 0) {
        return hv_outbox_quote_table(value, quoted, sizeof quoted, err);
    }
    if (strcmp(setting->name, "leader_topic") == 0) {
        return check_topic(value, err);
    }
    if (strcmp(setting->name, "control_socket") == 0) {
        return check_path(value, err);
    }
    if (strcmp(setting->name, "on_poison_topics") == 0) {
        return hv_poison_check(value, err);
    }
    if (strcmp(setting->name, "id_header") == 0) {
        return check_header_name(value, err);
    }
    for (size_t i = 0; i < length;) {
        uint32_t code = 0;
        size_t n = hv_utf8_length(value + i, length - i, &code);
        /* The heartbeat on the leader topic is "<stamp>%<name>". */
        if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '%') {
            return hv_error_set(err, "%s holds a '%%', a control character or what is no UTF-8",
                                hv_text_show(value, shown, sizeof shown));
        }
        i += n;
    }
    return 0;
}

static int set_value(struct hv_settings *settings, const struct hv_setting *setting, const char *value,
                     struct hv_error *err) {
    void *field = field_of(settings, setting);
    if (setting->type == HV_SET_CHOICE) {
        return set_choice(field, setting, value, err);
    }
    if (setting->type != HV_SET_STRING) {
        return set_number(field, setting, value, err);
    }
    if (check_string(setting, value, err) != 0) {
        return -1;
    }
    free(*(char **)field);
    *(char **)field = hv_must(strdup(value));
    return 0;
}

/* ---- Properties passed through to librdkafka ---- */

static struct hv_kafka_properties *properties_of(struct hv_settings *settings, const char *section) {
    return strcmp(section, "kafka") == 0            ? &settings->kafka
           : strcmp(section, "kafka.producer") == 0 ? &settings->kafka_producer
                                                    : &settings->kafka_consumer;
}

static void put_property(struct hv_kafka_properties *properties, const char *name, const char *value) {
    struct hv_kafka_property *list = (struct hv_kafka_property *)properties->list;
    struct hv_kafka_property entry = {.name = hv_must(strdup(name)), .value = hv_must(strdup(value))};
    for (size_t i = 0; i < properties->count; i++) {
        if (strcmp(list[i].name, name) == 0) {
            free((char *)list[i].name);
            free((char *)list[i].value);
            list[i] = entry;
            return;
        }
    }
    list = hv_realloc(list, properties->count + 1, sizeof *list);
    list[properties->count++] = entry;
    properties->list = list;
}

static void free_properties(struct hv_kafka_properties *properties) {
    for (size_t i = 0; i < properties->count; i++) {
        free((char *)properties->list[i].name);
        free((char *)properties->list[i].value);
    }
    free((void *)properties->list);
    *properties = (struct hv_kafka_properties){NULL, 0};
}

static int set_property(struct hv_settings *settings, const char *section, const char *name,
                        const char *value, struct hv_error *err) {
    struct hv_error why = {""};
    struct hv_kafka_property property = {.name = name, .value = value};
    enum hv_kafka_role role = strcmp(section, "kafka") == 0            ? HV_KAFKA_SHARED
                              : strcmp(section, "kafka.producer") == 0 ? HV_KAFKA_RECORDS
                                                                       : HV_KAFKA_ELECTION_CONSUMER;
    if (hv_kafka_property_check(role, &property, &why) != 0) {
        if (value[0] != '\0' && hv_settings_is_secret(section, name) && strstr(why.text, value) != NULL) {
            return hv_error_set(err, "%s: librdkafka refuses this value", name);
        }
        if (err != NULL) {
            *err = why;
        }
        return -1;
    }
    put_property(properties_of(settings, section), name, value);
    return 0;
}

/* ---- Names ---- */

static int unknown_section(const char *section, struct hv_error *err) {
    char shown[100];
    struct hv_nearest nearest = {.name = section};
    for (const char *const *s = hv_settings_sections(); *s != NULL; s++) {
        hv_nearest_try(&nearest, *s);
    }
    if (nearest.best != NULL) {
        return hv_error_set(err, "unknown section %s; did you mean [%s]?",
                            hv_text_show(section, shown, sizeof shown), nearest.best);
    }
    return hv_error_set(err,
                        "unknown section %s; there are [harvest], [limits], [kafka], [kafka.producer], "
                        "[kafka.consumer] and [log]",
                        hv_text_show(section, shown, sizeof shown));
}

static int unknown_name(const char *section, const char *name, struct hv_error *err) {
    char shown[100];
    struct hv_nearest here = {.name = name}, anywhere = {.name = name};
    const struct hv_setting *elsewhere = NULL;
    size_t count;
    const struct hv_setting *table = hv_settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].section, section) == 0) {
            hv_nearest_try(&here, table[i].name);
        }
        const char *best = anywhere.best;
        hv_nearest_try(&anywhere, table[i].name);
        if (anywhere.best != best) {
            elsewhere = &table[i];
        }
    }
    hv_text_show(name, shown, sizeof shown);
    if (here.best != NULL && (elsewhere == NULL || here.distance <= anywhere.distance)) {
        return hv_error_set(err, "unknown setting %s in [%s]; did you mean %s?", shown, section, here.best);
    }
    if (elsewhere != NULL) {
        return hv_error_set(err, "unknown setting %s in [%s]; did you mean %s in [%s]?", shown, section,
                            elsewhere->name, elsewhere->section);
    }
    if (strchr(name, '.') != NULL) {
        return hv_error_set(err,
                            "unknown setting %s in [%s]; librdkafka's properties go to [kafka], "
                            "[kafka.producer] or [kafka.consumer]",
                            shown, section);
    }
    return hv_error_set(err, "unknown setting %s in [%s]; harvestd --help-config lists all", shown, section);
}

void hv_settings_note_open_file(struct hv_settings *settings, const char *path) {
    size_t before = settings->open_files == NULL ? 0 : strlen(settings->open_files), length = strlen(path);
    if (before > 0 && strstr(settings->open_files, path) != NULL) {
        return;
    }
    settings->open_files = hv_realloc(settings->open_files, before + length + 2, 1);
    snprintf(settings->open_files + before, length + 2, "%s\n", path);
}

/* `name`: of the secret that is in the file. */
static int set_from_file(struct hv_settings *settings, const char *section, const char *name, const char *path,
                         struct hv_error *err) {
    struct hv_error why = {""};
    bool lines = hv_kafka_property_is_pem(name) || strcmp(name, "data_source") == 0, open_to_all = false;
    char *value = hv_secret_read_file(path, lines, &open_to_all, &why);
    if (value == NULL) {
        return hv_error_set(err, "%s_file: %s", name, why.text);
    }
    int result = hv_settings_set(settings, section, name, value, &why);
    if (result != 0) {
        char shown[100];
        hv_error_set(err, "%.400s (in the file %s)", why.text, hv_text_show(path, shown, sizeof shown));
    } else if (open_to_all) {
        hv_settings_note_open_file(settings, path);
    }
    free(value);
    return result;
}

int hv_settings_set(struct hv_settings *settings, const char *section, const char *name, const char *value,
                    struct hv_error *err) {
    struct hv_error why = {""};
    char secret[80];
    if (!hv_settings_section_known(section)) {
        return unknown_section(section, err);
    }
    if (hv_settings_is_file_of(section, name, secret, sizeof secret)) {
        return set_from_file(settings, section, secret, value, err);
    }
    if (hv_settings_section_passed_through(section)) {
        return set_property(settings, section, name, value, err);
    }
    const struct hv_setting *setting = hv_settings_find(section, name);
    if (setting == NULL) {
        return unknown_name(section, name, err);
    }
    if (set_value(settings, setting, value, &why) == 0) {
        return 0;
    }
    return hv_error_set(err, "%s: %s", name, why.text);
}

/* ---- All of them ---- */

void hv_settings_init(struct hv_settings *settings) {
    memset(settings, 0, sizeof *settings);
    size_t count;
    const struct hv_setting *table = hv_settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (table[i].derived) {
            continue;
        }
        int bad = set_value(settings, &table[i], table[i].default_text, NULL);
        assert(!bad);
        (void)bad;
    }
    put_property(&settings->kafka, "bootstrap.servers", "localhost:9092");
}

void hv_settings_free(struct hv_settings *settings) {
    size_t count;
    const struct hv_setting *table = hv_settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (table[i].type == HV_SET_STRING) {
            free(*(char **)field_of(settings, &table[i]));
        }
    }
    free(settings->open_files);
    free_properties(&settings->kafka);
    free_properties(&settings->kafka_producer);
    free_properties(&settings->kafka_consumer);
    memset(settings, 0, sizeof *settings);
}

const char *hv_settings_text(const struct hv_settings *settings, const struct hv_setting *setting, char *out,
                             size_t size) {
    const void *field = field_of(settings, setting);
    const char *string;
    int64_t number = 0;
    switch (setting->type) {
    case HV_SET_STRING:
        string = *(char *const *)field;
        snprintf(out, size, "%s",
                 setting->secret  ? "(secret)"
                 : string != NULL ? string
                                  : setting->default_text);
        return out;
    case HV_SET_CHOICE:
        snprintf(out, size, "%s", setting->choices[*(const int *)field]);
        return out;
    case HV_SET_DURATION:
        number = *(const hv_time *)field;
        break;
    case HV_SET_SIZE:
        number = (int64_t) * (const uint64_t *)field;
        break;
    case HV_SET_COUNT:
        number = *(const uint32_t *)field;
        break;
    }
    return hv_show_number(hv_setting_number(setting), number, out, size);
}

/* ---- What depends on several settings ---- */

static char *default_name(void) {
    char host[HOST_NAME_MAX + 1] = "", name[HOST_NAME_MAX + 64];
    if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0') {
        snprintf(host, sizeof host, "localhost");
    }
    snprintf(name, sizeof name, "%s_%ld_%lld", host, (long)getpid(), (long long)time(NULL));
    return hv_must(strdup(name));
}

/* Two settings of [limits] of one type that have to be in this order. */
struct order {
    const char *lower, *upper;
    bool strictly;
};

static const struct order orders[] = {
    {"min_poll_interval", "heartbeat_timeout", true},   {"poll_duration", "heartbeat_timeout", true},
    {"mark_backoff", "idle_backoff_max", false},        {"io_error_backoff", "io_error_backoff_max", false},
    {"io_error_backoff", "blocked_backoff_max", false}, {"mark_query_bytes", "max_in_flight_bytes", false},
};

static int64_t number_of(const struct hv_settings *settings, const struct hv_setting *setting) {
    return setting->type == HV_SET_DURATION ? *(hv_time *)field_of(settings, setting)
                                            : (int64_t) * (uint64_t *)field_of(settings, setting);
}

/* Returns NULL when they are in order, or else the one to complain about: the one that was changed. */
static const char *find_culprit(const struct hv_settings *settings, const struct order *order, char *message,
                                size_t size) {
    const struct hv_setting *lower = hv_settings_find("limits", order->lower);
    const struct hv_setting *upper = hv_settings_find("limits", order->upper);
    assert(lower->type == upper->type && lower->type != HV_SET_COUNT);
    if (number_of(settings, lower) < number_of(settings, upper) + (order->strictly ? 0 : 1)) {
        return NULL;
    }
    char low[32], high[32];
    hv_settings_text(settings, lower, low, sizeof low);
    hv_settings_text(settings, upper, high, sizeof high);
    if (strcmp(low, lower->default_text) != 0) {
        snprintf(message, size, "%s: %s has to be %s %s, which is %s", lower->name, low,
                 order->strictly ? "less than" : "at most", upper->name, high);
        return lower->name;
    }
    snprintf(message, size, "%s: %s has to be %s %s, which is %s", upper->name, high,
             order->strictly ? "more than" : "at least", lower->name, low);
    return upper->name;
}

/* The password goes where libpq looks for it. */
static void join_password(struct hv_settings *settings) {
    if (settings->password == NULL) {
        return;
    }
    char *joined = hv_must(hv_pg_dsn_with_password(settings->data_source, settings->password));
    free(settings->data_source);
    settings->data_source = joined;
}

/* Can each kind of client keep itself logged in? Told once, for where it was set. */
static unsigned check_logins(struct hv_settings *settings, hv_settings_complain *complain, void *user) {
    static const char *const kinds[] = {"kafka", "kafka.producer", "kafka.consumer"};
    struct hv_error err;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct hv_kafka_properties *specific = i == 0 ? NULL : properties_of(settings, kinds[i]);
        if (hv_kafka_login_check(&settings->kafka, specific, &err) != 0) {
            complain(user, kinds[i], "sasl.mechanisms", err.text);
            return 1;
        }
    }
    return 0;
}

unsigned hv_settings_finish(struct hv_settings *settings, hv_settings_complain *complain, void *user) {
    unsigned troubles = check_logins(settings, complain, user);
    join_password(settings);
    if (settings->name == NULL) {
        settings->name = default_name();
    }
    if (settings->leader_topic == NULL) {
        size_t size = strlen(settings->leader_group_id) + sizeof ".neli";
        settings->leader_topic = hv_must(malloc(size));
        snprintf(settings->leader_topic, size, "%s.neli", settings->leader_group_id);
        struct hv_error err;
        if (check_topic(settings->leader_topic, &err) != 0) {
            char message[HV_ERROR_MAX + 80];
            snprintf(message, sizeof message, "leader_group_id: set leader_topic too, its default %s",
                     err.text);
            complain(user, "harvest", "leader_group_id", message);
            troubles++;
        }
    }
    if (settings->idle_backoff_max == 0) {
        settings->idle_backoff_max = settings->wakeup == HV_WAKE_BY_LISTEN ? HV_SECONDS(1) : HV_MS(100);
    }
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        char message[200];
        const char *culprit = find_culprit(settings, &orders[i], message, sizeof message);
        if (culprit != NULL) {
            complain(user, "limits", culprit, message);
            troubles++;
        }
    }
    return troubles;
}
