/* See ini.h. libinih asks our reader for one line after the other. The reader looks at each line first and
 * hands over only what libinih cannot misunderstand: short enough, no NUL, no comment behind a value,
 * indentation that means what it says. A line that is in error is handed over as a comment, so nothing
 * comes of it. */
#include "rt/ini.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text.h"
#include "rt/settings.h"

/* Debian's libinih can be told at run time how long a line may be (200 otherwise). Where it cannot, longer
 * lines are refused and indented lines remain. */
#pragma weak ini_max_line

enum { NAME_MAX_LENGTH = 49 }; /* libinih cuts longer names and sections silently */

enum line_kind { LINE_NOTHING, LINE_SECTION, LINE_KEY, LINE_MORE };

struct reading {
    const struct hv_ini_handler *handler;
    void *user;
    const char *at, *end; /* what is left of the file */
    unsigned line;        /* number of the line that was handed over last */
    enum line_kind kind;  /* ... and what it is */

    bool any_section; /* a section header was seen */
    bool skipping;    /* below a header that is broken or names no known section */
    bool key_open;    /* indented lines continue the last name */
    unsigned key_indent, key_line;
    char key_name[NAME_MAX_LENGTH + 1];
    char section[NAME_MAX_LENGTH + 1];

    bool entry_open; /* an entry is collected and not yet handed on: */
    unsigned entry_line;
    char entry_section[NAME_MAX_LENGTH + 1], entry_name[NAME_MAX_LENGTH + 1];
    char *value;
    size_t value_length;
};

static void complain(struct reading *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void complain(struct reading *r, const char *format, ...) {
    char message[HV_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    r->handler->trouble(r->user, r->line, message);
}

/* ---- Lines, before libinih sees them ---- */

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static bool has_control(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (((unsigned char)text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f) {
            return true;
        }
    }
    return false;
}

/* Columns before the first character that is not blank. */
static unsigned indent_of(const char *text, size_t length) {
    unsigned column = 0;
    for (size_t i = 0; i < length && is_blank(text[i]); i++) {
        column = text[i] == '\t' ? column / 8 * 8 + 8 : column + 1;
    }
    return column;
}

/* Does a blank followed by ; or # stand in here? */
static bool has_inline_comment(const char *text, size_t length) {
    for (size_t i = 1; i < length; i++) {
        if ((text[i] == ';' || text[i] == '#') && is_blank(text[i - 1])) {
            return true;
        }
    }
    return false;
}

static const char inline_comment[] =
    "a blank followed by ; or # may have been meant as a comment; comments stand on lines of their own, and "
    "if it belongs to the value, write \\; or \\#";

/* `[section]`, then at most blanks or a comment. On success the name is in r->section. */
static bool vet_section(struct reading *r, const char *text, size_t length) {
    const char *close = memchr(text, ']', length);
    size_t from = 1, to = close == NULL ? 0 : (size_t)(close - text);
    r->any_section = true;
    r->skipping = true; /* until this header turned out to be good */
    r->key_open = false;
    if (close == NULL) {
        complain(r, "the section header has no ']'; the settings below it are not looked at");
        return false;
    }
    for (size_t i = to + 1; i < length && text[i] != ';' && text[i] != '#'; i++) {
        if (!is_blank(text[i])) {
            complain(r, "text follows the section header; the settings below it are not looked at");
            return false;
        }
    }
    while (from < to && is_blank(text[from])) {
        from++;
    }
    while (to > from && is_blank(text[to - 1])) {
        to--;
    }
    char name[HV_ERROR_MAX];
    size_t name_length = to - from < sizeof name - 1 ? to - from : sizeof name - 1;
    memcpy(name, text + from, name_length);
    name[name_length] = '\0';
    if (name_length > NAME_MAX_LENGTH || !hv_settings_section_known(name)) {
        struct hv_error err;
        struct hv_settings none = {0};
        hv_settings_set(&none, name, "", "", &err); /* says which section may have been meant */
        complain(r, "%s; the settings below it are not looked at", err.text);
        return false;
    }
    strcpy(r->section, name);
    r->skipping = false;
    return true;
}

static void explain_no_section(struct reading *r, const char *name) {
    size_t count;
    const struct hv_setting *table = hv_settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].name, name) == 0) {
            complain(r, "%s stands before any section; put it below [%s]", name, table[i].section);
            return;
        }
    }
    char shown[100];
    complain(r, "%s stands before any section; put a header such as [harvest] above it",
             hv_text_show(name, shown, sizeof shown));
}

/* Only a name that is known is shown: the rest of the line, or the line, may be (part of) a secret. */
static void explain_no_separator(struct reading *r, char *line) {
    line[strcspn(line, " \t")] = '\0';
    bool known = hv_settings_find(r->section, line) != NULL ||
                 (hv_settings_section_passed_through(r->section) && hv_settings_is_secret(r->section, line));
    complain(r, "%s%s%sthere is no '='; a line is name = value, [section] or a comment that begins with ; or #",
             known ? "'" : "", known ? line : "", known ? "': " : "");
}

