"""tests/embed/host.c as a process: a program that embeds harvests, steered by commands, heard by its JSON lines."""
import json
import os
import signal
import subprocess
import threading
import time

from .util import BUILD, TimedOut, spawn

PROGRAM = os.environ.get("EMBED_HOST") or os.path.join(BUILD, "tests", "embed_host")


def words(sections):
    """Settings as the host takes them."""
    return ["%s.%s=%s" % (section, name, value) for section, settings in sections.items()
            for name, value in settings.items()]


class Host:
    """way: uv, poll, glib or thread. members: a list of words each."""

    def __init__(self, way, members, label, program=PROGRAM, environment=None):
        self.label = label
        self.lines = []   # each a dict, with "at" (our monotonic clock)
        self.noise = []   # whatever came on standard output or error
        self.changed = threading.Condition()
        told, told_end = os.pipe()
        command_end, self.commands = os.pipe()
        argv = [program, way]
        for member in members:
            argv += (["+"] if argv[2:] else []) + member
        self.process = spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             pass_fds=(told_end, command_end),
                             env=dict(os.environ, HOST_FDS="%d,%d" % (told_end, command_end), **(environment or {})))
        os.close(told_end)
        os.close(command_end)
        self.readers = [threading.Thread(target=self._read, args=(os.fdopen(told, "rb"), self._take), daemon=True)]
        for stream in (self.process.stdout, self.process.stderr):
            self.readers.append(threading.Thread(target=self._read, args=(stream, self._complain), daemon=True))
        for reader in self.readers:
            reader.start()

    def _read(self, stream, take):
        for raw in stream:
            with self.changed:
                take(raw.decode(errors="backslashreplace").rstrip("\n"))
                self.changed.notify_all()
        stream.close()

    def _take(self, raw):
        self.lines.append(dict(json.loads(raw), at=time.monotonic()))

    def _complain(self, raw):
        self.noise.append(raw)

    # -- steering -----------------------------------------------------------------------------------------------------

    def tell(self, command):
        os.write(self.commands, (command + "\n").encode())
        return self

    def ask(self, command, event, deadline=30, **fields):
        since = self.position()
        return self.tell(command).wait(event, deadline, since, **fields)

    def signal(self, signum):
        self.process.send_signal(signum)

    def finish(self, deadline=30):
        """Nothing is to be told any more: the host ends by itself."""
        os.close(self.commands)
        self.commands = None
        code = self.process.wait(timeout=deadline)
        assert code == 0, "%s ended with %d\n%s" % (self.label, code, self.tail())

    def destroy(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=30)
        if self.commands is not None:
            os.close(self.commands)
        for reader in self.readers:
            reader.join(timeout=10)

    # -- hearing ------------------------------------------------------------------------------------------------------

    def position(self):
        with self.changed:
            return len(self.lines)

    def find(self, event=None, since=0, **fields):
        with self.changed:
            return [line for line in self.lines[since:] if _fits(line, event, fields)]

    def wait(self, event, deadline=40, since=0, **fields):
        """The first line of that event from position `since` on."""
        end = time.monotonic() + deadline
        position = since
        with self.changed:
            while True:
                for line in self.lines[position:]:
                    if _fits(line, event, fields):
                        return line
                position = len(self.lines)
                left = end - time.monotonic()
                if left <= 0 or not self.readers[0].is_alive():
                    raise TimedOut("%s: no %s %s within %.0f s\n%s" % (
                        self.label, event, fields or "", deadline, self.tail()))
                self.changed.wait(min(left, 0.2))

    def wait_leading(self, h=0, deadline=40, since=0):
        return self.wait("acquired", deadline, since, h=h)

    def tail(self, count=60):
        with self.changed:
            text = [json.dumps(line)[:400] for line in self.lines[-count:]]
            if self.noise:
                text += ["-- on standard output or error:"] + self.noise[-200:]
        return "\n".join("  | " + t for t in text)


def _fits(line, event, fields):
    return (event is None or line["event"] == event) and all(line.get(n) == v for n, v in fields.items())


SIGNAL = signal.SIGUSR1   # the host's handler of it stops all harvests
