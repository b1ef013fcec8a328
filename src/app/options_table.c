/* The commands, and the options that all of them take. The options of one command stand beside it. */
#include "app/options.h"

#define AT(field) offsetof(struct hv_options, field)

static const struct hv_option of_all[] = {
    {.name = "--config", .letter = 'c', .type = HV_OPTION_TEXT, .value = "FILE", .offset = AT(config),
     .help = "settings (default: " HV_DEFAULT_CONFIG ")"},
    {.name = "--set", .letter = 's', .type = HV_OPTION_TEXTS, .value = "SECTION.NAME=VALUE", .offset = AT(sets),
     .help = "one setting, over the file; may be repeated, the last one counts. Others on this machine can see it: "
             "passwords are refused here."},
    {.name = "--help-config", .offset = AT(help_config), .help = "print all settings with their defaults"},
    {.name = "--version", .offset = AT(version), .help = "as the command version"},
    {.name = "--help", .letter = 'h', .offset = AT(help), .help = "print this; behind a command, its own options"},
};

const struct hv_option_table hv_options_of_all = {of_all, sizeof of_all / sizeof of_all[0]};

const struct hv_command_row hv_command_rows[HV_COMMAND_COUNT] = {
    [HV_COMMAND_RUN] = {.name = "run",
                        .summary = "publish rows until SIGTERM or SIGINT (the default); a second one hurries, a third "
                                   "ends it at once"},
    [HV_COMMAND_CHECK] = {.name = "check",
                          .summary = "look at configuration, database, table, rights, broker and topics, and say what "
                                     "is not right"},
    [HV_COMMAND_SCHEMA] = {.name = "schema", .summary = "print the SQL that makes the outbox table, or that grants rights on it, or the trigger for wakeup = "
                                      "listen",
                           .options = &hv_schema_option_table},
    [HV_COMMAND_STASH] = {.name = "stash",
                          .summary = "write a record into the outbox table, or many from JSON lines on standard input",
                          .about = hv_stash_about,
                          .options = &hv_stash_option_table,
                          .check = hv_stash_options_check},
    [HV_COMMAND_PUMP] = {.name = "pump",
                         .summary = "write test records into the outbox table, and with --verify judge what arrives",
                         .about = hv_pump_about,
                         .options = &hv_pump_option_table,
                         .check = hv_pump_options_check},
    [HV_COMMAND_PARK] = {.name = "park",
                         .summary = "list, show, replay or drop records that Kafka refused and that were moved aside",
                         .about = hv_park_about,
                         .options = &hv_park_option_table,
                         .actions = hv_park_actions,
                         .check = hv_park_options_check},
    [HV_COMMAND_BLOCKED] = {.name = "blocked",
                            .summary = "list the keys of a running daemon that wait since Kafka refuses a record of theirs",
                            .about = hv_blocked_about,
                            .options = &hv_blocked_option_table},
    [HV_COMMAND_VERSION] = {.name = "version",
                            .summary = "print the versions of harvestd and of the libraries it runs with"},
};