/* `name = value`. The key is open for continuation even if it is in error: its continuation has to go the
 * same way. */
static bool vet_key(struct reading *r, const char *text, size_t length, unsigned indent) {
    size_t separator = 0, name_length;
    while (separator < length && text[separator] != '=' && text[separator] != ':') {
        separator++;
    }
    for (name_length = separator; name_length > 0 && is_blank(text[name_length - 1]);) {
        name_length--;
    }
    char name[NAME_MAX_LENGTH + 1], shown[100];
    size_t kept = name_length < sizeof name - 1 ? name_length : sizeof name - 1;
    memcpy(name, text, kept);
    name[kept] = '\0';
    r->key_open = true;
    r->key_indent = indent;
    r->key_line = r->line;
    r->key_name[0] = '\0'; /* of a name in error: what continues it is left out */
    if (separator == length) {
        explain_no_separator(r, name);
        return false;
    }
    if (name_length == 0 || name_length > NAME_MAX_LENGTH || has_inline_comment(text, name_length)) {
        if (name_length == 0) {
            complain(r, "there is no name before the '='");
        } else {
            complain(r, "%s: no setting has such a name", hv_text_show(name, shown, sizeof shown));
        }
        return false;
    }
    if (!r->any_section) {
        explain_no_section(r, name);
        return false;
    }
    if (has_inline_comment(text + separator, length - separator)) {
        complain(r, "%s: %s", name, inline_comment);
        return false;
    }
    strcpy(r->key_name, name);
    return true;
}

/* Does the text of an indented line look as if it were a setting of its own? */
static bool looks_like_setting(const struct reading *r, const char *text, size_t length) {
    char name[NAME_MAX_LENGTH + 1];
    size_t n = 0;
    bool dotted = false;
    while (n < length && n < NAME_MAX_LENGTH &&
           (text[n] == '_' || text[n] == '.' || (text[n] >= 'a' && text[n] <= 'z'))) {
        dotted = dotted || text[n] == '.';
        name[n] = text[n];
        n++;
    }
    name[n] = '\0';
    while (n < length && is_blank(text[n])) {
        n++;
    }
    if (n == length || (text[n] != '=' && text[n] != ':')) {
        return false;
    }
    return hv_settings_section_passed_through(r->section) ? dotted
                                                          : hv_settings_find(r->section, name) != NULL;
}

/* A line that is indented more than the name above it. */
static bool vet_more(struct reading *r, const char *text, size_t length) {
    if (r->key_name[0] == '\0') {
        return false;
    }
    const struct hv_setting *setting = hv_settings_find(r->section, r->key_name);
    bool continues = setting != NULL ? setting->continues : hv_settings_section_passed_through(r->section);
    if (!continues || looks_like_setting(r, text, length)) {
        complain(r,
                 "indented more than line %u, this line would continue the value of %s; a setting of its own "
                 "is not indented",
                 r->key_line, r->key_name);
        return false;
    }
    if (has_inline_comment(text, length)) {
        complain(r, "%s: %s", r->key_name, inline_comment);
        return false;
    }
    return true;
}

/* What is this line, and may libinih have it? LINE_NOTHING: no. `text` and *length lose blanks at both
 * ends. */
static enum line_kind vet(struct reading *r, const char **text, size_t *length, size_t room) {
    size_t whole = *length;
    unsigned indent = indent_of(*text, *length);
    while (*length > 0 && is_blank((*text)[*length - 1])) {
        --*length;
    }
    while (*length > 0 && is_blank(**text)) {
        ++*text;
        --*length;
    }
    bool deeper = r->key_open && indent > r->key_indent;
    if (*length == 0 || **text == ';' || **text == '#') {
        return LINE_NOTHING;
    }
    if (whole > room || whole > HV_INI_LINE_MAX || has_control(*text, *length)) {
        if (whole > room || whole > HV_INI_LINE_MAX) {
            complain(r,
                     "the line is %zu bytes long, %zu are allowed; a long value can go on in lines that are "
                     "indented",
                     whole, room < HV_INI_LINE_MAX ? room : (size_t)HV_INI_LINE_MAX);
        } else if (memchr(*text, '\0', *length) != NULL) {
            complain(r, "the line holds a NUL byte; the file is to be text in UTF-8");
        } else {
            complain(r, "the line holds a control character");
        }
        if (**text == '[') { /* what is below belongs to nothing that we know */
            r->any_section = r->skipping = true;
            r->key_open = false;
        } else if (!deeper) {
            r->key_open = true;
            r->key_indent = indent;
            r->key_name[0] = '\0';
        }
        return LINE_NOTHING;
    }
    if (**text == '[') {
        return vet_section(r, *text, *length) ? LINE_SECTION : LINE_NOTHING;
    }
    if (r->skipping) {
        return LINE_NOTHING;
    }
    if (deeper) {
        return vet_more(r, *text, *length) ? LINE_MORE : LINE_NOTHING;
    }
    return vet_key(r, *text, *length, indent) ? LINE_KEY : LINE_NOTHING;
}

