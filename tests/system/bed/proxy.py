"""A TCP proxy between the daemon and a server which refuses, resets, hangs, swallows, and cuts replies in the middle.

For Postgres it follows the protocol as far as it takes to know which statement is being answered. A reply that is to be
cut is held back until it is complete, so the server has done the work and committed; then only a part of it is passed on."""
import asyncio
import random
import re
import socket
import struct
import threading

from .util import TimedOut, free_port

MARK, PURGE, RESET, OTHER = "mark", "purge", "reset", "other"
_SSL, _GSS = 80877103, 80877104


def statement_kind(sql):
    sql = re.sub(r"\s+", " ", sql.upper())
    if "DELETE FROM" in sql:
        return PURGE
    if "UPDATE" in sql and "SET" in sql:
        return MARK if "KAFKA_TOPIC" in sql else RESET
    if "PG_CURRENT_WAL_LSN" in sql and "KAFKA_TOPIC" in sql:
        return MARK   # what claims by cursor
    return OTHER


class Cut:
    """An order to cut the next exchange of a kind. part: "request" (the statement is cut; the server never gets all of
    it) or "reply" (a random part of the reply is passed on). share: how much is passed on, 0..1."""

    def __init__(self, kind, part, share, abrupt, rows):
        self.kind, self.part, self.share, self.abrupt, self.rows = kind, part, share, abrupt, rows
        self.done = threading.Event()
        self.passed = self.length = None


class Proxy:
    def __init__(self, upstream_port, seed=None, postgres=False):
        self.upstream_port = upstream_port
        self.port = free_port()
        self.postgres = postgres
        self.random = random.Random(seed)
        self.sessions = set()
        self.hanging = False      # connections stay open, nothing passes
        self.cut_order = None
        self.cuts_done = 0
        self.accepted = 0
        self.exchanges = {}       # kind -> how many were seen
        self.loop = asyncio.new_event_loop()
        self.server = None
        self.released = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self._call(self._prepare())
        self.allow()

    # -- called by tests ----------------------------------------------------------------------------------------------

    def refuse(self):
        """New connections are refused; the open ones live on."""
        self._call(self._close_server())

    def allow(self):
        self._call(self._open_server())

    def reset(self):
        """Resets every open connection."""
        return self._call(self._reset())

    def down(self):
        self.refuse()
        self.reset()

    def hang(self):
        """A black hole: everything stays open, new connections too, and nothing passes either way."""
        self._call(self._set_hanging(True))

    def flow(self):
        self._call(self._set_hanging(False))

    def cut(self, kind, part="reply", rows=True, share=None, deadline=30):
        """Cuts the next exchange of this kind and waits until that happened. rows: only a reply that holds some."""
        order = Cut(kind, part, self.random.random() if share is None else share, self.random.random() < 0.5, rows)
        self.cut_order = order
        if not order.done.wait(deadline):
            self.cut_order = None
            raise TimedOut("no %s passed that could be cut, within %.0f s (seen: %s)" % (kind, deadline, self.exchanges))
        self.cuts_done += 1
        return order

    def close(self):
        self._call(self._close_server())
        self._call(self._reset())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=10)

    # -- on the loop's thread -----------------------------------------------------------------------------------------

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=30)

    async def _prepare(self):
        self.released = asyncio.Event()
        self.released.set()

    async def _open_server(self):
        if self.server is None:
            self.server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True,
                                                     limit=1 << 20)

    async def _close_server(self):
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()
            self.server = None

    async def _reset(self):
        count = len(self.sessions)
        for session in list(self.sessions):
            session.end(abrupt=True)
        return count

    async def _set_hanging(self, hanging):
        self.hanging = hanging
        if hanging:
            self.released.clear()
        else:
            self.released.set()

    async def _accept(self, reader, writer):
        self.accepted += 1
        await self.released.wait()
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, limit=1 << 20)
        except OSError:
            writer.transport.abort()
            return
        session = self.session(reader, writer, up_reader, up_writer)
        self.sessions.add(session)
        await session.run()
        self.sessions.discard(session)

    def session(self, *streams):
        return Session(self, *streams)


