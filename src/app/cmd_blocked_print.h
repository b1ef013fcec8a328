/* What `harvestd blocked` prints. */
#ifndef HV_APP_CMD_BLOCKED_PRINT_H
#define HV_APP_CMD_BLOCKED_PRINT_H

#include <stdio.h>

#include "app/cmd_blocked_lines.h"
#include "app/cmd_blocked_options.h"

/* What was asked for of the list, as tables and a summary, or as lines of JSON. */
void hv_blocked_print(const struct hv_blocked_list *list, const struct hv_blocked_options *options, FILE *out);

#endif
