/* harvestd park replay: puts parked records back into the outbox, and knows which of them are in the order of their key then.
 *
 * What has gone out is deleted from the outbox; so each statement that deletes there notes, by a trigger, in passed_by of the parked records of
 * the same keys that a later one left (see cmd_schema_park.c). What is in the outbox may be on its way. A record of whose key nothing later
 * left, or is there, can go to the end: nothing comes between it and what went out before it. At its old id it would not be safe: below what
 * the daemon has seen it finds rows only when it looks through all, some seconds later, while what is written meanwhile goes out at once.
 *
 * While this is decided and done, nobody may write: the lock waits for those who do, and makes others wait. An id that is drawn
 * then is above all that were committed, and below all that come. Records of the key that stay parked would seem to have been passed by
 * the one that is replayed under its new id; so those that are later get new places, above it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cmd_park.h"
#include "app/cmd_park_select.h"
#include "base/memory.h"
#include "io/pg_park.h"

#define CHUNK 2000 /* records of one transaction, and as many more as the last of their keys has */

struct replay {
    struct hv_parking *parking;
    bool ordered; /* ids rise as they are drawn */
    size_t replayed, left;
};

enum verdict { YES, NO, UNKNOWN };

struct candidate {
    int64_t id, place;
    enum verdict verdict;
    char why[120];
    int64_t new_id;
    size_t key;
    bool chosen, moved;
};

/* ---- the tables ---- */

static const char tables_sql[] =
    "WITH o AS (SELECT a.*, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS expr, d.oid AS expr_oid FROM pg_catalog.pg_attribute AS a "
    "LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
    "WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped), "
    "p AS (SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($2) AND attnum > 0 AND NOT attisdropped), "
    "drawn AS (SELECT CASE WHEN attidentity <> '' THEN pg_catalog.format('pg_catalog.nextval(%L::pg_catalog.regclass)', "
    "pg_catalog.pg_get_serial_sequence($1, 'id')) ELSE expr END AS expr, "
    "coalesce(pg_catalog.pg_get_serial_sequence($1, 'id')::pg_catalog.regclass::oid, (SELECT dep.refobjid FROM pg_catalog.pg_depend AS dep "
    "WHERE dep.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND dep.objid = o.expr_oid "
    "AND dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND dep.refobjid <> o.attrelid LIMIT 1)) AS sequence "
    "FROM o WHERE attname = 'id') "
    "SELECT expr, (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) FROM o JOIN p USING (attname) "
    "WHERE attname NOT IN ('id', 'leader_id') AND attgenerated = ''), "
    "expr ~ '^(pg_catalog\\.)?nextval\\([^()]*\\)$' AND coalesce((SELECT seqcache = 1 AND seqincrement > 0 AND NOT seqcycle "
    "FROM pg_catalog.pg_sequence WHERE seqrelid = sequence), false) FROM drawn";

static int look_at_tables(struct replay *r) {
    const char *const values[] = {r->parking->outbox, r->parking->parked};
    PGresult *result = hv_parking_ask(r->parking, tables_sql, 2, values, false);
    if (result == NULL) {
        return -1;
    }
    bool fine = PQntuples(result) == 1 && !PQgetisnull(result, 0, 1);
    if (fine) {
        bool keep = r->parking->options->park.keep_id;
        r->parking->draw = keep ? hv_must(strdup("s.id")) : PQgetisnull(result, 0, 0) ? NULL : hv_must(strdup(PQgetvalue(result, 0, 0)));
        r->parking->columns = hv_must(strdup(PQgetvalue(result, 0, 1)));
        r->ordered = PQgetvalue(result, 0, 2)[0] == 't';
    }
    PQclear(result);
    if (!fine) {
        fprintf(stderr, "harvestd: there is no outbox %s, at least none that search_path finds; check outbox_table\n", r->parking->outbox);
        return -1;
    }
    if (r->parking->draw == NULL) {
        fputs("harvestd: column id of the outbox has no default, so no new id can be drawn: --keep-id takes the old ones\n", stderr);
        return -1;
    }
    return 0;
}

/* ---- judging ---- */

#define SAME_KEY(a, b) "substr(" a ".kafka_key, 1, 64) = substr(" b ".kafka_key, 1, 64) AND " a ".kafka_key = " b ".kafka_key"

/* One scan of the outbox for all of a chunk, whose keys are summed up, since a key may have as many records as there are. `waiting`: the last record
 * in the outbox; `earlier`: one that could still be in order and would be passed. */
