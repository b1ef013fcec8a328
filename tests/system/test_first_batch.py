"""The very first batch of a client in a partition is refused while more records of the same key wait behind it. A broker that knows
nothing of the producer yet takes whatever sequence number comes next: nothing may be on its way then."""
import pytest


def put(database, topic, value):
    return database.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, "
                            "kafka_header_values) VALUES (now(), %s, 'k', %s, '{}', '{}') RETURNING id",
                            [topic, value])[0][0]


@pytest.mark.parametrize("batch", ["1", "3"])
def test_nothing_overtakes_a_refused_first_batch(bed, batch):
    topic = bed.topic(partitions=1, **{"max.message.bytes": "5000"})
    database = bed.database()
    collector = bed.collector(topic)
    first = put(database, topic, "x" * 8000)
    behind = ["behind %d" % n for n in range(30)]
    for value in behind:
        put(database, topic, value)
    daemon = bed.harvestd(database, limits={"io_error_backoff": "100ms", "blocked_backoff_max": "300ms"},
                          kafka_producer={"batch.num.messages": batch, "compression.type": "none"})
    daemon.wait_log("record", "blocked", id=first)
    database.execute("UPDATE outbox SET kafka_value = 'mended' WHERE id = %s RETURNING id", [first])
    bed.wait_empty(database)
    collector.wait_value("behind 29")
    values = [v.decode() for v in collector.values()]
    assert values[0] == "mended", "a record overtook it: %r" % values[:5]
    assert [v for v in values if v in behind] == behind
