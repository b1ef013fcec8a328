/* Runs schedules: build/tests/sim [--seed N] [--runs N] [--weather NAME] [--trace] [--no-self-check] Without
 * --seed: first shows that each kind of corruption is seen, then runs many seeds. Exits 1 when anything
 * failed. */
#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

#ifdef __SANITIZE_ADDRESS__
#define RUNS 2000 /* five times slower */
#else
#define RUNS 10000
#endif
#define FAILURES_MAX 5
#define SELF_CHECK_SEEDS 20

static const struct sim *running;
static uint64_t total_turns, total_rows, total_duplicates;

/* A broken invariant of the core ends the program: the seed must be known then. */
static void on_abort(int number) {
    char text[160];
    int length = snprintf(text, sizeof text, "aborted: seed %llu weather '%s' at %lld us\n",
                          (unsigned long long)running->options.seed, running->weather.name,
                          (long long)running->now);
    ssize_t ignored = write(STDOUT_FILENO, text, (size_t)length);
    (void)ignored;
    signal(number, SIG_DFL);
    raise(number);
}

static bool run(struct sim *sim, const struct sim_options *options) {
    running = sim;
    sim_run(sim, options);
    bool passed = !sim->failed;
    if (!passed && options->corruption == SIM_HONEST) {
        printf("seed %llu failed (weather '%s'): %s\n", (unsigned long long)options->seed, sim->weather.name,
               sim->failure);
    }
    if (options->trace) {
        printf("committed %llu appended %llu duplicates %llu turns %llu marks %llu purges %llu removed %llu fetches %llu "
               "rewinds %llu refreshes %llu blocked %llu acquired %llu fenced %llu kills %llu stops %llu "
               "late %llu\n",
               (unsigned long long)sim->count.committed, (unsigned long long)sim->count.appended,
               (unsigned long long)sim->count.duplicates, (unsigned long long)sim->count.turns,
               (unsigned long long)sim->count.marks, (unsigned long long)sim->count.purges,
               (unsigned long long)sim->count.removed, (unsigned long long)sim->count.fetches, (unsigned long long)sim->count.rewinds,
               (unsigned long long)sim->count.refreshes, (unsigned long long)sim->count.blocked,
               (unsigned long long)sim->count.acquired, (unsigned long long)sim->count.fenced,
               (unsigned long long)sim->count.kills, (unsigned long long)sim->count.stops,
               (unsigned long long)sim->count.late);
    }
    total_turns += sim->count.turns;
    total_rows += sim->count.appended;
    total_duplicates += sim->count.duplicates;
    sim_free(sim);
    return passed;
}

/* Each corruption must be seen in every run in which it came to pass. Returns how many were not. */
static int self_check(struct sim *sim) {
    static const char *const names[] = {"", "an append is dropped", "two appends change places",
                                        "a row is lost",
                                        "a rolled-back record appears", "a record appears twice"};
    int unseen = 0;
    for (int kind = SIM_HONEST + 1; kind < SIM_CORRUPTIONS; kind++) {
        int done = 0, seen = 0;
        for (uint64_t seed = 1; seed <= SELF_CHECK_SEEDS; seed++) {
            const struct sim_options options = {.seed = seed, .weather = "calm",
                                                .corruption = (enum sim_corruption)kind};
            bool passed = run(sim, &options);
            bool came_to_pass = sim->corrupted && (kind != SIM_SWAP_APPENDS || sim->held_back == 0 ||
                                                   sim->failed);
            done += came_to_pass;
            seen += came_to_pass && !passed;
        }
        printf("self-check: %s: seen in %d of %d runs\n", names[kind], seen, done);
        unseen += done == 0 || seen < done;
    }
    return unseen;
}

static int usage(void) {
    fprintf(stderr, "usage: sim [--seed N] [--runs N] [--weather NAME] [--trace] [--no-self-check]\n");
    return 2;
}

int main(int argc, char **argv) {
    struct sim_options options = {.seed = 1};
    uint64_t runs = 0, passed = 0, failed = 0;
    bool seeded = false, check = true;
    for (int i = 1; i < argc; i++) {
        bool value = i + 1 < argc;
        if (strcmp(argv[i], "--seed") == 0 && value) {
            options.seed = strtoull(argv[++i], NULL, 0);
            seeded = true;
        } else if (strcmp(argv[i], "--runs") == 0 && value) {
            runs = strtoull(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "--weather") == 0 && value) {
            options.weather = argv[++i];
        } else if (strcmp(argv[i], "--trace") == 0) {
            options.trace = true;
        } else if (strcmp(argv[i], "--no-self-check") == 0) {
            check = false;
        } else {
            return usage();
        }
    }
    signal(SIGABRT, on_abort);
    struct sim *sim = hv_calloc(1, sizeof *sim);
    failed += check && !seeded ? (uint64_t)self_check(sim) : 0;
    total_turns = total_rows = total_duplicates = 0;
    runs = runs > 0 ? runs : seeded ? 1 : RUNS;
    uint64_t broken = 0;
    for (; runs > 0 && broken < FAILURES_MAX; runs--, options.seed++) {
        bool fine = run(sim, &options);
        passed += fine;
        broken += !fine;
    }
    failed += broken;
    free(sim);
    printf("%llu turns, %llu records, %llu appended again\n", (unsigned long long)total_turns,
           (unsigned long long)total_rows,
           (unsigned long long)total_duplicates);
    printf("%llu passed, %llu failed\n", (unsigned long long)passed, (unsigned long long)failed);
    return failed > 0;
}
