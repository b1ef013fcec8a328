"""goharvest's own test of the whole: several instances, 10 keys, 20 records a transaction, 2 % of the calls that send and 2 % of the
deliveries fail. The faults are injected between the daemon and librdkafka, by a test build (tests/faults)."""
import re
import time

import pytest

from bed.kafka import fresh_name

# 2 % of the calls: most are told that the client is full for now, the rest that it does not take this record. 2 % of the deliveries: of
# most only the report is false, after the rest the client loses all that it still holds.
FAULTS = {"FULL": 0.015, "REFUSED": 0.005, "FAILED": 0.017, "LOST": 0.003}


class Run:
    def __init__(self, bed, instances, faults, pause=0.08):
        self.bed, self.faults = bed, faults
        self.database, topic = bed.database(), bed.topic()
        self.collector = bed.collector(topic)
        self.app = bed.application(self.database, [topic], keys=10, writers=2, batch=20, whole_batches=True, pause=pause)
        group = fresh_name("group")
        self.daemons = [self._instance(n, group) for n in range(instances)]

    def _instance(self, number, group):
        environment = {"HV_FAULTS_" + name: str(share) for name, share in self.faults.items()}
        environment["HV_FAULTS_SEED"] = str(self.bed.seed + number)
        return self.bed.harvestd(
            self.database, group=group, label="instance-%d" % number, limits={"heartbeat_timeout": "2s"},
            program="tests/harvestd_faulty" if self.faults else None, environment=environment)

    def begin(self):
        self.began = time.monotonic()
        self.app.start()
        self.collector.wait_count(100, deadline=60)
        return self

    def end(self):
        """Judges, and tells what it was like."""
        self.app.stop()
        stopped = time.monotonic()
        report = self.bed.judge(self.app, self.collector, deadline=150)
        emptied = time.monotonic()
        for d in self.daemons:
            d.stop()
            d.reader.join(10)   # the last line is what was injected
        rewinds = [line for d in self.daemons for line in d.find("kafka", "rewinding")]
        self.bed.note("%d instances, %.0f s: %.0f records/s written, the last one delivered %.1f s after the writers ended; %d lines tell of "
                      "rewinds; %.2f duplicates a record" % (
                          len(self.daemons), stopped - self.began, report.written / (stopped - self.began), emptied - stopped,
                          len(rewinds), report.duplicates / report.written))
        return report

    def injected(self, kinds=("full", "refused", "failed", "losses")):
        """What was injected altogether, by those that ended in order; kinds: what must be among it."""
        found = {}
        for d in self.daemons:
            for line in d.find("faults", "injected"):
                for name, value in line.items():
                    if isinstance(value, str) and value.isdigit():
                        found[name] = found.get(name, 0) + int(value)
        self.bed.note("injected: " + ", ".join("%s %d" % item for item in found.items()))
        for kind in kinds:
            assert found[kind] > 0, "no faults of the kind %s were injected" % kind
        return found


@pytest.mark.parametrize("instances, faults", [(1, FAULTS), (4, FAULTS), (8, {})], ids=["1-faulty", "4-faulty", "8-sound"])
@pytest.mark.long
@pytest.mark.timeout(400)
def test_goharvests_scenario(bed, instances, faults):
    run = Run(bed, instances, faults).begin()
    time.sleep(60)   # no event to wait for: it is what happens meanwhile that counts
    run.end()
    if faults:
        run.injected()


def test_goharvests_scenario_briefly(bed):
    run = Run(bed, 4, FAULTS, pause=0.12).begin()
    time.sleep(6)
    run.end()
    run.injected(["full", "refused", "failed"])   # and in six seconds most probably a loss or two


@pytest.mark.long
@pytest.mark.timeout(400)
def test_goharvests_scenario_with_instances_that_go(bed):
    """What goharvest's own test does not do: leaders are stopped and killed on top."""
    run = Run(bed, 4, FAULTS).begin()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        leaders = [d for d in run.daemons if d.running() and (d.find("leader", re.compile("acquired|revoked|fenced")) or
                                                              [{"msg": ""}])[-1]["msg"] == "acquired"]
        for d in leaders[:1]:
            if bed.random.random() < 0.5:
                d.stop(60)
            else:
                d.kill()
            d.start()
        run.collector.wait_count(run.collector.count() + 500, deadline=60)
        time.sleep(bed.random.random() * 3)
    run.end()
    run.injected()
