"""What the start alone needed is not kept: code of libraries that is not used, and it still works when it is used afterwards."""
import os
import re

import pytest

from bed.kafka import fresh_name
from bed.util import SANITIZED, wait_until


def _memory(pid):
    """(now, at its peak), kB"""
    with open("/proc/%d/status" % pid) as f:
        text = f.read()
    return [int(re.search(field + r":\s+(\d+)", text).group(1)) for field in ("VmRSS", "VmHWM")]


@pytest.mark.skipif(SANITIZED or " " in os.environ.get("HARVESTD", ""), reason="most of the memory is the instrument's")
def test_what_only_the_start_needed_is_given_back(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector([topic])
    group = fresh_name("group")
    leader, standby = bed.harvestd(database, group=group), bed.harvestd(database, group=group, start=False)
    leader.wait_leading()
    standby.start()
    for daemon in (leader, standby):  # one when it leads, the other after a while
        wait_until(lambda: _memory(daemon.pid)[0] < 0.7 * _memory(daemon.pid)[1], 60, "what only the start needed is given back")
    app = bed.application(database, [topic])
    app.start()
    collector.wait_count(100)
    app.stop()
    leader.stop(60)
    bed.judge(app, collector, duplicates=0)
