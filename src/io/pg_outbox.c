/* See pg_outbox.h. A session is told to the handler only after a probe of the table; `pending` says which
 * answer is awaited. */
#include "io/pg_outbox.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "io/pg_array.h"
#include "io/pg_failure.h"
#include "io/pg_outbox_sql.h"
#include "io/pg_park.h"
#include "io/pg_rights.h"
#include "io/pg_table.h"

/* Postgres' object identifiers of parameter types; they never change. */
enum { OID_INT8 = 20, OID_TEXT = 25, OID_BYTEA_ARRAY = 1001, OID_TEXT_ARRAY = 1009, OID_XID_ARRAY = 1011, OID_INT8_ARRAY = 1016, OID_UUID = 2950 };

enum pending { NOTHING, PROBE, RIGHTS, MARK, SCAN, LIST, PURGE, FETCH, WRITERS, LISTEN, PARK_SHAPE, PARK };

#define PARAMETERS_MAX 7

#define SUMS_IN_A_ROW 100 /* once a row was larger than its share */

struct hv_row_version {
    int64_t id;
    uint32_t version;
};

/* A scan as it was asked for, in case it must be repeated. */
struct scan {
    int form, bound;
    uint64_t limit;
    uint8_t from[8];
    uint8_t *lo, *hi, *without, *hidden; /* arrays, or NULL */
    int lengths[PARAMETERS_MAX];
};

struct hv_outbox {
    struct hv_pg *pg;
    const struct hv_outbox_handler *handler;
    void *user;
    void (*closed)(void *user);
    enum pending pending;
    bool ready;         /* the probe of this session passed */
    bool answer_unused; /* the session is being dropped because a complete answer could not be used */
    char probe_sqlstate[6]; /* of the refusal that the session is being dropped for */
    enum pending refused_what;     /* RIGHTS: the statement that was refused, which is told with the answer... */
    struct hv_pg_failure refused;  /* ... and why */
    struct hv_table_types types;
    const char *id_header; /* NULL: none */
    struct hv_record_maker maker;
    int64_t reply_bytes;
    size_t purging; /* rows of the latest purge */
    struct scan scan;       /* the latest one */
    uint32_t sums_left;     /* scans that are still to be bounded by the sum */
    struct hv_park_params park; /* while one is under way */
    char *park_sql;             /* NULL: the table of parked records was not looked at yet */
    uint64_t server_since; /* since when the server runs, hashed, as the answer before told; 0: there was none */
    char table[HV_TABLE_QUOTED_MAX], parked_table[HV_TABLE_QUOTED_MAX];
    char channel[2 * HV_TABLE_CHANNEL_SIZE]; /* quoted */
    struct hv_outbox_sql sql;
};

int hv_outbox_quote_table(const char *table, char *out, size_t size, struct hv_error *err) {
    return hv_table_quote(table, out, size, err);
}

/* ---- statements ---- */

/* The text of these is made once a session, or once for all. */
static bool comes_often(enum pending pending) {
    return pending == MARK || pending == SCAN || pending == LIST || pending == PURGE || pending == FETCH || pending == WRITERS;
}

static void send_statement(struct hv_outbox *outbox, enum pending pending, const char *sql, int count,
                           const Oid *types, const void *const *values, const int *lengths) {
    static const int binary[PARAMETERS_MAX] = {1, 1, 1, 1, 1, 1, 1};
    assert(outbox->pending == NOTHING && count <= PARAMETERS_MAX);
    const char *texts[PARAMETERS_MAX];
    for (int i = 0; i < count; i++) {
        texts[i] = values[i];
    }
    outbox->pending = pending;
    if (comes_often(pending)) {
        hv_pg_send_often(outbox->pg, sql, count, types, texts, lengths);
    } else {
        hv_pg_send(outbox->pg, sql, count, types, texts, lengths, binary);
    }
}

static void drop_for_memory(struct hv_outbox *outbox) {
    hv_pg_drop(outbox->pg, HV_PG_STATEMENT, "out of memory for a statement");
}