class Session:
    def __init__(self, proxy, reader, writer, up_reader, up_writer):
        self.proxy = proxy
        self.reader, self.writer, self.up_reader, self.up_writer = reader, writer, up_reader, up_writer
        self.ended = False
        self.statements = {}    # prepared name -> kind
        self.bound = OTHER
        self.executing = None   # kind of the exchange that is being answered
        self.to_cut = None
        self.held = b""
        self.negotiating = 0

    def ways(self):
        """To the server, and back."""
        if self.proxy.postgres:
            return self._requests(), self._replies()
        return self._raw(self.reader, self.up_writer), self._raw(self.up_reader, self.writer)

    async def run(self):
        tasks = [asyncio.ensure_future(way) for way in self.ways()]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.end(abrupt=False)
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def end(self, abrupt):
        if self.ended:
            return
        self.ended = True
        for w in (self.writer, self.up_writer):
            if abrupt:
                s = w.get_extra_info("socket")
                try:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    pass
                w.transport.abort()
            else:
                w.close()

    async def _raw(self, reader, writer):
        while True:
            data = await reader.read(65536)
            if not data:
                return
            await self.proxy.released.wait()
            if reader.exception():
                return   # reset while nothing passed: what was on the way would have been dropped
            writer.write(data)
            await writer.drain()

    # -- Postgres' protocol: frames of a type (none at the start), a length and a body ---------------------------------

    async def _frame(self, reader):
        head = await reader.readexactly(5)
        body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
        return head[:1], head + body

    async def _requests(self):
        try:
            while True:
                head = await self.reader.readexactly(4)
                packet = head + await self.reader.readexactly(struct.unpack("!I", head)[0] - 4)
                asks = struct.unpack("!I", packet[4:8])[0] in (_SSL, _GSS)
                self.negotiating += asks
                await self._pass(self.up_writer, packet)
                if not asks:
                    break
            while True:
                kind, frame = await self._frame(self.reader)
                self._follow(kind, frame[5:])
                order = self.proxy.cut_order
                if order and order.part == "request" and kind in (b"E", b"Q") and self.executing == order.kind:
                    self.proxy.cut_order = None
                    frame = frame[:int(len(frame) * order.share)]
                    await self._pass(self.up_writer, frame)
                    self.end(order.abrupt)
                    order.done.set()
                    return
                await self._pass(self.up_writer, frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    def _follow(self, kind, body):
        if kind == b"P":
            name, sql = body.split(b"\0")[:2]
            self.statements[name] = statement_kind(sql.decode(errors="replace"))
        elif kind == b"B":
            self.bound = self.statements.get(body.split(b"\0")[1], OTHER)
        elif kind == b"E":
            self._executes(self.bound)
        elif kind == b"Q":
            self._executes(statement_kind(body.decode(errors="replace")))

    def _executes(self, kind):
        self.executing = kind
        self.proxy.exchanges[kind] = self.proxy.exchanges.get(kind, 0) + 1
        order = self.proxy.cut_order
        if order and order.part == "reply" and order.kind == kind and self.to_cut is None:
            self.to_cut = order
            self.held = b""

    async def _replies(self):
        try:
            while True:
                kind, frame = await self._next_reply()
                if self.to_cut is None:
                    await self._pass(self.writer, frame)
                    continue
                self.held += frame
                if kind != b"Z":
                    continue
                order, held = self.to_cut, self.held
                self.to_cut, self.held = None, b""
                if self.proxy.cut_order is not order or (order.rows and order.kind == MARK and not _has_rows(held)) or (
                        not _succeeded(held)):
                    await self._pass(self.writer, held)
                    continue
                self.proxy.cut_order = None
                order.length, order.passed = len(held), int(len(held) * order.share)
                await self._pass(self.writer, held[:order.passed])
                if not order.abrupt:
                    await self.writer.drain()
                self.end(order.abrupt)
                order.done.set()
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def _next_reply(self):
        if self.negotiating:   # a single byte answers a request for encryption
            self.negotiating -= 1
            return b"-", await self.up_reader.readexactly(1)
        return await self._frame(self.up_reader)

    async def _pass(self, writer, data):
        await self.proxy.released.wait()
        writer.write(data)
        await writer.drain()


def _frames(data):
    position = 0
    while position + 5 <= len(data):
        size = struct.unpack("!I", data[position + 1:position + 5])[0]
        yield data[position:position + 1], data[position + 5:position + 1 + size]
        position += 1 + size


def _has_rows(held):
    return any(kind == b"D" for kind, _ in _frames(held))


def _succeeded(held):
    return not any(kind == b"E" for kind, _ in _frames(held))
