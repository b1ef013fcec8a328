/* See host.h: members, their handlers, and the commands:
 *
 *   stop|hurry|done|state [N]  for member N (0)      ask [N]   as well, but only from the thread that drives it
 *   @COMMAND                   from a fresh thread
 *   count                      rounds of the host's loop so far
 *   look                       signals, descriptors and threads of the process
 *   sleep MS                   keeps the host's loop busy with something else */
#include "host.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

struct member members[MEMBERS_MAX];
int member_count, told_fd, command_fd;
unsigned long rounds;

/* ---- telling ---- */

void say(const char *format, ...) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char line[1 << 20];
    va_list args;
    pthread_mutex_lock(&lock);
    int length = snprintf(line, sizeof line, "{");
    va_start(args, format);
    length += vsnprintf(line + length, sizeof line - 3 - (size_t)length, format, args);
    va_end(args);
    length += snprintf(line + length, 3, "}\n");
    for (int done = 0; done < length;) {
        ssize_t written = write(told_fd, line + done, (size_t)(length - done));
        assert(written > 0);
        done += (int)written;
    }
    pthread_mutex_unlock(&lock);
}

/* A text as JSON, in quotes; NULL as null. */
struct quoted {
    char text[8192];
};

static struct quoted quote(const char *text) {
    struct quoted q;
    size_t at = 0;
    if (text == NULL) {
        strcpy(q.text, "null");
        return q;
    }
    q.text[at++] = '"';
    for (; *text != '\0' && at < sizeof q.text - 8; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\' || c < ' ') {
            at += (size_t)snprintf(q.text + at, 7, "\\u%04x", c);
        } else {
            q.text[at++] = (char)c;
        }
    }
    strcpy(q.text + at, "\"");
    return q;
}

/* ---- what the harvest calls ---- */

static void check_thread(const struct member *m, const char *what) {
    if (!pthread_equal(m->driver, pthread_self())) {
        say("\"h\": %d, \"event\": \"wrong-thread\", \"what\": \"%s\"", m->index, what);
    }
}

static void count_key(void *user, int64_t id, const char *key, size_t key_size) {
    (void)id;
    (void)key;
    (void)key_size;
    ++*(size_t *)user;
}

static void count_blocked(void *user, const struct harvest_blocked_key *blocked) {
    *(size_t *)user += blocked->attempts > 0;
}

/* Everything that a handler may call, whatever it brings. */
static void reenter(struct member *m) {
    struct harvest_error err;
    size_t keys = 0, blocked = 0;
    bool leads = harvest_is_leader(m->h);
    const char *id = harvest_leader_id(m->h);
    size_t in_flight = harvest_in_flight(m->h);
    harvest_in_flight_keys(m->h, count_key, &keys);
    harvest_blocked_keys(m->h, count_blocked, &blocked);
    harvest_done(m->h);
    bool fine = leads == (id != NULL) && in_flight == keys && blocked == 0 && harvest_state(m->h) != HARVEST_STOPPED &&
                harvest_set(m->h, "harvest", "name", "other", &err) == -1 && harvest_start(m->h, NULL, &err) == -1 &&
                harvest_timeout(m->h) >= -1 && harvest_fd(m->h) >= -1;
    say("\"h\": %d, \"event\": \"reentered\", \"fine\": %s", m->index, fine ? "true" : "false");
}

static const char *const event_names[] = {"acquired", "refreshed", "revoked", "fenced", "meter"};

static enum harvest_answer on_event(void *user, struct harvest *h, const struct harvest_event *event) {
    struct member *m = user;
    const char *name = event_names[event->type];
    check_thread(m, name);
    if (event->meter != NULL) {
        const struct harvest_meter *r = event->meter;
        say("\"h\": %d, \"event\": \"%s\", \"name\": %s, \"start\": %lld, \"total\": %llu, \"total_rate\": %f, \"lap\": %llu, "
            "\"lap_rate\": %f",
            m->index, name, quote(r->name).text, (long long)r->start, (unsigned long long)r->total_count, r->total_rate,
            (unsigned long long)r->lap_count, r->lap_rate);
    } else {
        say("\"h\": %d, \"event\": \"%s\", \"leader_id\": %s, \"reason\": %s, \"is_leader\": %s, \"asked_id\": %s, "
            "\"in_flight\": %zu",
            m->index, name, quote(event->leader_id).text, quote(event->reason).text,
            harvest_is_leader(h) ? "true" : "false", quote(harvest_leader_id(h)).text, harvest_in_flight(h));
    }
    if (m->reenter) {
        reenter(m);
    }
    if (m->stop_on != NULL && strcmp(m->stop_on, name) == 0) {
        harvest_stop(h);
    }
    return m->later ? HARVEST_LATER : HARVEST_DONE;
}

