/* A look at all ids below the cursor, from the highest to the lowest, in pages. There may be a million dead rows among them, which one
 * statement would walk at one go, and the ids reach far below the lowest row: so a page spans more ids the quicker the one before was, and
 * fewer when it was slow, beyond what any statement takes (the way to the server). A look that is late takes large steps whatever they
 * cost: it has to end. While nothing is slow, and few rows have come since, a look is one page. */
#ifndef HV_CORE_LOOK_H
#define HV_CORE_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/time.h"

struct hv_look {
    uint64_t span_min; /* ids of a page, less one */
    uint64_t span;
    bool under_way;
    bool quick;        /* so far no page was slow */
    int64_t from, to;  /* of the page that is out, or of the next: then only `to` is known */
    hv_time asked, late;
    hv_time fastest;   /* page of late */
    uint64_t seen;     /* rows since the last look began */
};

void hv_look_init(struct hv_look *look, uint64_t span_min);

/* Nothing is known any more. */
void hv_look_restart(struct hv_look *look);

/* Rows come in: when they are deleted they may be in the way for long. */
static inline void hv_look_seen(struct hv_look *look, size_t rows) {
    look->seen += rows;
}

/* Begins a look at all ids up to one; to be done by `late`. */
void hv_look_begin(struct hv_look *look, int64_t highest, hv_time late);

/* A page is sent: sets from and to. */
void hv_look_ask(struct hv_look *look, hv_time now);

/* It was answered; `full`: there may be more rows in it, below `last`. */
void hv_look_turn(struct hv_look *look, bool full, int64_t last, hv_time now);

#endif
