"""The two servers that all measurements share, set up as in production: durable, with the optimising compiler."""
import bed.kafka
from bed.postgres import Postgres

PARTITIONS = 4

# A checkpoint falls into no run by itself: one is made before each. pg_stat_statements is loaded, but off where nobody reads it.
POSTGRES = {"fsync": "on", "synchronous_commit": "on", "shared_buffers": "256MB", "max_wal_size": "4GB",
            "checkpoint_timeout": "30min", "log_lock_waits": "off",
            "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "none",
            "pg_stat_statements.track_planning": "on"}


class Broker(bed.kafka.Kafka):
    """With the optimising compiler, which the tests' short-lived brokers do without."""

    def __init__(self):
        super().__init__(log_segment_delete_delay_ms=1000)

    def launch(self):
        quick, bed.kafka.java = bed.kafka.java, lambda arguments, heap="512m": [
            "java", "-Xmx" + heap, "-Xms" + heap, "-XX:+UseSerialGC", "-XX:-UsePerfData"] + arguments
        try:
            return super().launch()
        finally:
            bed.kafka.java = quick


class Servers:
    def __init__(self):
        self.postgres, self.broker, self.topics, self.admin_client = Postgres(**POSTGRES), Broker(), 0, None

    def __enter__(self):
        try:
            self.broker.create().launch()
            self.postgres.create().start()
            self.broker.start()
        except BaseException:
            self.__exit__()
            raise
        self.admin_client = self.broker.admin()
        return self

    def __exit__(self, *_):
        self.broker.destroy()
        self.postgres.destroy()

    def new_topic(self):
        self.topics += 1
        return self.broker.create_topic("orders-%d" % self.topics, PARTITIONS)

    def drop_topic(self, topic):
        """So that the disk does not fill."""
        for future in self.admin_client.delete_topics([topic]).values():
            future.result(timeout=30)
