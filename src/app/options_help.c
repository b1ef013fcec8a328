/* What --help and --help-config print; all of it comes from the tables. */
#include <ctype.h>
#include <string.h>

#include "app/options.h"
#include "base/text.h"
#include "rt/settings.h"

/* How many bytes of the text fit into a line of this width; at least one word. */
static size_t line_length(const char *text, size_t width) {
    size_t length = strlen(text), at;
    if (length <= width) {
        return length;
    }
    for (at = width; at > 0 && text[at] != ' ';) {
        at--;
    }
    return at > 0 ? at : strcspn(text, " ");
}

/* A word (or what stands for it) and its explanation, the latter in a column of its own. */
static void print_entry(FILE *out, const char *word, int column, const char *text) {
    enum { WIDTH = 92 };
    int at = fprintf(out, "%s", word);
    if (at > 0 && at >= column - 1 && text[0] != '\0') {
        fputc('\n', out);
        at = 0;
    }
    while (*text != '\0') {
        size_t length = line_length(text, (size_t)(WIDTH - column));
        fprintf(out, "%*s%.*s\n", column - at, "", (int)length, text);
        text += length + (text[length] == ' ');
        at = 0;
    }
}

static void print_indented(FILE *out, const char *text) {
    print_entry(out, "", 4, text);
}

static void print_options(FILE *out, const struct hv_option_table *table) {
    for (size_t i = 0; i < table->count; i++) {
        const struct hv_option *o = &table->rows[i];
        char word[100], help[600], letter[8] = "    ";
        if (o->letter != 0) {
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        }
        snprintf(word, sizeof word, "  %s%s%s%s", letter, o->name, o->value == NULL ? "" : " ",
                 o->value == NULL ? "" : o->value);
        snprintf(help, sizeof help, "%s%s%s%s", o->help, o->preset == NULL ? "" : " (default: ",
                 o->preset == NULL ? "" : o->preset, o->preset == NULL ? "" : ")");
        print_entry(out, word, 32, help);
    }
}

static void print_commands(FILE *out) {
    fputs("\nCommands:\n", out);
    for (int c = 0; c < HV_COMMAND_COUNT; c++) {
        char word[40];
        snprintf(word, sizeof word, "  %s", hv_command_rows[c].name);
        print_entry(out, word, 11, hv_command_rows[c].summary);
    }
}

static void help_of_command(const struct hv_command_row *row, FILE *out) {
    char summary[400];
    fprintf(out, "Usage: harvestd %s", row->name);
    for (int a = 0; row->actions != NULL && row->actions[a] != NULL; a++) {
        fprintf(out, "%s%s", a == 0 ? " " : "|", row->actions[a]);
    }
    fputs(" [options]\n\n", out);
    snprintf(summary, sizeof summary, "%s.", row->summary);
    summary[0] = (char)toupper((unsigned char)summary[0]);
    print_entry(out, "", 0, summary);
    if (row->about != NULL) {
        fprintf(out, "\n%s", row->about);
    }
    if (row->options != NULL) {
        fprintf(out, "\nOptions of %s:\n", row->name);
        print_options(out, row->options);
    }
    fputs("\nOptions of all commands:\n", out);
}

void hv_options_help(enum hv_command command, FILE *out) {
    if (command < HV_COMMAND_COUNT) {
        help_of_command(&hv_command_rows[command], out);
    } else {
        fputs("Usage: harvestd [COMMAND] [options]\n"
              "\n"
              "Publishes the rows of a Postgres outbox table to Kafka and deletes them afterwards.\n",
              out);
        print_commands(out);
        fputs("\nOptions:\n", out);
    }
    print_options(out, &hv_options_of_all);
    fputs("\nExit codes: 0 done, 1 failed, 2 wrong use or configuration.\n", out);
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
    if (setting->type != HV_SET_STRING && setting->type != HV_SET_CHOICE) {
        enum hv_number kind = hv_setting_number(setting);
        fprintf(out, ", %s to %s", hv_show_number(kind, setting->min, low, sizeof low),
                hv_show_number(kind, setting->max, high, sizeof high));
    }
    for (int i = 0; setting->choices[i] != NULL; i++) {
        fprintf(out, "%s%s", i == 0 ? ": " : " | ", setting->choices[i]);
    }
}

void hv_options_help_config(FILE *out) {
    size_t count;
    const struct hv_setting *table = hv_settings_table(&count);
    fputs("# Durations are digits and us, ms, s, m or h; sizes are bytes or digits and KiB, MiB or GiB.\n"
          "# Where a default is not goharvest's, the reason is given.\n"
          "# ${NAME} in a value stands for that environment variable, ${NAME:-text} for text where it is\n"
          "# unset or empty, $${ for ${ itself. data_source, password and each property of librdkafka that\n"
          "# holds a secret can be given as NAME_file: a file with the value. Both are read at the start.\n",
          out);
    for (size_t i = 0; i < count; i++) {
        const struct hv_setting *s = &table[i];
        if (i == 0 || strcmp(table[i - 1].section, s->section) != 0) {
            fprintf(out, "\n[%s]\n", s->section);
        }
        fprintf(out, "%s = %s  (%s", s->name, s->default_text, type_text(s));
        print_range(out, s);
        fputs(")\n", out);
        print_indented(out, s->help);
    }
    fputs("\n[kafka]\n"
          "bootstrap.servers = localhost:9092  (text)\n",
          out);
    print_indented(out,
                   "where Kafka is; this and any other property of librdkafka here is for all Kafka clients");
    fputs("\n[kafka.producer]\n", out);
    print_indented(out, "properties of librdkafka for the clients that send records, over those of [kafka]");
    fputs("\n[kafka.consumer]\n", out);
    print_indented(out,
                   "properties of librdkafka for the client in the election's group, over those of [kafka]");
}