static void on_log(void *user, enum harvest_log_level level, const char *text) {
    struct member *m = user;
    check_thread(m, "log");
    say("\"h\": %d, \"event\": \"log\", \"level\": %d, \"text\": %s", m->index, (int)level, quote(text).text);
}

/* ---- commands ---- */

static void visit(void *user, int64_t id, const char *key, size_t key_size) {
    fprintf(user, "%s[%lld, \"%.*s\"]", ftell(user) > 0 ? ", " : "", (long long)id, (int)key_size, key);
}

static void visit_blocked(void *user, const struct harvest_blocked_key *b) {
    fprintf(user, "%s{\"key\": \"%.*s\", \"id\": %lld, \"topic\": %s, \"class\": %s, \"reason\": %s, \"since\": %lld, \"attempts\": %u, "
            "\"next_try\": %lld}", ftell(user) > 0 ? ", " : "", (int)b->key_size, b->key, (long long)b->id, quote(b->topic).text,
            quote(b->failure_class).text, quote(b->reason).text, (long long)b->since, b->attempts, (long long)b->next_try);
}

static void ask_blocked(const struct member *m) {
    char *blocked = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&blocked, &size);
    harvest_blocked_keys(m->h, visit_blocked, out);
    fclose(out);
    say("\"h\": %d, \"event\": \"blocked\", \"keys\": [%s]", m->index, blocked);
    free(blocked);
}

static void ask(const struct member *m) {
    char *keys = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&keys, &size);
    harvest_in_flight_keys(m->h, visit, out);
    fclose(out);
    say("\"h\": %d, \"event\": \"answer\", \"is_leader\": %s, \"leader_id\": %s, \"in_flight\": %zu, \"keys\": [%s]", m->index,
        harvest_is_leader(m->h) ? "true" : "false", quote(harvest_leader_id(m->h)).text, harvest_in_flight(m->h), keys);
    free(keys);
}

/* The names in a directory, and with `links` where they lead to, or with `file` what that file in each holds, as a JSON list. */
static void list(const char *path, const char *file, FILE *out) {
    DIR *directory = opendir(path);
    const struct dirent *entry;
    const char *comma = "";
    while ((entry = readdir(directory)) != NULL) {
        char name[512], content[256] = "";
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory)) {
            continue;
        }
        if (file == NULL) {
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            ssize_t got = readlink(name, content, sizeof content - 1);
            content[got > 0 ? got : 0] = '\0';
        } else {
            snprintf(name, sizeof name, "%s/%s/%s", path, entry->d_name, file);
            FILE *f = fopen(name, "r");
            if (f == NULL || fgets(content, sizeof content, f) == NULL) {
                content[0] = '\0'; /* it is gone */
            }
            if (f != NULL) {
                fclose(f);
            }
            content[strcspn(content, "\n")] = '\0';
        }
        fprintf(out, "%s%s", comma, quote(content).text);
        comma = ", ";
    }
    closedir(directory);
}

static void look(void) {
    char *text = NULL, line[256];
    size_t size = 0;
    FILE *out = open_memstream(&text, &size), *status = fopen("/proc/thread-self/status", "r");
    fprintf(out, "\"event\": \"look\", \"signals\": {");
    const char *comma = "";
    while (fgets(line, sizeof line, status) != NULL) {
        char name[32], value[32];
        if (sscanf(line, "Sig%30[A-Za-z]: %30s", name, value) == 2 && strstr("Blk Ign Cgt", name) != NULL) {
            fprintf(out, "%s\"%s\": \"%s\"", comma, name, value);
            comma = ", ";
        }
    }
    fclose(status);
    fprintf(out, "}, \"fds\": [");
    list("/proc/self/fd", NULL, out);
    fprintf(out, "], \"threads\": [");
    list("/proc/self/task", "comm", out);
    fprintf(out, "]");
    fclose(out);
    say("%s", text);
    free(text);
}

static const char *const state_names[] = {"created", "running", "stopping", "stopped"};

static void obey_line(const char *line) {
    char word[32] = "";
    int number = 0;
    sscanf(line, "%31s %d", word, &number);
    struct member *m = &members[number < MEMBERS_MAX ? number : 0];
    if (strcmp(word, "stop") == 0) {
        harvest_stop(m->h);
    } else if (strcmp(word, "hurry") == 0) {
        harvest_hurry(m->h);
    } else if (strcmp(word, "done") == 0) {
        harvest_done(m->h);
    } else if (strcmp(word, "state") == 0) {
        say("\"h\": %d, \"event\": \"state\", \"state\": \"%s\"", number, state_names[harvest_state(m->h)]);
    } else if (strcmp(word, "ask") == 0) {
        ask(m);
    } else if (strcmp(word, "blocked") == 0) {
        ask_blocked(m);
    } else if (strcmp(word, "count") == 0) {
        say("\"event\": \"count\", \"rounds\": %lu", rounds);
    } else if (strcmp(word, "look") == 0) {
        look();
    } else if (strcmp(word, "sleep") == 0) {
        usleep((useconds_t)number * 1000);
    } else {
        say("\"event\": \"no-such-command\", \"line\": %s", quote(line).text);
    }
}

