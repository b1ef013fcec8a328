/* See config.h. */
#include "rt/config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text.h"
#include "io/pg_dsn.h"
#include "rt/ini.h"
#include "rt/settings_secret.h"

enum { FROM_FILE_AS_WHOLE = 0 };
#define FROM_COMMAND_LINE UINT32_MAX

struct trouble {
    unsigned line; /* FROM_FILE_AS_WHOLE, a line, or FROM_COMMAND_LINE */
    size_t order;  /* of coming */
    char text[HV_ERROR_MAX];
};

/* Where a setting was set. */
struct origin {
    char *section, *name;
    unsigned line;
};

struct loading {
    const char *path;
    struct hv_settings *settings;
    struct trouble *troubles;
    size_t trouble_count, trouble_kept;
    struct origin *origins;
    size_t origin_count;
    bool open_to_all; /* everybody may read the file */
};

static void complain(void *user, unsigned line, const char *message) {
    struct loading *l = user;
    l->trouble_count++;
    if (l->trouble_kept == HV_CONFIG_TROUBLES_MAX) {
        return;
    }
    l->troubles = hv_realloc(l->troubles, l->trouble_kept + 1, sizeof *l->troubles);
    struct trouble *t = &l->troubles[l->trouble_kept++];
    t->line = line;
    t->order = l->trouble_kept;
    snprintf(t->text, sizeof t->text, "%s", message);
}

static struct origin *origin_of(struct loading *l, const char *section, const char *name) {
    for (size_t i = 0; i < l->origin_count; i++) {
        if (strcmp(l->origins[i].section, section) == 0 && strcmp(l->origins[i].name, name) == 0) {
            return &l->origins[i];
        }
    }
    return NULL;
}

static void note_origin(struct loading *l, const char *section, const char *name, unsigned line) {
    struct origin *known = origin_of(l, section, name);
    if (known != NULL) {
        known->line = line;
        return;
    }
    l->origins = hv_realloc(l->origins, l->origin_count + 1, sizeof *l->origins);
    l->origins[l->origin_count++] =
        (struct origin){.section = hv_must(strdup(section)), .name = hv_must(strdup(name)), .line = line};
}

/* A secret is set under its own name and by a file: the same setting. */
static const char *own_name(const char *section, const char *name, char *secret, size_t size) {
    return hv_settings_is_file_of(section, name, secret, size) ? secret : name;
}

/* Would this text, as it stands in the file or on the command line, tell a secret? */
static bool tells_secret(const char *section, const char *name, const char *value) {
    if (value[0] == '\0' || !hv_settings_is_secret(section, name) || strcmp(name, "sasl.username") == 0) {
        return false;
    }
    if (strcmp(name, "ssl.ca.pem") == 0 || strcmp(name, "ssl.certificate.pem") == 0) {
        return false;
    }
    return strcmp(name, "data_source") == 0 ? hv_pg_dsn_has_password(value) : strstr(value, "${") == NULL;
}

/* With what the environment has for it. 0, or -1 with err. */
static int set_expanded(struct loading *l, const char *section, const char *name, const char *value, struct hv_error *err) {
    struct hv_error why;
    char *expanded = hv_secret_expand(value, &why);
    if (expanded == NULL) {
        return hv_error_set(err, "%s: %s", name, why.text);
    }
    int result = hv_settings_set(l->settings, section, name, expanded, err);
    free(expanded);
    return result;
}

static void take_entry(void *user, unsigned line, const char *section, const char *name, const char *value) {
    struct loading *l = user;
    struct hv_error err;
    char secret[128];
    const char *own = own_name(section, name, secret, sizeof secret);
    const struct origin *first = origin_of(l, section, own);
    if (first != NULL) {
        hv_error_set(&err, "%s: it is set in line %u already; leave one of the two", name, first->line);
        complain(l, line, err.text);
        return;
    }
    note_origin(l, section, own, line);
    if (l->open_to_all && own == name && tells_secret(section, name, value)) {
        hv_settings_note_open_file(l->settings, l->path);
    }
    if (set_expanded(l, section, name, value, &err) != 0) {
        complain(l, line, err.text);
    }
}

