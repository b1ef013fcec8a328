/* The outbox table over one connection: its statements, and the rows' way from binary results to records. */
#ifndef HV_IO_PG_OUTBOX_H
#define HV_IO_PG_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include "core/event.h"
#include "core/gaps.h"
#include "core/record.h"
#include "io/pg_conn.h"
#include "io/pg_park.h"

struct hv_outbox;

/* Called on the loop's thread, never from within a call into this API; a handler may call the API. For
 * each call of mark, scan, list, purge, fetch, writers, park or listen exactly one of its own answer, `refused` or `down` follows. */
struct hv_outbox_handler {
    /* Connected, and the table looks as it should (columns, types, rights to SELECT, UPDATE leader_id and
     * DELETE). */
    void (*up)(void *user, const char *host);
    /* As hv_pg_handler.down; also when the probe of the table failed (NO_TABLE, NO_COLUMN, WRONG_TYPE,
     * NO_RIGHTS: the session is dropped and tried anew with backoff). Also, with outcome_unknown, when a
     * complete answer could not be used: no memory for its rows, or the table's types changed under the
     * session. */
    void (*down)(void *user, const struct hv_pg_failure *failure);
    /* The rows of a whole mark or scan, in ascending order of id, no two of one id (then the answer cannot be used).
     * The records are the handler's now (hv_record_free each); the array is only lent. */
    /* Some may be bare. cut (of a scan): there may be more rows above the last one, see hv_outbox_set_reply_bytes. */
    void (*marked)(void *user, struct hv_record **records, size_t count, bool cut);
    /* The rows that a fetch found, as above; cut: those behind the last one were not looked at. */
    void (*fetched)(void *user, struct hv_record **records, size_t count, bool cut);
    /* The rows that a list found, ids ascending; only id, key_hash and key are set; lent. */
    void (*listed)(void *user, const struct hv_claimed *rows, size_t count);
    /* So many rows were deleted; of a table whose rows have no versions (a view), so many are certain not to be there any more. */
    void (*purged)(void *user, size_t rows);
    /* Hashes (FNV-1a 64 of the text in pg_locks) of the virtual transactions, prepared ones too, that hold
     * a writing lock on the table; in no order; lent. */
    void (*writers)(void *user, const uint64_t *hashes, size_t count);
    /* The ids that are in the table of parked records now, ascending; those that are missing were gone already. Lent. */
    void (*parked)(void *user, const int64_t *ids, size_t count);
    /* The server refused the statement and did nothing; or (HV_PG_PARKED_TABLE) there is no table to park in, or none of the right shape. */
    void (*refused)(void *user, const struct hv_pg_failure *failure);
    /* The session listens now, or does not any more. */
    void (*listening)(void *user);
    /* Rows may have been written: those are in the table by now. May come at any time, also for nothing, or not at all. */
    void (*notified)(void *user);
    /* As hv_pg_handler.unprepared. May be NULL. */
    void (*unprepared)(void *user);
};

/* `table`: as the user wrote it: name or schema.name, parts optionally in double quotes; unquoted parts
 * are folded to lower case as SQL does. Returns 0, or -1 with err. */
int hv_outbox_open(struct hv_loop *loop, const struct hv_pg_options *options, const char *table,
                   const struct hv_outbox_handler *handler, void *user, struct hv_outbox **ret,
                       struct hv_error *err);
void hv_outbox_close(struct hv_outbox *outbox, void (*closed)(void *user));

/* Records of marks from now on carry the row's id in a header of this name, see hv_row.id_header. NULL or "": none (as at first).
 * Not copied: must outlive the records. */
void hv_outbox_set_id_header(struct hv_outbox *outbox, const char *name);

/* Marks, scans and fetches from now on end with the row by which the values of their rows come to so many bytes (JSON: as they are stored), and have
 * one row at least. Rows may be of any size, whatever those before them were. 0: no bound (as at first). */
void hv_outbox_set_reply_bytes(struct hv_outbox *outbox, uint64_t bytes);

/* May one of the next be called now? (up, and nothing is out) */
bool hv_outbox_is_idle(const struct hv_outbox *outbox);

/* Of rows of these keys, marks and scans bring none in a gap; those above are bare. Lent. */
struct hv_outbox_hidden {
    const struct hv_key_bytes *keys;
    size_t count;
};

/* Claims, as of one snapshot, up to `limit` (1 or more) rows of the lowest ids out of the gaps and >= from_id that do not carry leader_id;
 * bare ones among them are not marked. Gaps are below from_id and apart from each other. only_new: nobody holds rows >= from_id, or cares
 * for the version that they had before; it need not be told. Copies its arguments before it returns. */
void hv_outbox_mark(struct hv_outbox *outbox, const uint8_t leader_id[16], int64_t from_id, uint32_t limit, const struct hv_gap *gaps,
                    size_t gap_count, struct hv_outbox_hidden hidden, bool only_new);
/* Reads, in one snapshot, the `limit` (1 or more) rows of the lowest ids out of the gaps (as above) and >= from_id, but none in a gap with
 * an id of left_out. Copies its arguments before it returns. A standby refuses. */
void hv_outbox_scan(struct hv_outbox *outbox, int64_t from_id, uint32_t limit, const struct hv_gap *gaps, size_t gap_count,
                    const int64_t *left_out, size_t left_out_count, struct hv_outbox_hidden hidden);
/* Reads ids and keys of up to `limit` rows of the highest ids between two, both inclusive. A standby refuses. */
void hv_outbox_list(struct hv_outbox *outbox, int64_t from_id, int64_t to_id, uint32_t limit);
/* Deletes those of these rows that are still of the version that came with them (NULL: of any); not those that somebody else has locked, if
 * `but_locked`. Otherwise, if one stays locked for a fifth of a second, the statement is refused (HV_PG_LOCKED). Ids differ from each other. Copies
 * its arguments before it returns. */
void hv_outbox_purge(struct hv_outbox *outbox, const int64_t *ids, const uint32_t *versions, size_t count, bool but_locked);
/* Reads those of these rows that are there. Copies ids before it returns. A standby refuses: it may not have them yet. */
void hv_outbox_fetch(struct hv_outbox *outbox, const int64_t *ids, size_t count);
/* Asks who could still commit rows: whose transaction holds a writing lock on the table. This connection's
 * own backend is left out; another one of ours counts while a statement of it runs. The answer of another server, or of one that
 * was restarted since (behind a pooler), cannot be compared with earlier ones, and ends the session: `down`. */
void hv_outbox_writers(struct hv_outbox *outbox);
/* Moves rows to the table of parked records (see pg_park.h) in one statement: all that are still there, or, when it is refused, none. So it can
 * be repeated whatever became of it. The ids differ from each other. Before the first of a session, that table is looked at. Copies its
 * arguments before it returns. What of a row's key comes behind it must not be sent before this was answered: whoever replays the row
 * relies on it. */
void hv_outbox_park(struct hv_outbox *outbox, const struct hv_parked *rows, size_t count);

/* Asks to be notified by the table's trigger (see hv_table_channel) from now on in this session, or not any more. */
void hv_outbox_listen(struct hv_outbox *outbox, bool listen);

/* Quotes a table name given by a user for use in SQL: folds unquoted parts to lower case, doubles quotes.
 * At most one dot outside quotes. Returns 0, or -1 with err when it is no name. size >= 300. */
int hv_outbox_quote_table(const char *table, char *out, size_t size, struct hv_error *err);

#endif
