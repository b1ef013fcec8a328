/* Which rights on the outbox the user of a connection lacks, and the statements that grant them. */
#ifndef HV_IO_PG_RIGHTS_H
#define HV_IO_PG_RIGHTS_H

#include <libpq-fe.h>

#include "base/error.h"

/* Parameter: the table as hv_table_quote gives it, text. Rows: what is missing ("DELETE on public.outbox") and the GRANT, both text.
 * None when nothing is missing, or when there is no such table. Looks at catalogues only, which everybody may. */
extern const char hv_rights_sql[];

/* Puts the rows into one message; returns how many there were. Without rows err stays as it is. */
int hv_rights_explain(const PGresult *result, struct hv_error *err);

#endif
