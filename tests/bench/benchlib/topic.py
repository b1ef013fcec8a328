"""Reads a topic back after a run, outside of what is measured: every record there, once, in the order of its key."""
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from . import Wrong
from .records import number_of
from .servers import PARTITIONS

SAMPLE = 100  # of so many records, one is looked at more closely


class Topic:
    def __init__(self, broker, name):
        self.name = name
        self.consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": "bench", "enable.auto.commit": False,
                                  "queued.max.messages.kbytes": 32768, "fetch.max.bytes": 8000000})

    def close(self):
        self.consumer.close()

    def written(self):
        """Records that it holds."""
        return sum(self.consumer.get_watermark_offsets(TopicPartition(self.name, p), timeout=10)[1]
                   for p in range(PARTITIONS))

    def check(self, records, count):
        """The numbers 0 to count - 1."""
        total = self.written()
        self.consumer.assign([TopicPartition(self.name, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        reading = Reading(records, count)
        deadline = time.monotonic() + 120
        while reading.read < total:
            if time.monotonic() > deadline:
                raise Wrong("%s cannot be read back" % self.name)
            for m in self.consumer.consume(10_000, timeout=1):
                if m.error():
                    raise Wrong("%s: %s" % (self.name, m.error()))
                reading.take(m)
        missing = reading.missing()
        if missing or reading.doubled or reading.overtaken:
            raise Wrong("%s: of %d records %d are missing, %d doubled, %d overtaken" % (
                self.name, count, missing, reading.doubled, reading.overtaken))


class Reading:
    """What was read so far of the records 0 to count - 1."""

    def __init__(self, records, count):
        self.records, self.count = records, count
        self.seen, self.last = bytearray(count), {}
        self.read = self.doubled = self.overtaken = 0

    def take(self, m):
        value, key = m.value(), m.key()
        n = number_of(value)
        if n is None or n >= self.count or key != self.records.key(n).encode() or len(value) != self.records.value_bytes:
            raise Wrong("%s holds what was not written: key %r, value %r" % (m.topic(), key, (value or b"")[:80]))
        if self.read % SAMPLE == 0 and m.headers() != [("type", b"order"), ("trace", b"%016x" % n)]:
            raise Wrong("record %d has other headers than written: %r" % (n, m.headers()))
        self.read += 1
        if self.seen[n]:
            self.doubled += 1
            return
        self.seen[n] = 1
        if self.last.get(key, -1) > n:
            self.overtaken += 1
        self.last[key] = n

    def missing(self):
        return self.count - sum(self.seen)
