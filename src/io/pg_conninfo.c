/* See pg_conninfo.h. */
#include "io/pg_conninfo.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "io/pg_dsn.h"
#include "io/pg_failure.h"
#include "io/pg_passfile.h"

/* An impossible value for the option that libpq 15 validates last, see hv_pg_conninfo_read. */
#define STOP_OPTION "target_session_attrs"
#define STOP_VALUE "stop-before-connecting"

static bool known_session_attrs(const char *value) {
    static const char *const known[] = {"any", "read-write", "read-only", "primary", "standby",
                                        "prefer-standby"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(value, known[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int check_syntax(const char *conninfo, struct hv_error *err) {
    if (hv_pg_dsn_check(conninfo, err) < 0) {
        return -1;
    }
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    if (options == NULL) {
        return hv_error_set(err, "out of memory");
    }
    int rc = 0;
    const char *attrs = hv_pg_conninfo_get(options, STOP_OPTION);
    if (attrs != NULL && !known_session_attrs(attrs)) {
        rc = hv_error_set(err, "invalid " STOP_OPTION " value: \"%s\"", attrs);
    }
    PQconninfoFree(options);
    return rc;
}

const char *hv_pg_conninfo_get(const PQconninfoOption *options, const char *keyword) {
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (strcmp(o->keyword, keyword) == 0) {
            return o->val != NULL && o->val[0] != 0 ? o->val : NULL;
        }
    }
    return NULL;
}

/* The parser alone does not look at the service file and the environment, which may hold the hosts that we
 * have to resolve. libpq reads them when a connection starts. So one is started that cannot get further:
 * its last option to be validated has a value that does not exist, and libpq validates all options before
 * it touches the network. */
PQconninfoOption *hv_pg_conninfo_read(const char *conninfo, struct hv_error *err) {
    if (check_syntax(conninfo, err) < 0) {
        return NULL;
    }
    char passfile[1100];
    bool ignored = hv_pg_passfile_is_ignored(conninfo, passfile, sizeof passfile);
    const char *const keywords[] = {"dbname", STOP_OPTION, ignored ? "passfile" : NULL, NULL};
    const char *const values[] = {conninfo, STOP_VALUE, passfile, NULL};
    PGconn *conn = PQconnectStartParams(keywords, values, 1);
    PQconninfoOption *options = NULL;
    if (conn == NULL) {
        hv_error_set(err, "out of memory");
    } else if (strstr(PQerrorMessage(conn), STOP_VALUE) == NULL) {
        /* it could be parsed: no piece of a password is quoted */
        hv_pg_first_line(err, PQerrorMessage(conn));
    } else if ((options = PQconninfo(conn)) == NULL) {
        hv_error_set(err, "out of memory");
    }
    PQfinish(conn);
    return options;
}

struct parameters {
    const char *keywords[24], *values[24];
    size_t count;
};

static void add(struct parameters *p, const char *keyword, const char *value) {
    assert(p->count + 1 < sizeof p->keywords / sizeof p->keywords[0]);
    p->keywords[p->count] = keyword;
    p->values[p->count] = value;
    p->count++;
}

static void add_unless_set(struct parameters *p, const PQconninfoOption *options, const char *keyword,
                           const char *value) {
    if (hv_pg_conninfo_get(options, keyword) == NULL) {
        add(p, keyword, value);
    }
}

PGconn *hv_pg_conninfo_start(const char *conninfo, const PQconninfoOption *options,
                             const struct hv_pg_lists *lists, const char *application_name) {
    struct parameters p = {.count = 0};
    add(&p, "dbname", conninfo); /* expanded; what follows wins over it */
    if (lists->hosts[0] != 0 || lists->addresses[0] != 0) {
        add(&p, "host", lists->hosts);
        add(&p, "hostaddr", lists->addresses);
        add(&p, "port", lists->ports);
    }
    char passfile[1100];
    if (hv_pg_passfile_is_ignored(conninfo, passfile, sizeof passfile)) {
        add(&p, "passfile", passfile);
    }
    add(&p, "fallback_application_name", application_name);
    add_unless_set(&p, options, "client_encoding", "UTF8");
    /* A peer that is gone without a word: found by keepalives while we wait, by the user time-out while we
     * send. */
    add_unless_set(&p, options, "keepalives", "1");
    add_unless_set(&p, options, "keepalives_idle", "10");
    add_unless_set(&p, options, "keepalives_interval", "5");
    add_unless_set(&p, options, "keepalives_count", "3");
    add_unless_set(&p, options, "tcp_user_timeout", "10000");
    /* libpq's default "prefer" asks a Kerberos server, and waits for it, whenever a ticket lies around. */
    const char *gss = hv_pg_conninfo_get(options, "gssencmode");
    if (gss != NULL && strcmp(gss, "prefer") == 0) {
        add(&p, "gssencmode", "disable");
    }
    return PQconnectStartParams(p.keywords, p.values, 1);
}
