"""The machine sleeps while an instance leads: the lease has run out when it wakes, though the monotonic clock stood still."""
import subprocess

# Sleep as the daemon sees it: CLOCK_BOOTTIME goes on, CLOCK_MONOTONIC does not.
SLEEPER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) {
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int result = real(id, t);
    if (id == CLOCK_BOOTTIME && access(getenv("SLEPT"), F_OK) == 0) {
        t->tv_sec += 3600;
    }
    return result;
}
"""


def test_lease_runs_out_while_the_machine_sleeps(bed, tmp_path, monkeypatch):
    source, library, slept = tmp_path / "sleeper.c", tmp_path / "sleeper.so", tmp_path / "slept"
    source.write_text(SLEEPER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    database, topic = bed.database(), bed.topic()
    app, collector = bed.application(database, [topic]), bed.collector(topic)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("SLEPT", str(slept))
    monkeypatch.setenv("ASAN_OPTIONS", "verify_asan_link_order=0")
    daemon = bed.harvestd(database)
    monkeypatch.delenv("LD_PRELOAD")
    daemon.wait_leading()
    app.start()
    collector.wait_count(100)
    since = daemon.position()
    slept.write_text("")
    daemon.wait_log("leader", "fenced", since=since)
    daemon.wait_leading(since=since)   # nobody else took over: it leads again, under a new id
    collector.wait_count(collector.count() + 100)
    app.stop()
    bed.judge(app, collector)
    daemon.stop()
