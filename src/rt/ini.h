/* Reads an INI file through libinih, without its traps: lines of up to 16,000 bytes, values that go on in
 * indented lines, and no silent loss. What cannot be understood is told with its line, and none of it
 * reaches the settings.
 *
 * The form: `[section]`, `name = value`, comments on lines of their own that begin with ; or #. A value
 * may go on in lines that are indented more than its name (only settings that say so); the pieces are
 * joined with a blank, those of *.pem with a line break. A blank followed by ; or # inside a value is an
 * error, since it may have been meant as a comment; if it belongs to the value, write \; or \# there. */
#ifndef HV_RT_INI_H
#define HV_RT_INI_H

#include <stddef.h>

#include "base/error.h"

#define HV_INI_FILE_MAX (1024 * 1024) /* bytes */
#define HV_INI_LINE_MAX 16000         /* bytes */

struct hv_ini_handler {
    /* A value, complete, in a section that is known. The texts are lent. `line` is that of the name. */
    void (*entry)(void *user, unsigned line, const char *section, const char *name, const char *value);
    /* What is wrong in this line. Comes in ascending order of lines, except that `entry` may complain
     * late. */
    void (*trouble)(void *user, unsigned line, const char *message);
};

/* Reads `text` (length bytes, any) and calls the handler. */
void hv_ini_parse(const char *text, size_t length, const struct hv_ini_handler *handler, void *user);

/* Reads a whole file into memory that the caller frees. Returns 0, or -1 with err (missing, unreadable, a
 * directory, empty, too large; without the path). Blocks. */
int hv_ini_read_file(const char *path, char **ret, size_t *ret_length, struct hv_error *err);

#endif
