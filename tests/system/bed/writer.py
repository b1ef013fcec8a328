"""Applications that write records: several writers, transactions of one or more records, rollbacks.

Writes of one key are serialised, as the promise of order demands: who writes a key holds its lock until the transaction
has ended. What was committed goes to a Truth. Each transaction also writes a row of its own into the table `done`, so that
its outcome can be found out when the connection was lost in the middle of COMMIT."""
import base64
import json
import random
import threading
import time

import psycopg

from .checker import Truth, record

INSERT = """INSERT INTO {table} (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)
    SELECT now(), r.topic, r.key, {value}, r.hk, r.hv FROM ROWS FROM
    (jsonb_to_recordset(%s::jsonb) AS (topic text, key text, value text, hk text[], hv text[])) WITH ORDINALITY
    AS r(topic, key, value, hk, hv, n) ORDER BY r.n RETURNING id"""


def insert(connection, records, table="outbox", binary=False):
    """Writes records within the connection's transaction; their ids, in order. binary: the value column is bytea."""
    rows = []
    for r in records:
        value = r.value
        if value is not None:
            value = base64.b64encode(value).decode() if binary else value.decode()
        rows.append({"topic": r.topic, "key": r.key.decode(), "value": value,
                     "hk": [n for n, _ in r.headers], "hv": [v.decode() for _, v in r.headers]})
    sql = INSERT.format(table=table, value="decode(r.value, 'base64')" if binary else "r.value")
    return [row[0] for row in connection.execute(sql, [json.dumps(rows, ensure_ascii=False)]).fetchall()]


