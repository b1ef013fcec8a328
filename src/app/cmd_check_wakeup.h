/* harvestd check, what wakeup = listen needs: part of the check of the database. */
#ifndef HV_APP_CMD_CHECK_WAKEUP_H
#define HV_APP_CMD_CHECK_WAKEUP_H

#include <libpq-fe.h>

#include "app/cmd_check.h"

/* Does the table (quoted) have the trigger, and do notifications arrive on a connection as `conn` is one? Opens another one and waits. */
void hv_check_wakeup(struct hv_check *check, PGconn *conn, const char *table);

#endif
