"""The records that are measured with. They are numbered in their order, so that a reader can tell what is missing or overtaken:
value {"order":"0000000017",…} of a fixed length, half of it incompressible, two headers, keys drawn evenly.

Up to TEMPLATE records differ; those beyond repeat key and filling under numbers of their own."""
import random

from bed.postgres import TABLE

TEMPLATE = 50_000
TEMPLATE_BYTES = 20_000_000
HEAD, DIGITS = b'{"order":"', 10
KEY = "customer-%04d"


class Records:
    """Of one shape: so many keys, values of so many bytes."""

    def __init__(self, keys, value_bytes):
        self.keys, self.value_bytes = keys, value_bytes
        self.size = min(TEMPLATE, TEMPLATE_BYTES // value_bytes)
        dice = random.Random(1)
        self.key_of = [dice.randrange(keys) for _ in range(self.size)]
        self.rest = [self._make_rest(dice) for _ in range(self.size)]
        self.table = "template_%d_%d" % (keys, value_bytes)

    def _make_rest(self, dice):
        """Of a value, behind the number."""
        digits = self.value_bytes // 2
        rest = '","customer":%d,"token":"%0*x"}' % (dice.randrange(10**6), digits, dice.getrandbits(4 * digits))
        return rest.ljust(self.value_bytes - len(HEAD) - DIGITS, ".")

    def key(self, number):
        return KEY % self.key_of[number % self.size]

    def write_file(self, path, count):
        """A line a record: key, value, two headers (name, value), separated by tabs."""
        with open(path, "w", encoding="ascii") as f:
            for n in range(count):
                f.write("%s\t%s%010d%s\ttype\torder\ttrace\t%016x\n" % (
                    self.key(n), HEAD.decode(), n, self.rest[n % self.size], n))

    # -- in the database ----------------------------------------------------------------------------------------------

    def _make_template(self, c):
        if c.execute("SELECT to_regclass(%s)", [self.table]).fetchone()[0]:
            return
        c.execute("CREATE TABLE %s (n BIGINT PRIMARY KEY, key TEXT, rest TEXT)" % self.table)
        with c.cursor().copy("COPY %s FROM STDIN" % self.table) as copy:
            for n in range(self.size):
                copy.write_row((n, self.key(n), self.rest[n]))
        c.execute("VACUUM ANALYZE " + self.table)

    def insert(self, c, topic, first, count):
        """Rows with the numbers from `first` on, in their order."""
        self._make_template(c)
        while count > 0:
            at = first % self.size
            now = min(count, self.size - at)
            c.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)"
                      " SELECT now(), %%s, key, %%s || lpad((n + %%s)::text, %d, '0') || rest, '{type,trace}',"
                      " ARRAY['order', lpad(to_hex(n + %%s), 16, '0')] FROM %s WHERE n >= %%s AND n < %%s ORDER BY n" % (
                          DIGITS, self.table),
                      [topic, HEAD.decode(), first - at, first - at, at, at + now])
            first, count = first + now, count - now

    def fill(self, database, topic, count):
        """The records as the only rows, and nothing left to do for the server."""
        with database.connect() as c:
            c.execute("TRUNCATE outbox")
            self.insert(c, topic, 0, count)
            c.execute("VACUUM ANALYZE outbox")
            c.execute("CHECKPOINT")

    def fill_new(self, database, topic, count):
        """The same in a table that was just made: no statistics yet, and a planner that has to guess. An outbox that was analysed while
        it was empty, as it mostly is, does not differ."""
        with database.connect() as c:
            c.execute("DROP TABLE outbox")
            c.execute(TABLE + " WITH (autovacuum_enabled = off)")
            self.insert(c, topic, 0, count)
            c.execute("CHECKPOINT")


def number_of(value):
    """The number in a value, or None."""
    if value is None or not value.startswith(HEAD):
        return None
    digits = value[len(HEAD):len(HEAD) + DIGITS]
    return int(digits) if digits.isdigit() else None
