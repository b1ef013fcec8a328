/* See harvest_stash.h. What is sent, and whether it may be, is in stash_row.c; here is the connection: the state that it has
 * to be in, the calls, and what the server's answers mean. The calls that wait do so on their caller's thread, as the
 * header says: none of this runs on the loop. */
#include "harvest_stash.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/record.h"
#include "io/pg_failure.h"
#include "io/pg_table.h"
#include "rt/stash_row.h"

#define SQL_MAX 512

struct harvest_stash {
    char table[HV_TABLE_QUOTED_MAX];
    char sql[SQL_MAX];
    char name[40]; /* of the prepared statement */
    struct hv_stash_columns columns;
};

enum form { ONE_OFF, PREPARED };

static int tell(struct harvest_error *err, int code, const struct hv_error *why) {
    if (err != NULL && code != HARVEST_STASH_OK) {
        snprintf(err->text, sizeof err->text, "%s", why->text);
    }
    return code;
}

static int tell_text(struct harvest_error *err, int code, const char *text) {
    struct hv_error why;
    hv_error_set(&why, "%s", text);
    return tell(err, code, &why);
}

/* ---- making one ---- */

int harvest_stash_new(const char *table, struct harvest_stash **ret, struct harvest_error *err) {
    struct hv_error why;
    struct harvest_stash *stash = calloc(1, sizeof *stash);
    if (stash == NULL) {
        return tell_text(err, HARVEST_STASH_NOT_SENT, "out of memory");
    }
    if (hv_table_quote(table == NULL ? "" : table, stash->table, sizeof stash->table, &why) != 0) {
        free(stash);
        return tell(err, HARVEST_STASH_NOT_SENT, &why);
    }
    hv_stash_sql(stash->table, stash->sql, sizeof stash->sql);
    snprintf(stash->name, sizeof stash->name, "harvest_stash_%08" PRIx32, hv_fnv1a(stash->sql, strlen(stash->sql)));
    *ret = stash;
    return HARVEST_STASH_OK;
}

void harvest_stash_free(struct harvest_stash *stash) {
    free(stash);
}

/* ---- the connection's state ---- */

enum needs {
    TO_WAIT = 1,        /* the call waits, which libpq refuses in pipeline mode */
    A_TRANSACTION = 2,
};

static const char *wrong_state(const PGconn *conn, int needs) {
    PGpipelineStatus pipeline = PQpipelineStatus(conn);
    if (conn == NULL || PQstatus(conn) != CONNECTION_OK) {
        return "the connection is not open, or lost";
    }
    if (pipeline != PQ_PIPELINE_OFF && (needs & TO_WAIT)) {
        return "the connection is in pipeline mode, where nothing can wait: leave it (PQexitPipelineMode), or use the "
               "calls that only send";
    }
    if (pipeline == PQ_PIPELINE_ABORTED) {
        return "a statement in the pipeline failed, the server skips all up to the next PQpipelineSync: take the results "
               "up to there, roll back, begin again";
    }
    switch (PQtransactionStatus(conn)) {
    case PQTRANS_INTRANS:
        return NULL;
    case PQTRANS_IDLE:
        return !(needs & A_TRANSACTION) ? NULL
                                        : "no transaction is open on the connection: BEGIN first, since a record belongs "
                                          "into the transaction of the change that it tells of";
    case PQTRANS_INERROR:
        return "the transaction has failed, nothing of it can be committed: ROLLBACK and begin again";
    case PQTRANS_ACTIVE:
        /* With results outstanding, libpq does not know more. */
        return pipeline == PQ_PIPELINE_ON ? NULL
                                          : "another command is in progress on the connection: take all of its results "
                                            "(PQgetResult until it gives NULL) or end its COPY first";
    case PQTRANS_UNKNOWN:
        break;
    }
    return "the connection is lost";
}

/* Like the server does, see hv_stash_encoding; what neither side names is taken for UTF-8. Where the database has no
 * encoding, bytes pass; where the client claims none, the server takes them for its own. */
