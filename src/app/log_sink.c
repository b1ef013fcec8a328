/* See log_sink.h. */
#include "app/log_sink.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "io/loop.h"

enum sink_way {
    WAY_DIRECT, /* a plain file, or what never makes one wait: write */
    WAY_OPENED, /* a pipe or terminal, opened anew for ourselves, non-blocking: write */
    WAY_SOCKET, /* cannot be opened anew: send, told not to wait */
    WAY_ASKING, /* a pipe or terminal that we may not open anew: poll first, then write no more than a pipe
                   takes at once */
};

struct hv_log_sink {
    struct hv_logger *logger;
    enum sink_way way;
    int fd;        /* written to */
    bool fd_owned; /* opened by us */

    /* libuv would set O_NONBLOCK on the descriptor it watches. So it watches an epoll descriptor, which
     * watches ours. */
    int epoll_fd;
    uv_poll_t poll;
    bool attached, waiting;

    uint64_t dropped; /* lines */
    size_t head, length;
    char ring[HV_LOG_SINK_BUFFER];
};

static void sink_fd(struct hv_log_sink *sink, int fd) {
    struct stat info;
    sink->fd = fd;
    sink->way = WAY_DIRECT;
    if (fstat(fd, &info) != 0 || S_ISREG(info.st_mode)) {
        return;
    }
    if (S_ISSOCK(info.st_mode)) {
        sink->way = WAY_SOCKET;
        return;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_APPEND | O_CLOEXEC | O_NOCTTY);
    if (own < 0) { /* no /proc, or made by another user */
        sink->way = WAY_ASKING;
        return;
    }
    sink->way = WAY_OPENED;
    sink->fd = own;
    sink->fd_owned = true;
}

/* Writes without waiting. Returns the number of bytes, 0 when it would have to wait, -1 when the other
 * side is gone or the like. */
static ssize_t put(struct hv_log_sink *sink, const char *bytes, size_t length) {
    ssize_t n;
    if (sink->way == WAY_ASKING) {
        struct pollfd ready = {.fd = sink->fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) == 0) {
            return 0;
        }
        length = length > PIPE_BUF ? PIPE_BUF : length;
    }
    do
        n = sink->way == WAY_SOCKET ? send(sink->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL)
                                    : write(sink->fd, bytes, length);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        return 0;
    }
    return n;
}

static void keep(struct hv_log_sink *sink, const char *bytes, size_t length) {
    assert(length <= sizeof sink->ring - sink->length);
    if (sink->length == 0) {
        sink->head = 0; /* so that memory that was never needed is never touched */
    }
    size_t tail = (sink->head + sink->length) % sizeof sink->ring;
    size_t first = sizeof sink->ring - tail < length ? sizeof sink->ring - tail : length;
    memcpy(sink->ring + tail, bytes, first);
    memcpy(sink->ring, bytes + first, length - first);
    sink->length += length;
}

/* What is kept can never be written: counts its lines as dropped. */
static void give_up(struct hv_log_sink *sink) {
    for (; sink->length > 0; sink->length--) {
        sink->dropped += sink->ring[sink->head] == '\n';
        sink->head = (sink->head + 1) % sizeof sink->ring;
    }
}

/* Once there is room again, the reader learns that something is missing. */
static void tell_dropped(struct hv_log_sink *sink) {
    char line[512];
    if (sink->dropped == 0 || sizeof sink->ring - sink->length < sizeof sink->ring / 2) {
        return;
    }
    size_t length =
        hv_log_format_line(line, sizeof line, sink->logger->format, hv_loop_wall_clock(), HV_WARN, "main",
                           "log lines were dropped: standard error was too slow or closed",
                           HV_FIELDS(HV_INT("dropped", (int64_t)sink->dropped)), 0);
    sink->dropped = 0;
    keep(sink, line, length);
}

