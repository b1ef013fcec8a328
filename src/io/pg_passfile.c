/* See pg_passfile.h. A path below a file cannot exist: libpq looks for it, finds nothing and is content; and the file's own path
 * can be read off it later. */
#include "io/pg_passfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/pg_conninfo.h"

#define BELOW "/ignored"

/* False: libpq does not look into any that we know of. A service may name one of its own. */
static bool find_path(const char *conninfo, char *path, size_t size) {
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    if (options == NULL) {
        return false;
    }
    const char *file = hv_pg_conninfo_get(options, "passfile"), *home = getenv("HOME");
    bool looks = hv_pg_conninfo_get(options, "password") == NULL && getenv("PGPASSWORD") == NULL &&
                 hv_pg_conninfo_get(options, "service") == NULL && getenv("PGSERVICE") == NULL;
    file = file != NULL ? file : getenv("PGPASSFILE");
    int length = file != NULL ? snprintf(path, size, "%s", file)
                              : snprintf(path, size, "%s/.pgpass", home != NULL ? home : "");
    PQconninfoFree(options);
    return looks && length > 0 && (size_t)length < size;
}

bool hv_pg_passfile_is_ignored(const char *conninfo, char *instead, size_t size) {
    char path[1024];
    struct stat info;
    if (!find_path(conninfo, path, sizeof path) || stat(path, &info) != 0 || !S_ISREG(info.st_mode) ||
        (info.st_mode & (S_IRWXG | S_IRWXO)) == 0) {
        return false;
    }
    return (size_t)snprintf(instead, size, "%s" BELOW, path) < size;
}

void hv_pg_passfile_explain(const PGconn *conn, struct hv_error *err) {
    PQconninfoOption *options = PQconninfo((PGconn *)conn);
    const char *path = options == NULL ? NULL : hv_pg_conninfo_get(options, "passfile");
    size_t length = path == NULL ? 0 : strlen(path), below = sizeof BELOW - 1, said = strlen(err->text);
    if (length > below && strcmp(path + length - below, BELOW) == 0) {
        snprintf(err->text + said, sizeof err->text - said,
                 "; the password file %.*s has group or world access and is ignored: chmod 600 it", (int)(length - below), path);
    }
    PQconninfoFree(options);
}