static struct hv_stash_encoding encoding_of(const PGconn *conn) {
    const char *client = PQparameterStatus(conn, "client_encoding"), *server = PQparameterStatus(conn, "server_encoding");
    bool client_utf8 = client == NULL || strcmp(client, "UTF8") == 0;
    bool client_none = !client_utf8 && strcmp(client, "SQL_ASCII") == 0;
    bool server_utf8 = server == NULL || strcmp(server, "UTF8") == 0;
    bool server_none = !server_utf8 && strcmp(server, "SQL_ASCII") == 0;
    return (struct hv_stash_encoding){
        .converts = !client_utf8 && !server_none && !(client_none && server_utf8),
        .must_be_utf8 = client_utf8 || (client_none && server_utf8),
        .name = client,
    };
}

/* ---- what the server says ---- */

static const char *advice_for(const char *sqlstate) {
    static const struct {
        const char *sqlstate, *advice;
    } known[] = {
        {"42P01", "check the table's name and search_path, or create it (harvestd schema prints how)"},
        {"42703", "add the column (harvestd schema prints the table)"},
        {"42501", "grant INSERT on the table, USAGE on its sequence and its schema"},
        {"22001", "make it shorter, or the column wider"},
        {"22021", "a column of text holds neither zero bytes nor what is not in the database's encoding; one of type "
                  "BYTEA does"},
        {"22P05", "the database's encoding lacks this character: only UTF8 has all"},
        {"25006", "write on the primary, in a transaction that is not READ ONLY"},
        {"26000", "it is not prepared in this session (a pooler changed it, or DEALLOCATE): prepare again, or use the "
                  "one-off form"},
        {"42P05", "it was prepared in this session already: once is enough"},
        {"42804", "the table's columns changed or are of other types: connect anew, and see that harvestd check is content"},
        {"XX000", "if kafka_value is of type JSONB: harvest_stash_learn once, before sending"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(sqlstate, known[i].sqlstate) == 0) {
            return known[i].advice;
        }
    }
    return NULL;
}

static bool is_about_columns(const char *sqlstate) {
    return strncmp(sqlstate, "42", 2) == 0 || strcmp(sqlstate, "XX000") == 0;
}

static int judge(struct harvest_stash *stash, const PGresult *result, ExecStatusType expected, const char *otherwise,
                 struct hv_error *why) {
    ExecStatusType status = PQresultStatus(result);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (status == expected) {
        return HARVEST_STASH_OK;
    }
    if (status == PGRES_PIPELINE_ABORTED) {
        hv_error_set(why, "not written: an earlier statement in the pipeline failed");
    } else if (sqlstate != NULL) {
        const char *advice = advice_for(sqlstate);
        hv_error_set(why, "table %s: %s (SQLSTATE %s)%s%s", stash->table, primary == NULL ? "refused" : primary,
                     sqlstate, advice == NULL ? "" : ": ", advice == NULL ? "" : advice);
        stash->columns.known = stash->columns.known && !is_about_columns(sqlstate);
    } else if (status == PGRES_FATAL_ERROR) {
        const char *said = result == NULL ? "" : PQresultErrorMessage(result);
        hv_pg_first_line(why, said[0] != 0 ? said : otherwise);
    } else {
        hv_error_set(why, "unexpected result %s: it belongs to another statement", PQresStatus(status));
    }
    return HARVEST_STASH_FAILED;
}

/* Takes the result of a call that waited. */
static int judge_and_clear(struct harvest_stash *stash, PGconn *conn, PGresult *result, struct hv_error *why) {
    int rc = judge(stash, result, PGRES_COMMAND_OK, PQerrorMessage(conn), why);
    PQclear(result);
    return rc;
}

int harvest_stash_judge(struct harvest_stash *stash, const PGresult *result, struct harvest_error *err) {
    struct hv_error why;
    int rc = judge(stash, result, PGRES_COMMAND_OK, "there is no result to judge (NULL)", &why);
    return tell(err, rc, &why);
}

