/* harvestd blocked: asks the daemon that runs with this configuration which keys wait, and why. An ordinary program: it may block. It reads the
 * whole answer before it prints, since the daemon waits for nobody who reads page by page. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app/cmd_blocked_lines.h"
#include "app/cmd_blocked_print.h"
#include "app/commands.h"
#include "app/control_place.h"
#include "base/memory.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_WRONG = 2 };

#define PATIENCE (HV_CONTROL_PATIENCE * 2) /* others may be before us */
#define ANSWER_MAX (256u * 1024 * 1024)    /* of what is no daemon of ours */

static const char question[] = "blocked\n";

/* All that comes until the other side closes; the caller frees. NULL with err. */
static char *read_all(int fd, size_t *ret_length, struct hv_error *err) {
    char *text = NULL;
    size_t length = 0, size = 0;
    for (;;) {
        if (size - length < HV_CONTROL_PAGE) {
            size = size * 2 + 2 * HV_CONTROL_PAGE;
            text = hv_realloc(text, size, 1);
        }
        ssize_t n = recv(fd, text + length, size - length, 0);
        if (n == 0) {
            *ret_length = length;
            return text;
        }
        if (n > 0 && (length += (size_t)n) > ANSWER_MAX) {
            hv_error_set(err, "the answer has no end: what answers there is not harvestd");
        } else if (n < 0 && errno != EINTR) {
            hv_error_set(err, "no answer: %s", errno == EAGAIN ? "harvestd is stopped, or very busy" : strerror(errno));
        } else {
            continue;
        }
        free(text);
        return NULL;
    }
}

static char *ask(const char *path, size_t *ret_length, struct hv_error *err) {
    char *text = NULL;
    int fd = hv_control_connect(path, PATIENCE, err);
    if (fd < 0) {
        return NULL;
    }
    if (send(fd, question, sizeof question - 1, MSG_NOSIGNAL) != (ssize_t)sizeof question - 1) {
        hv_error_set(err, "the daemon cannot be asked: %s", strerror(errno));
    } else {
        text = read_all(fd, ret_length, err);
    }
    close(fd);
    return text;
}

int hv_cmd_blocked(const struct hv_settings *settings, const struct hv_options *options) {
    struct hv_blocked_list list;
    struct hv_error err;
    size_t length = 0;
    if (settings->control_socket[0] == '\0') {
        fputs("harvestd: control_socket is not set, so a running daemon cannot be asked: set it in [harvest], such as control_socket = "
              "/run/harvestd/control.sock, and restart the daemon\n", stderr);
        return EXIT_WRONG;
    }
    char *text = ask(settings->control_socket, &length, &err);
    int bad = text == NULL ? -1 : hv_blocked_parse(text, length, &list, &err);
    free(text);
    if (bad != 0) {
        fprintf(stderr, "harvestd: %s\n", err.text);
        return EXIT_FAILED;
    }
    hv_blocked_print(&list, &options->blocked, stdout);
    hv_blocked_free(&list);
    return EXIT_DONE;
}
