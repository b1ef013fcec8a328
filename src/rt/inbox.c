/* See inbox.h. */
#include "rt/inbox.h"

#include <string.h>

#include "base/memory.h"

void hv_inbox_put(struct hv_inbox *inbox, struct hv_event event, void *owned) {
    if (inbox->count == inbox->capacity) {
        inbox->capacity = inbox->capacity == 0 ? 64 : inbox->capacity * 2;
        inbox->list = hv_realloc(inbox->list, inbox->capacity, sizeof *inbox->list);
    }
    inbox->list[inbox->count++] = (struct hv_inbox_entry){.event = event, .owned = owned};
}

void *hv_inbox_copy(const void *elements, size_t count, size_t size) {
    void *copy = hv_realloc(NULL, count > 0 ? count : 1, size);
    if (count > 0) {
        memcpy(copy, elements, count * size);
    }
    return copy;
}

void hv_inbox_clear(struct hv_inbox *inbox) {
    for (size_t i = 0; i < inbox->count; i++) {
        free(inbox->list[i].owned);
    }
    inbox->count = 0;
}

void hv_inbox_free(struct hv_inbox *inbox) {
    hv_inbox_clear(inbox);
    free(inbox->list);
    *inbox = (struct hv_inbox){0};
}
