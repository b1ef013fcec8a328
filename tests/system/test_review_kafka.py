"""Topics that are deleted and made anew, a client with a small queue, instances of the same name."""
from confluent_kafka import KafkaException

from bed.checker import Truth, check, record
from bed.kafka import fresh_name
from bed.util import wait_until
from bed.writer import insert


def delete_topic(kafka, name):
    admin = kafka.admin()   # has to live until it has its answer
    admin.delete_topics([name])[name].result(timeout=30)


def test_leader_topic_is_deleted(bed):
    broker = bed.own_kafka(auto_create_topics_enable="false")
    database, topic, truth = bed.database(), bed.topic(broker), Truth()
    collector = bed.collector(topic, broker)
    group = fresh_name("group")
    daemon = bed.harvestd(database, broker, group=group, limits={"heartbeat_timeout": "2s"})
    daemon.wait_leading()
    bed.write(database, topic, "k", "before", truth=truth)
    collector.wait_value("before")
    delete_topic(broker, group + ".neli")
    wait_until(lambda: broker.topics().get(group + ".neli") == 1, 30, "the leader topic to be made again")
    bed.write(database, topic, "k", "after", truth=truth)
    collector.wait_value("after", deadline=60)
    second = bed.harvestd(database, broker, group=group, limits={"heartbeat_timeout": "2s"})
    second.wait_log("leader", "joined")
    daemon.stop()
    second.wait_leading()   # by heartbeats through the new topic
    bed.write(database, topic, "k", "by another", truth=truth)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok()


def test_topic_is_made_again_with_fewer_partitions(bed):
    """Its records are under suspicion; the client that tries them knows the topic as it was."""
    database, truth = bed.database(), Truth()
    topic = bed.topic(partitions=6, max_message_bytes=1000)
    daemon = bed.harvestd(database, limits={"blocked_backoff_max": "500ms"})
    daemon.wait_leading()
    for n in range(10):
        large = "".join(chr(bed.random.randrange(33, 127)) for _ in range(5000))   # not to be compressed
        bed.write(database, topic, "key %d" % n, large, truth=truth)
    daemon.wait_log("record", "blocked", count=8, topic=topic, deadline=90)   # each makes a new client, after a wait that grows
    delete_topic(bed.kafka, topic)
    try:
        bed.kafka.create_topic(topic, partitions=1)
    except KafkaException:   # the daemon's question for it made it first, as brokers do
        assert bed.kafka.topics()[topic] < 6
    collector = bed.collector(topic)
    bed.wait_empty(database, deadline=40)
    check(truth, collector.read_to_end()).assert_ok()


def test_small_queue_of_the_client(bed):
    """More may be in flight than the client takes."""
    database, truth = bed.database(), Truth()
    topics = [bed.topic(partitions=8) for _ in range(6)]
    collector = bed.collector(topics)
    with database.connect() as c:
        for batch in range(40):
            records = [record(topics[n % 6], "key %d" % (n % 97), "%d %d" % (batch, n)) for n in range(100)]
            truth.committed(list(zip(insert(c, records), records)))
    bed.harvestd(database, kafka_producer={"queue.buffering.max.messages": 20})
    bed.wait_empty(database, deadline=60)
    check(truth, collector.read_to_end()).assert_ok()


def test_instances_of_one_name(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    group = fresh_name("group")
    options = {"group": group, "harvest": {"name": "twin"}, "limits": {"heartbeat_timeout": "2s"}}
    first = bed.harvestd(database, **options)
    first.wait_leading()
    second = bed.harvestd(database, **options)
    second.wait_log("leader", "joined")
    app = bed.application(database, [topic], keys=10, writers=2, pause=0.02)
    app.start()
    collector.wait_count(100)
    first.pause()
    second.wait_leading()
    collector.wait_count(collector.count() + 100)
    since = first.position()
    first.resume()
    first.wait_log("leader", "fenced", since=since)
    collector.wait_count(collector.count() + 100)
    app.stop()
    bed.judge(app, collector)
    assert not first.find("leader", "acquired", since=since)
