/* See pg_failure.h. */
#include "io/pg_failure.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "io/pg_passfile.h"

/* The kind of an error that a server answered with this SQLSTATE; `otherwise` for one that is not special. */
static enum hv_pg_trouble trouble_of(const char *sqlstate, enum hv_pg_trouble otherwise) {
    static const struct {
        const char *prefix;
        enum hv_pg_trouble trouble;
    } known[] = {
        {"28", HV_PG_AUTHENTICATION}, {"3D000", HV_PG_NO_DATABASE}, {"57P0", HV_PG_NOT_READY},
        {"53300", HV_PG_NOT_READY},   {"25006", HV_PG_NOT_READY},   {"42P01", HV_PG_NO_TABLE},
        {"3F000", HV_PG_NO_TABLE},    {"42703", HV_PG_NO_COLUMN},   {"42501", HV_PG_NO_RIGHTS},
        {"57014", HV_PG_TIMEOUT},     {"55P03", HV_PG_LOCKED},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strncmp(sqlstate, known[i].prefix, strlen(known[i].prefix)) == 0) {
            return known[i].trouble;
        }
    }
    return otherwise;
}

/* PgBouncer and its like have one SQLSTATE for all they have to say, "protocol violation"; a server hardly ever says that. */
static enum hv_pg_trouble trouble_of_pooler(const char *text) {
    static const struct {
        const char *words;
        enum hv_pg_trouble trouble;
    } known[] = {
        {"authentication failed", HV_PG_AUTHENTICATION}, {"no such user", HV_PG_AUTHENTICATION},
        {"no such database", HV_PG_NO_DATABASE},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strstr(text, known[i].words) != NULL) {
            return known[i].trouble;
        }
    }
    const char *database = strstr(text, "database \"");
    return database != NULL && strstr(database, "\" does not exist") != NULL ? HV_PG_NO_DATABASE : HV_PG_POOLER;
}

bool hv_pg_is_from_pooler(const char *sqlstate) {
    return strcmp(sqlstate, "08P01") == 0;
}

const char *hv_pg_advice(enum hv_pg_trouble trouble) {
    switch (trouble) {
    case HV_PG_UNREACHABLE:
        return "check host, port and TLS settings of data_source, and that the server runs and listens there";
    case HV_PG_AUTHENTICATION:
        return "check user, password and client certificate (sslcert, sslkey) of data_source and the server's pg_hba.conf, or a "
               "pooler's auth_file";
    case HV_PG_SERVER_CERTIFICATE:
        return "renew the server's certificate if it has expired; otherwise name the authority that signed it in sslrootcert "
               "of data_source (openssl s_client -starttls postgres -showcerts -connect HOST:PORT shows it)";
    case HV_PG_SERVER_NAME:
        return "connect by a host name that the server's certificate holds, or have one issued for this host";
    case HV_PG_OUR_CERTIFICATE:
        return "check sslrootcert, sslcert and sslkey of data_source: the files have to be there, the key readable by this "
               "user alone, and the certificate one that the server trusts";
    case HV_PG_NO_DATABASE:
        return "check dbname of data_source, or create the database";
    case HV_PG_NOT_READY:
        return "wait until the server accepts connections and writes, or raise its max_connections";
    case HV_PG_NO_TABLE:
        return "check outbox_table, or create the table (harvestd schema prints how)";
    case HV_PG_NO_COLUMN:
        return "add the column (harvestd schema prints the table)";
    case HV_PG_WRONG_TYPE:
        return "change the column's type (harvestd schema prints the table)";
    case HV_PG_NO_RIGHTS:
        return "have the owner grant it; harvestd schema --grants ROLE prints all that is needed";
    case HV_PG_PARKED_TABLE:
        return "make or mend the table of parked records (harvestd schema --park prints it); until then the records wait in the outbox";
    case HV_PG_TIMEOUT:
        return "look for locks on the table and for load on the server, or raise statement_timeout";
    case HV_PG_LOCKED:
        return "nothing, if it does not last: the row is tried again; otherwise end the transaction that keeps it locked (pg_locks, pg_stat_activity)";
    case HV_PG_LOST:
        return "nothing, if the server was restarted; otherwise look at its log and at the network";
    case HV_PG_POOLER:
        return "look at the pooler's log, its server and its limits (pool_size, max_client_conn); a startup parameter that it does not "
               "know goes out of data_source, or into its ignore_startup_parameters";
    case HV_PG_STATEMENT:
        return "look at the table's triggers and constraints and at the server's log";
    case HV_PG_CONFIG:
        return "correct data_source";
    }
    return "";
}

/* libpq has no codes for what TLS stumbles over, only texts (English: we set no locale). */
static enum hv_pg_trouble trouble_of_text(const char *line, size_t length) {
    static const struct {
        const char *part;
        enum hv_pg_trouble trouble;
    } known[] = {
        {"certificate verify failed", HV_PG_SERVER_CERTIFICATE},
        {" does not match host name ", HV_PG_SERVER_NAME},
        {"certificate file \"", HV_PG_OUR_CERTIFICATE}, /* "root certificate file" as well */
        {"private key file \"", HV_PG_OUR_CERTIFICATE},
        {"SSL error: tlsv1", HV_PG_OUR_CERTIFICATE}, /* an alert that the server sent */
        {"SSL error: sslv3", HV_PG_OUR_CERTIFICATE},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (memmem(line, length, known[i].part, strlen(known[i].part)) != NULL) {
            return known[i].trouble;
        }
    }
    return HV_PG_UNREACHABLE;
}

