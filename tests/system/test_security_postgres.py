"""Postgres over TLS with passwords (SCRAM) and client certificates: all the ways in which libpq's users give them; and what is
wrong with them, which is told once, and mended on the server's side without a restart of the daemon."""
import contextlib
import os
import re

import pytest

from bed.certificates import Authority, write
from bed.daemon import environment_with, run_once, write_ini
from bed.postgres import Postgres
from bed.util import wait_until

PASSWORD = "sesame 'street' \\ 1"
WRONG = "op3n-sesame"
LIMITS = {"io_error_backoff": "100ms", "io_error_backoff_max": "300ms", "connect_timeout": "5s"}
RULES = """hostssl all by_certificate 127.0.0.1/32 cert
hostssl all by_both        127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl all all            127.0.0.1/32 scram-sha-256
"""
# Nothing of the machine's own may help.
CLEAN = dict.fromkeys(["PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE", "PGSERVICE", "PGHOST", "PGUSER", "PGSSLMODE"])


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def server(authority):
    with contextlib.ExitStack() as stack:
        server = Postgres(password_encryption="scram-sha-256", log_connections="on")
        stack.callback(server.destroy)
        server.create().use_tls(authority, RULES).start()
        with server.connect() as c:
            for role in "by_password", "by_certificate", "by_both":
                c.execute("CREATE ROLE %s LOGIN PASSWORD %s" % (role, "'%s'" % PASSWORD.replace("'", "''")))
        yield server


class Scene:
    """A database on the server, a home directory, and daemons in there."""

    def __init__(self, bed, server, authority, home):
        self.bed, self.server, self.home = bed, server, home
        self.database = bed.database(server=server)
        self.database.execute("GRANT SELECT, UPDATE, DELETE ON outbox TO PUBLIC")
        self.ca = write(home, "ca.crt", authority.pem)
        self.environment = dict(CLEAN, HOME=str(home))

    def source(self, user="by_password", extra="", host="localhost"):
        return "host=%s port=%d user=%s dbname=%s sslmode=verify-full sslrootcert=%s %s" % (
            host, self.server.port, user, self.database.name, self.ca, extra)

    def check(self, **harvest):
        path = str(self.home / "check.ini")
        write_ini(path, self.sections(harvest))
        return run_once("check", "-c", path, env=environment_with(self.environment))

    def sections(self, harvest):
        sections = self.bed.settings(data_source="x", limits=LIMITS, harvest=harvest)
        if "data_source_file" in harvest:
            del sections["harvest"]["data_source"]
        return sections

    def daemon(self, **harvest):
        daemon = self.bed.harvestd(data_source="x", limits=LIMITS, environment=self.environment, harvest=harvest, start=False)
        daemon.sections = self.sections(harvest)
        return daemon.start()

    def delivers(self):
        topic = self.bed.topic()
        collector = self.bed.collector(topic)
        self.bed.write(self.database, topic, "k", "v")
        collector.wait_value("v")
        self.bed.wait_empty(self.database)


@pytest.fixture
def scene(bed, server, authority, tmp_path):
    yield Scene(bed, server, authority, tmp_path)
    server.use_certificate(authority.server())


def quoted(value):
    return "'%s'" % value.replace("\\", "\\\\").replace("'", "\\'")


def pgpass(scene, user="by_password", mode=0o600, host="localhost"):
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    return write(scene.home, ".pgpass", "nowhere:*:*:*:no\n%s:%d:*:%s:%s\n" % (host, scene.server.port, user, escaped), mode)


def service(scene):
    return write(scene.home, "services.conf",
                 "[shop]\nhost=localhost\nport=%d\nuser=by_password\ndbname=%s\npassword=%s\nsslmode=verify-full\n"
                 "sslrootcert=%s\n" % (scene.server.port, scene.database.name, PASSWORD, scene.ca))


def by_password_file(scene):
    return {"data_source": scene.source(), "password_file": write(scene.home, "pw", PASSWORD + "\n")}


