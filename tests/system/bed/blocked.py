"""`harvestd blocked`: what a running daemon says of keys that wait. It has to have a control_socket."""
import json

from .daemon import run_once
from .util import wait_until


def blocked(daemon, *arguments):
    return run_once("blocked", "-c", daemon.ini, *arguments)


def rows(daemon, *arguments):
    """The keys, the closed topics and the end of what it says."""
    done = blocked(daemon, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    end = lines.pop()
    assert end["type"] == "end"
    return [x for x in lines if x["type"] == "key"], [x for x in lines if x["type"] == "topic"], end


def wait_rows(daemon, fits, deadline=60):
    """The same, as soon as the keys fit."""
    seen = []

    def ask():
        seen[:] = [rows(daemon)]
        return seen[0] if fits(seen[0][0]) else None
    return wait_until(ask, deadline, lambda: "other keys to be blocked than %s" % json.dumps(seen)[:2000], every=0.1)
