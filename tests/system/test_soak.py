"""Everything at once, at random, for minutes: two instances under load while servers, connections and the daemons themselves are hurt.

HV_SOAK_SECONDS  how long (default 300)        HV_SEED  repeats the choice of what happens (not its exact timing)"""
import os
import signal
import time

import pytest

from bed.kafka import fresh_name
from bed.util import TimedOut, wait_until

SECONDS = int(os.environ.get("HV_SOAK_SECONDS") or 300)


class Soak:
    def __init__(self, bed):
        self.bed = bed
        self.server, self.broker = bed.own_postgres(), bed.own_kafka()
        self.database = bed.database(server=self.server)
        self.topics = [bed.topic(self.broker), bed.topic(self.broker)]
        self.collector = bed.collector(self.topics, self.broker)
        self.app = bed.application(self.database, self.topics, keys=40, writers=3, pause=0.03, hold=0.3)
        self.proxies = [bed.proxy(self.server.port, postgres=True) for _ in range(2)]
        group = fresh_name("group")
        self.daemons = [bed.harvestd(
            data_source=self.database.data_source(port=p.port), kafka=self.broker, group=group, label="instance-%d" % n,
            limits={"heartbeat_timeout": "2s", "statement_timeout": "3s", "io_error_backoff": "100ms", "queue_timeout": "10s"})
            for n, p in enumerate(self.proxies)]

    # what may happen; each leaves everything running

    def daemon_killed(self):
        d = self.bed.random.choice(self.daemons)
        d.kill()
        d.start()

    def daemon_stopped(self):
        d = self.bed.random.choice(self.daemons)
        d.terminate()
        assert d.wait_exit(40) == 0, d.tail()
        d.start()

    def daemon_paused(self):
        d = self.bed.random.choice(self.daemons)
        d.pause()
        time.sleep(self.bed.random.choice([0.5, 3, 8]))
        d.resume()

    def postgres_restarted(self):
        self.server.restart(self.bed.random.choice(["fast", "immediate"]))

    def postgres_frozen(self):
        self.server.freeze()
        time.sleep(self.bed.random.choice([0.5, 5]))
        self.server.thaw()

    def backends_terminated(self):
        self.database.execute("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = %s AND pid <> pg_backend_pid() AND client_addr IS NOT NULL""", [self.database.name])

    def broker_restarted(self):
        self.broker.stop(self.bed.random.choice([signal.SIGTERM, signal.SIGKILL]))
        self.broker.start()

    def broker_frozen(self):
        self.broker.freeze()
        time.sleep(self.bed.random.choice([0.5, 3, 10]))
        self.broker.thaw()

    def connection_cut(self):
        try:
            self.bed.random.choice(self.proxies).cut(self.bed.random.choice(["mark", "purge"]), deadline=1)
        except TimedOut:
            pass   # that of the standby

    def connections_hang(self):
        proxy = self.bed.random.choice(self.proxies)
        proxy.hang()
        time.sleep(self.bed.random.choice([0.5, 4]))
        proxy.flow()

    def nothing(self):
        before = self.collector.count()
        self.collector.wait_count(before + 100, deadline=60)


WHAT = ["daemon_killed", "daemon_stopped", "daemon_paused", "postgres_restarted", "postgres_frozen", "backends_terminated",
        "broker_restarted", "broker_frozen", "connection_cut", "connection_cut", "connection_cut", "connections_hang", "nothing",
        "nothing"]


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 300)
def test_soak(bed):
    soak = Soak(bed)
    soak.daemons[0].wait_started()
    soak.app.start()
    soak.collector.wait_count(100, deadline=60)
    end = time.monotonic() + SECONDS
    happened = {}
    while time.monotonic() < end:
        what = bed.random.choice(WHAT)
        happened[what] = happened.get(what, 0) + 1
        print("%.1f %s, %d received" % (time.monotonic(), what, soak.collector.count()))
        getattr(soak, what)()
        time.sleep(bed.random.random() * 2)
    wait_until(lambda: any(d.running() for d in soak.daemons), 5, "a daemon to run")
    soak.nothing()
    soak.app.stop(120)
    bed.note(", ".join("%s %d" % item for item in sorted(happened.items())))
    bed.judge(soak.app, soak.collector, deadline=120)