class Maker:
    """Makes records, all different. Shares are of 1."""

    def __init__(self, topics, keys, tombstones=0.05, empty=0.05, long_values=0.01, headers=10, binary=False, size=200):
        self.topics, self.keys = topics, keys
        self.tombstones, self.empty, self.long_values = tombstones, empty, long_values
        self.headers, self.binary, self.size = headers, binary, size
        self.count = 0
        self.bare = set()   # (topic, key, kind) that had its one record without value and headers
        self.lock = threading.Lock()

    def make(self, rng, key):
        with self.lock:
            self.count += 1
            number = self.count
        topic = rng.choice(self.topics)
        headers = [(rng.choice(["h", "trace-id", "ключ", "h%d" % i]), rng.choice(["", "v", "ценность ✓", "x" * 50]))
                   for i in range(rng.randint(0, self.headers))]
        dice = rng.random()
        if dice < self.tombstones + self.empty:
            value = None if dice < self.tombstones else ""
            with self.lock:
                first = (topic, key, value) not in self.bare
                self.bare.add((topic, key, value))
            if first:
                headers = []
            else:
                headers = [("n", str(number))] + headers[:max(0, self.headers - 1)]
        elif dice < self.tombstones + self.empty + self.long_values:
            value = self._fill(rng, "%d " % number, 10000)
        else:
            value = self._fill(rng, "%d " % number, rng.randint(0, self.size))
        if self.binary and value:
            value = value.encode() + bytes(rng.randrange(256) for _ in range(20))
        return record(topic, key, value, headers)

    @staticmethod
    def _fill(rng, start, length):
        letters = rng.choice(["abcdefgh", "äöüß€", "漢字かな", "😀🎉x", "a\\\"'\n\t%"])
        return (start + letters * (length // len(letters) + 1))[:max(length, len(start))]


class Application:
    """Writers in threads. Runs until `count` records are committed, or until stop()."""

    def __init__(self, database, maker, seed, writers=4, count=None, rollbacks=0.1, batch=10, pause=0.0, hold=0.0,
                 truth=None, table="outbox", whole_batches=False):
        """pause: mean seconds between two transactions of a writer; hold: some transactions stay open up to so long after
        their inserts, so that others overtake them; whole_batches: each transaction has `batch` records, not up to so many."""
        self.database, self.maker = database, maker
        self.truth = truth or Truth()
        self.count, self.rollbacks, self.batch, self.pause, self.hold = count, rollbacks, batch, pause, hold
        self.table, self.whole_batches = table, whole_batches
        self.key_locks = {k: threading.Lock() for k in maker.keys}
        self.stopping = threading.Event()
        self.claimed = 0
        self.lock = threading.Lock()
        self.transactions = self.rolled_back = 0
        self.errors = []
        self.database.execute("CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY, committed BOOLEAN NOT NULL)")
        self.threads = [threading.Thread(target=self._guard, args=(n, random.Random("%s/%d" % (seed, n))), daemon=True)
                        for n in range(writers)]

    def start(self):
        for t in self.threads:
            t.start()
        return self

    def wait(self, deadline=120):
        """Until all writers ended by themselves."""
        end = time.monotonic() + deadline
        for t in self.threads:
            t.join(max(0.1, end - time.monotonic()))
            assert not t.is_alive(), "the writers did not finish"
        assert not self.errors, self.errors
        return self

    def stop(self, deadline=60):
        self.stopping.set()
        return self.wait(deadline)

    def wait_written(self, count, deadline=60):
        end = time.monotonic() + deadline
        while len(self.truth) < count:
            assert not self.errors, self.errors
            assert time.monotonic() < end, "only %d of %d records were written" % (len(self.truth), count)
            time.sleep(0.01)

    def _guard(self, number, rng):
        try:
            self._run(number, rng)
        except Exception as e:   # told by wait()
            self.errors.append(repr(e))
            self.stopping.set()

    def _run(self, number, rng):
        connection = None
        turn = 0
        while not self.stopping.is_set():
            size = self.batch if self.whole_batches else rng.choice([1, 1, 2, 3, self.batch, rng.randint(1, self.batch)])
            rolls_back = rng.random() < self.rollbacks
            if not rolls_back:
                size = self._claim(size)
                if size == 0:
                    break
            turn += 1
            keys = sorted({rng.choice(self.maker.keys) for _ in range(rng.randint(1, min(3, size)))})
            chosen = [rng.choice(keys) for _ in range(size)]
            for k in keys:
                self.key_locks[k].acquire()
            try:
                records = [self.maker.make(rng, k) for k in chosen]
                hold = rng.random() * self.hold if rng.random() < 0.3 else 0
                connection = self._transaction(connection, "%d-%d" % (number, turn), records, rolls_back, hold)
            finally:
                for k in keys:
                    self.key_locks[k].release()
            if self.pause:
                self.stopping.wait(self.pause * rng.random() * 2)
        if connection:
            connection.close()

    def _claim(self, size):
        if self.count is None:
            return size
        with self.lock:
            size = min(size, self.count - self.claimed)
            self.claimed += size
            return size

    def _transaction(self, connection, name, records, rolls_back, hold):
        """One transaction, repeated until its outcome is known; the connection to go on with."""
        if rolls_back:
            self.truth.not_committed(records)
        while True:
            try:
                if connection is None or connection.closed:
                    connection = self.database.connect(autocommit=False, connect_timeout=10)
            except psycopg.OperationalError:
                time.sleep(0.05)
                if self.stopping.is_set() and rolls_back:
                    return None
                continue
            ids = None
            try:
                if rolls_back:
                    insert(connection, records, self.table, self.maker.binary)
                    self.stopping.wait(hold)
                    connection.rollback()
                    with self.lock:
                        self.rolled_back += 1
                    return connection
                connection.execute("INSERT INTO done VALUES (%s, true)", [name])
                ids = insert(connection, records, self.table, self.maker.binary)
                self.stopping.wait(hold)
                connection.commit()
            except (psycopg.OperationalError, psycopg.InternalError):
                connection.close()
                connection = None
                if rolls_back:
                    return None
                if ids is None or not self._was_committed(name):
                    continue
            self.truth.committed(zip(ids, records))
            with self.lock:
                self.transactions += 1
            return connection

    def _was_committed(self, name):
        """Decides the outcome of a transaction whose COMMIT had no answer. Inserting its row waits for it, if it still
        runs; succeeds when it did not commit (and is rolled back, so that it can be tried again)."""
        while True:
            try:
                with self.database.connect(autocommit=False, connect_timeout=10) as c:
                    cursor = c.execute("INSERT INTO done VALUES (%s, false) ON CONFLICT DO NOTHING", [name])
                    there = cursor.rowcount == 0
                    c.rollback()
                    return there
            except psycopg.OperationalError:
                time.sleep(0.05)
