/* See pg_dsn.h. */
#include "io/pg_dsn.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* The word in double quotes of libpq's message, or "" . */
static void quoted_word(const char *message, char *out, size_t size) {
    const char *from = strchr(message, '"');
    const char *to = from == NULL ? NULL : strchr(from + 1, '"');
    size_t length = to == NULL ? 0 : (size_t)(to - from - 1);
    if (length >= size) {
        length = 0;
    }
    memcpy(out, length > 0 ? from + 1 : "", length);
    out[length] = '\0';
}

static int unknown_option(const char *message, struct hv_error *err) {
    char word[64];
    quoted_word(message, word, sizeof word);
    struct hv_nearest nearest = {.name = word};
    PQconninfoOption *known = PQconndefaults();
    for (PQconninfoOption *o = known; o != NULL && o->keyword != NULL; o++) {
        hv_nearest_try(&nearest, o->keyword);
    }
    if (nearest.best != NULL && word[0] != '\0') {
        hv_error_set(err, "it holds an unknown connection option; did you mean %s?", nearest.best);
    } else {
        hv_error_set(err, "it holds an unknown connection option; a value with blanks or quotes goes in "
                          "single quotes, as in password='a b'");
    }
    PQconninfoFree(known);
    return -1;
}

int hv_pg_dsn_check(const char *data_source, struct hv_error *err) {
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(data_source, &message);
    if (options != NULL) {
        PQconninfoFree(options);
        return 0;
    }
    if (message == NULL) {
        hv_error_set(err, "out of memory");
    } else if (strncmp(message, "invalid connection option", 25) == 0 ||
             strncmp(message, "invalid URI query", 17) == 0) {
        unknown_option(message, err);
    } else if (strncmp(message, "missing \"=\"", 11) == 0) {
        hv_error_set(err, "a '=' is missing: write option=value pairs; a value with blanks or quotes goes in "
                          "single quotes, as in password='a b'");
    } else if (strncmp(message, "unterminated quoted string", 26) == 0) {
        hv_error_set(err,
                     "a single quote is not closed; within single quotes write \\' for ' and \\\\ for \\");
    } else if (strncmp(message, "invalid percent-encoded token", 29) == 0) {
        hv_error_set(err, "a %% is not followed by two hexadecimal digits; write %%25 for %% in a URI");
    } else {
        hv_error_set(err, "libpq cannot read it as option=value pairs or as a postgresql:// URI");
    }
    PQfreemem(message);
    return -1;
}

const char *hv_pg_dsn_redact(const char *data_source, char *out, size_t size) {
    static const char *const shown[] = {"host", "hostaddr", "port", "user", "dbname", "sslmode"};
    struct hv_text t;
    hv_text_init(&t, out, size);
    PQconninfoOption *options = PQconninfoParse(data_source, NULL);
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
            if (strcmp(o->keyword, shown[i]) == 0 && o->val != NULL && o->val[0] != '\0') {
                hv_text_printf(&t, "%s%s=%s", t.length > 0 ? " " : "", o->keyword, o->val);
            }
        }
    }
    PQconninfoFree(options);
    return out;
}

bool hv_pg_dsn_has_password(const char *data_source) {
    bool found = false;
    PQconninfoOption *options = PQconninfoParse(data_source, NULL);
    for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
        if ((strcmp(o->keyword, "password") == 0 || strcmp(o->keyword, "sslpassword") == 0) && o->val != NULL &&
            o->val[0] != '\0') {
            found = true;
        }
    }
    PQconninfoFree(options);
    return found;
}

static bool is_uri(const char *data_source) {
    return strncmp(data_source, "postgresql://", 13) == 0 || strncmp(data_source, "postgres://", 11) == 0;
}

/* What has to stand before one more parameter of the URI. As libpq reads it, user and password end at the first '@', if one
 * comes before any '/'. */
static const char *uri_separator(const char *uri) {
    const char *rest = strstr(uri, "://") + 3, *at = rest + strcspn(rest, "@/");
    const char *query = strchr(*at == '@' ? at : rest, '?');
    size_t length = strlen(uri);
    return query == NULL ? "?" : uri[length - 1] == '?' || uri[length - 1] == '&' ? "" : "&";
}

/* A backslash at the end would take what follows for its own; libpq passes over it. */
static size_t length_without_open_escape(const char *text) {
    size_t length = strlen(text), slashes = 0;
    while (slashes < length && text[length - 1 - slashes] == '\\') {
        slashes++;
    }
    return length - slashes % 2;
}

/* libpq takes the last of several. */
char *hv_pg_dsn_with_password(const char *data_source, const char *password) {
    size_t size = strlen(data_source) + 3 * strlen(password) + 32;
    char *joined = malloc(size);
    if (joined == NULL) {
        return NULL;
    }
    bool uri = is_uri(data_source);
    int kept = uri ? (int)strlen(data_source) : (int)length_without_open_escape(data_source);
    int n = snprintf(joined, size, uri ? "%.*s%spassword=" : "%.*s%s password='", kept, data_source,
                     uri ? uri_separator(data_source) : "");
    char *to = joined + n;
    for (const char *c = password; *c != '\0'; c++) {
        if (uri) {
            to += snprintf(to, 4, "%%%02X", (unsigned)(unsigned char)*c);
        } else {
            if (*c == '\'' || *c == '\\') {
                *to++ = '\\';
            }
            *to++ = *c;
        }
    }
    strcpy(to, uri ? "" : "'");
    return joined;
}
