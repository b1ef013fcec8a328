/* See control.h.
 *
 * Life of a client: accepted, its line is read, pages are written, closed. Its pipe and its timer are closed together; when both are gone, its
 * place is free for the next one that waits in the queue. */
#include "app/control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app/control_place.h"
#include "base/memory.h"

enum { BACKLOG = 16 };

struct client {
    struct hv_control *control;
    uv_pipe_t pipe;
    uv_timer_t timer;
    unsigned handles; /* that are not closed yet; 0: the place is free */
    char request[HV_CONTROL_REQUEST_MAX];
    size_t length;
    const struct hv_control_question *question; /* NULL: an error is told */
    struct hv_control_position position;
    bool last; /* the page that is being written */
    uv_write_t write;
    char *page; /* HV_CONTROL_PAGE bytes */
};

struct hv_control {
    struct hv_control_place place;
    const struct hv_control_question *questions;
    void *user;
    hv_time patience;
    uv_pipe_t listener;
    bool listening, waiting; /* the listener is not closed; somebody could not be accepted, as all places were taken */
    struct client clients[HV_CONTROL_CLIENTS];
};

static void accept_next(struct hv_control *control);

/* ---- the end of a client, and of all ---- */

static bool is_gone(const struct hv_control *control) {
    for (int i = 0; i < HV_CONTROL_CLIENTS; i++) {
        if (control->clients[i].handles > 0) {
            return false;
        }
    }
    return control->listener.data == NULL;
}

static void on_client_closed(uv_handle_t *handle) {
    struct client *client = handle->data;
    struct hv_control *control = client->control;
    if (--client->handles > 0) {
        return;
    }
    free(client->page);
    *client = (struct client){0};
    if (control->listening && control->waiting) {
        control->waiting = false;
        accept_next(control);
    } else if (is_gone(control)) {
        free(control);
    }
}

static void drop(struct client *client) {
    if (client->handles > 0 && !uv_is_closing((uv_handle_t *)&client->pipe)) {
        uv_close((uv_handle_t *)&client->pipe, on_client_closed);
        uv_close((uv_handle_t *)&client->timer, on_client_closed);
    }
}

static void on_listener_closed(uv_handle_t *handle) {
    struct hv_control *control = handle->data;
    handle->data = NULL;
    if (is_gone(control)) {
        free(control);
    }
}

/* ---- answering ---- */

static void write_page(struct client *client);

static void on_written(uv_write_t *write, int status) {
    struct client *client = write->data;
    if (status != 0 || client->last) {
        drop(client);
    } else if (!uv_is_closing((uv_handle_t *)&client->pipe)) {
        write_page(client);
    }
}

static void write_page(struct client *client) {
    struct hv_text page;
    hv_text_init(&page, client->page, HV_CONTROL_PAGE);
    if (client->question == NULL) {
        hv_text_puts(&page, "{\"type\":\"error\",\"error\":\"unknown question; this daemon answers:");
        for (const struct hv_control_question *q = client->control->questions; q->name != NULL; q++) {
            hv_text_printf(&page, " %s", q->name);
        }
        hv_text_puts(&page, "\"}\n");
        client->last = true;
    } else {
        client->last = client->question->answer(client->control->user, &client->position, &page);
    }
    assert(page.length > 0 && !page.cut && page.out[page.length - 1] == '\n');
    uv_buf_t buffer = uv_buf_init(page.out, (unsigned)page.length);
    client->write.data = client;
    if (uv_write(&client->write, (uv_stream_t *)&client->pipe, &buffer, 1, on_written) != 0) {
        drop(client);
    }
}

/* ---- asking ---- */

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret) {
    struct client *client = handle->data;
    (void)suggested;
    *ret = uv_buf_init(client->request + client->length, (unsigned)(sizeof client->request - client->length));
}