static Oid type_of_keys(const struct hv_outbox *outbox) {
    return hv_outbox_keys_are_bytes(&outbox->types) ? OID_BYTEA_ARRAY : OID_TEXT_ARRAY;
}

static uint8_t *array_of_hidden(const struct hv_outbox *outbox, struct hv_outbox_hidden hidden, int *length) {
    return hv_pg_array_of_keys(hidden.keys, hidden.count, !hv_outbox_keys_are_bytes(&outbox->types), length);
}

/* Both ends of the gaps as arrays; the caller frees them. False, with what it has, without memory. */
static bool make_gap_arrays(const struct hv_gap *gaps, size_t count, uint8_t **lo, uint8_t **hi, int *lengths) {
    static const struct hv_gap none;
    const struct hv_gap *first = count > 0 ? gaps : &none;
    *lo = hv_pg_array_of_ids(&first->lo, sizeof *first, count, &lengths[0]);
    *hi = hv_pg_array_of_ids(&first->hi, sizeof *first, count, &lengths[1]);
    return *lo != NULL && *hi != NULL;
}

void hv_outbox_mark(struct hv_outbox *outbox, const uint8_t leader_id[16], int64_t from_id, uint32_t limit, const struct hv_gap *gaps,
                    size_t gap_count, struct hv_outbox_hidden hidden, bool only_new) {
    const Oid types[] = {OID_UUID, OID_INT8, OID_INT8, OID_INT8, OID_INT8_ARRAY, OID_INT8_ARRAY, type_of_keys(outbox)};
    static const int parameters[] = {[HV_MARK_NEW] = 4, [HV_MARK_ABOVE] = 4, [HV_MARK_GAPS] = 6, [HV_MARK_HIDING] = 7};
    int form = hidden.count > 0 ? HV_MARK_HIDING : gap_count > 0 ? HV_MARK_GAPS : only_new ? HV_MARK_NEW : HV_MARK_ABOVE;
    int lengths[] = {16, 8, 8, 8, 0, 0, 0};
    assert(hv_outbox_is_idle(outbox) && limit > 0);
    uint8_t from[8], rows[8], bytes[8], *lo = NULL, *hi = NULL, *keys = NULL;
    hv_put_be64(from, (uint64_t)from_id);
    hv_put_be64(rows, (uint64_t)limit);
    hv_put_be64(bytes, (uint64_t)outbox->reply_bytes);
    bool fine = form < HV_MARK_GAPS || make_gap_arrays(gaps, gap_count, &lo, &hi, &lengths[4]);
    if (fine && form == HV_MARK_HIDING) {
        keys = array_of_hidden(outbox, hidden, &lengths[6]);
        fine = keys != NULL;
    }
    if (fine) {
        send_statement(outbox, MARK, outbox->sql.mark[form], parameters[form], types,
                       (const void *const[]){leader_id, from, rows, bytes, lo, hi, keys}, lengths);
    } else {
        drop_for_memory(outbox);
    }
    free(lo);
    free(hi);
    free(keys);
}

static void free_scan(struct scan *scan) {
    free(scan->lo);
    free(scan->hi);
    free(scan->without);
    free(scan->hidden);
    scan->lo = scan->hi = scan->without = scan->hidden = NULL;
}

static void send_scan(struct hv_outbox *outbox, int bound) {
    static const int parameters[] = {[HV_SCAN_ABOVE] = 3, [HV_SCAN_GAPS] = 5, [HV_SCAN_GAPS_WITHOUT] = 6, [HV_SCAN_HIDING] = 7};
    const Oid types[] = {OID_INT8, OID_INT8, OID_INT8, OID_INT8_ARRAY, OID_INT8_ARRAY, OID_INT8_ARRAY, type_of_keys(outbox)};
    struct scan *scan = &outbox->scan;
    uint64_t reply_bytes = (uint64_t)outbox->reply_bytes;
    uint8_t rows[8], bytes[8];
    scan->bound = bound;
    hv_put_be64(rows, scan->limit);
    hv_put_be64(bytes, bound == HV_BY_SUM ? reply_bytes : reply_bytes / scan->limit);
    send_statement(outbox, SCAN, outbox->sql.scan[bound][scan->form], parameters[scan->form], types,
                   (const void *const[]){scan->from, rows, bytes, scan->lo, scan->hi, scan->without, scan->hidden}, scan->lengths);
}

