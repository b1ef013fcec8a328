/* harvestd park: looks after the records that were moved aside. It ends by itself and serves nobody, so it may block. */
#include "app/cmd_park.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/cmd_park_select.h"
#include "app/commands.h"
#include "app/database.h"
#include "base/memory.h"
#include "io/pg_outbox.h"
#include "io/pg_park.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_WRONG = 2 };

#define DROP_CHUNK 1000

/* ---- statements ---- */

/* What stands at the start of the text for something else; NULL: nothing does. */
static const char *word_at(const struct hv_parking *parking, const char *text) {
    static const char letters[] = "OPDC";
    const char *const words[] = {parking->outbox, parking->parked, parking->draw, parking->columns};
    const char *letter = text[0] == '{' && text[1] != 0 && text[2] == '}' ? strchr(letters, text[1]) : NULL;
    return letter == NULL ? NULL : words[letter - letters];
}

/* The caller frees. */
static char *with_names(const struct hv_parking *parking, const char *sql) {
    size_t size = 1;
    for (const char *p = sql; *p != 0; p++) {
        const char *word = word_at(parking, p);
        size += word == NULL ? 1 : strlen(word);
    }
    char *text = hv_calloc(size, 1), *at = text;
    for (const char *p = sql; *p != 0; p++) {
        const char *word = word_at(parking, p);
        if (word == NULL) {
            *at++ = *p;
        } else {
            at = stpcpy(at, word);
            p += 2;
        }
    }
    return text;
}

static void tell_failure(struct hv_parking *parking, const PGresult *result) {
    struct hv_pg_failure failure = {0};
    const char *advice;
    hv_pg_failure_from_result(&failure, result);
    if (failure.error.text[0] == 0 || PQstatus(parking->conn) != CONNECTION_OK) {
        hv_pg_first_line(&failure.error, PQerrorMessage(parking->conn));
    }
    if (failure.trouble == HV_PG_NO_RIGHTS) {
        advice = "have the owner grant it; harvestd schema --operator-grants ROLE prints all that is needed";
    } else if (failure.trouble == HV_PG_NO_COLUMN || failure.trouble == HV_PG_NO_TABLE) {
        advice = hv_pg_advice(HV_PG_PARKED_TABLE);
    } else if (failure.trouble == HV_PG_TIMEOUT) {
        advice = "nothing of that was done; choose fewer records at once (--limit)";
    } else if (failure.trouble == HV_PG_LOCKED) {
        advice = "transactions that wrote to the outbox hold it up; try again when they have ended";
    } else {
        advice = hv_pg_advice(failure.trouble);
    }
    fprintf(stderr, "harvestd: %s; %s\n", failure.error.text, advice);
}

PGresult *hv_parking_ask(struct hv_parking *parking, const char *sql, int count, const char *const *values, bool binary) {
    char *text = with_names(parking, sql);
    PGresult *result = PQexecParams(parking->conn, text, count, NULL, values, NULL, NULL, binary);
    free(text);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        return result;
    }
    tell_failure(parking, result);
    PQclear(result);
    return NULL;
}

int hv_parking_run(struct hv_parking *parking, const char *sql) {
    PGresult *result = hv_parking_ask(parking, sql, 0, NULL, false);
    PQclear(result);
    return result == NULL ? -1 : 0;
}

/* ---- what is there ---- */

static const char shape_sql[] =
    "SELECT pg_catalog.to_regclass($1) IS NOT NULL, a.attname, a.atttypid FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_attribute AS a "
    "ON a.attrelid = pg_catalog.to_regclass($1) AND a.attname IN ('kafka_key', 'kafka_value', 'kafka_header_values')";

static int look_at_table(struct hv_parking *parking) {
    enum { BYTEA = 17, BYTEA_ARRAY = 1001 };
    const char *const values[] = {parking->parked};
    PGresult *result = hv_parking_ask(parking, shape_sql, 1, values, false);
    if (result == NULL) {
        return -1;
    }
    bool there = PQgetvalue(result, 0, 0)[0] == 't';
    for (int row = 0; row < PQntuples(result); row++) {
        const char *name = PQgetvalue(result, row, 1);
        unsigned long type = strtoul(PQgetvalue(result, row, 2), NULL, 10);
        parking->key_is_bytea = parking->key_is_bytea || (strcmp(name, "kafka_key") == 0 && type == BYTEA);
        parking->value_is_bytea = parking->value_is_bytea || (strcmp(name, "kafka_value") == 0 && type == BYTEA);
        parking->headers_are_bytea = parking->headers_are_bytea || type == BYTEA_ARRAY;
    }
    PQclear(result);
    if (!there) {
        fprintf(stderr, "harvestd: there is no table %s, at least none that search_path finds: nothing can have been parked there; "
                        "harvestd schema --park prints the table\n", parking->parked);
        return -1;
    }
    return 0;
}