static const char judge_sql[] =
    "WITH chosen AS (SELECT id, place, passed_by, noted_by, kafka_key FROM {P} WHERE id = ANY ($1::int8[])), "
    "keys AS (SELECT DISTINCT kafka_key FROM chosen), "
    "waiting AS (SELECT k.kafka_key, pg_catalog.max(o.id) AS by_id FROM keys AS k JOIN {O} AS o ON o.kafka_key = k.kafka_key "
    "GROUP BY k.kafka_key), "
    "earlier AS (SELECT k.kafka_key, pg_catalog.min(q.place) AS place, (pg_catalog.array_agg(q.id ORDER BY q.place))[1] AS by_id "
    "FROM keys AS k JOIN {P} AS q ON " SAME_KEY("q", "k") " WHERE q.passed_by IS NULL AND q.id <> ALL ($1::int8[]) GROUP BY k.kafka_key) "
    "SELECT c.id, c.place, c.passed_by, CASE WHEN w.by_id > c.place THEN w.by_id END, CASE WHEN e.place < c.place THEN e.by_id END, "
    "pg_catalog.dense_rank() OVER (ORDER BY c.kafka_key), coalesce(c.noted_by = " HV_PARK_TRIGGER_OF("$2::text") ", false) "
    "FROM chosen AS c LEFT JOIN waiting AS w USING (kafka_key) LEFT JOIN earlier AS e USING (kafka_key) ORDER BY c.kafka_key, c.place, c.id";

enum { J_ID, J_PLACE, J_PASSED_BY, J_WAITING, J_EARLIER, J_KEY, J_NOTED };

static void judge(const struct replay *r, const PGresult *result, int row, struct candidate *c) {
    const char *passed = PQgetvalue(result, row, J_PASSED_BY), *waiting = PQgetvalue(result, row, J_WAITING),
               *earlier = PQgetvalue(result, row, J_EARLIER);
    c->verdict = UNKNOWN;
    if (passed[0] != 0) {
        c->verdict = NO;
        snprintf(c->why, sizeof c->why, "%s of its key left the outbox", passed);
    } else if (PQgetvalue(result, row, J_NOTED)[0] != 't') {
        snprintf(c->why, sizeof c->why, "what left the outbox was not noted all the time: see harvestd schema --park");
    } else if (!r->ordered) {
        snprintf(c->why, sizeof c->why, "ids are not drawn one by one from a rising sequence");
    } else if (waiting[0] != 0) {
        snprintf(c->why, sizeof c->why, "%s of its key is in the outbox and may have been sent", waiting);
    } else if (earlier[0] != 0) {
        snprintf(c->why, sizeof c->why, "%s of its key, which is earlier, would stay parked", earlier);
    } else if (r->parking->options->park.keep_id) {
        snprintf(c->why, sizeof c->why, "under its old id, what is written now may overtake it");
    } else {
        c->verdict = YES;
    }
}

/* A record that stays parked, and could still be in order, holds back those of its key behind it. Keys are numbered from 1. */
static void choose(const struct replay *r, struct candidate *list, size_t count) {
    const struct candidate **held = hv_calloc(count + 1, sizeof(struct candidate *));
    for (size_t i = 0; i < count; i++) {
        struct candidate *c = &list[i];
        if (c->verdict == YES && held[c->key] != NULL) {
            c->verdict = UNKNOWN;
            snprintf(c->why, sizeof c->why, "%" PRId64 " of its key, which is earlier, would stay parked", held[c->key]->id);
        }
        c->chosen = c->verdict == YES || r->parking->options->park.allow_reorder;
        if (!c->chosen && c->verdict != NO && held[c->key] == NULL) {
            held[c->key] = c;
        }
    }
    free(held);
}

/* Returns how many candidates there are (some ids may be gone), or -1 after it told. */
static int judge_all(struct replay *r, const char *ids, struct candidate *list) {
    PGresult *result = hv_parking_ask(r->parking, judge_sql, 2, (const char *const[]){ids, r->parking->outbox}, false);
    if (result == NULL) {
        return -1;
    }
    int count = PQntuples(result);
    for (int row = 0; row < count; row++) {
        list[row] = (struct candidate){0};
        hv_park_parse_id(PQgetvalue(result, row, J_ID), &list[row].id);
        hv_park_parse_id(PQgetvalue(result, row, J_PLACE), &list[row].place);
        list[row].key = strtoul(PQgetvalue(result, row, J_KEY), NULL, 10);
        judge(r, result, row, &list[row]);
    }
    PQclear(result);
    choose(r, list, (size_t)count);
    return count;
}

/* ---- moving ---- */

/* The parked records behind those that go; and of these, those that something later in the outbox will pass, or not: behind their new places that
 * would not be noted, so nothing is claimed of them any more. */