/* ---- looking the table up ---- */

static int learn(struct harvest_stash *stash, PGconn *conn, struct hv_error *why) {
    const char *const values[] = {stash->table};
    static const Oid types[] = {25}; /* text */
    PGresult *result = PQexecParams(conn, hv_stash_columns_sql, 1, types, values, NULL, NULL, 0);
    int rc = judge(stash, result, PGRES_TUPLES_OK, PQerrorMessage(conn), why);
    if (rc == HARVEST_STASH_OK && hv_stash_read_columns(result, stash->table, &stash->columns, why) != 0) {
        rc = HARVEST_STASH_NOT_SENT;
    }
    PQclear(result);
    return rc;
}

int harvest_stash_learn(struct harvest_stash *stash, PGconn *conn, struct harvest_error *err) {
    struct hv_error why;
    const char *wrong = wrong_state(conn, TO_WAIT);
    return wrong != NULL ? tell_text(err, HARVEST_STASH_NOT_SENT, wrong) : tell(err, learn(stash, conn, &why), &why);
}

/* ---- waiting forms ---- */

/* The parameters of a record, checked against what the columns can hold. What was learned before is looked up
 * again before a record is refused for it: columns are widened, and search_path may lead elsewhere now. */
static int make_params(struct harvest_stash *stash, PGconn *conn, const struct harvest_stash_record *record,
                       struct hv_stash_params *ret, struct hv_error *why) {
    struct hv_stash_encoding encoding = encoding_of(conn);
    bool fresh = !stash->columns.known;
    int rc = fresh ? learn(stash, conn, why) : HARVEST_STASH_OK;
    if (rc != HARVEST_STASH_OK) {
        return rc;
    }
    rc = hv_stash_params_make(record, &stash->columns, &encoding, ret, why);
    if (rc == HARVEST_STASH_BAD_RECORD && !fresh) {
        rc = learn(stash, conn, why);
        rc = rc != HARVEST_STASH_OK ? rc : hv_stash_params_make(record, &stash->columns, &encoding, ret, why);
    }
    return rc;
}

static int write_record(struct harvest_stash *stash, PGconn *conn, const struct harvest_stash_record *record,
                        enum form form, struct harvest_error *err) {
    struct hv_error why;
    struct hv_stash_params p;
    const char *wrong = wrong_state(conn, TO_WAIT | A_TRANSACTION);
    if (wrong != NULL) {
        return tell_text(err, HARVEST_STASH_NOT_SENT, wrong);
    }
    int rc = make_params(stash, conn, record, &p, &why);
    if (rc != HARVEST_STASH_OK) {
        return tell(err, rc, &why);
    }
    PGresult *result =
        form == ONE_OFF
            ? PQexecParams(conn, stash->sql, HV_STASH_PARAMS, p.types, p.values, p.lengths, p.formats, 0)
            : PQexecPrepared(conn, stash->name, HV_STASH_PARAMS, p.values, p.lengths, p.formats, 0);
    hv_stash_params_free(&p);
    rc = judge_and_clear(stash, conn, result, &why);
    return tell(err, rc, &why);
}

int harvest_stash_write(struct harvest_stash *stash, PGconn *conn, const struct harvest_stash_record *record,
                        struct harvest_error *err) {
    return write_record(stash, conn, record, ONE_OFF, err);
}

int harvest_stash_write_prepared(struct harvest_stash *stash, PGconn *conn, const struct harvest_stash_record *record,
                                 struct harvest_error *err) {
    return write_record(stash, conn, record, PREPARED, err);
}

/* ---- preparing ---- */

