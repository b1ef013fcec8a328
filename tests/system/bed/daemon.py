"""harvestd as a process: writes its INI, reads its log, measures and signals it."""
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time

from .util import BUILD, ROOT, TimedOut, process_cpu_seconds, process_rss_bytes, process_state, remove_tree, spawn

_PAIR = re.compile(r'([A-Za-z0-9_.\-]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+|$)')
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def command(program=None):
    """What to run: $HARVESTD may hold a wrapper and its options in front ("valgrind -q build/harvestd"). program: another build of the
    daemon in its place, named as in the build directory."""
    given = os.environ.get("HARVESTD")
    argv = shlex.split(given) if given else [os.path.join(ROOT, "build", "harvestd")]
    if program:
        argv[-1] = os.path.join(BUILD, program)
    return argv


def parse_logfmt(line):
    """{field: text}, or None when the line is no logfmt at all."""
    fields, position = {}, 0
    while position < len(line):
        m = _PAIR.match(line, position)
        if not m:
            return None
        value = m.group(2)
        if value.startswith('"'):
            value = _ESCAPE.sub(lambda e: _unescape(e.group(1)), value[1:-1])
        fields[m.group(1)] = value
        position = m.end()
    return fields if "level" in fields and "msg" in fields else None


def _unescape(code):
    if len(code) > 1:
        return chr(int(code[1:], 16))
    return _ESCAPED.get(code, code)


def write_ini(path, sections):
    with open(path, "w") as f:
        for section, settings in sections.items():
            f.write("[%s]\n" % section)
            for name, value in settings.items():
                if value is not None:
                    f.write("%s = %s\n" % (name, value))
            f.write("\n")


def run_once(*arguments, timeout=60, **options):
    """Runs a command of the daemon that ends by itself."""
    return subprocess.run(command() + list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace", timeout=timeout, **options)


def environment_with(changes):
    """Our environment with some variables changed, or taken out (None)."""
    return {name: value for name, value in {**os.environ, **changes}.items() if value is not None}


class Harvestd:
    def __init__(self, sections, label="harvestd", environment=None, program=None):
        """program: see command()."""
        self.label, self.program = label, program
        self.environment = dict(environment or {})  # over ours; None: without that variable
        self.sections = {s: dict(settings) for s, settings in sections.items()}
        self.directory = tempfile.mkdtemp(prefix="harvestd-run-")
        self.ini = os.path.join(self.directory, "harvestd.ini")
        self.process = None
        self.lines = []   # parsed: every line is a dict with "raw" and "at" (our monotonic clock)
        self.noise = []   # what is no log line: a sanitizer's report, a failed assertion
        self.changed = threading.Condition()
        self.reader = None
        self.starts = 0

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self):
        assert self.process is None or self.process.poll() is not None, "runs already"
        write_ini(self.ini, self.sections)
        argv = command(self.program) + ["run", "-c", self.ini]
        if not os.path.exists(argv[0]) and "/" in argv[0]:
            raise RuntimeError("%s is not built" % argv[0])
        self.starts += 1
        if self.reader:
            self.reader.join(timeout=10)
        self.process = spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             env=environment_with(self.environment))
        self.reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self.reader.start()
        return self

    def _read(self, stream):
        for raw in stream:
            raw = raw.decode(errors="backslashreplace").rstrip("\n")
            fields = parse_logfmt(raw)
            with self.changed:
                if fields is None:
                    self.noise.append(raw)
                else:
                    fields.update(raw=raw, at=time.monotonic())
                    self.lines.append(fields)
                self.changed.notify_all()
        stream.close()
        with self.changed:
            self.changed.notify_all()

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, signum):
        self.process.send_signal(signum)

    def kill(self):
        """kill -9, and waits until it is gone."""
        if self.process is None:
            return
        if self.running():
            self.process.kill()
        self.process.wait(timeout=30)

    def terminate(self):
        self.signal(signal.SIGTERM)

    def pause(self):
        self.signal(signal.SIGSTOP)
        end = time.monotonic() + 10
        while process_state(self.pid) != "T" and time.monotonic() < end:
            time.sleep(0.005)

    def resume(self):
        self.signal(signal.SIGCONT)

    def wait_exit(self, deadline=30):
        """Its exit code; what it said has been read by then."""
        try:
            code = self.process.wait(timeout=deadline)
        except subprocess.TimeoutExpired:
            raise TimedOut("%s did not end within %.0f s\n%s" % (self.label, deadline, self.tail())) from None
        self.reader.join(timeout=10)  # a child of its may have the pipe, too
        return code

    def stop(self, deadline=30):
        """SIGTERM; it has to end by itself, with exit code 0."""
        self.terminate()
        code = self.wait_exit(deadline)
        assert code == 0, "%s ended with %d after SIGTERM\n%s" % (self.label, code, self.tail())
        return code

    def destroy(self):
        if self.process is not None:
            if self.running():
                self.process.send_signal(signal.SIGCONT)
            self.kill()
            self.reader.join(timeout=10)
        remove_tree(self.directory)

    # -- its log ------------------------------------------------------------------------------------------------------

    def position(self):
        """To be given as `since` later: only what is logged from now on."""
        with self.changed:
            return len(self.lines)

    def find(self, component=None, msg=None, since=0, **fields):
        """Lines that fit; a field's expected value may be text (equal), a compiled pattern (search) or True (there)."""
        with self.changed:
            return [line for line in self.lines[since:] if _fits(line, component, msg, fields)]

    def wait_log(self, component=None, msg=None, deadline=20, since=0, count=1, **fields):
        """Waits for the `count`th line that fits, and returns it."""
        end = time.monotonic() + deadline
        position = since
        found = 0
        with self.changed:
            while True:
                while position < len(self.lines):
                    line = self.lines[position]
                    position += 1
                    if _fits(line, component, msg, fields):
                        found += 1
                        if found == count:
                            return line
                left = end - time.monotonic()
                if left <= 0 or (not self.running() and not self.reader.is_alive()):
                    raise TimedOut("%s: no line %s/%r %s within %.0f s (%s)\n%s" % (
                        self.label, component, msg, fields or "", deadline,
                        "it runs" if self.running() else "it ended with %s" % self.process.poll(), self.tail()))
                self.changed.wait(min(left, 0.2))

    def wait_started(self, deadline=30):
        return self.wait_log("main", "started", deadline)

    def wait_leading(self, deadline=40, since=0):
        return self.wait_log("leader", "acquired", deadline, since)

    def tail(self, count=40):
        with self.changed:
            text = [line["raw"] for line in self.lines[-count:]]
            if self.noise:
                text += ["-- not log lines:"] + self.noise[-200:]
        return "\n".join("  | " + t for t in text)

    # -- measures -----------------------------------------------------------------------------------------------------

    def cpu_seconds(self):
        return process_cpu_seconds(self.pid)

    def rss_bytes(self):
        return process_rss_bytes(self.pid)


def _fits(line, component, msg, fields):
    if component is not None and line.get("component") != component:
        return False
    if msg is not None and not _equal(line.get("msg"), msg):
        return False
    return all(_equal(line.get(name), value) for name, value in fields.items())


def _equal(got, expected):
    if got is None:
        return False
    if expected is True:
        return True
    if hasattr(expected, "search"):
        return expected.search(got) is not None
    return got == str(expected)
