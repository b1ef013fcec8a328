/* The whole configuration: defaults, then the file, then --set; all that is wrong is told at once, nothing
 * of it is used then. */
#ifndef HV_APP_CONFIG_H
#define HV_APP_CONFIG_H

#include <stdbool.h>
#include <stdio.h>

#include "app/options.h"
#include "rt/settings.h"

#define HV_CONFIG_TROUBLES_MAX 100 /* as many are told; the rest is counted */

/* Fills `ret` (caller frees with hv_settings_free) and returns 0, or prints each trouble as `file:line:
 * what` to `errors` in the order of lines and returns -1. `file_optional`: without a file named, the
 * default one may be missing. */
int hv_config_load(const struct hv_options *options, bool file_optional, struct hv_settings *ret,
                   FILE *errors);

#endif
