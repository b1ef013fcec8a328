"""A proxy in front of a broker that refuses batches as the broker might: what a plain Kafka does not refuse, but others do (checks of
schemas), and errors that nobody knows. It follows Kafka's protocol as far as Produce requests go."""
import asyncio
import struct
from collections import deque

from .proxy import Proxy, Session

PRODUCE = 0


class KafkaProxy(Proxy):
    """.judge(topic, batch): the code of the error by which a batch is refused, or 0. All of the batch is refused then, nothing of it
    reaches the broker, and answers come in the order of the requests. Batches are as they are sent: those that are to be looked into
    must not be compressed."""

    def __init__(self, upstream_port):
        self.judge = None
        self.refused = []   # how many bytes those batches had
        super().__init__(upstream_port)

    def session(self, *streams):
        return KafkaSession(self, *streams)

    def code_for(self, topic, batch):
        code = self.judge(topic, batch) if self.judge else 0
        if code:
            self.refused.append(len(batch))
        return code


class KafkaSession(Session):
    """A connection."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.waiting = deque()   # in the order of requests: None for one that the broker answers, or our answer

    def ways(self):
        return self._requests_of_kafka(), self._answers_of_kafka()

    async def _requests_of_kafka(self):
        try:
            while True:
                request = await _frame(self.reader)
                answer = self._answer(request)
                self.waiting.append(answer)
                if answer is None:
                    await self._pass(self.up_writer, request)
                else:
                    await self._give_ours()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def _answers_of_kafka(self):
        try:
            while True:
                answer = await _frame(self.up_reader)
                assert self.waiting.popleft() is None
                await self._pass(self.writer, answer)
                await self._give_ours()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def _give_ours(self):
        while self.waiting and self.waiting[0] is not None:
            await self._pass(self.writer, self.waiting.popleft())

    def _answer(self, request):
        """Ours, if it is refused."""
        kind, version, number = struct.unpack_from("!hhi", request, 4)
        if kind != PRODUCE:
            return None
        assert 3 <= version <= 8, "Produce requests of version %d are not known here" % version
        at = _after_text(request, 12)                # the client's id
        at = _after_text(request, at)                # of the transaction
        acks, _, topics = struct.unpack_from("!hii", request, at)
        assert acks != 0 and topics == 1
        begin, at = at + 10, _after_text(request, at + 10)
        topic = request[begin + 2:at]
        partitions, partition, size = struct.unpack_from("!iii", request, at)
        assert partitions == 1
        code = self.proxy.code_for(topic.decode(), request[at + 12:at + 12 + size])
        if not code:
            return None
        answer = struct.pack("!ii", number, 1) + request[begin:at] + struct.pack("!iihqq", 1, partition, code, -1, -1)
        answer += struct.pack("!q", -1) if version >= 5 else b""        # where the log starts
        answer += struct.pack("!ih", 0, -1) if version >= 8 else b""    # which records; a text
        answer += struct.pack("!i", 0)                                  # throttling
        return struct.pack("!i", len(answer)) + answer


async def _frame(reader):
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack("!i", head)[0])


def _after_text(data, at):
    return at + 2 + max(0, struct.unpack_from("!h", data, at)[0])
