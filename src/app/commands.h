/* The commands of the daemon. Each returns the exit code: 0 done, 1 failed. */
#ifndef HV_APP_COMMANDS_H
#define HV_APP_COMMANDS_H

#include "app/options.h"
#include "rt/settings.h"

int hv_cmd_run(const struct hv_settings *settings);    /* until it is told to stop by signals */
int hv_cmd_check(const struct hv_settings *settings);  /* blocks; prints to standard output */
/* The DDL to standard output, or the GRANTs that were asked for. */
int hv_cmd_schema(const struct hv_settings *settings, const struct hv_options *options);
int hv_cmd_stash(const struct hv_settings *settings, const struct hv_options *options); /* blocks */
int hv_cmd_pump(const struct hv_settings *settings, const struct hv_options *options); /* until it is done, or told to stop */
int hv_cmd_park(const struct hv_settings *settings, const struct hv_options *options); /* blocks; also 2: would have to ask and cannot */
int hv_cmd_blocked(const struct hv_settings *settings, const struct hv_options *options); /* blocks; also 2: control_socket is not set */
int hv_cmd_version(void);                              /* to standard output */

#endif