static void *obey_elsewhere(void *line) {
    obey_line(line);
    return NULL;
}

bool obey(void) {
    static char text[4096];
    static size_t length;
    ssize_t got = read(command_fd, text + length, sizeof text - 1 - length);
    if (got <= 0) {
        return false;
    }
    length += (size_t)got;
    text[length] = '\0';
    char *end;
    while ((end = strchr(text, '\n')) != NULL) {
        *end = '\0';
        pthread_t thread;
        if (text[0] != '@') {
            obey_line(text);
        } else if (pthread_create(&thread, NULL, obey_elsewhere, text + 1) == 0) {
            pthread_join(thread, NULL);
        }
        length -= (size_t)(end + 1 - text);
        memmove(text, end + 1, length + 1);
    }
    return true;
}

/* ---- members ---- */

void start(struct member *m, void *uv_loop) {
    struct harvest_error err;
    m->driver = pthread_self();
    if (harvest_start(m->h, uv_loop, &err) != 0) {
        say("\"h\": %d, \"event\": \"refused\", \"error\": %s", m->index, quote(err.text).text);
        exit(3);
    }
    say("\"h\": %d, \"event\": \"started\"", m->index);
}

void end(struct member *m, int status) {
    say("\"h\": %d, \"event\": \"stopped\", \"status\": %d, \"error\": %s, \"state\": \"%s\"", m->index, status,
        quote(harvest_error(m->h)).text, state_names[harvest_state(m->h)]);
    harvest_free(m->h);
    m->freed = true;
    m->stopped = true;
}

static void use_word(struct member *m, char *word) {
    struct harvest_error err;
    char *dot = strchr(word, '.'), *equals = strchr(word, '=');
    if (strcmp(word, "thread") == 0) {
        m->own_thread = true;
    } else if (strcmp(word, "later") == 0) {
        m->later = true;
    } else if (strcmp(word, "reenter") == 0) {
        m->reenter = true;
    } else if (strncmp(word, "stop-on=", 8) == 0) {
        m->stop_on = equals + 1;
    } else if (strncmp(word, "file=", 5) == 0) {
        if (harvest_load(m->h, equals + 1, &err) != 0) {
            say("\"event\": \"refused\", \"error\": %s", quote(err.text).text);
            exit(3);
        }
    } else {
        *equals = '\0';
        if (strncmp(word, "kafka.producer.", 15) == 0 || strncmp(word, "kafka.consumer.", 15) == 0) {
            dot = word + 14;
        }
        *dot = '\0';
        if (harvest_set(m->h, word, dot + 1, equals + 1, &err) != 0) {
            say("\"event\": \"refused\", \"error\": %s", quote(err.text).text);
            exit(3);
        }
    }
}

static void make_members(char **words) {
    struct member *m = NULL;
    for (; *words != NULL; words++) {
        if (m == NULL || strcmp(*words, "+") == 0) {
            m = &members[member_count];
            *m = (struct member){.h = harvest_new(), .index = member_count};
            member_count++;
            harvest_on_event(m->h, on_event, m);
            harvest_on_log(m->h, on_log, m);
        }
        if (strcmp(*words, "+") != 0) {
            use_word(m, *words);
        }
    }
}

static void stop_all(int number) {
    (void)number;
    for (int i = 0; i < member_count; i++) {
        if (!members[i].stopped) {
            harvest_stop(members[i].h);
        }
    }
}

static void work(uv_work_t *request) {
    (void)request;
}

/* What libuv and GLib keep for the rest of the process (a thread pool, descriptors) is there before anything is compared. */
static void warm_up(void) {
    uv_loop_t loop;
    uv_work_t requests[4];
    g_main_context_default();
    uv_loop_init(&loop);
    for (int i = 0; i < 4; i++) {
        uv_queue_work(&loop, &requests[i], work, NULL);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
}

int main(int argc, char **argv) {
    const char *fds = getenv("HOST_FDS");
    if (argc < 3 || fds == NULL || sscanf(fds, "%d,%d", &told_fd, &command_fd) != 2) {
        return 2;
    }
    warm_up();
    struct sigaction action = {.sa_handler = stop_all};
    sigaction(SIGUSR1, &action, NULL);
    look();
    make_members(argv + 2);
    if (drive(argv[1]) != 0) {
        return 2;
    }
    say("\"event\": \"over\"");
    fcntl(command_fd, F_SETFL, 0); /* libuv made it nonblocking */
    while (obey()) { /* how it looks now */
    }
    return 0;
}
