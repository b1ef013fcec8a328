"""A private Kafka broker: one KRaft node (broker and controller in one) on free loopback ports; can be stopped, killed,
frozen, and started again on the same ports and log directory."""
import glob
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time

from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from .util import ROOT, TimedOut, end_process, free_port, remove_tree, spawn, tail, wait_until

LOG4J = """log4j.rootLogger=WARN, out
log4j.logger.kafka.server.KafkaRaftServer=INFO
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n
"""
CLUSTER_ID = "aGFydmVzdGQtdGVzdHMtMQ"

_formatted = None  # a log directory as StorageTool makes it, to be copied: saves a JVM start per broker
_format_lock = threading.Lock()


def libraries():
    directory = os.environ.get("KAFKA_LIBS") or os.path.join(ROOT, "build", "kafka", "libs")
    if not glob.glob(os.path.join(directory, "kafka_*.jar")):
        subprocess.run([os.path.join(ROOT, "scripts", "get-kafka"), directory], check=True)
    return directory


def java(arguments, heap="384m"):
    # Short lives: the fast compiler only, the collector with the smallest start-up.
    return ["java", "-Xmx" + heap, "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
            "-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true"] + arguments


class Kafka:
    """settings: broker properties (dots as in server.properties). proxied: the port of a proxy (or a list of several) that
    clients of a listener of its own are to be sent to; the port of that listener is then .inner_port (.inner_ports).
    secure: listeners beside the first, name (capitals) -> protocol; their ports are in .ports, and clients know them as
    localhost."""

    def __init__(self, proxied=None, secure=None, **settings):
        self.directory = tempfile.mkdtemp(prefix="harvestd-kafka-")
        self.port = free_port()
        self.controller_port = free_port()
        proxied = proxied if isinstance(proxied, list) else [proxied] if proxied else []
        self.inner_ports = [free_port() for _ in proxied]
        self.inner_port = self.inner_ports[0] if proxied else None
        self.log_path = os.path.join(self.directory, "log")
        self.process = None
        listeners = ["PLAINTEXT://127.0.0.1:%d" % self.port]
        advertised = list(listeners)
        protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
        for n, (inner, outer) in enumerate(zip(self.inner_ports, proxied)):
            listeners.append("PROXIED%d://127.0.0.1:%d" % (n, inner))
            advertised.append("PROXIED%d://127.0.0.1:%d" % (n, outer))
            protocols.append("PROXIED%d:PLAINTEXT" % n)
        self.ports = {name: free_port() for name in secure or {}}
        for name, port in self.ports.items():
            listeners.append("%s://127.0.0.1:%d" % (name, port))
            advertised.append("%s://localhost:%d" % (name, port))
            protocols.append("%s:%s" % (name, secure[name]))
        self.settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": "1@127.0.0.1:%d" % self.controller_port,
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(listeners + ["CONTROLLER://127.0.0.1:%d" % self.controller_port]),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(protocols),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": os.path.join(self.directory, "data"),
            "num.partitions": 4,
            "default.replication.factor": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "true",
            "log.cleaner.enable": "false",
            "num.network.threads": 2,
            "num.io.threads": 3,
            "background.threads": 2,
            # A killed broker may register again only after its predecessor's session: 9 s by default.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
        }
        self.settings.update({name.replace("_", "."): value for name, value in settings.items()})

    @property
    def servers(self):
        return "127.0.0.1:%d" % self.port

    def create(self):
        with open(os.path.join(self.directory, "log4j.properties"), "w") as f:
            f.write(LOG4J)
        self.configure()
        global _formatted
        with _format_lock:
            if _formatted is None:
                self._run_format()
                _formatted = self._read_data()
        for path, content in _formatted:
            path = os.path.join(self.settings["log.dirs"], path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(content)
        return self

    def configure(self, **settings):
        """Other settings from the next start on."""
        self.settings.update({name.replace("_", "."): value for name, value in settings.items()})
        with open(os.path.join(self.directory, "server.properties"), "w") as f:
            for name, value in self.settings.items():
                f.write("%s=%s\n" % (name, value))

    def _run_format(self):
        command = java(["-cp", libraries() + "/*", "-Dlog4j.configuration=file:%s/log4j.properties" % self.directory,
                        "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID,
                        "-c", os.path.join(self.directory, "server.properties")], heap="128m")
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        if done.returncode != 0:
            raise RuntimeError("formatting Kafka's storage failed: " + done.stdout.decode(errors="replace"))

    def _read_data(self):
        found = []
        for directory, _, names in os.walk(self.settings["log.dirs"]):
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as f:
                    found.append((os.path.relpath(path, self.settings["log.dirs"]), f.read()))
        return found

    def launch(self):
        """Starts the process and does not wait."""
        assert self.process is None
        with open(self.log_path, "ab") as log:
            self.process = spawn(
                java(["-cp", libraries() + "/*", "-Djava.io.tmpdir=" + self.directory,
                      "-Dlog4j.configuration=file:%s/log4j.properties" % self.directory,
                      "kafka.Kafka", os.path.join(self.directory, "server.properties")]),
                cwd=self.directory, stdout=log, stderr=log)
        return self

    def start(self, deadline=90):
        if self.process is None:
            self.launch()
        end = time.monotonic() + deadline
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise TimedOut("Kafka did not start:\n" + self.log_tail())
            time.sleep(0.05)
        return self

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        try:
            return bool(self.admin().list_topics(timeout=2).brokers)
        except Exception:
            return False

    def stop(self, signum=signal.SIGTERM):
        """In order (SIGTERM, takes a second or two; a single node sometimes waits for itself, then it is killed) or not."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        end_process(self.process, signum, patience=10)
        self.process = None

    def kill(self):
        self.stop(signal.SIGKILL)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def destroy(self):
        self.kill()
        remove_tree(self.directory)

    def log_tail(self, lines=30):
        return tail(self.log_path, lines)

    def admin(self):
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0, "logger": _silence})

    def set_listener(self, **settings):
        """Changes settings of listeners while it runs: names as in server.properties, dots as underscores. What was changed
        in this way before and is not named goes back."""
        resource = ConfigResource(ConfigResource.Type.BROKER, "1")
        for name, value in settings.items():
            resource.set_config(name.replace("_", "."), value)
        admin = self.admin()
        admin.alter_configs([resource])[resource].result(timeout=30)

    def set_scram_password(self, user, password):
        """Makes the user if there is none. Takes a second or two."""
        done = subprocess.run(
            java(["-cp", libraries() + "/*", "-Dlog4j.configuration=file:%s/log4j.properties" % self.directory,
                  "kafka.admin.ConfigCommand", "--bootstrap-server", self.servers, "--alter", "--entity-type", "users",
                  "--entity-name", user, "--add-config", "SCRAM-SHA-512=[password=%s]" % password], heap="128m"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        if done.returncode != 0:
            raise RuntimeError("no SCRAM user could be made: " + done.stdout.decode(errors="replace"))

    def topics(self):
        """name -> number of partitions"""
        return {name: len(t.partitions) for name, t in self.admin().list_topics(timeout=10).topics.items()}

    def create_topic(self, name, partitions=4, **config):
        config = {k.replace("_", "."): str(v) for k, v in config.items()}
        admin = self.admin()
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(timeout=30)
        # The answer comes before every broker thread knows it; a consumer that assigns now could find nothing.
        wait_until(lambda: len(admin.list_topics(name, timeout=10).topics[name].partitions) == partitions, 30,
                   "topic %s to appear" % name)
        return name


class _Silence:
    def log(self, *_args, **_options):
        pass


_silence = _Silence()


def fresh_name(prefix="t"):
    """A topic or group name that no other test uses."""
    fresh_name.count += 1
    return "%s-%d-%d" % (prefix, os.getpid(), fresh_name.count)


fresh_name.count = 0
