"""Told to stop when others do not play along: it ends, in bounded time."""
import subprocess

import pytest

# A Kafka client whose end waits for its threads for ever.
STUCK = """
#include <unistd.h>
void rd_kafka_destroy_flags(void *client, int flags) {
    (void)client;
    (void)flags;
    for (;;) {
        pause();
    }
}
"""


@pytest.mark.parametrize("load", ["idle", "under load"])
def test_stops_after_its_servers_are_gone(bed, load):
    server, broker = bed.own_postgres(), bed.own_kafka()
    database = bed.database(server=server)
    topic = bed.topic(broker)
    daemon = bed.harvestd(database, broker, limits={"heartbeat_timeout": "2s", "drain_timeout": "2s"})
    daemon.wait_leading()
    if load != "idle":
        collector = bed.collector([topic], broker)
        app = bed.application(database, [topic])
        app.start()
        collector.wait_count(200)
        app.stop()
    broker.kill()
    server.stop("immediate")
    daemon.wait_log("leader", "fenced")
    daemon.terminate()
    assert daemon.wait_exit(40) == 0


def test_stops_though_a_library_does_not(bed, tmp_path, monkeypatch):
    source, library = tmp_path / "stuck.c", tmp_path / "stuck.so"
    source.write_text(STUCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("ASAN_OPTIONS", "verify_asan_link_order=0")
    daemon = bed.harvestd(bed.database(), limits={"drain_timeout": "1s"})
    monkeypatch.delenv("LD_PRELOAD")
    daemon.wait_leading()
    daemon.terminate()
    assert daemon.wait_exit(60) == 0
    assert daemon.find("main", "ended without waiting any longer for its libraries", drained="yes")
