/* See cmd_stash_lines.h. */
#include "app/cmd_stash_lines.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

#define FIRST_SIZE ((size_t)64 << 10)

static bool paused(int fd, int pause_ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return pause_ms >= 0 && poll(&p, 1, pause_ms) == 0;
}

/* Makes room behind `end`. */
static void make_room(struct hv_stash_lines *lines) {
    if (lines->start > 0) {
        memmove(lines->buffer, lines->buffer + lines->start, lines->end - lines->start);
        lines->end -= lines->start;
        lines->start = 0;
    }
    if (lines->end == lines->size) {
        lines->size = lines->size == 0 ? FIRST_SIZE : 2 * lines->size;
        lines->buffer = hv_realloc(lines->buffer, lines->size, 1);
    }
}

static enum hv_stash_got give(struct hv_stash_lines *lines, size_t length, size_t taken, const char **ret,
                              size_t *ret_length) {
    *ret = lines->buffer + lines->start;
    *ret_length = length;
    lines->start += taken;
    lines->number++;
    return HV_STASH_LINE;
}

enum hv_stash_got hv_stash_lines_next(struct hv_stash_lines *lines, int pause_ms, const char **ret, size_t *ret_length,
                                      struct hv_error *err) {
    for (size_t looked_at = 0;;) {
        size_t held = lines->end - lines->start;
        const char *from = lines->buffer == NULL ? NULL : lines->buffer + lines->start;
        const char *newline = held > looked_at ? memchr(from + looked_at, '\n', held - looked_at) : NULL;
        if (newline != NULL) {
            return give(lines, (size_t)(newline - from), (size_t)(newline - from) + 1, ret, ret_length);
        }
        if (lines->eof) {
            return held > 0 ? give(lines, held, held, ret, ret_length) : HV_STASH_END;
        }
        if (held > HV_STASH_LINE_MAX) {
            lines->number++;
            hv_error_set(err, "it is longer than %zu MiB", HV_STASH_LINE_MAX >> 20);
            return HV_STASH_BROKEN;
        }
        looked_at = held;
        make_room(lines);
        if (paused(lines->fd, pause_ms)) {
            return HV_STASH_PAUSE;
        }
        ssize_t n = read(lines->fd, lines->buffer + lines->end, lines->size - lines->end);
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            lines->number++;
            hv_error_set(err, "standard input cannot be read: %s", strerror(errno));
            return HV_STASH_BROKEN;
        }
        lines->eof = n == 0;
        lines->end += n > 0 ? (size_t)n : 0;
    }
}

void hv_stash_lines_free(struct hv_stash_lines *lines) {
    free(lines->buffer);
}