def by_environment(scene):
    scene.environment["DB_PASSWORD"] = PASSWORD
    return {"data_source": scene.source(), "password": "${DB_PASSWORD}"}


def by_data_source_file(scene):
    return {"data_source_file": write(scene.home, "ds", scene.source(extra="password=" + quoted(PASSWORD)) + "\n")}


def by_uri(scene):
    scene.environment["DB_PASSWORD"] = PASSWORD
    return {"data_source": "postgresql://by_password@localhost:%d/%s?sslmode=verify-full&sslrootcert=%s" % (
        scene.server.port, scene.database.name, scene.ca), "password": "${DB_PASSWORD}"}


def by_pgpassword(scene):
    scene.environment["PGPASSWORD"] = PASSWORD
    return {"data_source": scene.source()}


def by_pgpassfile(scene):
    path = pgpass(scene)
    os.rename(path, path + ".elsewhere")
    scene.environment["PGPASSFILE"] = path + ".elsewhere"
    return {"data_source": scene.source()}


def by_home(scene):
    pgpass(scene)
    return {"data_source": scene.source()}


def by_passfile_option(scene):
    path = pgpass(scene)
    os.rename(path, path + ".elsewhere")
    return {"data_source": scene.source(extra="passfile=%s.elsewhere" % path)}


def by_service(scene):
    scene.environment["PGSERVICEFILE"] = service(scene)
    return {"data_source": "service=shop"}


def by_service_in_home(scene):
    os.rename(service(scene), str(scene.home / ".pg_service.conf"))
    return {"data_source": "service=shop"}


def client_certificate(scene, name):
    client = scene.server.authority_of_test.client(name)
    return "sslcert=%s sslkey=%s" % (write(scene.home, "client.crt", client.pem),
                                     write(scene.home, "client.key", client.key_pem()))


def by_certificate(scene):
    return {"data_source": scene.source("by_certificate", client_certificate(scene, "by_certificate"))}


def by_both(scene):
    return {"data_source": scene.source("by_both", client_certificate(scene, "by_both")),
            "password_file": write(scene.home, "pw", PASSWORD)}


WAYS = [by_password_file, by_environment, by_data_source_file, by_uri, by_pgpassword, by_pgpassfile, by_home, by_passfile_option,
        by_service, by_service_in_home, by_certificate, by_both]


@pytest.mark.parametrize("way", WAYS)
def test_ways_in(scene, way):
    """Both connections stand, encrypted, and nothing was to be said about them."""
    daemon = scene.daemon(**way(scene))
    for role in "claim", "settle":
        daemon.wait_log("database", "connected", role=role)
    assert not daemon.find("database", None, level=re.compile("warn|error"))
    with scene.server.connect() as c:
        assert c.execute("SELECT bool_and(s.ssl), count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
                         "WHERE a.datname = %s AND a.usename LIKE 'by%%'", [scene.database.name]).fetchone() == (True, 2)
    daemon.kill()
    assert PASSWORD[:6] not in daemon.tail()


@pytest.mark.parametrize("way", [by_password_file, by_certificate])
def test_records_flow(scene, way):
    harvest = way(scene)
    checked = scene.check(**harvest)
    assert checked.returncode == 0, checked.stdout
    scene.daemon(**harvest)
    scene.delivers()


# -- what is wrong, and mended ---------------------------------------------------------------------------------------------


def set_password(scene, password):
    with scene.server.connect() as c:
        c.execute("ALTER ROLE by_password PASSWORD '%s'" % password.replace("'", "''"))


def wrong_password(scene, authority):
    set_password(scene, WRONG)
    return lambda: set_password(scene, PASSWORD)


def with_certificate(make):
    def wrong(scene, authority):
        scene.server.use_certificate(make(authority))
        return lambda: scene.server.use_certificate(authority.server())
    return wrong


