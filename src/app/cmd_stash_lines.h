/* Lines of standard input, of bounded length, for `harvestd stash`. */
#ifndef HV_APP_CMD_STASH_LINES_H
#define HV_APP_CMD_STASH_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define HV_STASH_LINE_MAX ((size_t)32 << 20) /* bytes */

struct hv_stash_lines {
    int fd;
    uint64_t number; /* of the last line, from 1 */
    char *buffer;
    size_t size, start, end; /* of buffer; what was read and not given out yet */
    bool eof;
};

enum hv_stash_got { HV_STASH_LINE, HV_STASH_END, HV_STASH_PAUSE, HV_STASH_BROKEN };

/* The next line, without its end, lent until the next call; the last one may lack its end. Waits; with `pause_ms` >= 0 at
 * most so long for more to come, then HV_STASH_PAUSE. HV_STASH_BROKEN with err: the line is too long (`number` is its own),
 * or reading fails. */
enum hv_stash_got hv_stash_lines_next(struct hv_stash_lines *lines, int pause_ms, const char **ret, size_t *ret_length,
                                      struct hv_error *err);
void hv_stash_lines_free(struct hv_stash_lines *lines);

#endif
