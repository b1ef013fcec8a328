/* A program that embeds harvests, for tests/system/test_embedding.py. It sees nothing of libharvest but its public header.
 *
 *     embed_host uv|poll|glib|thread MEMBER [+ MEMBER]...
 *
 * How it is driven: on a libuv loop of the host's beside other handles, from plain poll(2), from GLib's main loop, or each harvest blocks in
 * a thread of its own. A MEMBER is a list of words: SECTION.NAME=VALUE sets something, file=PATH loads an INI file, thread: it has a
 * thread of its own whatever drives the others, later: answers HARVEST_LATER, reenter: its handlers call whatever they may,
 * stop-on=EVENT: is stopped by its own handler then.
 *
 * $HOST_FDS names two descriptors: what happens is told on the first as JSON lines, commands are read from the second, a line each (host.c). Standard input,
 * output and error are not used, so that a test can see that the library does not either. */
#ifndef TESTS_EMBED_HOST_H
#define TESTS_EMBED_HOST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "harvest.h"

enum { MEMBERS_MAX = 8 };

struct member {
    struct harvest *h;
    int index;
    bool own_thread, later, reenter;
    const char *stop_on;
    pthread_t thread, driver; /* driver: who may call its handlers */
    atomic_bool stopped;      /* seen by the driver */
    bool freed;
};

extern struct member members[MEMBERS_MAX];
extern int member_count, told_fd, command_fd;
extern unsigned long rounds; /* of the host's loop */

/* Tells one line, of JSON's members; any thread. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads what there is of commands and obeys. Returns false at their end. */
bool obey(void);

/* drive.c: drives the members from the start until all have stopped, in the way named. Returns 0, or -1 when there is no such way. */
int drive(const char *way);
/* ... that runs in a thread of its own. */
void *drive_thread(void *member);
void start(struct member *member, void *uv_loop);
/* Tells how it ended and frees it. */
void end(struct member *member, int status);

#endif
