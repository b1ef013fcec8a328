/* The command line: harvestd [COMMAND] [options]. What there is to be given stands in tables: the options of
 * all commands in options_table.c, those of one command beside that command. The tables feed the parser
 * and the help. */
#ifndef HV_APP_OPTIONS_H
#define HV_APP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "app/cmd_blocked_options.h"
#include "app/cmd_park_options.h"
#include "app/cmd_pump_options.h"
#include "app/cmd_stash_options.h"
#include "base/error.h"
#include "base/time.h"

#define HV_DEFAULT_CONFIG "/etc/harvestd/harvestd.ini"
#define HV_OPTION_TEXTS_MAX 256
#define HV_OPTIONS_MAX 40 /* rows of one table */

enum hv_command {
    HV_COMMAND_RUN,
    HV_COMMAND_CHECK,
    HV_COMMAND_SCHEMA,
    HV_COMMAND_STASH,
    HV_COMMAND_PUMP,
    HV_COMMAND_PARK,
    HV_COMMAND_BLOCKED,
    HV_COMMAND_VERSION,
    HV_COMMAND_COUNT, /* from here on: not given as words */
    HV_COMMAND_HELP = HV_COMMAND_COUNT,
    HV_COMMAND_HELP_CONFIG,
    HV_COMMAND_NONE,
};

/* An option that may be repeated. */
struct hv_option_texts {
    const char *list[HV_OPTION_TEXTS_MAX];
    size_t count;
};

/* What was asked for. Texts are those of argv. */
struct hv_options {
    enum hv_command command;
    int action;                  /* of a command that has some, which; -1: none was named */
    enum hv_command help_of;     /* HV_COMMAND_HELP: the command, or HV_COMMAND_NONE: all */
    const char *config;          /* NULL: none was named */
    struct hv_option_texts sets; /* SECTION.NAME=VALUE, unchecked */
    bool help, help_config, version;
    const char *grants, *application_grants, *operator_grants; /* schema: roles, or NULL */
    bool notify;                                               /* schema */
    bool park_schema;                                          /* schema: of the table of parked records */
    struct hv_option_texts stash_keys, stash_values, stash_headers;
    struct hv_stash_options stash;
    struct hv_option_texts pump_topics;
    struct hv_pump_options pump;
    struct hv_option_texts park_ids, park_keys, park_topics, park_classes;
    struct hv_park_options park;
    struct hv_blocked_options blocked;
};

/* The field at `offset` of struct hv_options has the type that is named behind each. */
enum hv_option_type {
    HV_OPTION_FLAG,     /* bool; takes no value */
    HV_OPTION_TEXT,     /* const char *, not empty */
    HV_OPTION_TEXTS,    /* struct hv_option_texts: may be repeated */
    HV_OPTION_COUNT,    /* uint64_t: digits */
    HV_OPTION_SIZE,     /* uint64_t: bytes, such as 64KiB */
    HV_OPTION_DURATION, /* hv_time, such as 5s */
};

struct hv_option {
    const char *name; /* "--config" */
    char letter;      /* 0: none */
    enum hv_option_type type;
    const char *value;  /* what stands for the value in messages and help, "FILE"; NULL for flags */
    const char *preset; /* the default as a user would write it; NULL: false, NULL or 0 */
    int64_t min, max;   /* of numbers, both inclusive */
    size_t offset;
    const char *help; /* one clause or two; wrapped when printed */
};

struct hv_option_table {
    const struct hv_option *rows;
    size_t count;
};

struct hv_command_row {
    const char *name;
    const char *summary; /* of the list of commands; wrapped when printed */
    const char *about;   /* of the command's own help, beyond the summary: lines as they are; may be NULL */
    const struct hv_option_table *options; /* NULL: none of its own */
    const char *const *actions; /* words behind the name of which one has to be there, NULL-terminated; NULL: none */
    int (*check)(const struct hv_options *options, struct hv_error *err); /* what the table cannot tell; NULL: nothing */
};

extern const struct hv_option_table hv_options_of_all; /* which every command takes */
extern const struct hv_option_table hv_schema_option_table;
extern const struct hv_command_row hv_command_rows[HV_COMMAND_COUNT];

/* Returns 0, or -1 with err, which names the argument and what may have been meant. --help, --help-config
 * and --version win over whatever else is asked for. An option of one command stands behind its name. */
int hv_options_parse(int argc, char *const *argv, struct hv_options *ret, struct hv_error *err);

void hv_options_help(enum hv_command command, FILE *out); /* --help; HV_COMMAND_NONE: of all */
void hv_options_help_config(FILE *out);                   /* --help-config: the table of settings */

#endif