void hv_pg_first_line(struct hv_error *err, const char *message) {
    if (message == NULL || message[0] == 0 || message[0] == '\n') {
        message = "no reason given";
    }
    hv_error_set(err, "%.*s", (int)strcspn(message, "\n"), message);
}

static void copy_sqlstate(struct hv_pg_failure *failure, const char *sqlstate) {
    snprintf(failure->sqlstate, sizeof failure->sqlstate, "%s", sqlstate == NULL ? "" : sqlstate);
}

void hv_pg_failure_from_result(struct hv_pg_failure *failure, const PGresult *result) {
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    copy_sqlstate(failure, PQresultErrorField(result, PG_DIAG_SQLSTATE));
    hv_pg_first_line(&failure->error, primary != NULL ? primary : PQresultErrorMessage(result));
    failure->trouble = hv_pg_is_from_pooler(failure->sqlstate) ? trouble_of_pooler(failure->error.text)
                                                               : trouble_of(failure->sqlstate, HV_PG_STATEMENT);
}

bool hv_pg_result_is_fatal(const PGresult *result) {
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    return severity != NULL && strcmp(severity, "ERROR") != 0;
}

/* Looks for "SEVERITY:  SQLST: text" in one line. Returns where the SQLSTATE begins, or NULL. */
static const char *find_sqlstate(const char *line, size_t length) {
    for (size_t i = 0; i + 10 < length; i++) {
        if (strncmp(line + i, ":  ", 3) != 0 || strncmp(line + i + 8, ": ", 2) != 0) {
            continue;
        }
        size_t n = 0;
        while (n < 5 && (isdigit((unsigned char)line[i + 3 + n]) ||
                         isupper((unsigned char)line[i + 3 + n]))) {
            n++;
        }
        if (n == 5) {
            return line + i + 3;
        }
    }
    return NULL;
}

/* Appends text to err, cut where it ends. */
static void append(struct hv_error *err, const char *text, size_t length) {
    size_t used = strlen(err->text), room = sizeof err->text - 1 - used;
    memcpy(err->text + used, text, length < room ? length : room);
    err->text[used + (length < room ? length : room)] = 0;
}

/* With several hosts the message has a paragraph for each: the first line of every one that libpq begins
 * ("connection to server ...") is kept, indented lines are hints, and those after a server's error
 * (location, detail) are left out. */
void hv_pg_failure_from_attempt(struct hv_pg_failure *failure, const PGconn *conn) {
    failure->error.text[0] = 0;
    failure->trouble = PQconnectionNeedsPassword(conn) ? HV_PG_AUTHENTICATION : HV_PG_UNREACHABLE;
    const char *line = PQerrorMessage(conn);
    char start[16];
    snprintf(start, sizeof start, "%s", line);
    for (bool first = true; *line != 0; first = false) {
        size_t length = strcspn(line, "\n");
        if (first || (strncmp(line, start, strlen(start)) == 0 && line[0] != '\t')) {
            const char *state = find_sqlstate(line, length);
            append(&failure->error, "; ", first ? 0 : 2);
            if (state != NULL) {
                char code[6] = {state[0], state[1], state[2], state[3], state[4], 0};
                copy_sqlstate(failure, code);
                failure->trouble = trouble_of(code, HV_PG_UNREACHABLE);
                append(&failure->error, line, (size_t)(state - line));
                append(&failure->error, state + 7, length - (size_t)(state + 7 - line));
            } else {
                append(&failure->error, line, length);
                enum hv_pg_trouble text = trouble_of_text(line, length);
                failure->trouble = text != HV_PG_UNREACHABLE ? text : failure->trouble;
            }
        }
        line += length + (line[length] == '\n');
    }
    if (failure->error.text[0] == 0) {
        hv_pg_first_line(&failure->error, NULL);
    }
    if (PQconnectionNeedsPassword(conn)) {
        hv_pg_passfile_explain(conn, &failure->error);
    }
    if (failure->trouble == HV_PG_NO_RIGHTS) {
        char grant[HV_ERROR_MAX];
        int length = snprintf(grant, sizeof grant, "; run: GRANT CONNECT ON DATABASE \"%s\" TO \"%s\";", PQdb(conn), PQuser(conn));
        append(&failure->error, grant, (size_t)length < sizeof grant ? (size_t)length : sizeof grant - 1);
    }
    if (hv_pg_is_from_pooler(failure->sqlstate)) {
        failure->trouble = trouble_of_pooler(failure->error.text);
    }
}

void hv_pg_endpoint_text(char *out, size_t size, const PGconn *conn) {
    const char *host = PQhost(conn);
    if (host == NULL || host[0] == 0) {
        host = PQhostaddr(conn);
    }
    snprintf(out, size, "%s%s%s", host == NULL ? "" : host, host == NULL || host[0] == 0 ? "" : ":",
             host == NULL || host[0] == 0 ? "" : PQport(conn));
}
