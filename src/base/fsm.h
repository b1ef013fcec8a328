/* State machines as tables: each state has a name and the set of states that may follow it; a move that the table does not
 * allow ends the program. */
#ifndef HV_BASE_FSM_H
#define HV_BASE_FSM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define HV_TO(state) (1u << (state))

struct hv_fsm_state {
    const char *name;
    uint32_t next; /* HV_TO(a) | HV_TO(b)... */
};

/* Returns `to`; aborts, naming the machine and both states, when the table forbids the move. */
static inline unsigned hv_fsm_move(const char *machine, const struct hv_fsm_state *table, unsigned from, unsigned to) {
    if ((table[from].next & HV_TO(to)) == 0) {
        fprintf(stderr, "harvest: broken invariant: %s: %s -> %s\n", machine, table[from].name, table[to].name);
        abort();
    }
    return to;
}

#endif
