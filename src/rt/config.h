/* Reads a configuration into settings: a file, then single settings over it. All that is wrong is told at once. */
#ifndef HV_RT_CONFIG_H
#define HV_RT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "rt/settings.h"

#define HV_CONFIG_TROUBLES_MAX 100 /* as many are told; the rest is counted */

struct hv_config_source {
    const char *path; /* an INI file; NULL: none */
    bool optional;    /* it may be missing */
    bool more;        /* more is to be set later: what hv_settings_finish does is left to the caller */
    const char *const *sets; /* SECTION.NAME=VALUE each, as on a command line */
    size_t set_count;
};

/* Applies `source` to settings that hv_settings_init (and perhaps hv_settings_set) filled. Returns 0, or prints each trouble as
 * `file:line: what`, in the order of lines, to `errors` and returns -1: then the settings are only fit for hv_settings_free. */
int hv_config_load(const struct hv_config_source *source, struct hv_settings *settings, FILE *errors);

#endif