TROUBLES = {
    "password": (wrong_password, "password authentication failed for user .by_password", "password"),
    "authority": (with_certificate(lambda a: Authority("another").server()), "certificate verify failed", "sslrootcert"),
    "expired": (with_certificate(lambda a: a.server(expired=True)), "certificate verify failed", "expired"),
    "host": (with_certificate(lambda a: a.server(["db.example.org"])),
             "db.example.org.* does not match host name .localhost", "host"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_troubles_are_told_once_and_mended_on_the_server(scene, authority, trouble):
    wrong, reason, advice = TROUBLES[trouble]
    harvest = by_password_file(scene)
    mend = wrong(scene, authority)
    try:
        daemon = scene.daemon(**harvest)
        for role in "claim", "settle":
            line = daemon.wait_log("database", "cannot connect", role=role, reason=re.compile(reason))
            assert advice in line["advice"] and "localhost:%d" % scene.server.port in line["host"]
        checked = scene.check(**harvest)
        assert checked.returncode == 1
        assert re.search("not ok +database: .*%s.*\n +-> .*%s" % (reason, advice), checked.stdout), checked.stdout
        # It goes on trying, and says nothing more of it.
        attempts = count_in_log(scene.server)
        wait_until(lambda: count_in_log(scene.server) >= attempts + 4, 30, "more attempts in the server's log")
    finally:
        mend()
    for role in "claim", "settle":
        daemon.wait_log("database", "connected", role=role)
    assert len(daemon.find("database", "cannot connect")) == 2, daemon.tail()
    scene.bed.note("%s: %s -> %s" % (trouble, line["reason"], line["advice"]))


def count_in_log(server):
    """How often somebody came over the network."""
    with open(server.log_path, errors="replace") as f:
        return f.read().count("connection received: host=127.0.0.1")


@pytest.fixture(autouse=True)
def _authority(server, authority):
    server.authority_of_test = authority


CLIENT_TROUBLES = {
    "no certificate": (lambda s, a: s.source("by_certificate"), "connection requires a valid client certificate", "sslcert"),
    "of another": (lambda s, a: s.source("by_certificate", client_certificate(s, "somebody-else")),
                   "certificate authentication failed", "sslcert"),
    "missing CA": (lambda s, a: s.source().replace("ca.crt", "no.crt"), "no.crt.* does not exist", "sslrootcert"),
    "key open to all": (lambda s, a: open_key(s), "client.key.* has group or world access", "sslkey"),
    "no encryption": (lambda s, a: s.source().replace("verify-full", "disable"), "no pg_hba.conf entry.*no encryption", "pg_hba"),
}


def open_key(scene):
    extra = client_certificate(scene, "by_certificate")
    os.chmod(str(scene.home / "client.key"), 0o644)
    return scene.source("by_certificate", extra)


@pytest.mark.parametrize("trouble", CLIENT_TROUBLES)
def test_troubles_on_our_side(scene, authority, trouble):
    make, reason, advice = CLIENT_TROUBLES[trouble]
    checked = scene.check(data_source=make(scene, authority), password_file=write(scene.home, "pw", PASSWORD))
    assert checked.returncode == 1
    assert re.search("not ok +database: .*%s.*\n +-> .*%s" % (reason, advice), checked.stdout), checked.stdout


def test_password_file_that_libpq_ignores(scene):
    """One that others may read. libpq would only say so on standard error, and again with each attempt."""
    path = pgpass(scene, mode=0o644)
    daemon = scene.daemon(data_source=scene.source())
    line = daemon.wait_log("database", "cannot connect", role="claim", reason=re.compile("no password supplied"))
    assert path in line["reason"] and "group or world access" in line["reason"]
    os.chmod(path, 0o600)
    daemon.wait_log("database", "connected", role="claim")
    assert not daemon.noise
    assert len(daemon.find("database", "cannot connect", role="claim")) == 1, daemon.tail()


def test_password_file_of_the_address_is_not_taken_for_the_name(scene):
    """Names are resolved by us, and the address goes to libpq beside the name: what counts is the name."""
    pgpass(scene, host="127.0.0.1")
    daemon = scene.daemon(data_source=scene.source())
    daemon.wait_log("database", "cannot connect", role="claim", reason=re.compile("no password supplied"))
    pgpass(scene)
    daemon.wait_log("database", "connected", role="claim")