static void load_file(struct loading *l, bool optional) {
    static const struct hv_ini_handler handler = {.entry = take_entry, .trouble = complain};
    struct hv_error err;
    char *text;
    size_t length;
    if (optional && access(l->path, F_OK) != 0) {
        return;
    }
    if (hv_ini_read_file(l->path, &text, &length, &err) != 0) {
        complain(l, FROM_FILE_AS_WHOLE, err.text);
        return;
    }
    struct stat info;
    l->open_to_all = stat(l->path, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & S_IROTH) != 0;
    hv_ini_parse(text, length, &handler, l);
    free(text);
}

/* SECTION.NAME=VALUE. The section is the longest known one: kafka.producer before kafka. */
static void take_set(struct loading *l, const char *set) {
    struct hv_error err, why;
    char section[64] = "", name[128];
    const char *equals = strchr(set, '=');
    const char *dot = strchr(set, '.');
    if (equals == NULL || dot == NULL || dot > equals) {
        /* The text is not shown: it may hold a secret. */
        hv_error_set(&err, "--set: write SECTION.NAME=VALUE, such as limits.queue_timeout=1m");
        complain(l, FROM_COMMAND_LINE, err.text);
        return;
    }
    size_t length = (size_t)(dot - set);
    for (const char *const *s = hv_settings_sections(); *s != NULL; s++) {
        size_t n = strlen(*s);
        if (n > length && strncmp(*s, set, n) == 0 && set[n] == '.') {
            length = n;
        }
    }
    snprintf(section, sizeof section, "%.*s", (int)length, set);
    snprintf(name, sizeof name, "%.*s", (int)(equals - set - (ptrdiff_t)length - 1), set + length + 1);
    char secret[128];
    const char *own = own_name(section, name, secret, sizeof secret);
    if (own == name && tells_secret(section, name, equals + 1)) {
        hv_error_set(&why,
                     "%s: everybody on this machine can read a command line; set %s_file to a file that holds the secret, or "
                     "name an environment variable as ${NAME} within single quotes",
                     name, strcmp(name, "data_source") == 0 ? "password" : name);
    } else if (set_expanded(l, section, name, equals + 1, &why) == 0) {
        note_origin(l, section, own, FROM_COMMAND_LINE);
        return;
    }
    hv_error_set(&err, "--set %s", why.text);
    complain(l, FROM_COMMAND_LINE, err.text);
}

/* A trouble between several settings: told where the named one was set. */
static void take_conflict(void *user, const char *section, const char *name, const char *message) {
    struct loading *l = user;
    const struct origin *origin = origin_of(l, section, name);
    struct hv_error err;
    unsigned line = origin != NULL ? origin->line : FROM_FILE_AS_WHOLE;
    hv_error_set(&err, "%s%s", line == FROM_COMMAND_LINE ? "--set " : "", message);
    complain(l, line, err.text);
}

static int by_line(const void *a, const void *b) {
    const struct trouble *x = a, *y = b;
    if (x->line != y->line) {
        return x->line < y->line ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

static void print_troubles(struct loading *l, FILE *errors) {
    qsort(l->troubles, l->trouble_kept, sizeof *l->troubles, by_line);
    for (size_t i = 0; i < l->trouble_kept; i++) {
        const struct trouble *t = &l->troubles[i];
        if (t->line == FROM_COMMAND_LINE) {
            fprintf(errors, "%s\n", t->text);
        } else if (t->line == FROM_FILE_AS_WHOLE) {
            fprintf(errors, "%s: %s\n", l->path, t->text);
        } else {
            fprintf(errors, "%s:%u: %s\n", l->path, t->line, t->text);
        }
    }
    if (l->trouble_count > l->trouble_kept) {
        fprintf(errors, "... and %zu more\n", l->trouble_count - l->trouble_kept);
    }
}

int hv_config_load(const struct hv_config_source *source, struct hv_settings *settings, FILE *errors) {
    struct loading l = {.path = source->path, .settings = settings};
    if (source->path != NULL) {
        load_file(&l, source->optional);
    }
    for (size_t i = 0; i < source->set_count; i++) {
        take_set(&l, source->sets[i]);
    }
    if (!source->more) {
        hv_settings_finish(settings, take_conflict, &l);
    }
    bool bad = l.trouble_count > 0;
    if (bad) {
        print_troubles(&l, errors);
    }
    for (size_t i = 0; i < l.origin_count; i++) {
        free(l.origins[i].section);
        free(l.origins[i].name);
    }
    free(l.origins);
    free(l.troubles);
    return bad ? -1 : 0;
}
