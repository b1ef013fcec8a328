/* The ways in which a host drives harvests, see host.h. */
#include "host.h"

#include <assert.h>
#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>

static bool all_stopped(void) {
    for (int i = 0; i < member_count; i++) {
        if (!members[i].stopped && !members[i].own_thread) {
            return false;
        }
    }
    return true;
}

/* ---- blocking, in a thread ---- */

void *drive_thread(void *member) {
    struct member *m = member;
    struct harvest_error err;
    m->driver = pthread_self();
    say("\"h\": %d, \"event\": \"started\"", m->index);
    int status = harvest_run(m->h, &err);
    end(m, status);
    return NULL;
}

/* The host itself waits for commands: until a thread has ended nothing else is to be done. */
static void drive_threads(void) {
    struct pollfd fd = {.fd = command_fd, .events = POLLIN};
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < member_count; i++) {
            more = more || !members[i].stopped;
        }
        rounds++;
        if (more && poll(&fd, 1, 20) > 0) {
            obey();
        }
    }
}

/* ---- a libuv loop of the host's ---- */

static uv_loop_t loop;
static uv_poll_t commands;
static uv_prepare_t counter;
static uv_timer_t ticks; /* something else that the host does */

static void close_if_all_stopped(void) {
    if (all_stopped()) {
        uv_close((uv_handle_t *)&commands, NULL);
        uv_close((uv_handle_t *)&counter, NULL);
        uv_close((uv_handle_t *)&ticks, NULL);
    }
}

/* The first is freed after the loop, the others at once, in here. */
static void on_stopped(void *user, struct harvest *h) {
    struct member *m = user;
    assert(h == m->h && pthread_equal(m->driver, pthread_self()));
    if (m->index > 0) {
        end(m, 0);
    }
    m->stopped = true;
    close_if_all_stopped();
}

static void on_commands(uv_poll_t *handle, int status, int events) {
    (void)status;
    (void)events;
    if (!obey()) {
        uv_poll_stop(handle);
    }
}

static void on_round(uv_prepare_t *handle) {
    (void)handle;
    rounds++;
}

static void on_tick(uv_timer_t *handle) {
    (void)handle;
}

static void drive_uv(void) {
    uv_loop_init(&loop);
    uv_poll_init(&loop, &commands, command_fd);
    uv_prepare_init(&loop, &counter);
    uv_timer_init(&loop, &ticks);
    uv_poll_start(&commands, UV_READABLE, on_commands);
    uv_prepare_start(&counter, on_round);
    uv_timer_start(&ticks, on_tick, 1000, 1000);
    for (int i = 0; i < member_count; i++) {
        if (!members[i].own_thread) {
            harvest_on_stopped(members[i].h, on_stopped, &members[i]);
            start(&members[i], &loop);
        }
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    int left = uv_loop_close(&loop);
    say("\"event\": \"loop-closed\", \"status\": %d", left);
    if (!members[0].freed && !members[0].own_thread) {
        end(&members[0], 0);
    }
}

/* ---- plain poll(2) ---- */

static void after_process(struct member *m) {
    if (harvest_state(m->h) == HARVEST_STOPPED) {
        struct harvest_error err;
        end(m, harvest_await(m->h, 0, &err));
    }
}

static int sooner(int a, int b) {
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

static void drive_poll(void) {
    for (int i = 0; i < member_count; i++) {
        if (!members[i].own_thread) {
            start(&members[i], NULL);
        }
    }
    while (!all_stopped()) {
        struct pollfd fds[MEMBERS_MAX + 1] = {{.fd = command_fd, .events = POLLIN}};
        int timeout = -1;
        for (int i = 0; i < member_count; i++) {
            bool here = !members[i].own_thread && !members[i].stopped;
            fds[i + 1] = (struct pollfd){.fd = here ? harvest_fd(members[i].h) : -1, .events = POLLIN};
            timeout = here ? sooner(timeout, harvest_timeout(members[i].h)) : timeout;
        }
        rounds++;
        if (poll(fds, (nfds_t)member_count + 1, timeout) < 0 && errno != EINTR) {
            return;
        }
        for (int i = 0; i < member_count; i++) {
            if (fds[i + 1].fd >= 0) {
                harvest_process(members[i].h);
                after_process(&members[i]);
            }
        }
        if (fds[0].revents != 0) {
            obey();
        }
    }
}

/* ---- GLib ---- */

struct source {
    GSource base;
    struct member *member;
    gpointer tag;
};

static gboolean source_prepare(GSource *source, gint *timeout) {
    *timeout = harvest_timeout(((struct source *)source)->member->h);
    return *timeout == 0;
}

static gboolean source_check(GSource *source) {
    struct source *s = (struct source *)source;
    return g_source_query_unix_fd(source, s->tag) != 0 || harvest_timeout(s->member->h) == 0;
}

static gboolean source_dispatch(GSource *source, GSourceFunc callback, gpointer main_loop) {
    struct member *m = ((struct source *)source)->member;
    (void)callback;
    rounds++;
    harvest_process(m->h);
    if (harvest_state(m->h) != HARVEST_STOPPED) {
        return G_SOURCE_CONTINUE;
    }
    after_process(m);
    if (all_stopped()) {
        g_main_loop_quit(main_loop);
    }
    return G_SOURCE_REMOVE;
}

static GSourceFuncs source_functions = {.prepare = source_prepare, .check = source_check, .dispatch = source_dispatch};

static gboolean nothing(gpointer user) {
    (void)user;
    return G_SOURCE_CONTINUE;
}

static gboolean on_command_fd(gint fd, GIOCondition condition, gpointer user) {
    (void)fd;
    (void)condition;
    (void)user;
    return obey() ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void drive_glib(void) {
    GMainLoop *main_loop = g_main_loop_new(NULL, FALSE);
    guint command_source = g_unix_fd_add(command_fd, G_IO_IN, on_command_fd, NULL);
    for (int i = 0; i < member_count; i++) {
        struct member *m = &members[i];
        if (m->own_thread) {
            continue;
        }
        start(m, NULL);
        GSource *source = g_source_new(&source_functions, sizeof(struct source));
        ((struct source *)source)->member = m;
        ((struct source *)source)->tag = g_source_add_unix_fd(source, harvest_fd(m->h), G_IO_IN);
        g_source_set_callback(source, nothing, main_loop, NULL);
        g_source_attach(source, NULL);
        g_source_unref(source);
    }
    g_main_loop_run(main_loop);
    g_source_remove(command_source);
    g_main_loop_unref(main_loop);
}

/* ---- */

int drive(const char *way) {
    static const struct {
        const char *name;
        void (*run)(void);
    } ways[] = {{"uv", drive_uv}, {"poll", drive_poll}, {"glib", drive_glib}, {"thread", drive_threads}};
    size_t i = 0;
    while (i < sizeof ways / sizeof *ways && strcmp(ways[i].name, way) != 0) {
        i++;
    }
    if (i == sizeof ways / sizeof *ways) {
        return -1;
    }
    for (int n = 0; n < member_count; n++) {
        members[n].own_thread = members[n].own_thread || ways[i].run == drive_threads;
        if (members[n].own_thread && pthread_create(&members[n].thread, NULL, drive_thread, &members[n]) != 0) {
            return -1;
        }
    }
    ways[i].run();
    for (int n = 0; n < member_count; n++) {
        if (members[n].own_thread) {
            pthread_join(members[n].thread, NULL);
        }
    }
    return 0;
}
