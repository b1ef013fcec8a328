/* The statements of pg_outbox, written for one table. */
#ifndef HV_IO_PG_OUTBOX_SQL_H
#define HV_IO_PG_OUTBOX_SQL_H

#include "io/pg_table.h"

#define HV_OUTBOX_SQL_MAX 5120

enum { HV_MARK_NEW, HV_MARK_ABOVE, HV_MARK_GAPS, HV_MARK_HIDING, HV_MARK_FORMS }; /* how a mark is asked for; */
enum { HV_SCAN_ABOVE, HV_SCAN_GAPS, HV_SCAN_GAPS_WITHOUT, HV_SCAN_HIDING, HV_SCAN_FORMS }; /* how a scan is asked for... */
enum { HV_PURGE_ANY, HV_PURGE_ALL, HV_PURGE_BUT_LOCKED, HV_PURGE_FORMS }; /* of rows: any version, one version */
enum { HV_BY_SHARES, HV_BY_SUM, HV_SCAN_BOUNDS }; /* ... and bounded */

struct hv_outbox_sql {
    char probe[HV_OUTBOX_SQL_MAX], purge[HV_PURGE_FORMS][HV_OUTBOX_SQL_MAX], list[HV_OUTBOX_SQL_MAX], fetch[HV_OUTBOX_SQL_MAX];
    char mark[HV_MARK_FORMS][HV_OUTBOX_SQL_MAX], scan[HV_SCAN_BOUNDS][HV_SCAN_FORMS][HV_OUTBOX_SQL_MAX];
};

/* Parameter: the table, quoted, text. */
extern const char hv_outbox_writers_sql[];

/* Those that are the same for columns of any type. `table` is quoted. */
void hv_outbox_sql_begin(struct hv_outbox_sql *sql, const char *table);

/* The others, once the types of the columns are known. */
void hv_outbox_sql_claims(struct hv_outbox_sql *sql, const char *table, const struct hv_table_types *types, int server_version);

/* Are keys bytea, or text of some kind? */
bool hv_outbox_keys_are_bytes(const struct hv_table_types *types);

#endif
