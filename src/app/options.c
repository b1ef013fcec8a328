/* See options.h. */
#include "app/options.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/text.h"
#include "rt/settings.h"

static const struct {
    const char *name;
    enum hv_command command;
} commands[] = {
    {"run", HV_COMMAND_RUN},
    {"check", HV_COMMAND_CHECK},
    {"schema", HV_COMMAND_SCHEMA},
    {"version", HV_COMMAND_VERSION},
};

enum option { OPTION_CONFIG, OPTION_SET, OPTION_HELP, OPTION_HELP_CONFIG, OPTION_VERSION };

static const struct {
    const char *name;
    char letter; /* 0: none */
    bool takes_value;
} options[] = {
    [OPTION_CONFIG] = {"--config", 'c', true},  [OPTION_SET] = {"--set", 's', true},
    [OPTION_HELP] = {"--help", 'h', false},     [OPTION_HELP_CONFIG] = {"--help-config", 0, false},
    [OPTION_VERSION] = {"--version", 0, false},
};
enum { OPTION_COUNT = sizeof options / sizeof options[0] };

/* Which option is this argument? *value is what is glued to it (--config=FILE, -cFILE) or NULL. -1: none. */
static int find_option(const char *argument, const char **value) {
    const char *equals = strchr(argument, '=');
    size_t length = equals == NULL ? strlen(argument) : (size_t)(equals - argument);
    for (int i = 0; i < OPTION_COUNT; i++) {
        *value = NULL;
        if (strlen(options[i].name) == length && memcmp(options[i].name, argument, length) == 0) {
            *value = equals == NULL ? NULL : equals + 1;
            return i;
        }
        if (argument[1] != '-' && options[i].letter != 0 && argument[1] == options[i].letter &&
            (argument[2] == '\0' || options[i].takes_value)) {
            *value = argument[2] == '\0' ? NULL : argument + 2;
            return i;
        }
    }
    return -1;
}

static int unknown_option(const char *argument, struct hv_error *err) {
    char shown[100];
    struct hv_nearest nearest = {.name = argument};
    for (int i = 0; i < OPTION_COUNT; i++)
        hv_nearest_try(&nearest, options[i].name);
    hv_text_show(argument, shown, sizeof shown);
    if (nearest.best != NULL)
        return hv_error_set(err, "unknown option %s; did you mean %s?", shown, nearest.best);
    return hv_error_set(err, "unknown option %s; harvestd --help lists all", shown);
}

static int take_command(const char *argument, bool *seen, struct hv_options *ret, struct hv_error *err) {
    char shown[100];
    struct hv_nearest nearest = {.name = argument};
    hv_text_show(argument, shown, sizeof shown);
    if (*seen)
        return hv_error_set(err, "unexpected argument %s: there is one command at most", shown);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, argument) == 0) {
            *seen = true;
            ret->command = commands[i].command;
            return 0;
        }
        hv_nearest_try(&nearest, commands[i].name);
    }
    if (nearest.best != NULL)
        return hv_error_set(err, "unknown command %s; did you mean %s?", shown, nearest.best);
    return hv_error_set(err, "unknown command %s; there are run, check, schema and version", shown);
}

static int take_value(int option, const char *value, struct hv_options *ret, struct hv_error *err) {
    if (option == OPTION_CONFIG) {
        if (ret->config != NULL)
            return hv_error_set(err, "--config is given twice; there is one file");
        if (value[0] == '\0')
            return hv_error_set(err, "--config names no file");
        ret->config = value;
        return 0;
    }
    if (ret->set_count == HV_OPTION_SETS_MAX)
        return hv_error_set(err, "--set is given more than %d times; use a file", HV_OPTION_SETS_MAX);
    ret->sets[ret->set_count++] = value;
    return 0;
}

int hv_options_parse(int argc, char *const *argv, struct hv_options *ret, struct hv_error *err) {
    bool command_seen = false, options_end = false;
    int special = -1; /* the --help and the like that came first */
    memset(ret, 0, sizeof *ret);
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i], *value;
        if (options_end || argument[0] != '-' || argument[1] == '\0') {
            if (take_command(argument, &command_seen, ret, err) != 0)
                return -1;
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            options_end = true;
            continue;
        }
        int option = find_option(argument, &value);
        if (option < 0)
            return unknown_option(argument, err);
        if (!options[option].takes_value) {
            if (value != NULL)
                return hv_error_set(err, "%s takes no value", options[option].name);
            special = special < 0 ? option : special;
            continue;
        }
        if (value == NULL && i + 1 == argc)
            return hv_error_set(err, "%s needs a value: %s", options[option].name,
                                option == OPTION_CONFIG ? "a file" : "SECTION.NAME=VALUE");
        if (take_value(option, value != NULL ? value : argv[++i], ret, err) != 0)
            return -1;
    }
    if (special >= 0)
        ret->command = special == OPTION_HELP          ? HV_COMMAND_HELP
                       : special == OPTION_HELP_CONFIG ? HV_COMMAND_HELP_CONFIG
                                                       : HV_COMMAND_VERSION;
    return 0;
}

