"""Reads a topic's batches from the broker's own files: who wrote what, and in which order it was appended.

A consumer sees neither the producer's id nor where a batch begins. Make the topic with message_timestamp_type="LogAppendTime":
then a batch holds both times, its first record's (the producer's clock, when it was handed over) and the broker's.
Two instances are told apart by kafka_producer={"compression.type": ...}; values have to be compressible for that."""
import glob
import os
import struct
from collections import namedtuple
from datetime import datetime

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
APPEND_TIME = 8   # in the attributes

# handed and appended: seconds since the epoch; offset: of the first record
Batch = namedtuple("Batch", "topic partition offset count handed appended codec producer epoch sequence")

_HEADER = struct.Struct(">qiiBIhiqqqhii")


def batches(kafka, topic):
    """All batches of a topic, in the order in which the broker appended them (to a millisecond between partitions)."""
    found = []
    for directory in glob.glob(os.path.join(kafka.settings["log.dirs"], topic + "-*")):
        partition = directory[len(kafka.settings["log.dirs"]) + len(topic) + 2:]
        if partition.isdigit():   # not of a topic whose name is longer
            for path in sorted(glob.glob(os.path.join(directory, "*.log"))):
                found += _read(path, topic, int(partition))
    return sorted(found, key=lambda b: (b.appended, b.partition, b.offset))


def _read(path, topic, partition):
    with open(path, "rb") as f:
        data = f.read()
    position = 0
    while position + _HEADER.size <= len(data):
        (offset, length, _, magic, _, attributes, _, first, last, producer, epoch, sequence, count) = _HEADER.unpack_from(
            data, position)
        if length == 0 or position + 12 + length > len(data):
            return   # it is being written
        assert magic == 2, "%s: no batch at %d" % (path, position)
        position += 12 + length
        if not attributes & 32:   # control batches are nobody's records
            assert attributes & APPEND_TIME, "%s is not stamped by the broker" % topic
            yield Batch(topic, partition, offset, count, first / 1e3, last / 1e3, CODECS[attributes & 7], producer, epoch,
                        sequence)


def wall(line):
    """When a daemon wrote a line of its log: seconds since the epoch."""
    return datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()


class Writers:
    """Instances that write to a topic in turn. A batch belongs to the term that its writer began last (its log says when);
    it is stale when a batch of a later term was appended before it."""

    def __init__(self, daemons):
        """daemons: codec -> instance"""
        self.daemons = daemons

    def terms(self, codec):
        return [wall(line) for line in self.daemons[codec].find("leader", "acquired")]

    def judge(self, found):
        """(stale batches, take-overs: [(batch before, first batch of the new leader)])"""
        terms = {codec: self.terms(codec) for codec in self.daemons}
        stale, overs, newest, holder = [], [], 0, None
        for batch in found:
            assert batch.codec in terms, "nobody writes like this: %s" % (batch,)
            begun = [t for t in terms[batch.codec] if t <= batch.appended + 0.002]
            assert begun, "written before it led: %s" % (batch,)
            if begun[-1] < newest:
                stale.append(batch)
                continue
            if holder is not None and holder.codec != batch.codec:
                overs.append((holder, batch))
            newest, holder = begun[-1], batch
        return stale, overs
