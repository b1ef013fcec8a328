"""Fixtures. One Postgres and one Kafka serve all tests that do not hurt them, with a fresh database and fresh topics each;
a test that stops or freezes a server takes its own: bed.own_postgres(), bed.own_kafka().

HARVESTD  the daemon to test (default build/harvestd), a wrapper may stand in front
HV_SEED   repeats a random test        HV_LOG  log level of the daemons (default info)
HV_CLAIM  how they claim (default: their own)"""
import contextlib
import os
import pathlib
import random
import signal
import tempfile

import pytest

from bed.checker import check, record
from bed.consumer import Collector
from bed.daemon import Harvestd
from bed.embed import PROGRAM, Host, words
from bed.kafka import Kafka, fresh_name
from bed.pgbouncer import PgBouncer
from bed.postgres import TABLE, Postgres
from bed.proxy import Proxy
from bed.util import wait_until
from bed.writer import Application, Maker, insert


def pytest_configure(config):
    # Ended politely from outside (a time limit of CI): the fixtures clean up as after Ctrl-C.
    def interrupt(_signum, _frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(params=["cursor", "mark"])
def each_strategy(request, monkeypatch):
    """For tests that are run with both ways of claiming."""
    monkeypatch.setenv("HV_CLAIM", request.param)
    return request.param


@pytest.fixture
def by_mark(monkeypatch):
    """For tests that look at marks."""
    monkeypatch.setenv("HV_CLAIM", "mark")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    bed = getattr(item, "bed", None)
    if bed and report.failed:
        for title, text in bed.evidence():
            report.sections.append((title, text))


def pytest_terminal_summary(terminalreporter):
    """What was measured is shown, also when all is well."""
    notes = [(r.nodeid, text) for reports in terminalreporter.stats.values() for r in reports
             if getattr(r, "when", None) == "call" for name, text in r.user_properties if name == "note"]
    if notes:
        terminalreporter.section("measured")
        for nodeid, text in notes:
            terminalreporter.write_line("%s: %s" % (nodeid.rpartition("/")[2], text))


@pytest.fixture(scope="session")
def session_postgres():
    server = Postgres()
    try:
        yield server.create().start()
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def session_kafka():
    broker = Kafka()
    try:
        yield broker.create().start()
    finally:
        broker.destroy()


@pytest.fixture
def tmp_path():
    """pytest's own leaves its directories behind."""
    with tempfile.TemporaryDirectory(prefix="harvestd-test-") as path:
        yield pathlib.Path(path)


@pytest.fixture
def bed(request):
    with contextlib.ExitStack() as stack:
        request.node.bed = Bed(request, stack)
        yield request.node.bed
        request.node.bed.assert_quiet()


class Bed:
    """What a test asks for; everything it gave is taken back at the end of the test."""

    def __init__(self, request, stack):
        self.request, self.stack = request, stack
        self.seed = int(os.environ.get("HV_SEED") or random.SystemRandom().randrange(1 << 32))
        self.random = random.Random(self.seed)
        self.daemons, self.servers, self.databases = [], [], []
        print("seed: HV_SEED=%d" % self.seed)

    def note(self, text):
        """Something measured, to be shown at the end of the run."""
        print(text)
        self.request.node.user_properties.append(("note", text))

    # -- servers ------------------------------------------------------------------------------------------------------

    @property
    def postgres(self):
        return self.request.getfixturevalue("session_postgres")

    @property
    def kafka(self):
        return self.request.getfixturevalue("session_kafka")

    def own_postgres(self, start=True, **settings):
        server = Postgres(**settings)
        self.stack.callback(server.destroy)
        self.servers.append(("Postgres", server))
        server.create()
        return server.start() if start else server

    def own_kafka(self, start=True, proxied=None, **settings):
        broker = Kafka(proxied=proxied, **settings)
        self.stack.callback(broker.destroy)
        self.servers.append(("Kafka", broker))
        broker.create()
        return broker.start() if start else broker

    def pgbouncer(self, pool_mode="transaction", server=None, start=True, **options):
        pooler = PgBouncer(server or self.postgres, pool_mode, **options)
        self.stack.callback(pooler.destroy)
        self.servers.append(("PgBouncer", pooler))
        pooler.configure()
        return pooler.start() if start else pooler

    def database(self, table=TABLE, server=None):
        database = (server or self.postgres).database(table)
        self.databases.append(database)
        if server is None:
            self.stack.callback(database.drop)
        return database

    def topic(self, kafka=None, partitions=4, **config):
        return (kafka or self.kafka).create_topic(fresh_name(), partitions, **config)

    def proxy(self, upstream_port, postgres=False):
        proxy = Proxy(upstream_port, seed=self.random.random(), postgres=postgres)
        self.stack.callback(proxy.close)
        return proxy

    # -- the daemon ---------------------------------------------------------------------------------------------------

    def settings(self, database=None, kafka=None, group=None, data_source=None, servers=None, **sections):
        """The sections of an INI. Keyword arguments are sections: limits={...}, kafka_producer={...}."""
        found = {
            "harvest": {
                "data_source": data_source or database.data_source(),
                "leader_group_id": group or fresh_name("group"),
            },
            "limits": {},
            "kafka": {"bootstrap.servers": servers or (kafka or self.kafka).servers},
            "kafka.producer": {},
            "kafka.consumer": {},
            "log": {"level": os.environ.get("HV_LOG", "info")},
        }
        if "HV_CLAIM" in os.environ:
            found["harvest"]["claim"] = os.environ["HV_CLAIM"]
        for section, values in sections.items():
            found[section.replace("_", ".")].update(values)
        return found

    def harvestd(self, database=None, kafka=None, start=True, label=None, environment=None, program=None, **options):
        """A daemon; options as in settings(). environment, program: as in Harvestd."""
        daemon = Harvestd(self.settings(database, kafka, **options),
                          label or "harvestd-%d" % (len(self.daemons) + 1), environment, program)
        self.stack.callback(daemon.destroy)
        self.daemons.append(daemon)
        return daemon.start() if start else daemon

    # -- a program that embeds harvests -----------------------------------------------------------------------------------

    def member(self, *extra, **options):
        """The words for one harvest of a host; options as in settings()."""
        return words(self.settings(**options)) + list(extra)

    def host(self, way, *members, label=None, program=PROGRAM, environment=None):
        host = Host(way, members, label or "host-%d" % (len(self.daemons) + 1), program, environment)
        self.stack.callback(host.destroy)
        self.daemons.append(host)
        return host

    # -- applications and consumers -----------------------------------------------------------------------------------

    def application(self, database, topics, keys=20, make=None, **options):
        """Writers, not started yet. make: options of Maker."""
        names = keys if isinstance(keys, list) else ["key-%d" % n for n in range(keys)]
        app = Application(database, Maker(topics, names, **(make or {})), self.seed, **options)
        self.stack.callback(app.stopping.set)
        return app

    def collector(self, topics, kafka=None):
        collector = Collector((kafka or self.kafka).servers, [topics] if isinstance(topics, str) else topics)
        self.stack.callback(collector.close)
        return collector.refresh()

    def wait_empty(self, database, deadline=60, table="outbox"):
        wait_until(lambda: database.count(table=table) == 0, deadline,
                   lambda: "the outbox to be empty; left: %d rows, first %s" % (
                       database.count(table=table), _oldest(database, table)), every=0.1)

    def judge(self, app, collector, deadline=60, duplicates=None):
        """Waits until the outbox is empty, reads everything, compares; prints and returns the report."""
        self.wait_empty(app.database, deadline, app.table)
        report = check(app.truth, collector.read_to_end())
        self.note("%s; rolled back transactions: %d" % (report, app.rolled_back))
        return report.assert_ok(duplicates)

    def write(self, database, topic, key, value, headers=(), truth=None, table="outbox", binary=False):
        """One record in a transaction of its own; its id."""
        r = record(topic, key, value, headers)
        with database.connect() as c:
            row_id = insert(c, [r], table, binary)[0]
        if truth is not None:
            truth.committed([(row_id, r)])
        return row_id

    # -- the end ------------------------------------------------------------------------------------------------------

    def assert_quiet(self):
        """Nothing but log lines may have come out of a daemon: no sanitizer's report, no failed assertion; and none may
        have died of a signal other than those that tests send."""
        for d in self.daemons:
            assert not d.noise, "%s said what is no log line:\n%s" % (d.label, "\n".join(d.noise[:100]))
            code = d.process.poll() if d.process else None
            assert code is None or code >= 0 or -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT), (
                "%s died of signal %d" % (d.label, -code))

    def evidence(self):
        yield "seed", "HV_SEED=%d" % self.seed
        for d in self.daemons:
            yield "log of %s" % d.label, d.tail(60)
        for database in self.databases:
            with contextlib.suppress(Exception):
                yield "outbox of " + database.name, "%d rows, first %s" % (database.count(), _oldest(database, "outbox"))
        for name, server in self.servers:
            yield "log of " + name, server.log_tail()


def _oldest(database, table):
    return database.execute("SELECT id, kafka_topic, kafka_key, leader_id FROM %s ORDER BY id LIMIT 3" % table)
