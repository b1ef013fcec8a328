/* See bench.h. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void bench_die(const char *what, const char *why) {
    fprintf(stderr, "bench: %s: %s\n", what, why);
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Not getrusage's: that one remembers the peak of whoever started us. */
static long peak_kb(void) {
    char line[200];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && kb == 0 && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kb = strtol(line + 6, NULL, 10);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return kb;
}

void bench_start(struct bench_clock *clock) {
    clock->start = now(CLOCK_MONOTONIC);
    clock->cpu = now(CLOCK_PROCESS_CPUTIME_ID);
}

void bench_end(const struct bench_clock *clock, long records) {
    double seconds = now(CLOCK_MONOTONIC) - clock->start;
    double cpu = now(CLOCK_PROCESS_CPUTIME_ID) - clock->cpu;
    printf("records=%ld seconds=%.4f cpu_us=%.3f rss_kb=%ld\n", records, seconds,
           records > 0 ? cpu * 1e6 / (double)records : 0, peak_kb());
}
