/* Ways that keep a secret out of the configuration: from the environment, from a file of its own. */
#ifndef HV_RT_SETTINGS_SECRET_H
#define HV_RT_SETTINGS_SECRET_H

#include <stdbool.h>

#include "base/error.h"

#define HV_SECRET_FILE_MAX 65536 /* bytes */

/* Puts environment variables in: ${NAME}, or ${NAME:-text} for a text where the variable is unset or empty; $${ stands for ${
 * itself, any other $ for itself. What is put in is not looked at again. Returns a text that the caller frees, or NULL with
 * err, which names the variable and never quotes a value. */
char *hv_secret_expand(const char *value, struct hv_error *err);

/* Reads a secret from a file: all of it but the line ends at its end. `lines`: it may hold several (a key in PEM form, a data
 * source). Returns a text that the caller frees, or NULL with err (missing, unreadable, no regular file, empty, too large,
 * a NUL byte, several lines), which names the file and quotes nothing of it. *open_to_all (may be NULL): everybody on this
 * machine may read the file. Reads a regular file, so it does not wait for anybody. */
char *hv_secret_read_file(const char *path, bool lines, bool *open_to_all, struct hv_error *err);

#endif
