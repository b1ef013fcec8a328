"""A private PgBouncer in front of a Postgres of the bed: own directory, own loopback port. Debian's package brings the program; its
service is not used."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg

from .postgres import PASSWORD, quote
from .util import TimedOut, end_process, free_port, remove_tree, spawn, tail


def binary():
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not found:
        raise RuntimeError("pgbouncer is not installed (scripts/install-deps)")
    return found


class PgBouncer:
    """settings: those of [pgbouncer]. users: {name: what auth_file says: a password or a SCRAM secret}."""

    def __init__(self, server, pool_mode, users=None, **settings):
        self.server = server
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="harvestd-pgbouncer-")
        self.ini = os.path.join(self.directory, "pgbouncer.ini")
        self.log_path = os.path.join(self.directory, "log")
        self.process = None
        self.users = {"postgres": PASSWORD}
        self.users.update(users or {})
        self.settings = dict(
            listen_addr="127.0.0.1", listen_port=self.port, unix_socket_dir=self.directory, pool_mode=pool_mode,
            auth_type="scram-sha-256", auth_file=os.path.join(self.directory, "users"), admin_users="postgres",
            default_pool_size=2, max_client_conn=50, server_login_retry=0.3, server_check_delay=0)
        self.settings.update(settings)

    def configure(self, **settings):
        """Writes the files; reload() or restart() makes them count."""
        self.settings.update(settings)
        with open(self.settings["auth_file"], "w") as f:
            for name, secret in self.users.items():
                f.write('"%s" "%s"\n' % (name, secret.replace('"', '""')))
        with open(self.ini, "w") as f:
            f.write("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\n" % self.server.port)
            for name, value in self.settings.items():
                f.write("%s = %s\n" % (name, value))
        if self.server.user:   # it refuses to run as root
            for path in (self.directory, self.ini, self.settings["auth_file"]):
                shutil.chown(path, self.server.user)
        return self

    def start(self, deadline=30):
        assert self.process is None
        with open(self.log_path, "ab") as log:
            self.process = spawn([binary(), self.ini], user=self.server.user, cwd=self.directory, stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log)
        end = time.monotonic() + deadline
        while True:
            try:
                self.admin("SHOW VERSION")
                return self
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise TimedOut("PgBouncer did not start:\n" + self.log_tail())
                time.sleep(0.02)

    def admin(self, command):
        """A command of its console; its rows as dicts."""
        with psycopg.connect("host=127.0.0.1 port=%d user=postgres password=%s dbname=pgbouncer" % (self.port, quote(PASSWORD)),
                             autocommit=True, connect_timeout=5) as c:
            cursor = c.execute(command)
            if not cursor.description:
                return []
            names = [d.name for d in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def stop(self, signum=signal.SIGTERM):
        """SIGTERM: at once, sessions are cut."""
        if self.process is None:
            return
        end_process(self.process, signum, patience=20)
        self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def data_source(self, database, user="postgres", password=PASSWORD, extra=""):
        return self.server.data_source(database.name, port=self.port, user=user, password=password, extra=extra)

    def destroy(self):
        self.stop(signal.SIGKILL)
        remove_tree(self.directory)

    def log_tail(self, lines=30):
        # Its statistics, a line a minute, and who came and went are of no interest.
        return tail(self.log_path, lines, but=r"login attempt|LOG stats")
