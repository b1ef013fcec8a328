/* See kafka_queue.h. librdkafka writes to the descriptor only when the queue turns from empty to non-empty. So a drain goes on until
 * NULL; one that is cut short for fairness arms an idle handle, which keeps the loop from sleeping, and goes on in the next
 * iteration. The descriptor is read before the drain, so that nothing that arrives during it is overlooked. It does not
 * block: librdkafka writes to it from its own threads while it holds the queue's lock. */
#include "io/kafka_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

enum { EVENTS_PER_DRAIN = 256 };

struct hv_queue {
    struct hv_loop *loop;
    rd_kafka_queue_t *handle;
    hv_time poll_duration;
    enum hv_queue_next (*event)(void *user, rd_kafka_event_t *event);
    void (*before)(void *user);
    void *user;
    rd_kafka_event_t *rest; /* an event that was not dealt with completely */
    int fd;
    bool closing;
    bool draining;
    bool kicked; /* one more drain is wanted, whatever this one finds */
    int open_handles;
    uv_poll_t poll;
    uv_idle_t idle; /* active while a drain is due without a wake-up */
};

static void free_when_closed(uv_handle_t *handle) {
    struct hv_queue *queue = handle->data;
    if (--queue->open_handles > 0) {
        return;
    }
    close(queue->fd);
    free(queue);
}

/* Hands on one event; returns whether to go on. */
static bool serve_one(struct hv_queue *queue) {
    rd_kafka_event_t *event = queue->rest != NULL ? queue->rest : rd_kafka_queue_poll(queue->handle, 0);
    queue->rest = NULL;
    if (event == NULL) {
        if (!queue->kicked) {
            uv_idle_stop(&queue->idle);
        }
        return false;
    }
    enum hv_queue_next next = queue->event(queue->user, event);
    if (next == HV_QUEUE_MORE && !queue->closing) {
        queue->rest = event;
        return false;
    }
    if (next != HV_QUEUE_KEPT) {
        rd_kafka_event_destroy(event);
    }
    return !queue->closing;
}

static void on_idle(uv_idle_t *idle);

static void drain(struct hv_queue *queue) {
    assert(!queue->draining);
    queue->draining = true;
    queue->kicked = false;
    hv_time end = hv_loop_clock() + queue->poll_duration;
    /* Armed first: only an empty queue disarms it, however the drain ends otherwise. */
    uv_idle_start(&queue->idle, on_idle);
    if (queue->before != NULL) {
        queue->before(queue->user);
    }
    for (int i = 0; i < EVENTS_PER_DRAIN && !queue->closing && serve_one(queue); i++) {
        if (hv_loop_clock() >= end) {
            break;
        }
    }
    queue->draining = false;
    if (queue->closing) {
        hv_queue_close(queue);
    }
}

static void on_idle(uv_idle_t *idle) {
    drain(idle->data);
}

static void on_wake(uv_poll_t *poll, int status, int events) {
    struct hv_queue *queue = poll->data;
    uint64_t count;
    ssize_t got = read(queue->fd, &count, sizeof count);
    assert(got == (ssize_t)sizeof count || (got < 0 && (errno == EAGAIN || errno == EINTR)));
    (void)got;
    (void)status;
    (void)events;
    drain(queue);
}

static int init_handles(struct hv_queue *queue, uv_loop_t *uv, struct hv_error *err) {
    int result = uv_poll_init(uv, &queue->poll, queue->fd);
    if (result != 0) {
        return hv_error_set(err, "cannot watch a Kafka queue: %s", uv_strerror(result));
    }
    queue->poll.data = queue;
    uv_idle_init(uv, &queue->idle); /* cannot fail, nor can its start */
    queue->idle.data = queue;
    queue->open_handles = 2;
    return 0;
}

int hv_queue_open(struct hv_loop *loop, rd_kafka_queue_t *handle, hv_time poll_duration,
                  enum hv_queue_next (*event)(void *user, rd_kafka_event_t *event), void *user, struct hv_queue **ret,
                  struct hv_error *err) {
    struct hv_queue *queue = calloc(1, sizeof *queue);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (queue == NULL || fd < 0) {
        hv_error_set(err, "cannot watch a Kafka queue: %s", strerror(errno));
        goto failed;
    }
    *queue = (struct hv_queue){
        .loop = loop, .handle = handle, .poll_duration = poll_duration, .event = event, .user = user, .fd = fd};
    if (init_handles(queue, hv_loop_uv(loop), err) != 0) {
        goto failed;
    }
    int result = uv_poll_start(&queue->poll, UV_READABLE, on_wake);
    if (result != 0) {
        hv_queue_close(queue);
        return hv_error_set(err, "cannot watch a Kafka queue: %s", uv_strerror(result));
    }
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(handle, fd, &one, sizeof one);
    hv_queue_kick(queue); /* what is in the queue already wakes nobody */
    *ret = queue;
    return 0;
failed:
    rd_kafka_queue_destroy(handle);
    if (fd >= 0) {
        close(fd);
    }
    free(queue);
    return -1;
}

rd_kafka_queue_t *hv_queue_handle(const struct hv_queue *queue) {
    return queue->handle;
}

void hv_queue_kick(struct hv_queue *queue) {
    if (queue->closing) {
        return;
    }
    queue->kicked = true;
    uv_idle_start(&queue->idle, on_idle);
}

void hv_queue_before_drain(struct hv_queue *queue, void (*call)(void *user)) {
    queue->before = call;
}

void hv_queue_close(struct hv_queue *queue) {
    if (queue == NULL) {
        return;
    }
    queue->closing = true;
    if (queue->draining) {
        return; /* drain() comes back here */
    }
    rd_kafka_queue_io_event_enable(queue->handle, -1, NULL, 0);
    if (queue->rest != NULL) {
        rd_kafka_event_destroy(queue->rest);
    }
    queue->rest = NULL;
    rd_kafka_queue_destroy(queue->handle);
    uv_close((uv_handle_t *)&queue->poll, free_when_closed);
    uv_close((uv_handle_t *)&queue->idle, free_when_closed);
}

static void destroy(void *client) {
    rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

void hv_kafka_destroy(struct hv_loop *loop, rd_kafka_t *client) {
    if (hv_loop_offload(loop, destroy, NULL, client) != 0) {
        destroy(client);
    }
}