static int form_of_scan(size_t gap_count, size_t left_out_count, size_t hidden_count) {
    if (hidden_count > 0) {
        return HV_SCAN_HIDING;
    }
    return gap_count == 0 ? HV_SCAN_ABOVE : left_out_count == 0 ? HV_SCAN_GAPS : HV_SCAN_GAPS_WITHOUT;
}

void hv_outbox_scan(struct hv_outbox *outbox, int64_t from_id, uint32_t limit, const struct hv_gap *gaps, size_t gap_count,
                    const int64_t *left_out, size_t left_out_count, struct hv_outbox_hidden hidden) {
    struct scan *scan = &outbox->scan;
    assert(hv_outbox_is_idle(outbox) && limit > 0);
    free_scan(scan);
    *scan = (struct scan){
        .form = form_of_scan(gap_count, left_out_count, hidden.count),
        .limit = limit,
        .lengths = {8, 8, 8},
    };
    hv_put_be64(scan->from, (uint64_t)from_id);
    bool fine = true;
    if (scan->form != HV_SCAN_ABOVE) {
        fine = make_gap_arrays(gaps, gap_count, &scan->lo, &scan->hi, &scan->lengths[3]);
    }
    if (scan->form >= HV_SCAN_GAPS_WITHOUT) {
        scan->without = hv_pg_array_of_ids(left_out, sizeof *left_out, left_out_count, &scan->lengths[5]);
        fine = fine && scan->without != NULL;
    }
    if (scan->form == HV_SCAN_HIDING) {
        scan->hidden = array_of_hidden(outbox, hidden, &scan->lengths[6]);
        fine = fine && scan->hidden != NULL;
    }
    if (!fine) {
        drop_for_memory(outbox);
        return;
    }
    outbox->sums_left -= outbox->sums_left > 0;
    send_scan(outbox, outbox->sums_left > 0 || scan->form == HV_SCAN_HIDING ? HV_BY_SUM : HV_BY_SHARES);
}

void hv_outbox_list(struct hv_outbox *outbox, int64_t from_id, int64_t to_id, uint32_t limit) {
    static const Oid types[] = {OID_INT8, OID_INT8, OID_INT8};
    static const int lengths[] = {8, 8, 8};
    assert(hv_outbox_is_idle(outbox) && limit > 0);
    uint8_t from[8], to[8], rows[8];
    hv_put_be64(from, (uint64_t)from_id);
    hv_put_be64(to, (uint64_t)to_id);
    hv_put_be64(rows, (uint64_t)limit);
    send_statement(outbox, LIST, outbox->sql.list, 3, types, (const void *const[]){from, to, rows}, lengths);
}

static int by_row(const void *a, const void *b) {
    const struct hv_row_version *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* By id, as the statement needs it. */
static struct hv_row_version *sorted(const int64_t *ids, const uint32_t *versions, size_t count) {
    struct hv_row_version *rows = calloc(count, sizeof *rows);
    bool ascending = true;
    for (size_t i = 0; rows != NULL && i < count; i++) {
        rows[i] = (struct hv_row_version){ids[i], versions != NULL ? versions[i] : 0};
        ascending = ascending && (i == 0 || rows[i - 1].id < rows[i].id);
    }
    if (rows != NULL && !ascending) {
        qsort(rows, count, sizeof *rows, by_row);
    }
    return rows;
}

/* Leaves the first of each run of rows of one version. Returns how many these are. */
static size_t first_of_runs(struct hv_row_version *rows, size_t count) {
    size_t runs = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || rows[i].version != rows[runs - 1].version) {
            rows[runs++] = rows[i];
        }
    }
    return runs;
}

