"""A member of a leader group that behaves as goharvest does, written from its description: what it says to Kafka and to the table is
the same, how it does so is ours (one thread instead of several).

 * Election: consumer group with the range assignor, session time-out three heartbeat time-outs. Whoever owns partition 0 of the leader
   topic sends "<unix nanoseconds>%<name>" there every poll interval and reads it back; a heartbeat makes it leader, none for the heartbeat
   time-out fences it, it stays assigned, a later one makes it leader again. A revoke is answered when nothing is in flight any more.
   It does not look at its lease before it sends: woken from a pause it goes on until a poll tells it better.
 * Harvesting: marks by UPDATE … RETURNING, sorts by id, one shard of eight by FNV-1a of the key with a producer each, one record of a key
   in flight, DELETE for each record delivered. A record that was not delivered is reset and all is marked again under a new leader id;
   so it is when the outcome of a mark is unknown, a record waits too long, or the election was not polled for too long.

It is a program: goharvest.py OPTIONS-AS-JSON. On standard output one line for each thing that happens: a word and its details. SIGTERM
stops it in order."""
import collections
import json
import random
import signal
import sys
import time
import uuid

import psycopg
from confluent_kafka import Consumer, Producer

MARK = """UPDATE {table} SET leader_id = %(leader)s WHERE id IN (SELECT id FROM {table}
    WHERE leader_id IS NULL OR leader_id <> %(leader)s ORDER BY id LIMIT %(limit)s)
    RETURNING id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values"""
PURGE = "DELETE FROM {table} WHERE id = %s"
RESET = "UPDATE {table} SET leader_id = NULL WHERE id = %s"

Row = collections.namedtuple("Row", "id topic key value header_keys header_values")
Queued = collections.namedtuple("Queued", "row since")

DEFAULTS = {
    "servers": None, "data_source": None, "group": None, "leader_topic": None, "name": None,
    "table": "outbox",
    "min_poll_interval": 0.1, "heartbeat_timeout": 5.0, "queue_timeout": 30.0, "mark_backoff": 0.01, "io_error_backoff": 0.5,
    "max_in_flight": 1000, "send_concurrency": 8, "mark_query_records": 100,
    "fail": 0.0, "seed": 0,   # share of deliveries that are taken for failed
}


def fnv1a(data):
    h = 2166136261
    for byte in data:
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h


def say(event, **details):
    sys.stdout.write(json.dumps(dict(details, event=event)) + "\n")
    sys.stdout.flush()


class Shard:
    """A queue of marked records and a producer of its own."""

    def __init__(self, member):
        self.member = member
        # No partitioner is set: consistent_random.
        self.producer = Producer(dict(member.base, **{"enable.idempotence": True}))
        self.queue = collections.deque()
        self.keys = set()   # of records in flight

    def send(self):
        while self.queue and self.queue[0].row.key not in self.keys:
            row = self.queue.popleft().row
            headers = list(zip(row.header_keys, (v.encode() for v in row.header_values)))
            self.keys.add(row.key)
            try:
                self.producer.produce(
                    row.topic, key=row.key.encode(), value=None if row.value is None else row.value.encode(),
                    headers=headers or None, on_delivery=lambda err, _message, row=row: self._reported(row, err))
            except (BufferError, ValueError) as e:
                self._reported(row, e)
                return

    def poll(self):
        self.producer.poll(0)

    def _reported(self, row, err):
        if err is None and self.member.dice.random() < self.member.o["fail"]:
            err = "made to fail"
        if err is None:
            self.member.settle(PURGE, row.id)
            self.member.delivered += 1
        else:
            self.member.settle(RESET, row.id)
            self.member.failed += 1
            self.member.remark = "not delivered: %s" % err
        self.keys.remove(row.key)