/* Is it prepared in this session? HARVEST_STASH_OK: *ret says. To prepare it twice would fail the transaction. */
static int look_for_prepared(struct harvest_stash *stash, PGconn *conn, bool *ret, struct hv_error *why) {
    static const char sql[] = "SELECT statement = $2 FROM pg_catalog.pg_prepared_statements WHERE name = $1";
    static const Oid types[] = {25, 25}; /* text */
    const char *const values[] = {stash->name, stash->sql};
    PGresult *result = PQexecParams(conn, sql, 2, types, values, NULL, NULL, 0);
    int rc = judge(stash, result, PGRES_TUPLES_OK, PQerrorMessage(conn), why);
    *ret = rc == HARVEST_STASH_OK && PQntuples(result) == 1;
    if (*ret && PQgetvalue(result, 0, 0)[0] != 't') {
        hv_error_set(why, "the session has another prepared statement called %s: DEALLOCATE it", stash->name);
        rc = HARVEST_STASH_NOT_SENT;
    }
    PQclear(result);
    return rc;
}

int harvest_stash_prepare(struct harvest_stash *stash, PGconn *conn, struct harvest_error *err) {
    struct hv_error why;
    bool there = false;
    Oid types[HV_STASH_PARAMS];
    const char *wrong = wrong_state(conn, TO_WAIT);
    if (wrong != NULL) {
        return tell_text(err, HARVEST_STASH_NOT_SENT, wrong);
    }
    int rc = learn(stash, conn, &why);
    rc = rc != HARVEST_STASH_OK ? rc : look_for_prepared(stash, conn, &there, &why);
    if (rc == HARVEST_STASH_OK && !there) {
        hv_stash_param_types(&stash->columns, types);
        PGresult *result = PQprepare(conn, stash->name, stash->sql, HV_STASH_PARAMS, types);
        rc = judge_and_clear(stash, conn, result, &why);
    }
    return tell(err, rc, &why);
}

/* ---- sending forms ---- */

static int sent(PGconn *conn, int ok, struct harvest_error *err) {
    struct hv_error why;
    if (ok) {
        return HARVEST_STASH_OK;
    }
    hv_pg_first_line(&why, PQerrorMessage(conn));
    return tell(err, PQstatus(conn) == CONNECTION_OK ? HARVEST_STASH_NOT_SENT : HARVEST_STASH_FAILED, &why);
}

static int send_record(struct harvest_stash *stash, PGconn *conn, const struct harvest_stash_record *record,
                       enum form form, struct harvest_error *err) {
    struct hv_error why;
    struct hv_stash_params p;
    const char *wrong = wrong_state(conn, A_TRANSACTION);
    if (wrong != NULL) {
        return tell_text(err, HARVEST_STASH_NOT_SENT, wrong);
    }
    struct hv_stash_encoding encoding = encoding_of(conn);
    int rc = hv_stash_params_make(record, &stash->columns, &encoding, &p, &why);
    if (rc != HARVEST_STASH_OK) {
        return tell(err, rc, &why);
    }
    int ok = form == ONE_OFF
                 ? PQsendQueryParams(conn, stash->sql, HV_STASH_PARAMS, p.types, p.values, p.lengths, p.formats, 0)
                 : PQsendQueryPrepared(conn, stash->name, HV_STASH_PARAMS, p.values, p.lengths, p.formats, 0);
    hv_stash_params_free(&p);
    return sent(conn, ok, err);
}

int harvest_stash_send(struct harvest_stash *stash, PGconn *conn, const struct harvest_stash_record *record,
                       struct harvest_error *err) {
    return send_record(stash, conn, record, ONE_OFF, err);
}

int harvest_stash_send_prepared(struct harvest_stash *stash, PGconn *conn, const struct harvest_stash_record *record,
                                struct harvest_error *err) {
    return send_record(stash, conn, record, PREPARED, err);
}

int harvest_stash_send_prepare(struct harvest_stash *stash, PGconn *conn, struct harvest_error *err) {
    Oid types[HV_STASH_PARAMS];
    const char *wrong = wrong_state(conn, 0);
    if (wrong != NULL) {
        return tell_text(err, HARVEST_STASH_NOT_SENT, wrong);
    }
    hv_stash_param_types(&stash->columns, types);
    return sent(conn, PQsendPrepare(conn, stash->name, stash->sql, HV_STASH_PARAMS, types), err);
}
