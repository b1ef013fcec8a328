/* See kafka_gate.h. Sockets are opened and closed by librdkafka's threads, one at a time by each, and cut by theirs or by the loop's. For
 * the loop's the lock makes sure that a number still is that socket; it is held for system calls only that do not wait. A
 * thread's own socket can be cut by its signal handler without a lock: nobody else closes it. */
#include "io/kafka_gate.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "io/kafka_queue.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid /* glibc of Debian 12 has no name for it */
#endif

struct connection {
    int fd;
    bool timed;
    timer_t timer; /* interrupts the thread that opened it when the lease is over */
};

struct hv_gate {
    pthread_mutex_t lock;
    struct connection *list;
    size_t count, capacity;
    _Atomic hv_time lease;
    atomic_uint_fast32_t given; /* records that the client has */
    bool shut;
    rd_kafka_t *client; /* that is being destroyed */
};

static int signal_number; /* 0: none */

/* Of a thread of librdkafka's: what its signal handler may cut. */
static _Thread_local struct hv_gate *volatile own_gate;
static _Thread_local volatile int own_fd;

static bool must_be_quiet(const struct hv_gate *gate) {
    return gate->given > 0 && hv_gate_is_over(gate);
}

/* Unlike shutdown() this drops what the kernel holds as well. The descriptor stays librdkafka's, which finds out and closes it. */
static void disconnect(int fd) {
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    connect(fd, &nowhere, sizeof nowhere);
}

/* ---- on librdkafka's threads ---- */

static void on_signal(int number) {
    int saved = errno;
    (void)number;
    if (own_gate != NULL && must_be_quiet(own_gate)) {
        disconnect(own_fd);
    }
    errno = saved;
}

/* Closing, too, drops what was not sent: after a time-out librdkafka repeats it on another connection, and nobody knows when the kernel
 * would get it through. */
static void drop_when_closed(int fd) {
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

/* From now to the end of the lease; one that is over already fires at once. */
static void set_timer(const struct connection *connection, hv_time until) {
    struct itimerspec when = {.it_value = {0}};
    if (until != HV_NEVER) {
        when.it_value.tv_sec = until > 0 ? until / 1000000 : 0;
        when.it_value.tv_nsec = until > 0 ? until % 1000000 * 1000 : 1;
    }
    timer_settime(connection->timer, TIMER_ABSTIME, &when, NULL);
}

static void arm(struct hv_gate *gate, struct connection *connection) {
    sigset_t set;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = signal_number};
    if (signal_number == 0) {
        return;
    }
    event.sigev_notify_thread_id = gettid();
    connection->timed = timer_create(CLOCK_BOOTTIME, &event, &connection->timer) == 0;
    if (!connection->timed) {
        return;
    }
    own_fd = connection->fd; /* first: the signal of an earlier timer may still come */
    own_gate = gate;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    set_timer(connection, gate->lease);
}

static int on_socket(int domain, int type, int protocol, void *opaque) {
    struct hv_gate *gate = opaque;
    int fd = -1;
    pthread_mutex_lock(&gate->lock);
    if (gate->shut || must_be_quiet(gate)) {
        errno = ENETDOWN;
    } else {
        fd = socket(domain, type | SOCK_CLOEXEC, protocol);
    }
    if (fd >= 0) {
        drop_when_closed(fd);
        if (gate->count == gate->capacity) {
            gate->capacity = gate->capacity == 0 ? 8 : gate->capacity * 2;
            gate->list = hv_realloc(gate->list, gate->capacity, sizeof *gate->list);
        }
        struct connection *connection = &gate->list[gate->count++];
        *connection = (struct connection){.fd = fd};
        arm(gate, connection);
    }
    pthread_mutex_unlock(&gate->lock);
    return fd;
}

static int on_close(int fd, void *opaque) {
    struct hv_gate *gate = opaque;
    pthread_mutex_lock(&gate->lock);
    if (own_gate == gate && own_fd == fd) {
        own_gate = NULL;
    }
    for (size_t i = 0; i < gate->count; i++) {
        if (gate->list[i].fd == fd) {
            if (gate->list[i].timed) {
                timer_delete(gate->list[i].timer);
            }
            gate->list[i] = gate->list[--gate->count];
            break;
        }
    }
    int result = close(fd);
    pthread_mutex_unlock(&gate->lock);
    return result;
}

/* ---- on the loop's ---- */

void hv_gate_use_signal(int number) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigset_t set;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal_number = number;
}

struct hv_gate *hv_gate_new(rd_kafka_conf_t *conf) {
    struct hv_gate *gate = calloc(1, sizeof *gate);
    if (gate == NULL) {
        return NULL;
    }
    pthread_mutex_init(&gate->lock, NULL);
    gate->lease = HV_NEVER;
    rd_kafka_conf_set_opaque(conf, gate);
    rd_kafka_conf_set_socket_cb(conf, on_socket);
    rd_kafka_conf_set_closesocket_cb(conf, on_close);
    return gate;
}

bool hv_gate_is_over(const struct hv_gate *gate) {
    hv_time lease = gate->lease;
    return lease != HV_NEVER && hv_loop_waking_clock() >= lease;
}

void hv_gate_give(struct hv_gate *gate) {
    gate->given++;
}

void hv_gate_take(struct hv_gate *gate) {
    assert(gate->given > 0);
    gate->given--;
}

void hv_gate_lease(struct hv_gate *gate, hv_time until) {
    if (gate->lease == until) {
        return;
    }
    pthread_mutex_lock(&gate->lock);
    gate->lease = until;
    for (size_t i = 0; i < gate->count; i++) {
        if (gate->list[i].timed) {
            set_timer(&gate->list[i], until);
        }
    }
    pthread_mutex_unlock(&gate->lock);
}

static void cut(struct hv_gate *gate) {
    for (size_t i = 0; i < gate->count; i++) {
        disconnect(gate->list[i].fd);
    }
}

bool hv_gate_check(struct hv_gate *gate) {
    if (!hv_gate_is_over(gate)) {
        return false;
    }
    if (gate->given > 0) {
        pthread_mutex_lock(&gate->lock);
        cut(gate);
        pthread_mutex_unlock(&gate->lock);
    }
    return true;
}

void hv_gate_shut(struct hv_gate *gate) {
    pthread_mutex_lock(&gate->lock);
    gate->shut = true;
    cut(gate);
    pthread_mutex_unlock(&gate->lock);
}

void hv_gate_free(struct hv_gate *gate) {
    if (gate == NULL) {
        return;
    }
    pthread_mutex_destroy(&gate->lock);
    free(gate->list);
    free(gate);
}

static void destroy(void *arg) {
    struct hv_gate *gate = arg;
    rd_kafka_destroy(gate->client);
    assert(gate->count == 0);
    hv_gate_free(gate);
}

void hv_gate_destroy_client(struct hv_loop *loop, struct hv_gate *gate, rd_kafka_t *client) {
    gate->client = client;
    if (hv_loop_offload(loop, destroy, NULL, gate) != 0) {
        destroy(gate);
    }
}