class Member:
    def __init__(self, options):
        self.o = dict(DEFAULTS, **options)
        self.base = {"bootstrap.servers": self.o["servers"], "client.id": self.o["name"], "log_level": 2}
        self.dice = random.Random(self.o["seed"])
        self.stopping = False
        self.database = None
        # Leading
        self.assigned = False
        self.leader_id = None   # while leading
        self.last_heard = self.last_poll = self.next_beat = 0.0
        # Harvesting
        self.shards = []
        self.remark = None      # why everything has to be marked again
        self.mark_after = 0.0
        self.delivered = self.failed = 0
        self.told = None
        self.heartbeats = Producer(dict(self.base, **{"linger.ms": 0}))
        session = int(self.o["heartbeat_timeout"] * 3000)
        self.consumer = Consumer(dict(self.base, **{
            "group.id": self.o["group"], "partition.assignment.strategy": "range", "session.timeout.ms": session,
            "heartbeat.interval.ms": min(500, session // 3), "auto.offset.reset": "latest"}))
        self.consumer.subscribe([self.o["leader_topic"]], on_assign=self._on_assign, on_revoke=self._on_revoke)

    # -- the election -----------------------------------------------------------------------------------------------------

    def _on_assign(self, _consumer, partitions):
        self.assigned = any(p.partition == 0 for p in partitions)
        self.next_beat = 0.0
        say("joined", assigned=self.assigned)

    def _on_revoke(self, _consumer, _partitions):
        if self.leader_id:
            self._end_term("revoked")
        self.assigned = False

    def pulse(self, timeout):
        now = time.monotonic()
        self.last_poll = now
        if self.assigned and now >= self.next_beat:
            self.next_beat = now + self.o["min_poll_interval"]
            self.heartbeats.produce(self.o["leader_topic"], partition=0, value="%d%%%s" % (time.time_ns(), self.o["name"]))
        self.heartbeats.poll(0)
        message = self.consumer.poll(timeout)
        now = time.monotonic()
        if message is not None and not message.error() and message.partition() == 0:
            self.last_heard = now
            if self.assigned and not self.leader_id:
                self._begin_term()
        if self.leader_id and now - self.last_heard > self.o["heartbeat_timeout"]:
            self._end_term("fenced")

    def _begin_term(self):
        self.leader_id = uuid.uuid4()
        self.remark = None
        self.shards = [Shard(self) for _ in range(self.o["send_concurrency"])]
        say("acquired", leader_id=str(self.leader_id))

    def _end_term(self, why):
        self._end_senders()
        self.leader_id = None
        self.shards = []
        say(why)

    # -- harvesting -------------------------------------------------------------------------------------------------------

    def _end_senders(self):
        """What is queued is forgotten, what is in flight is waited for."""
        for shard in self.shards:
            shard.queue.clear()
        while any(shard.keys for shard in self.shards):
            for shard in self.shards:
                shard.producer.poll(0.005)
        self.tell()

    def _execute(self, sql, values):
        if self.database is None or self.database.closed:
            self.database = psycopg.connect(self.o["data_source"], autocommit=True, connect_timeout=5)
        return self.database.execute(sql.format(table=self.o["table"]), values)

    def _disconnect(self):
        if self.database is not None:
            self.database.close()
        self.database = None

    def settle(self, sql, row_id):
        while True:
            try:
                self._execute(sql, [row_id])
                return
            except psycopg.OperationalError:
                self._disconnect()
                time.sleep(self.o["io_error_backoff"])

    def _mark(self):
        try:
            found = self._execute(MARK, {"leader": self.leader_id, "limit": self.o["mark_query_records"]}).fetchall()
        except psycopg.OperationalError as e:
            self._disconnect()
            self.remark = "mark: %s" % e
            self.mark_after = time.monotonic() + self.o["io_error_backoff"]
            return
        now = time.monotonic()
        for row in sorted(Row(*r) for r in found):
            self.shards[fnv1a(row.key.encode()) % len(self.shards)].queue.append(Queued(row, now))
        if not found:
            self.mark_after = now + self.o["mark_backoff"]

    def harvest(self):
        now = time.monotonic()
        if any(s.queue and now - s.queue[0].since > self.o["queue_timeout"] for s in self.shards):
            self.remark = "queued for too long"
        elif now - self.last_poll > self.o["heartbeat_timeout"] / 2:
            self.remark = "not polled for too long"
        if self.remark:
            why, self.remark = self.remark, None
            self._end_senders()
            self.leader_id = uuid.uuid4()
            say("refreshed", leader_id=str(self.leader_id), reason=why)
        load = sum(len(s.queue) + len(s.keys) for s in self.shards)
        if now >= self.mark_after and load < self.o["max_in_flight"]:
            self._mark()
        for shard in self.shards:
            shard.send()
        for shard in self.shards:
            shard.poll()

    # -- the whole --------------------------------------------------------------------------------------------------------

    def tell(self):
        if self.told != (self.delivered, self.failed):
            self.told = (self.delivered, self.failed)
            say("progress", delivered=self.delivered, failed=self.failed)

    def stop(self):
        self.stopping = True

    def run(self):
        tell_at = 0.0
        while not self.stopping:
            self.pulse(0.001 if self.leader_id else 0.02)
            if self.leader_id:
                self.harvest()
            if time.monotonic() >= tell_at:
                tell_at = time.monotonic() + 0.1
                self.tell()
        if self.leader_id:
            self._end_term("revoked")
        self.consumer.close()
        say("stopped")


def main():
    member = Member(json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda _signum, _frame: member.stop())
    say("started")
    member.run()


if __name__ == "__main__":
    main()