static const char behind_sql[] =
    "WITH keys AS (SELECT kafka_key, pg_catalog.min(place) AS place FROM {P} WHERE id = ANY ($1::int8[]) GROUP BY kafka_key), "
    "waiting AS (SELECT k.kafka_key, pg_catalog.max(o.id) AS by_id FROM keys AS k JOIN {O} AS o ON o.kafka_key = k.kafka_key "
    "GROUP BY k.kafka_key) "
    "SELECT pg_catalog.array_agg(q.id)::text, pg_catalog.array_agg(q.id) FILTER (WHERE w.by_id > q.place)::text FROM keys AS k JOIN {P} AS q ON " SAME_KEY("q", "k") " AND k.place < q.place "
    "LEFT JOIN waiting AS w ON w.kafka_key = q.kafka_key "
    "WHERE q.passed_by IS NULL AND q.id <> ALL ($1::int8[])";

static const char place_sql[] =
    "UPDATE {P} AS q SET place = n.place, noted_by = CASE WHEN q.id = ANY ($2::int8[]) THEN NULL ELSE q.noted_by END FROM (SELECT s.id, {D} AS place FROM "
    "(SELECT id FROM {P} WHERE id = ANY ($1::int8[]) ORDER BY place, id) AS s) AS n WHERE q.id = n.id";

/* Ids are drawn in the order of the places: above the sorted rows. */
static const char move_sql[] =
    "WITH gone AS (DELETE FROM {P} WHERE id = ANY ($1::int8[]) RETURNING *), "
    "numbered AS (SELECT s.*, {D} AS hv_new_id FROM (SELECT * FROM gone ORDER BY place, id) AS s), "
    "back AS (INSERT INTO {O} (id, {C}) OVERRIDING SYSTEM VALUE SELECT hv_new_id, {C} FROM numbered) "
    "SELECT id, hv_new_id FROM numbered ORDER BY place, id";

