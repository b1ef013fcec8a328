/* The command line: harvestd [run|check|schema|version] [options]. */
#ifndef HV_APP_OPTIONS_H
#define HV_APP_OPTIONS_H

#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

#define HV_DEFAULT_CONFIG "/etc/harvestd/harvestd.ini"
#define HV_OPTION_SETS_MAX 256

enum hv_command {
    HV_COMMAND_RUN,
    HV_COMMAND_CHECK,
    HV_COMMAND_SCHEMA,
    HV_COMMAND_VERSION,
    HV_COMMAND_HELP,
    HV_COMMAND_HELP_CONFIG,
};

/* Texts are those of argv. */
struct hv_options {
    enum hv_command command;
    const char *config;                   /* NULL: none was named */
    const char *sets[HV_OPTION_SETS_MAX]; /* SECTION.NAME=VALUE, unchecked */
    size_t set_count;
};

/* Returns 0, or -1 with err, which names the argument and what may have been meant. --help, --help-config
 * and --version win over whatever else is asked for. */
int hv_options_parse(int argc, char *const *argv, struct hv_options *ret, struct hv_error *err);

void hv_options_help(FILE *out);        /* --help */
void hv_options_help_config(FILE *out); /* --help-config: the table of settings */

#endif
