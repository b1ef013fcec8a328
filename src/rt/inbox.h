/* What library callbacks took down since the last turn: events in order, with the memory that they lend. */
#ifndef HV_RT_INBOX_H
#define HV_RT_INBOX_H

#include "core/event.h"

struct hv_inbox_entry {
    struct hv_event event;
    void *owned; /* freed after the event was fed; may be NULL */
};

struct hv_inbox {
    struct hv_inbox_entry *list;
    size_t count, capacity;
};

/* Appends. `owned` (from malloc, may be NULL) passes to the inbox. */
void hv_inbox_put(struct hv_inbox *inbox, struct hv_event event, void *owned);
/* A copy of `count` elements of `size` bytes, for use as `owned`; never NULL. */
void *hv_inbox_copy(const void *elements, size_t count, size_t size);
/* Empties it and keeps its room. */
void hv_inbox_clear(struct hv_inbox *inbox);
/* Frees what is left, payloads of claimed rows not included. */
void hv_inbox_free(struct hv_inbox *inbox);

#endif
