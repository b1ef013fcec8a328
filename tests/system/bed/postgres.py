"""A private Postgres server: own directory, own loopback port, own sockets; can be stopped, killed, frozen."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg

from .certificates import write
from .util import TimedOut, children, end_process, free_port, remove_tree, spawn, tail

PASSWORD = "se cret'\\1"  # hostile on purpose: blank, quote and backslash have to be escaped in a data source

COLUMNS = """
    id                  BIGSERIAL PRIMARY KEY,
    create_time         TIMESTAMP WITH TIME ZONE NOT NULL,
    kafka_topic         VARCHAR(249) NOT NULL,
    kafka_key           VARCHAR(100) NOT NULL,
    kafka_value         VARCHAR(10000),
    kafka_header_keys   TEXT[] NOT NULL,
    kafka_header_values TEXT[] NOT NULL,
    leader_id           UUID
"""
TABLE = "CREATE TABLE outbox (%s)" % COLUMNS
TABLE_WITHOUT_CONSTRAINTS = """CREATE TABLE outbox (id BIGSERIAL PRIMARY KEY, create_time TIMESTAMPTZ,
    kafka_topic TEXT, kafka_key TEXT, kafka_value TEXT, kafka_header_keys TEXT[], kafka_header_values TEXT[],
    leader_id UUID)"""
TABLE_BYTEA = TABLE.replace("VARCHAR(10000)", "BYTEA")


def binaries():
    if shutil.which("pg_config"):
        bindir = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip()
        if os.path.exists(os.path.join(bindir, "initdb")):
            return bindir
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        raise RuntimeError("no Postgres server is installed (scripts/install-deps)")
    return os.path.dirname(found[-1])


def server_user():
    """Whom the server runs as when we are root, which it refuses."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise RuntimeError("neither a user postgres nor nobody")


def quote(value):
    """A value in a connection string."""
    return "'%s'" % str(value).replace("\\", "\\\\").replace("'", "\\'")


class Postgres:
    def __init__(self, **settings):
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="harvestd-pg-")
        self.data = os.path.join(self.directory, "data")
        self.log_path = os.path.join(self.directory, "log")
        self.process = None
        self.frozen = []
        self.databases = 0
        self.user = None
        if os.geteuid() == 0:
            self.user = server_user().pw_name
            os.chown(self.directory, server_user().pw_uid, server_user().pw_gid)
        self.settings = dict(
            listen_addresses="127.0.0.1", port=self.port, unix_socket_directories=self.directory, fsync="off",
            max_prepared_transactions=10, max_connections=60, shared_buffers="64MB", max_wal_size="512MB",
            log_line_prefix="%m [%p] %q%a ", log_lock_waits="on", timezone="UTC")
        self.settings.update(settings)

    def create(self):
        password_file = os.path.join(self.directory, "password")
        with open(password_file, "w") as f:
            f.write(PASSWORD + "\n")
        os.chmod(password_file, 0o644)
        p = spawn([os.path.join(binaries(), "initdb"), "-D", self.data, "-U", "postgres", "--no-sync", "-E", "UTF8",
                   "--locale", "C.UTF-8", "--auth-local", "trust", "--auth-host", "scram-sha-256",
                   "--pwfile", password_file],
                  user=self.user, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out = p.communicate(timeout=120)[0]
        if p.returncode != 0:
            raise RuntimeError("initdb failed: " + out.decode(errors="replace"))
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            for name, value in self.settings.items():
                f.write("%s = '%s'\n" % (name, value))
        return self

    def use_tls(self, authority, rules):
        """Before start(): TLS with a certificate of this authority, client certificates of the same; `rules` of pg_hba.conf
        over those for our own connections."""
        owner = server_user() if self.user else None
        self.use_certificate(authority.server())
        write(self.data, "ca.crt", authority.pem, owner=owner)
        write(self.data, "pg_hba.conf", "local all all trust\n" + rules, owner=owner)
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            f.write("ssl = on\nssl_ca_file = 'ca.crt'\n")
        return self

    def use_certificate(self, certificate):
        """From the next connection on."""
        owner = server_user() if self.user else None
        write(self.data, "server.key", certificate.key_pem(), owner=owner)
        write(self.data, "server.crt", certificate.pem, owner=owner)
        if self.process is not None:
            with self.connect() as c:
                c.execute("SELECT pg_reload_conf()")

    def start(self, deadline=60):
        assert self.process is None
        with open(self.log_path, "ab") as log:
            self.process = spawn([os.path.join(binaries(), "postgres"), "-D", self.data], death_signal="QUIT",
                                 user=self.user, cwd=self.directory, stdout=log, stderr=log)
        end = time.monotonic() + deadline
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
                return self
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise TimedOut("Postgres did not start:\n" + self.log_tail())
                time.sleep(0.02)

    def stop(self, mode="fast"):
        """fast: sessions are ended; immediate: as after a crash; kill: no farewell at all."""
        if self.process is None:
            return
        self.thaw()
        signum = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT,
                  "kill": signal.SIGKILL}[mode]
        end_process(self.process, signum, patience=60)
        self.process = None

    def restart(self, mode="fast"):
        self.stop(mode)
        return self.start()

    def freeze(self):
        """SIGSTOP to the server and all of its backends: connections stay open, nothing answers."""
        self.frozen = [self.process.pid] + children(self.process.pid)
        for pid in self.frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in reversed(self.frozen):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.frozen = []

    def destroy(self):
        self.stop("immediate")
        remove_tree(self.directory)

    def log_tail(self, lines=30):
        return tail(self.log_path, lines)

    def dsn(self, dbname="postgres", user="postgres"):
        """For the tests: through the socket directory, without password and past every proxy."""
        return "host=%s port=%d user=%s dbname=%s" % (self.directory, self.port, user, dbname)

    def data_source(self, dbname="postgres", port=None, user="postgres", password=PASSWORD, extra=""):
        """For the daemon: over TCP."""
        return ("host=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=disable %s" % (
            port or self.port, user, quote(password), dbname, extra)).rstrip()

    def connect(self, dbname="postgres", **options):
        options.setdefault("autocommit", True)
        return psycopg.connect(self.dsn(dbname), **options)

    def database(self, table=TABLE):
        """A fresh database, with an outbox table unless table is None."""
        self.databases += 1
        name = "db%d_%d" % (os.getpid(), self.databases)
        with self.connect() as c:
            c.execute("CREATE DATABASE " + name)
        db = Database(self, name)
        if table:
            db.execute(table)
        return db


class Database:
    """One database of a server, and short questions about the outbox in it."""

    def __init__(self, server, name):
        self.server = server
        self.name = name

    def connect(self, **options):
        return self.server.connect(self.name, **options)

    def data_source(self, **options):
        return self.server.data_source(self.name, **options)

    def execute(self, sql, params=None):
        with self.connect() as c:
            cursor = c.execute(sql, params)
            return cursor.fetchall() if cursor.description else None

    def count(self, where="true", table="outbox"):
        return self.execute("SELECT count(*) FROM %s WHERE %s" % (table, where))[0][0]

    def sessions(self):
        """Backends other than ours that work in this database: (pid, application_name, state)."""
        return self.execute("""SELECT pid, application_name, state FROM pg_stat_activity WHERE datname = %s
            AND pid <> pg_backend_pid() AND backend_type = 'client backend'""", [self.name])

    def drop(self):
        with self.server.connect() as c:
            for (gid,) in c.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [self.name]).fetchall():
                with self.connect() as own:
                    own.execute("ROLLBACK PREPARED '%s'" % gid)
            c.execute("DROP DATABASE IF EXISTS %s WITH (FORCE)" % self.name)
