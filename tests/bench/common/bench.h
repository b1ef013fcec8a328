/* What the bench's small programs share: ends with a message, clocks, the line of figures that each prints. */
#ifndef BENCH_COMMON_BENCH_H
#define BENCH_COMMON_BENCH_H

/* Prints "what: why" and exits with 1. */
void bench_die(const char *what, const char *why) __attribute__((noreturn));

/* From bench_start to bench_end: time, and the CPU of all threads. bench_end prints records=… seconds=… cpu_us=… rss_kb=…, where
 * cpu_us is of one record and rss_kb the peak. */
struct bench_clock {
    double start, cpu;
};
void bench_start(struct bench_clock *clock);
void bench_end(const struct bench_clock *clock, long records);

#endif