void hv_outbox_purge(struct hv_outbox *outbox, const int64_t *ids, const uint32_t *versions, size_t count, bool but_locked) {
    static const Oid types[] = {OID_INT8_ARRAY, OID_XID_ARRAY, OID_INT8_ARRAY};
    assert(hv_outbox_is_idle(outbox) && count > 0);
    int lengths[] = {0, 0, 0}, form = versions == NULL || !outbox->types.versions ? HV_PURGE_ANY : but_locked ? HV_PURGE_BUT_LOCKED : HV_PURGE_ALL;
    struct hv_row_version *rows = sorted(ids, versions, count);
    uint8_t *id_array = rows == NULL ? NULL : hv_pg_array_of_ids(&rows->id, sizeof *rows, count, &lengths[0]);
    size_t runs = rows == NULL ? 0 : first_of_runs(rows, count);
    uint8_t *version_array = rows == NULL ? NULL : hv_pg_array_of_versions(&rows->version, sizeof *rows, runs, &lengths[1]);
    uint8_t *run_array = rows == NULL ? NULL : hv_pg_array_of_ids(&rows->id, sizeof *rows, runs, &lengths[2]);
    if (id_array != NULL && version_array != NULL && run_array != NULL) {
        outbox->purging = count;
        send_statement(outbox, PURGE, outbox->sql.purge[form], form == HV_PURGE_ANY ? 1 : 3, types,
                       (const void *const[]){id_array, version_array, run_array}, lengths);
    } else {
        drop_for_memory(outbox);
    }
    free(rows);
    free(id_array);
    free(version_array);
    free(run_array);
}

void hv_outbox_fetch(struct hv_outbox *outbox, const int64_t *ids, size_t count) {
    static const Oid types[] = {OID_INT8_ARRAY, OID_INT8, OID_INT8};
    assert(hv_outbox_is_idle(outbox) && count > 0);
    int lengths[] = {0, 8, 8};
    uint8_t rows[8], bytes[8], *array = hv_pg_array_of_ids(ids, sizeof *ids, count, &lengths[0]);
    if (array == NULL) {
        drop_for_memory(outbox);
        return;
    }
    hv_put_be64(rows, (uint64_t)count);
    hv_put_be64(bytes, (uint64_t)outbox->reply_bytes);
    send_statement(outbox, FETCH, outbox->sql.fetch, 3, types, (const void *const[]){array, rows, bytes}, lengths);
    free(array);
}

static void send_with_table_name(struct hv_outbox *outbox, enum pending pending, const char *sql) {
    static const Oid types[] = {OID_TEXT};
    int length = (int)strlen(outbox->table);
    send_statement(outbox, pending, sql, 1, types, (const void *const[]){outbox->table}, &length);
}

void hv_outbox_writers(struct hv_outbox *outbox) {
    assert(hv_outbox_is_idle(outbox));
    send_with_table_name(outbox, WRITERS, hv_outbox_writers_sql);
}

void hv_outbox_listen(struct hv_outbox *outbox, bool listen) {
    char sql[sizeof outbox->channel + 16];
    assert(hv_outbox_is_idle(outbox));
    snprintf(sql, sizeof sql, "%s %s", listen ? "LISTEN" : "UNLISTEN", outbox->channel);
    send_statement(outbox, LISTEN, sql, 0, NULL, NULL, NULL);
}

/* ---- parking ---- */

static void forget_parking(struct hv_outbox *outbox, bool shape, bool rows) {
    if (shape) {
        free(outbox->park_sql);
        outbox->park_sql = NULL;
    }
    if (rows) {
        hv_park_params_free(&outbox->park);
    }
}

static void send_park(struct hv_outbox *outbox) {
    send_statement(outbox, PARK, outbox->park_sql, HV_PARK_PARAMS, hv_park_param_types, (const void *const *)outbox->park.values,
                   outbox->park.lengths);
}