void hv_options_help(FILE *out) {
    fputs("Usage: harvestd [run|check|schema|version] [options]\n"
          "\n"
          "Publishes the rows of a Postgres outbox table to Kafka and deletes them afterwards.\n"
          "\n"
          "Commands:\n"
          "  run      do that until SIGTERM or SIGINT (the default); a second one hurries,\n"
          "           a third ends it at once\n"
          "  check    look at configuration, database, table, rights, broker and topics,\n"
          "           and say what is not right\n"
          "  schema   print the SQL that makes the outbox table\n"
          "  version  print the versions of harvestd and of the libraries it runs with\n"
          "\n"
          "Options:\n"
          "  -c, --config FILE             settings (default: " HV_DEFAULT_CONFIG ")\n"
          "  -s, --set SECTION.NAME=VALUE  one setting, over the file; may be repeated, the\n"
          "                                last one counts. Others on this machine can see it:\n"
          "                                no passwords here.\n"
          "      --help-config             print all settings with their defaults\n"
          "      --version                 as the command version\n"
          "  -h, --help                    print this\n"
          "\n"
          "Exit codes: 0 done, 1 failed, 2 wrong use or configuration.\n",
          out);
}

static void print_wrapped(FILE *out, const char *text) {
    enum { WIDTH = 92 };
    while (*text != '\0') {
        size_t length = strlen(text);
        if (length > WIDTH)
            for (length = WIDTH; length > 0 && text[length] != ' ';)
                length--;
        fprintf(out, "    %.*s\n", (int)length, text);
        text += length + (text[length] == ' ');
    }
}

static const char *type_text(const struct hv_setting *setting) {
    switch (setting->type) {
    case HV_SET_DURATION:
        return "duration";
    case HV_SET_SIZE:
        return "size";
    case HV_SET_COUNT:
        return "number";
    case HV_SET_CHOICE:
        return "choice";
    case HV_SET_STRING:
        break;
    }
    return "text";
}

static void print_range(FILE *out, const struct hv_setting *setting) {
    char low[32], high[32];
    if (setting->type == HV_SET_DURATION)
        fprintf(out, ", %s to %s", hv_show_duration(setting->min, low, sizeof low),
                hv_show_duration(setting->max, high, sizeof high));
    else if (setting->type == HV_SET_SIZE)
        fprintf(out, ", %s to %s", hv_show_size((uint64_t)setting->min, low, sizeof low),
                hv_show_size((uint64_t)setting->max, high, sizeof high));
    else if (setting->type == HV_SET_COUNT)
        fprintf(out, ", %" PRId64 " to %" PRId64, setting->min, setting->max);
    for (int i = 0; setting->choices[i] != NULL; i++)
        fprintf(out, "%s%s", i == 0 ? ": " : " | ", setting->choices[i]);
}

void hv_options_help_config(FILE *out) {
    size_t count;
    const struct hv_setting *table = hv_settings_table(&count);
    fputs("# Durations are digits and us, ms, s, m or h; sizes are bytes or digits and KiB, MiB or GiB.\n"
          "# Where a default is not goharvest's, the reason is given.\n",
          out);
    for (size_t i = 0; i < count; i++) {
        const struct hv_setting *s = &table[i];
        if (i == 0 || strcmp(table[i - 1].section, s->section) != 0)
            fprintf(out, "\n[%s]\n", s->section);
        fprintf(out, "%s = %s  (%s", s->name, s->default_text, type_text(s));
        print_range(out, s);
        fputs(")\n", out);
        print_wrapped(out, s->help);
    }
    fputs("\n[kafka]\n"
          "bootstrap.servers = localhost:9092  (text)\n",
          out);
    print_wrapped(out,
                  "where Kafka is; this and any other property of librdkafka here is for all Kafka clients");
    fputs("\n[kafka.producer]\n", out);
    print_wrapped(out, "properties of librdkafka for the clients that send records, over those of [kafka]");
    fputs("\n[kafka.consumer]\n", out);
    print_wrapped(out,
                  "properties of librdkafka for the client in the election's group, over those of [kafka]");
}
