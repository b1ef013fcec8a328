/* What the process keeps in memory beyond what it needs. Of the daemon alone: an application that embeds the library decides for itself. */
#ifndef HV_APP_FOOTPRINT_H
#define HV_APP_FOOTPRINT_H

/* How malloc keeps what is freed. Before there are other threads. */
void hv_footprint_set_up(void);

/* Gives back what only the start needed. May be called at any time, and again. */
void hv_footprint_start_is_over(void);

/* Gives back what was freed since. Takes about a millisecond for what the default limits let pile up. */
void hv_footprint_work_is_over(void);

#endif