void hv_outbox_park(struct hv_outbox *outbox, const struct hv_parked *rows, size_t count) {
    static const Oid types[] = {OID_TEXT, OID_TEXT};
    assert(hv_outbox_is_idle(outbox) && count > 0 && outbox->handler->parked != NULL);
    if (hv_park_params_make(rows, count, outbox->table, &outbox->park) != 0) {
        hv_pg_drop(outbox->pg, HV_PG_STATEMENT, "out of memory for a statement");
    } else if (outbox->park_sql != NULL) {
        send_park(outbox);
    } else {
        const int lengths[] = {(int)strlen(outbox->table), (int)strlen(outbox->parked_table)};
        send_statement(outbox, PARK_SHAPE, hv_park_shape_sql, 2, types, (const void *const[]){outbox->table, outbox->parked_table}, lengths);
    }
}

bool hv_outbox_is_idle(const struct hv_outbox *outbox) {
    return outbox->ready && outbox->pending == NOTHING && hv_pg_is_idle(outbox->pg);
}

/* ---- answers ---- */

/* The statement was carried out, but we cannot tell what it did. */
static void drop_with_answer_unused(struct hv_outbox *outbox, enum hv_pg_trouble trouble,
                                    const char *reason) {
    outbox->answer_unused = true;
    hv_pg_drop(outbox->pg, trouble, reason);
}