/* Writes what it can. */
static void flush(struct hv_log_sink *sink) {
    for (;;) {
        tell_dropped(sink);
        if (sink->length == 0) {
            return;
        }
        size_t there =
            sizeof sink->ring - sink->head < sink->length ? sizeof sink->ring - sink->head : sink->length;
        ssize_t n = put(sink, sink->ring + sink->head, there);
        if (n == 0) {
            return;
        }
        if (n < 0) {
            give_up(sink);
            return;
        }
        sink->head = (sink->head + (size_t)n) % sizeof sink->ring;
        sink->length -= (size_t)n;
    }
}

static void wait_or_rest(struct hv_log_sink *sink);

static void on_writable(uv_poll_t *poll, int status, int events) {
    struct hv_log_sink *sink = poll->data;
    (void)status, (void)events;
    flush(sink);
    wait_or_rest(sink);
}

/* Watches the descriptor exactly while something is kept. */
static void wait_or_rest(struct hv_log_sink *sink) {
    bool wanted = sink->attached && sink->length > 0;
    if (wanted == sink->waiting) {
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT};
    if (!wanted) {
        uv_poll_stop(&sink->poll);
        epoll_ctl(sink->epoll_fd, EPOLL_CTL_DEL, sink->fd, NULL);
        sink->waiting = false;
    } else if (epoll_ctl(sink->epoll_fd, EPOLL_CTL_ADD, sink->fd, &event) == 0) {
        uv_poll_start(&sink->poll, UV_READABLE, on_writable);
        sink->waiting = true;
    } /* else it cannot be watched: the next line tries again */
}

static void take_line(void *user, enum hv_log_level level, const char *line, size_t length) {
    struct hv_log_sink *sink = user;
    (void)level;
    flush(sink);
    ssize_t n = sink->length == 0 ? put(sink, line, length) : 0;
    if (n < 0 || (size_t)n + sizeof sink->ring - sink->length < length) {
        sink->dropped++;
    } else {
        keep(sink, line + n, length - (size_t)n);
    }
    wait_or_rest(sink);
}

static int64_t wall_clock(void *user) {
    (void)user;
    return hv_loop_wall_clock();
}

struct hv_log_sink *hv_log_sink_open(int fd, struct hv_logger *logger) {
    struct hv_log_sink *sink = hv_calloc(1, sizeof *sink);
    sink->logger = logger;
    sink->epoll_fd = -1;
    sink_fd(sink, fd);
    logger->sink = take_line;
    logger->wall_clock = wall_clock;
    logger->user = sink;
    return sink;
}

int hv_log_sink_attach(struct hv_log_sink *sink, uv_loop_t *loop, struct hv_error *err) {
    assert(!sink->attached);
    sink->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (sink->epoll_fd < 0) {
        return hv_error_set(err, "epoll_create1: %s", strerror(errno));
    }
    int bad = uv_poll_init(loop, &sink->poll, sink->epoll_fd);
    if (bad != 0) {
        close(sink->epoll_fd);
        sink->epoll_fd = -1;
        return hv_error_set(err, "uv_poll_init: %s", uv_strerror(bad));
    }
    sink->poll.data = sink;
    uv_unref((uv_handle_t *)&sink->poll);
    sink->attached = true;
    wait_or_rest(sink);
    return 0;
}

static void detached(uv_handle_t *handle) {
    struct hv_log_sink *sink = handle->data;
    close(sink->epoll_fd);
    sink->epoll_fd = -1;
}

void hv_log_sink_detach(struct hv_log_sink *sink) {
    if (!sink->attached) {
        return;
    }
    sink->attached = false;
    wait_or_rest(sink);
    uv_close((uv_handle_t *)&sink->poll, detached);
}

void hv_log_sink_close(struct hv_log_sink *sink, hv_time limit) {
    if (sink == NULL) {
        return;
    }
    assert(!sink->attached && sink->epoll_fd < 0);
    hv_time until = hv_loop_clock() + limit;
    for (flush(sink); sink->length > 0; flush(sink)) {
        hv_time left = until - hv_loop_clock();
        struct pollfd ready = {.fd = sink->fd, .events = POLLOUT};
        if (left <= 0 || poll(&ready, 1, (int)(left / 1000) + 1) == 0) {
            break;
        }
    }
    if (sink->fd_owned) {
        close(sink->fd);
    }
    free(sink);
}
