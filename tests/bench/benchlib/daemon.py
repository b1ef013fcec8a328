"""harvestd as it is measured: its own defaults but for the strategy, and what the caller asks for."""
import time

from bed.daemon import Harvestd

from . import cpu

_groups = 0


def make(servers, database, strategy, settings=(), group=None):
    """settings: SECTION.NAME=VALUE."""
    global _groups
    _groups += 1
    sections = {"harvest": {"data_source": database.data_source(), "leader_group_id": group or "bench-%d" % _groups,
                            "claim": strategy},
                "kafka": {"bootstrap.servers": servers.broker.servers}}
    for setting in settings:
        name, _, value = setting.partition("=")
        section, _, name = name.partition(".")
        if section == "kafka":  # names with dots; [kafka.producer] too
            for longer in ("producer", "consumer"):
                if name.startswith(longer + "."):
                    section, name = "kafka." + longer, name[len(longer) + 1:]
        sections.setdefault(section, {})[name] = value
    return Harvestd(sections)


def wait_leading(daemon, deadline=60):
    """(when it began to lead, what CPU it had used until then at most)"""
    end, used = time.monotonic() + deadline, 0.0
    while daemon.running() and time.monotonic() < end:
        before, used = used, cpu.seconds(daemon.pid)
        lines = daemon.find("leader", "acquired")
        if lines:
            return lines[0]["at"], before
        time.sleep(0.002)
    raise RuntimeError("harvestd does not lead:\n" + daemon.tail())