static bool holds(const int64_t *ids, size_t count, int64_t id) {
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* Of ids that were named one by one; what a range leaves out is no news. */
static bool tell_missing(const struct hv_parking *parking, const int64_t *ids, size_t count) {
    struct hv_park_ranges ranges;
    bool missing = false;
    hv_park_parse_ids(&parking->options->park_ids, &ranges, NULL);
    for (size_t i = 0; i < ranges.count; i++) {
        if (ranges.lo[i] == ranges.hi[i] && !holds(ids, count, ranges.lo[i])) {
            fprintf(stderr, "harvestd: no parked record with the id %" PRId64 " (and all else that was asked for)\n", ranges.lo[i]);
            missing = true;
        }
    }
    hv_park_ranges_free(&ranges);
    return missing;
}

int hv_parking_ids(struct hv_parking *parking, uint64_t most, int64_t **ret, size_t *ret_count, bool *ret_missing) {
    char sql[2000];
    struct hv_park_selection selection;
    snprintf(sql, sizeof sql, "SELECT p.id FROM {P} AS p WHERE %s ORDER BY p.place, p.id LIMIT $9", hv_park_condition(parking->key_is_bytea));
    hv_park_select(parking->options, most, &selection);
    PGresult *result = hv_parking_ask(parking, sql, HV_PARK_SELECTION, (const char *const *)selection.values, false);
    hv_park_selection_free(&selection);
    if (result == NULL) {
        return -1;
    }
    *ret_count = (size_t)PQntuples(result);
    *ret = hv_calloc(*ret_count, sizeof **ret);
    for (size_t i = 0; i < *ret_count; i++) {
        hv_park_parse_id(PQgetvalue(result, (int)i, 0), &(*ret)[i]);
    }
    PQclear(result);
    *ret_missing = most == 0 && tell_missing(parking, *ret, *ret_count);
    return 0;
}

/* ---- drop ---- */

static bool agreed(const int64_t *ids, size_t count) {
    char answer[16] = "";
    fprintf(stderr, "Drop %zu record%s (", count, count == 1 ? "" : "s");
    fprintf(stderr, count == 1 ? "id %" PRId64 : "id %" PRId64 " and others", ids[0]);
    fputs(") for good? They will never be sent. [yes/no] ", stderr);
    return fgets(answer, sizeof answer, stdin) != NULL && (strcmp(answer, "yes\n") == 0 || strcmp(answer, "y\n") == 0);
}

/* Returns how many were deleted, or -1 after it told. */
static long drop_some(struct hv_parking *parking, const int64_t *ids, size_t count) {
    char *array = hv_park_id_array(ids, count);
    PGresult *result = hv_parking_ask(parking, "DELETE FROM {P} WHERE id = ANY ($1) RETURNING id", 1, (const char *const[]){array}, false);
    free(array);
    if (result == NULL) {
        return -1;
    }
    long dropped = PQntuples(result);
    for (int row = 0; parking->options->park.json && row < dropped; row++) {
        printf("{\"id\":%s,\"dropped\":true}\n", PQgetvalue(result, row, 0));
    }
    PQclear(result);
    return dropped;
}

static int drop_ids(struct hv_parking *parking, const int64_t *ids, size_t count) {
    size_t dropped = 0;
    long n = 0;
    for (size_t at = 0; at < count && n >= 0; at += DROP_CHUNK) {
        n = drop_some(parking, ids + at, count - at < DROP_CHUNK ? count - at : DROP_CHUNK);
        dropped += n > 0 ? (size_t)n : 0;
    }
    fprintf(parking->options->park.json ? stderr : stdout, "%zu record%s dropped\n", dropped, dropped == 1 ? "" : "s");
    return n < 0 ? EXIT_FAILED : EXIT_DONE;
}

static int drop(struct hv_parking *parking) {
    int64_t *ids;
    size_t count;
    bool missing;
    int code = EXIT_DONE;
    const struct hv_park_options *o = &parking->options->park;
    if (o->dry_run) {
        return hv_parking_list(parking, true);
    }
    if (hv_parking_ids(parking, o->limit, &ids, &count, &missing) != 0) {
        return EXIT_FAILED;
    }
    if (count > 0 && !o->yes && !agreed(ids, count)) {
        fputs("harvestd: nothing was dropped\n", stderr);
        code = EXIT_FAILED;
    } else {
        code = drop_ids(parking, ids, count);
    }
    free(ids);
    return code == EXIT_DONE && missing ? EXIT_FAILED : code;
}

/* ---- the command ---- */

static int act(struct hv_parking *parking) {
    switch ((enum hv_park_action)parking->options->action) {
    case HV_PARK_LIST:
        return hv_parking_list(parking, false);
    case HV_PARK_SHOW:
        return hv_parking_show(parking);
    case HV_PARK_REPLAY:
        return hv_parking_replay(parking);
    case HV_PARK_DROP:
        break;
    }
    return drop(parking);
}

int hv_cmd_park(const struct hv_settings *settings, const struct hv_options *options) {
    struct hv_parking parking = {.options = options};
    struct hv_error err;
    struct hv_pg_failure failure;
    if (options->action == HV_PARK_DROP && !options->park.yes && !options->park.dry_run && !isatty(STDIN_FILENO)) {
        fputs("harvestd: drop asks before it deletes, and here is no terminal to ask on: give --yes (or --dry-run, to see what it would "
              "delete)\n", stderr);
        return EXIT_WRONG;
    }
    if (hv_outbox_quote_table(settings->outbox_table, parking.outbox, sizeof parking.outbox, &err) != 0) {
        fprintf(stderr, "harvestd: outbox_table: %s\n", err.text);
        return EXIT_FAILED;
    }
    hv_park_name(parking.outbox, HV_PARK_TABLE, parking.parked, sizeof parking.parked);
    parking.conn = hv_database_connect(settings, "harvestd park", &failure);
    if (parking.conn == NULL) {
        fprintf(stderr, "harvestd: %s; %s\n", failure.error.text, hv_pg_advice(failure.trouble));
        return EXIT_FAILED;
    }
    int code = look_at_table(&parking) == 0 ? act(&parking) : EXIT_FAILED;
    PQfinish(parking.conn);
    free(parking.draw);
    free(parking.columns);
    return code;
}
