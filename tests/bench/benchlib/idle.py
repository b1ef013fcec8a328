"""What it costs to have nothing to do: a leader and a standby of one group over an empty table."""
import time

from . import cpu, daemon

SETTLE = 3  # seconds: the wait between two looks has grown to its longest


def idle(servers, database, strategy, seconds, settings=()):
    database.execute("TRUNCATE outbox")
    leader = daemon.make(servers, database, strategy, settings, group="bench-idle-" + strategy)
    standby = daemon.make(servers, database, strategy, settings, group="bench-idle-" + strategy)
    try:
        leader.start()
        daemon.wait_leading(leader)
        standby.start()
        standby.wait_log("leader", "joined", deadline=60)
        time.sleep(SETTLE)
        meter, pids = cpu.Meter(servers), (leader.pid, standby.pid)
        start, before = time.monotonic(), [cpu.seconds(pid) for pid in pids]
        time.sleep(seconds)
        used = [cpu.seconds(pid) - b for pid, b in zip(pids, before)]
        span = time.monotonic() - start
        postgres, kafka = meter.used()
        figures = {"leader": 100 * used[0] / span, "standby": 100 * used[1] / span, "postgres": 100 * postgres / span,
                   "kafka": 100 * kafka / span, "memory": cpu.memory_mb(leader.pid), "standby_memory": cpu.memory_mb(standby.pid),
                   "memory_anon": cpu.memory_mb(leader.pid, "RssAnon")}
        if standby.find("leader", "acquired"):
            raise RuntimeError("the standby took the lead: the machine is too busy")
        standby.stop(60)
        leader.stop(60)
    finally:
        standby.destroy()
        leader.destroy()
    return figures