static const struct hv_control_question *find_question(const struct client *client, size_t length) {
    for (const struct hv_control_question *q = client->control->questions; q->name != NULL; q++) {
        if (strlen(q->name) == length && memcmp(q->name, client->request, length) == 0) {
            return q;
        }
    }
    return NULL;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
    struct client *client = stream->data;
    (void)buffer;
    if (n < 0) {
        drop(client);
        return;
    }
    client->length += (size_t)n;
    const char *end = memchr(client->request, '\n', client->length);
    if (end == NULL && client->length < sizeof client->request) {
        return;
    }
    uv_read_stop(stream); /* whatever else comes stays where it is */
    client->question = end == NULL ? NULL : find_question(client, (size_t)(end - client->request));
    client->page = hv_must(malloc(HV_CONTROL_PAGE));
    write_page(client);
}

/* ---- the beginning of a client ---- */

static void on_time_over(uv_timer_t *timer) {
    drop(timer->data);
}

/* The mode of the file says the same; but a mode can be changed, and a directory be mounted elsewhere. */
static bool is_trusted(const uv_pipe_t *pipe) {
    uv_os_fd_t fd;
    struct ucred peer;
    socklen_t size = sizeof peer;
    return uv_fileno((const uv_handle_t *)pipe, &fd) == 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

static struct client *free_place(struct hv_control *control) {
    for (int i = 0; i < HV_CONTROL_CLIENTS; i++) {
        if (control->clients[i].handles == 0) {
            return &control->clients[i];
        }
    }
    return NULL;
}

static void accept_next(struct hv_control *control) {
    struct client *client = free_place(control);
    if (client == NULL) {
        control->waiting = true; /* libuv keeps it, and accepts nobody else meanwhile */
        return;
    }
    client->control = control;
    client->handles = 2;
    uv_pipe_init(control->listener.loop, &client->pipe, 0); /* these two cannot fail */
    uv_timer_init(control->listener.loop, &client->timer);
    client->pipe.data = client->timer.data = client;
    if (uv_accept((uv_stream_t *)&control->listener, (uv_stream_t *)&client->pipe) != 0 || !is_trusted(&client->pipe) ||
        uv_timer_start(&client->timer, on_time_over, (uint64_t)control->patience / 1000, 0) != 0 ||
        uv_read_start((uv_stream_t *)&client->pipe, give_room, on_read) != 0) {
        drop(client);
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    struct hv_control *control = listener->data;
    if (status == 0 && control->listening) {
        accept_next(control);
    }
}

/* ---- the socket ---- */

int hv_control_open(uv_loop_t *loop, const char *path, const struct hv_control_question *questions, void *user, hv_time patience,
                    struct hv_control **ret, struct hv_error *err) {
    struct hv_control *control = hv_calloc(1, sizeof *control);
    int fd = hv_control_bind(path, &control->place, err);
    if (fd < 0) {
        free(control);
        return -1;
    }
    control->questions = questions;
    control->user = user;
    control->patience = patience;
    control->listening = true;
    uv_pipe_init(loop, &control->listener, 0); /* cannot fail */
    control->listener.data = control;
    int bad = uv_pipe_open(&control->listener, fd);
    if (bad != 0) {
        close(fd);
    } else {
        bad = uv_listen((uv_stream_t *)&control->listener, BACKLOG, on_connection);
    }
    if (bad != 0) {
        hv_error_set(err, "control_socket: %s cannot be watched: %s", path, uv_strerror(bad));
        hv_control_close(control);
        return -1;
    }
    *ret = control;
    return 0;
}

void hv_control_remove(const struct hv_control *control) {
    if (control != NULL) {
        hv_control_unbind(&control->place);
    }
}

void hv_control_close(struct hv_control *control) {
    if (control == NULL) {
        return;
    }
    assert(control->listening);
    control->listening = false;
    hv_control_remove(control);
    for (int i = 0; i < HV_CONTROL_CLIENTS; i++) {
        drop(&control->clients[i]);
    }
    uv_close((uv_handle_t *)&control->listener, on_listener_closed);
}
