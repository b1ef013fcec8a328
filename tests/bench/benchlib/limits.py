"""The small C programs that tell how fast it could be: producer alone, database alone, the raw relay."""
import os
import subprocess

from bed.util import spawn

from . import BUILD, Wrong
from .cpu import Meter
from .topic import Topic

BATCH = 1000       # rows a statement, as the daemon's mark_query_records
IN_FLIGHT = 5000   # records, as the daemon's max_in_flight_records


def _program(servers, count, name, *arguments):
    """Runs one; what it printed, as figures."""
    meter = Meter(servers)
    with spawn([os.path.join(BUILD, "bench", name), *map(str, arguments)], stdout=subprocess.PIPE) as process:
        out = process.stdout.read().decode()
        code = process.wait()
    if code != 0:
        raise Wrong("%s ended with %d" % (name, code))
    figures = {k: float(v) for k, v in (f.split("=") for f in out.split())}
    if figures["records"] != count:
        raise Wrong("%s did %d records instead of %d" % (name, figures["records"], count))
    return {"records": count, "seconds": figures["seconds"], "rate": count / figures["seconds"],
            "cpu": figures["cpu_us"], "memory": figures["rss_kb"] / 1024, **meter.per_record(count)}


def _with_topic(servers, records, count, run):
    name = servers.new_topic()
    figures = run(name)
    topic = Topic(servers.broker, name)
    try:
        topic.check(records, count)
    finally:
        topic.close()
    servers.drop_topic(name)
    return figures


def producer_alone(servers, records, count, path):
    records.write_file(path, count)
    return _with_topic(servers, records, count, lambda topic: _program(
        servers, count, "producer_alone", path, topic, IN_FLIGHT, "bootstrap.servers=" + servers.broker.servers))


def database_alone(servers, database, records, count, strategy):
    records.fill(database, "nowhere", count)
    figures = _program(servers, count, "database_alone", strategy, database.data_source(), "outbox", BATCH)
    if database.count():
        raise Wrong("database_alone left rows")
    return figures


def raw(servers, database, records, count):
    def run(topic):
        records.fill(database, topic, count)
        return _program(servers, count, "raw", database.data_source(), "outbox", topic, BATCH, IN_FLIGHT,
                        "bootstrap.servers=" + servers.broker.servers)
    return _with_topic(servers, records, count, run)
