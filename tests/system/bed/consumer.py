"""Reads whole topics from their beginning, in a thread, and keeps everything in the order of its arrival."""
import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition, OFFSET_BEGINNING

from .checker import Message
from .kafka import _silence
from .util import TimedOut


class Collector:
    """topics: names; those that do not exist yet are picked up by refresh(), which read_to_end() calls."""

    def __init__(self, servers, topics):
        self.topics = list(topics)
        self.messages = []
        self.changed = threading.Condition()
        self.positions = {}   # (topic, partition) -> next offset
        self.consumer = Consumer({
            "bootstrap.servers": servers, "group.id": "tests-collector", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "log_level": 0, "logger": _silence, "fetch.wait.max.ms": 50,
            "allow.auto.create.topics": False, "reconnect.backoff.max.ms": 500, "fetch.error.backoff.ms": 50,
            "topic.metadata.refresh.interval.ms": 1000})
        self.handle = threading.Lock()   # one caller at a time
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping:
            with self.handle:
                idle = not self.positions
                arrived = [] if idle else self.consumer.consume(1000, 0.02)
            if idle or not arrived:
                time.sleep(0.01)
                continue
            with self.changed:
                for m in arrived:
                    if m.error():
                        continue
                    self.messages.append(Message(
                        m.topic(), m.partition(), m.offset(), m.key(), m.value(),
                        tuple((n, v) for n, v in m.headers() or ())))
                    self.positions[m.topic(), m.partition()] = m.offset() + 1
                self.changed.notify_all()

    def refresh(self):
        """Starts to read partitions that have come since."""
        with self.handle:
            known = self.consumer.list_topics(timeout=10).topics
            fresh = [TopicPartition(t, p, OFFSET_BEGINNING) for t in self.topics if t in known
                     for p in known[t].partitions if (t, p) not in self.positions]
            if fresh:
                self.consumer.incremental_assign(fresh)
                for tp in fresh:
                    self.positions[tp.topic, tp.partition] = 0
        return self

    def add(self, *topics):
        self.topics += [t for t in topics if t not in self.topics]
        return self.refresh()

    def count(self):
        with self.changed:
            return len(self.messages)

    def snapshot(self):
        with self.changed:
            return list(self.messages)

    def wait_for(self, condition, deadline, what):
        """condition(messages) is called at each change."""
        end = time.monotonic() + deadline
        with self.changed:
            while True:
                result = condition(self.messages)
                if result:
                    return result
                left = end - time.monotonic()
                if left <= 0:
                    raise TimedOut("waited %.0f s in vain for %s; %d messages were received" % (
                        deadline, what, len(self.messages)))
                self.changed.wait(left)

    def wait_count(self, count, deadline=30):
        return self.wait_for(lambda m: len(m) >= count, deadline, "%d messages" % count)

    def wait_value(self, value, deadline=30, **fields):
        """The first message with this value (bytes or text) and these fields."""
        if isinstance(value, str):
            value = value.encode()

        def look(messages):
            for m in messages:
                if m.value == value and all(getattr(m, n) == v for n, v in fields.items()):
                    return m
        return self.wait_for(look, deadline, "value %r" % (value,))

    def values(self, topic=None):
        return [m.value for m in self.snapshot() if topic is None or m.topic == topic]

    def read_to_end(self, deadline=30):
        """Until everything that the broker holds now was read; returns all messages."""
        end = time.monotonic() + deadline
        while True:
            try:
                self.refresh()
                ends = {}
                for topic, partition in list(self.positions):
                    with self.handle:
                        ends[topic, partition] = self.consumer.get_watermark_offsets(
                            TopicPartition(topic, partition), timeout=5)[1]
                break
            except KafkaException:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        self.wait_for(lambda _: all(self.positions[p] >= e for p, e in ends.items()),
                      max(0.1, end - time.monotonic()), "the ends of the partitions")
        return self.snapshot()

    def close(self):
        self.stopping = True
        self.thread.join(timeout=10)
        self.consumer.close()