static int by_id(const void *a, const void *b) {
    const struct candidate *x = *(struct candidate *const *)a, *y = *(struct candidate *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

static int take_new_id(struct candidate *c, int64_t new_id) {
    c->new_id = new_id;
    c->moved = true;
    if (c->verdict == YES && new_id <= c->place) {
        fprintf(stderr, "harvestd: the new id %" PRId64 " is not above the old one, %" PRId64 ": set the sequence of id behind all ids "
                        "(setval), then replay again\n", new_id, c->place);
        return -1;
    }
    return 0;
}

static int take_new_ids(const PGresult *result, struct candidate *list, size_t count) {
    struct candidate **sorted = hv_calloc(count, sizeof(struct candidate *));
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        sorted[i] = &list[i];
    }
    qsort(sorted, count, sizeof *sorted, by_id);
    for (int row = 0; row < PQntuples(result) && rc == 0; row++) {
        struct candidate key = {0}, *key_at = &key;
        int64_t new_id = 0;
        hv_park_parse_id(PQgetvalue(result, row, 0), &key.id);
        hv_park_parse_id(PQgetvalue(result, row, 1), &new_id);
        struct candidate **found = bsearch(&key_at, sorted, count, sizeof *sorted, by_id);
        rc = found == NULL ? 0 : take_new_id(*found, new_id);
    }
    free(sorted);
    return rc;
}

static int move(struct replay *r, struct candidate *list, size_t count) {
    int64_t *ids = hv_calloc(count, sizeof *ids);
    size_t chosen = 0;
    int rc = -1;
    for (size_t i = 0; i < count; i++) {
        if (list[i].chosen) {
            ids[chosen++] = list[i].id;
        }
    }
    if (chosen == 0) {
        free(ids);
        return 0;
    }
    bool keep = r->parking->options->park.keep_id;
    char *array = hv_park_id_array(ids, chosen);
    free(ids);
    PGresult *behind = hv_parking_ask(r->parking, behind_sql, 1, (const char *const[]){array}, false), *moved = NULL, *placed = NULL;
    if (behind != NULL && (moved = hv_parking_ask(r->parking, move_sql, 1, (const char *const[]){array}, false)) != NULL) {
        bool none = keep || PQgetisnull(behind, 0, 0);
        rc = take_new_ids(moved, list, count);
        if (rc == 0 && !none) {
            const char *doubtful = PQgetisnull(behind, 0, 1) ? "{}" : PQgetvalue(behind, 0, 1);
            placed = hv_parking_ask(r->parking, place_sql, 2, (const char *const[]){PQgetvalue(behind, 0, 0), doubtful}, false);
            rc = placed == NULL ? -1 : 0;
        }
    }
    PQclear(placed);
    PQclear(moved);
    PQclear(behind);
    free(array);
    return rc;
}

/* ---- telling ---- */

static void print_head(const struct replay *r) {
    if (!r->parking->options->park.json) {
        printf("%-12s  %-12s  %-8s  %s\n", "id", "new_id", "in_order", "");
    }
}

static void print_line(const struct replay *r, const struct candidate *c) {
    static const char *const verdicts[] = {[YES] = "yes", [NO] = "no", [UNKNOWN] = "unknown"};
    const struct hv_park_options *o = &r->parking->options->park;
    char new_id[24] = "-";
    if (c->moved) {
        snprintf(new_id, sizeof new_id, "%" PRId64, c->new_id);
    }
    if (o->json) {
        printf("{\"id\":%" PRId64 ",\"replayed\":%s,\"new_id\":%s,\"in_order\":\"%s\"", c->id, c->moved ? "true" : "false",
               c->moved ? new_id : "null", verdicts[c->verdict]);
        printf(c->why[0] != 0 ? ",\"reason\":\"%s\"}\n" : "}\n", c->why);
    } else {
        printf("%-12" PRId64 "  %-12s  %-8s  %s%s\n", c->id, new_id, verdicts[c->verdict], c->why,
               c->chosen ? "" : c->why[0] != 0 ? ": stays parked" : "stays parked");
    }
}

static void print_sum(const struct replay *r) {
    const struct hv_park_options *o = &r->parking->options->park;
    fprintf(o->json ? stderr : stdout, "%zu record%s %s, %zu left parked\n", r->replayed, r->replayed == 1 ? "" : "s",
            o->dry_run ? "would be replayed" : "replayed", r->left);
    if (r->left > 0) {
        fflush(stdout);
        fputs("harvestd: --allow-reorder replays those as well that are, or may be, out of order\n", stderr);
    }
}

/* ---- a chunk ---- */

/* Everything of a chunk is one transaction, so that it is put back once or not at all. A key is never split: what a chunk has put back would look
 * to the next one like a later record. */
static int in_transaction(struct replay *r, const char *ids, struct candidate *list) {
    int count = -1;
    if (hv_parking_run(r->parking, "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE") != 0) {
        return -1;
    }
    if (hv_parking_run(r->parking, "SET LOCAL lock_timeout = '3s'") == 0 &&
        hv_parking_run(r->parking, "SET LOCAL statement_timeout = '10s'") == 0 &&
        hv_parking_run(r->parking, "LOCK TABLE {O} IN SHARE ROW EXCLUSIVE MODE") == 0 && (count = judge_all(r, ids, list)) >= 0 &&
        move(r, list, (size_t)count) != 0) {
        count = -1;
    }
    if (count >= 0 && hv_parking_run(r->parking, "COMMIT") != 0) {
        if (PQstatus(r->parking->conn) != CONNECTION_OK) {
            fputs("harvestd: whether the last ones were replayed is unknown: harvestd park list tells\n", stderr);
        }
        return -1;
    }
    if (count < 0 && PQstatus(r->parking->conn) == CONNECTION_OK) {
        hv_parking_run(r->parking, "ROLLBACK");
    }
    return count;
}

static void tell(struct replay *r, const struct candidate *c) {
    print_line(r, c);
    r->replayed += c->chosen;
    r->left += !c->chosen;
}

static int replay_some(struct replay *r, const int64_t *ids, size_t id_count) {
    struct candidate *list = hv_calloc(id_count, sizeof *list);
    char *array = hv_park_id_array(ids, id_count);
    int count = in_transaction(r, array, list);
    for (int i = 0; i < count; i++) {
        tell(r, &list[i]);
    }
    free(array);
    free(list);
    return count < 0 ? -1 : 0;
}

/* First without the lock, so that writers are not held up for those that stay; then once more for those that can go, some at a time. */
static int replay_all(struct replay *r, int64_t *ids, size_t id_count) {
    struct candidate *list = hv_calloc(id_count, sizeof *list);
    char *array = hv_park_id_array(ids, id_count);
    bool dry = r->parking->options->park.dry_run;
    size_t go = 0, end;
    int count = judge_all(r, array, list), rc = count < 0 ? -1 : 0;
    for (int i = 0; i < count; i++) {
        if (dry || !list[i].chosen) {
            tell(r, &list[i]);
        } else {
            ids[go] = list[i].id;
            list[go++].key = list[i].key;
        }
    }
    for (size_t at = 0; at < go && rc == 0; at = end) {
        for (end = at + 1; end < go && (end - at < CHUNK || list[end].key == list[end - 1].key);) {
            end++;
        }
        rc = replay_some(r, ids + at, end - at);
    }
    free(array);
    free(list);
    return rc;
}

int hv_parking_replay(struct hv_parking *parking) {
    struct replay r = {.parking = parking};
    int64_t *ids = NULL;
    size_t count = 0;
    bool missing = false;
    int rc = look_at_tables(&r);
    if (rc == 0 && (rc = hv_parking_ids(parking, parking->options->park.limit, &ids, &count, &missing)) == 0) {
        if (count > 0) {
            print_head(&r);
            rc = replay_all(&r, ids, count);
        }
        print_sum(&r);
    }
    free(ids);
    return rc == 0 && r.left == 0 && !missing ? 0 : 1;
}