/* libinih's reader: like fgets. */
static char *read_line(char *out, int size, void *user) {
    struct reading *r = user;
    assert(size > 8);
    if (r->at == r->end) {
        return NULL;
    }
    const char *text = r->at;
    const char *newline = memchr(text, '\n', (size_t)(r->end - text));
    size_t length = (size_t)((newline == NULL ? r->end : newline) - text);
    r->at = newline == NULL ? r->end : newline + 1;
    r->line++;
    if (length > 0 && text[length - 1] == '\r') {
        length--;
    }
    if (r->line == 1 && length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
        text += 3;
        length -= 3;
    }
    r->kind = vet(r, &text, &length, (size_t)size - 4);
    if (r->kind == LINE_NOTHING) {
        strcpy(out, ";\n");
        return out;
    }
    char *p = out;
    if (r->kind == LINE_MORE) {
        *p++ = ' ';
    }
    memcpy(p, text, length);
    strcpy(p + length, "\n");
    return out;
}

/* ---- Entries, from libinih ---- */

static void append(struct reading *r, const char *text) {
    size_t length = strlen(text), name_length = strlen(r->key_name);
    bool pem = name_length > 4 && strcmp(r->key_name + name_length - 4, ".pem") == 0;
    r->value = hv_realloc(r->value, r->value_length + length + 2, 1); /* bounded by the file */
    if (r->value_length > 0) {
        r->value[r->value_length++] = pem ? '\n' : ' ';
    }
    for (size_t i = 0; i < length; i++) {
        /* `\;` and `\#` after a blank or at the start stand for ; and #. */
        if (text[i] == '\\' && (text[i + 1] == ';' || text[i + 1] == '#') &&
            (i == 0 || is_blank(text[i - 1]))) {
            continue;
        }
        r->value[r->value_length++] = text[i];
    }
    r->value[r->value_length] = '\0';
}

/* The entry is complete when the next one begins or the file ends. */
static void hand_on(struct reading *r) {
    if (!r->entry_open) {
        return;
    }
    r->entry_open = false;
    r->handler->entry(r->user, r->entry_line, r->entry_section, r->entry_name, r->value);
}

/* libinih's handler; the line is still the one that the reader gave last. */
static int take_entry(void *user, const char *section, const char *name, const char *value) {
    struct reading *r = user;
    if (r->kind == LINE_MORE && r->entry_open) {
        append(r, value);
        return 1;
    }
    hand_on(r);
    if (r->kind != LINE_KEY || strcmp(section, r->section) != 0 || strcmp(name, r->key_name) != 0) {
        complain(r, "the line is not understood"); /* the reader and libinih disagree: take nothing */
        return 1;
    }
    strcpy(r->entry_section, section);
    strcpy(r->entry_name, name);
    r->entry_line = r->line;
    r->entry_open = true;
    r->value_length = 0;
    append(r, value);
    return 1;
}

void hv_ini_parse(const char *text, size_t length, const struct hv_ini_handler *handler, void *user) {
    struct reading r = {.handler = handler, .user = user, .at = text, .end = text + length};
    int before = 0;
    if (&ini_max_line != NULL) {
        before = ini_max_line;
        ini_max_line = HV_INI_LINE_MAX + 8;
    }
    int bad = ini_parse_stream(read_line, &r, take_entry, &r);
    if (&ini_max_line != NULL) {
        ini_max_line = before;
    }
    hand_on(&r);
    free(r.value);
    if (bad != 0) {
        r.line = bad > 0 ? (unsigned)bad : 0;
        complain(&r, "the line is not understood");
    }
}

/* ---- The file ---- */

static int read_all(int fd, char **ret, size_t *ret_length, struct hv_error *err) {
    size_t size = 65536, length = 0;
    char *text = hv_calloc(size, 1);
    for (;;) {
        if (length == size) {
            text = hv_realloc(text, size *= 2, 1);
        }
        ssize_t n = read(fd, text + length, size - length);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n == 0 && length > 0) {
            *ret = text;
            *ret_length = length;
            return 0;
        }
        if (n <= 0 || (length += (size_t)n) > HV_INI_FILE_MAX) {
            if (n < 0) {
                hv_error_set(err, "cannot be read: %s", strerror(errno));
            } else if (n == 0) {
                hv_error_set(err, "is empty; `harvestd --help-config` lists what can be set");
            } else {
                hv_error_set(err, "is larger than 1 MiB; that is no configuration file");
            }
            free(text);
            return -1;
        }
    }
}

int hv_ini_read_file(const char *path, char **ret, size_t *ret_length, struct hv_error *err) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return hv_error_set(err, "cannot be opened: %s", strerror(errno));
    }
    int bad = -1;
    if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
        hv_error_set(err, "is a directory; name a file");
    } else {
        bad = read_all(fd, ret, ret_length, err);
    }
    close(fd);
    return bad;
}
