"""How fast the daemon empties a table that was filled before: from when it begins to lead until the last row is deleted."""
import time

from . import Wrong, cpu, daemon
from .quota import Unlimited
from .topic import Topic

DEADLINE = 600


def _wait_empty(harvestd, database):
    end = time.monotonic() + DEADLINE
    with database.connect() as c:
        # The end of the index: cheap as long as the newest rows are there.
        while c.execute("SELECT id FROM outbox ORDER BY id DESC LIMIT 1").fetchone():
            if not harvestd.running():
                raise Wrong("harvestd ended with %d\n%s" % (harvestd.process.returncode, harvestd.tail()))
            if time.monotonic() > end:
                raise Wrong("the drain takes too long\n" + harvestd.tail())
            time.sleep(0.01)
    return time.monotonic()


def _measure(servers, database, harvestd, count, while_draining):
    start, used = daemon.wait_leading(harvestd)
    meter = cpu.Meter(servers)
    with while_draining(harvestd):
        end = _wait_empty(harvestd, database)
    used = cpu.seconds(harvestd.pid) - used
    figures = {"records": count, "seconds": end - start, "rate": count / (end - start), "cpu": used * 1e6 / count,
               "memory": cpu.memory_mb(harvestd.pid, "VmHWM"), "memory_anon": cpu.memory_mb(harvestd.pid, "RssAnon"),
               **meter.per_record(count)}
    harvestd.stop(60)
    return figures


class Nothing:
    def __init__(self, harvestd):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def drain(servers, database, records, count, strategy, settings=(), quota=None, while_draining=Nothing, new_table=False):
    """quota: see quota.py, holds from the start of the process. while_draining(daemon): a context around what is measured."""
    topic = servers.new_topic()
    (records.fill_new if new_table else records.fill)(database, topic, count)
    harvestd = daemon.make(servers, database, strategy, settings)
    try:
        with quota or Unlimited() as limit:
            harvestd.start()
            limit.apply(harvestd.pid)
            figures = _measure(servers, database, harvestd, count, while_draining)
        read = Topic(servers.broker, topic)
        try:
            read.check(records, count)
        finally:
            read.close()
    finally:
        harvestd.destroy()
    servers.drop_topic(topic)
    return figures