static int by_id(const void *a, const void *b) {
    const struct hv_record *x = *(struct hv_record *const *)a, *y = *(struct hv_record *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

static void free_records(struct hv_record **records, size_t count) {
    while (count-- > 0) {
        hv_record_free(records[count]);
    }
}

/* A record whose id another one has, too. */
static const struct hv_record *find_twin(struct hv_record *const *records, size_t count) {
    for (size_t i = 1; i < count; i++) {
        if (records[i - 1]->id == records[i]->id) {
            return records[i];
        }
    }
    return NULL;
}

enum built { BUILT, NOT_WHOLE, NO_MEMORY };

/* Builds records of all rows, sorted by id. `by_shares`: larger rows came without a topic. Anything but
 * BUILT leaves none. */
static enum built build_records(struct hv_outbox *outbox, const PGresult *result, bool by_shares, struct hv_record **records) {
    int count = PQntuples(result);
    bool sorted = true;
    for (int i = 0; i < count; i++) {
        struct hv_row row;
        hv_table_read_row(result, i, &outbox->types, &row);
        row.id_header = outbox->id_header;
        if (by_shares && row.topic.length < 0) {
            free_records(records, (size_t)i);
            return NOT_WHOLE;
        }
        if (hv_record_make(&outbox->maker, &row, &records[i]) < 0) {
            free_records(records, (size_t)i);
            return NO_MEMORY;
        }
        records[i]->bare = PQnfields(result) > HV_COL_BARE && PQgetvalue(result, i, HV_COL_BARE)[0] != 0;
        records[i]->version = hv_table_read_version(result, i, HV_COL_VERSION);
        records[i]->was = PQnfields(result) > HV_COL_WAS ? hv_table_read_version(result, i, HV_COL_WAS) : records[i]->version;
        sorted = sorted && (i == 0 || records[i - 1]->id <= records[i]->id);
    }
    if (!sorted) {
        qsort(records, (size_t)count, sizeof records[0], by_id);
    }
    return BUILT;
}

/* Scans and fetches tell it with each row. */
static bool was_cut(const PGresult *result) {
    int count = PQntuples(result);
    return PQnfields(result) > HV_COL_CUT && count > 0 && PQgetvalue(result, count - 1, HV_COL_CUT)[0] != 0;
}

static void on_rows(struct hv_outbox *outbox, const PGresult *result, bool by_shares,
                    void (*tell)(void *user, struct hv_record **records, size_t count, bool cut)) {
    if (!hv_table_types_match(result, &outbox->types)) {
        drop_with_answer_unused(outbox, HV_PG_WRONG_TYPE, "the table's columns changed their types");
        return;
    }
    size_t count = (size_t)PQntuples(result);
    struct hv_record **records = calloc(count + 1, sizeof *records);
    enum built built = records == NULL ? NO_MEMORY : build_records(outbox, result, by_shares, records);
    const struct hv_record *twin = built == BUILT ? find_twin(records, count) : NULL;
    if (built == NO_MEMORY) {
        drop_with_answer_unused(outbox, HV_PG_STATEMENT, "out of memory for rows");
    } else if (built == NOT_WHOLE) {
        outbox->sums_left = SUMS_IN_A_ROW;
        send_scan(outbox, HV_BY_SUM);
    } else if (twin != NULL) {
        /* The one that is sent first would be deleted by its id, and the other with it. */
        char reason[80];
        snprintf(reason, sizeof reason, "several rows have the id %" PRId64 ": make id unique", twin->id);
        free_records(records, count);
        drop_with_answer_unused(outbox, HV_PG_STATEMENT, reason);
    } else {
        tell(outbox->user, records, count, was_cut(result));
    }
    free(records);
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void on_ids(struct hv_outbox *outbox, const PGresult *result,
                   void (*tell)(void *user, const int64_t *ids, size_t count)) {
    size_t count = (size_t)PQntuples(result);
    int64_t *ids = calloc(count + 1, sizeof *ids);
    if (ids == NULL) {
        drop_with_answer_unused(outbox, HV_PG_STATEMENT, "out of memory for a list of ids");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = hv_table_read_id(result, (int)i);
    }
    qsort(ids, count, sizeof ids[0], by_value);
    tell(outbox->user, ids, count);
    free(ids);
}

static void on_listed(struct hv_outbox *outbox, const PGresult *result) {
    size_t count = (size_t)PQntuples(result);
    struct hv_claimed *rows = calloc(count + 1, sizeof *rows);
    if (rows == NULL) {
        drop_with_answer_unused(outbox, HV_PG_STATEMENT, "out of memory for a list of ids");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        int at = (int)(count - 1 - i); /* the highest comes first */
        int length = PQgetisnull(result, at, 1) ? -1 : PQgetlength(result, at, 1);
        rows[i].id = hv_table_read_id(result, at);
        rows[i].key_hash = hv_fnv1a(PQgetvalue(result, at, 1), length > 0 ? (size_t)length : 0);
        rows[i].key = hv_record_key_id(PQgetvalue(result, at, 1), length);
    }
    outbox->handler->listed(outbox->user, rows, count);
    free(rows);
}

/* A server that was restarted, be it by itself because one of its processes crashed (then it forgets its statistics), has other names for
 * the same transactions: a prepared one that is pending would look as if it had ended.
 * Returns whether it is the server of the answers before. */
static bool same_server(struct hv_outbox *outbox, uint64_t since) {
    bool same = outbox->server_since == 0 || outbox->server_since == since;
    outbox->server_since = since;
    return same;
}

static void on_writers(struct hv_outbox *outbox, const PGresult *result) {
    size_t rows = (size_t)PQntuples(result), count = 0;
    uint64_t *hashes = calloc(rows + 1, sizeof *hashes);
    bool same = true;
    if (hashes == NULL) {
        drop_with_answer_unused(outbox, HV_PG_STATEMENT, "out of memory for the list of writers");
        return;
    }
    for (size_t i = 0; i < rows; i++) {
        const char *name = PQgetvalue(result, (int)i, 0);
        uint64_t hash = hv_hash64(HV_HASH64_START, name, (size_t)PQgetlength(result, (int)i, 0));
        if (strncmp(name, "since ", 6) == 0) {
            same = same_server(outbox, hash);
        } else {
            hashes[count++] = hash;
        }
    }
    if (same) {
        outbox->handler->writers(outbox->user, hashes, count);
    } else {
        drop_with_answer_unused(outbox, HV_PG_LOST, "the server behind this connection was restarted, or is another one");
    }
    free(hashes);
}

/* ---- refusals ---- */

static void tell_refused(struct hv_outbox *outbox) {
    if (outbox->refused_what == PROBE) {
        memcpy(outbox->probe_sqlstate, outbox->refused.sqlstate, sizeof outbox->probe_sqlstate);
        hv_pg_drop(outbox->pg, outbox->refused.trouble, outbox->refused.error.text);
    } else {
        outbox->handler->refused(outbox->user, &outbox->refused);
    }
}

/* The tables may be mended before the next try, so they are looked at again then. */
static void on_park_refused(struct hv_outbox *outbox, struct hv_pg_failure *failure) {
    forget_parking(outbox, true, true);
    if (failure->trouble == HV_PG_NO_TABLE || failure->trouble == HV_PG_NO_COLUMN) {
        failure->trouble = HV_PG_PARKED_TABLE;
    }
}

/* Where a right may be missing, the server is asked which: it says "permission denied", or that there is no such table. */
static void refuse(struct hv_outbox *outbox, enum pending what, const struct hv_pg_failure *failure) {
    outbox->refused_what = what;
    outbox->refused = *failure;
    if (failure->trouble == HV_PG_NO_RIGHTS || failure->trouble == HV_PG_NO_TABLE) {
        send_with_table_name(outbox, RIGHTS, hv_rights_sql);
    } else {
        tell_refused(outbox);
    }
}

static void on_rights(struct hv_outbox *outbox, const PGresult *result) {
    if (hv_rights_explain(result, &outbox->refused.error) > 0) {
        outbox->refused.trouble = HV_PG_NO_RIGHTS;
    }
    tell_refused(outbox);
}

static void on_park_shape(struct hv_outbox *outbox, const PGresult *result) {
    struct hv_pg_failure failure = {.trouble = HV_PG_PARKED_TABLE};
    if (hv_park_read_shape(result, outbox->table, outbox->parked_table, outbox->types.versions, &outbox->park_sql, &failure.error) == 0) {
        send_park(outbox);
    } else {
        forget_parking(outbox, true, true);
        outbox->handler->refused(outbox->user, &failure);
    }
}

static void on_probed(struct hv_outbox *outbox, const PGresult *result) {
    struct hv_error why;
    enum hv_pg_trouble trouble;
    if (hv_table_check(result, outbox->table, &outbox->types, &trouble, &why) < 0) {
        refuse(outbox, PROBE, &(struct hv_pg_failure){.trouble = trouble, .error = why});
        return;
    }
    hv_outbox_sql_claims(&outbox->sql, outbox->table, &outbox->types, hv_pg_server_version(outbox->pg));
    outbox->ready = true;
    outbox->handler->up(outbox->user, hv_pg_host(outbox->pg));
}

static void on_result(void *user, PGresult *result) {
    struct hv_outbox *outbox = user;
    enum pending pending = outbox->pending;
    outbox->pending = NOTHING;
    switch (pending) {
    case PROBE:
        on_probed(outbox, result);
        break;
    case SCAN:
        on_rows(outbox, result, outbox->scan.bound == HV_BY_SHARES, outbox->handler->marked);
        if (outbox->pending == NOTHING) { /* or it is repeated */
            free_scan(&outbox->scan);
        }
        break;
    case MARK:
        on_rows(outbox, result, false, outbox->handler->marked);
        break;
    case LIST:
        on_listed(outbox, result);
        break;
    case PURGE:
        outbox->handler->purged(outbox->user, outbox->types.versions ? (size_t)strtoull(PQcmdTuples(result), NULL, 10) : outbox->purging);
        break;
    case FETCH:
        on_rows(outbox, result, false, outbox->handler->fetched);
        break;
    case WRITERS:
        on_writers(outbox, result);
        break;
    case PARK_SHAPE:
        on_park_shape(outbox, result);
        break;
    case PARK:
        forget_parking(outbox, false, true);
        on_ids(outbox, result, outbox->handler->parked);
        break;
    case RIGHTS:
        on_rights(outbox, result);
        break;
    case LISTEN:
        outbox->handler->listening(outbox->user);
        break;
    case NOTHING:
        assert(!"an answer to nothing");
    }
}

static void on_up(void *user, const char *host) {
    struct hv_outbox *outbox = user;
    (void)host;
    outbox->ready = false;
    outbox->server_since = 0;
    outbox->probe_sqlstate[0] = 0;
    outbox->answer_unused = false;
    outbox->pending = NOTHING;
    send_with_table_name(outbox, PROBE, outbox->sql.probe);
}

static void on_down(void *user, const struct hv_pg_failure *failure) {
    struct hv_outbox *outbox = user;
    struct hv_pg_failure told = *failure;
    told.outcome_unknown = outbox->answer_unused ||
                           (failure->outcome_unknown && outbox->pending != PROBE && outbox->pending != RIGHTS && outbox->pending != PARK_SHAPE);
    if (outbox->probe_sqlstate[0] != 0) {
        memcpy(told.sqlstate, outbox->probe_sqlstate, sizeof told.sqlstate);
    }
    outbox->ready = false;
    outbox->answer_unused = false;
    outbox->probe_sqlstate[0] = 0;
    outbox->pending = NOTHING;
    forget_parking(outbox, true, true);
    outbox->handler->down(outbox->user, &told);
}

static void on_refused(void *user, const struct hv_pg_failure *failure) {
    struct hv_outbox *outbox = user;
    enum pending pending = outbox->pending;
    outbox->pending = NOTHING;
    if (pending == RIGHTS) {
        tell_refused(outbox);
        return;
    }
    struct hv_pg_failure told = *failure;
    if (pending == PARK || pending == PARK_SHAPE) {
        on_park_refused(outbox, &told);
    }
    refuse(outbox, pending, &told);
}

static void on_notified(void *user) {
    struct hv_outbox *outbox = user;
    if (outbox->ready && outbox->handler->notified != NULL) {
        outbox->handler->notified(outbox->user);
    }
}

static void on_unprepared(void *user) {
    struct hv_outbox *outbox = user;
    if (outbox->handler->unprepared != NULL) {
        outbox->handler->unprepared(outbox->user);
    }
}

/* ---- open and close ---- */

int hv_outbox_open(struct hv_loop *loop, const struct hv_pg_options *options, const char *table,
                   const struct hv_outbox_handler *handler, void *user, struct hv_outbox **ret,
                       struct hv_error *err) {
    static const struct hv_pg_handler pg_handler = {on_up, on_down, on_result, on_refused, on_notified, on_unprepared};
    char channel[HV_TABLE_CHANNEL_SIZE];
    struct hv_outbox *outbox = calloc(1, sizeof *outbox);
    if (outbox == NULL) {
        return hv_error_set(err, "out of memory");
    }
    outbox->handler = handler;
    outbox->user = user;
    outbox->reply_bytes = INT64_MAX;
    if (hv_table_quote(table, outbox->table, sizeof outbox->table, err) < 0 || hv_table_channel(table, channel, err) < 0) {
        free(outbox);
        return -1;
    }
    hv_table_quote_name(outbox->channel, channel);
    hv_park_name(outbox->table, HV_PARK_TABLE, outbox->parked_table, sizeof outbox->parked_table);
    hv_outbox_sql_begin(&outbox->sql, outbox->table);
    if (hv_pg_open(loop, options, &pg_handler, outbox, &outbox->pg, err) < 0) {
        free(outbox);
        return -1;
    }
    *ret = outbox;
    return 0;
}

void hv_outbox_set_id_header(struct hv_outbox *outbox, const char *name) {
    outbox->id_header = name != NULL && name[0] != '\0' ? name : NULL;
}

void hv_outbox_set_reply_bytes(struct hv_outbox *outbox, uint64_t bytes) {
    outbox->reply_bytes = bytes == 0 || bytes > INT64_MAX ? INT64_MAX : (int64_t)bytes;
}

static void on_pg_closed(void *arg) {
    struct hv_outbox *outbox = arg;
    void (*closed)(void *user) = outbox->closed;
    void *user = outbox->user;
    free_scan(&outbox->scan);
    hv_record_maker_fini(&outbox->maker);
    forget_parking(outbox, true, true);
    free(outbox);
    if (closed != NULL) {
        closed(user);
    }
}

void hv_outbox_close(struct hv_outbox *outbox, void (*closed)(void *user)) {
    outbox->closed = closed;
    outbox->ready = false;
    hv_pg_close(outbox->pg, on_pg_closed);
}
