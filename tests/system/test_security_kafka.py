"""Kafka over TLS with SASL (SCRAM-SHA-512, PLAIN) and with client certificates; what is wrong with them is told once,
and mended on the broker's side without a restart of the daemon. One broker, with a listener for each way."""
import contextlib
import re
import ssl
import tempfile

import pytest

from bed.certificates import Authority, write
from bed.daemon import run_once, write_ini
from bed.kafka import Kafka, fresh_name
from bed.util import wait_until

SCRAM_PASSWORD, PLAIN_PASSWORD = "scram-Pa55w=rd", "plain-Pa55word"
STORE_PASSWORD, KEY_PASSWORD = "store-Pa55word", "key-Pa55word"
LISTENERS = {"SCRAM": "SASL_SSL", "PLAIN": "SASL_SSL", "MUTUAL": "SSL", "SHIFTY": "SSL"}
MODULE = "org.apache.kafka.common.security.%s required "


class Secure:
    """The broker, and the files that its clients need."""

    def __init__(self, place):
        self.authority = Authority()
        self.place = place
        self.ca = write(place, "ca.pem", self.authority.pem)
        self.good = self.store("good", self.authority.server())
        pkcs12 = write(place, "good.p12", self.authority.server().pkcs12(STORE_PASSWORD))
        self.broker = Kafka(secure=LISTENERS, **{
            "ssl_keystore_type": "PEM", "ssl_keystore_location": self.good,
            "ssl_truststore_type": "PEM", "ssl_truststore_location": self.ca,
            "ssl_allow_dn_changes": "true", "ssl_allow_san_changes": "true",
            "listener_name_scram_sasl_enabled_mechanisms": "SCRAM-SHA-512",
            "listener_name_scram_scram-sha-512_sasl_jaas_config": MODULE % "scram.ScramLoginModule" + ";",
            "listener_name_plain_sasl_enabled_mechanisms": "PLAIN",
            "listener_name_plain_plain_sasl_jaas_config":
                MODULE % "plain.PlainLoginModule" + 'user_relay="%s";' % PLAIN_PASSWORD,
            "listener_name_mutual_ssl_client_auth": "required",
            "listener_name_mutual_ssl_keystore_type": "PKCS12",
            "listener_name_mutual_ssl_keystore_location": pkcs12,
            "listener_name_mutual_ssl_keystore_password": STORE_PASSWORD,
        })

    def store(self, name, certificate):
        return write(self.place, name + ".pem", certificate.key_pem() + certificate.pem + certificate.authority.pem)

    def properties(self, listener, **more):
        return {"bootstrap.servers": "localhost:%d" % self.broker.ports[listener],
                "security.protocol": LISTENERS[listener], "ssl.ca.location": self.ca,
                **{name.replace("_", "."): value for name, value in more.items()}}

    def scram(self, password=SCRAM_PASSWORD):
        return self.properties("SCRAM", sasl_mechanisms="SCRAM-SHA-512", sasl_username="relay", sasl_password=password)

    def shift(self, certificate):
        """Another certificate for the listener SHIFTY; until all of its threads show it."""
        port = self.broker.ports["SHIFTY"]
        self.broker.set_listener(listener_name_shifty_ssl_keystore_type="PEM",
                                 listener_name_shifty_ssl_keystore_location=self.store(fresh_name("shifty"), certificate))
        expected = certificate.pem.decode().strip()
        wait_until(lambda: all(ssl.get_server_certificate(("127.0.0.1", port)).strip() == expected for _ in range(8)), 30,
                   "the new certificate")


@pytest.fixture(scope="module")
def secure():
    with contextlib.ExitStack() as stack:
        secure = Secure(stack.enter_context(tempfile.TemporaryDirectory(prefix="harvestd-secure-")))
        stack.callback(secure.broker.destroy)
        secure.broker.create().start()
        secure.broker.set_scram_password("relay", SCRAM_PASSWORD)
        yield secure


@pytest.fixture
def run(bed, secure, tmp_path):
    """Starts a daemon, and `check`, with these properties."""
    database = bed.database()

    class Run:
        def daemon(self, properties, **sections):
            daemon = bed.harvestd(database, secure.broker, start=False, **sections)
            daemon.sections["kafka"] = properties
            return daemon.start()

        def check(self, properties):
            path = str(tmp_path / "check.ini")
            sections = bed.settings(database, secure.broker)
            sections["kafka"] = properties
            write_ini(path, sections)
            return run_once("check", "-c", path)

        def delivers(self):
            topic = bed.topic(secure.broker)
            collector = bed.collector(topic, secure.broker)
            bed.write(database, topic, "k", "v")
            collector.wait_value("v")
            bed.wait_empty(database)
    return Run()


def by_scram(secure, place):
    return {**secure.scram(None), "sasl.password_file": write(place, "pw", SCRAM_PASSWORD + "\n")}


def by_plain(secure, place):
    return secure.properties("PLAIN", sasl_mechanism="PLAIN", sasl_username="relay", sasl_password=PLAIN_PASSWORD)


def by_certificate(secure, place):
    client = secure.authority.client("relay")
    return {**secure.properties("MUTUAL", ssl_certificate_location=write(place, "c.pem", client.pem),
                                ssl_key_location=write(place, "k.pem", client.key_pem(KEY_PASSWORD))),
            "ssl.key.password_file": write(place, "kpw", KEY_PASSWORD)}


def by_pem_files(secure, place):
    """The key itself is the secret in a file, the other certificates likewise."""
    client = secure.authority.client("relay")
    properties = secure.properties("MUTUAL")
    del properties["ssl.ca.location"]
    return {**properties, "ssl.ca.pem_file": write(place, "ca.pem", secure.authority.pem),
            "ssl.certificate.pem_file": write(place, "c.pem", client.pem),
            "ssl.key.pem_file": write(place, "k.pem", client.key_pem())}


def by_key_store(secure, place):
    client = secure.authority.client("relay")
    return {**secure.properties("MUTUAL", ssl_keystore_location=write(place, "c.p12", client.pkcs12(KEY_PASSWORD))),
            "ssl.keystore.password_file": write(place, "kpw", KEY_PASSWORD)}


@pytest.mark.parametrize("way", [by_scram, by_plain, by_certificate, by_pem_files, by_key_store])
def test_ways_in(secure, run, tmp_path, way):
    properties = way(secure, tmp_path)
    checked = run.check(properties)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    daemon = run.daemon(properties)
    run.delivers()
    assert not daemon.find("kafka", "trouble"), daemon.tail()
    daemon.stop()


# -- what is wrong, and mended ---------------------------------------------------------------------------------------------


def wrong_password(secure):
    secure.broker.set_scram_password("relay", "another")
    return lambda: secure.broker.set_scram_password("relay", SCRAM_PASSWORD)


def shifted(make):
    def wrong(secure):
        secure.shift(make(secure.authority))
        return lambda: secure.shift(secure.authority.server())
    return wrong


TROUBLES = {
    "password": (wrong_password, "SCRAM", "invalid credentials with SASL mechanism SCRAM-SHA-512", "sasl.password"),
    "authority": (shifted(lambda a: Authority("another").server()), "SHIFTY",
                  "issuer=/CN=another.* is refused: it is not signed by an authority of ssl.ca.location", "ssl.ca.location"),
    "expired": (shifted(lambda a: a.server(expired=True)), "SHIFTY", "is refused: it has expired", "renew"),
    "host": (shifted(lambda a: a.server(["kafka.example.org"])), "SHIFTY",
             "subject=/CN=kafka.example.org.* is refused: it is for another host name", "bootstrap.servers"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_troubles_are_told_once_and_mended_on_the_broker(secure, run, bed, trouble):
    wrong, listener, reason, advice = TROUBLES[trouble]
    properties = secure.scram() if listener == "SCRAM" else secure.properties(listener)
    mend = wrong(secure)
    try:
        daemon = run.daemon(properties)
        line = daemon.wait_log("kafka", "trouble", reason=re.compile(reason))
        assert "localhost:%d" % secure.broker.ports[listener] in line["reason"] and advice in line["advice"]
        checked = run.check(properties)   # takes seconds, in which the daemon tries again and again
        assert checked.returncode == 1
        assert re.search("not ok +broker: .*%s.*\n +-> .*%s" % (reason, advice), checked.stdout), checked.stdout
        assert len(daemon.find("kafka", "trouble")) == 1, daemon.tail()
    finally:
        mend()
    run.delivers()
    # While it is being mended the broker's threads differ for a moment.
    assert len(daemon.find("kafka", "trouble")) <= 2, daemon.tail()
    bed.note("%s: %s -> %s" % (trouble, line["reason"], line["advice"]))
    daemon.stop()


def without_certificate(secure, place):
    return secure.properties("MUTUAL"), "SSL alert", "ssl.certificate.location"


def certificate_of_another(secure, place):
    client = Authority("stranger").client("relay")
    return secure.properties("MUTUAL", ssl_certificate_location=write(place, "c.pem", client.pem),
                             ssl_key_location=write(place, "k.pem", client.key_pem())), "SSL alert", "ssl.certificate.location"


def tls_to_plaintext(secure, place):
    properties = secure.properties("MUTUAL")
    properties["bootstrap.servers"] = "localhost:%d" % secure.broker.port
    return properties, "eof|Disconnected", "security.protocol"


def plaintext_to_tls(secure, place):
    return {"bootstrap.servers": "localhost:%d" % secure.broker.ports["MUTUAL"]}, "brokers are down", "security.protocol"


def other_mechanism(secure, place):
    return {**secure.scram(), "sasl.mechanisms": "PLAIN"}, "Unsupported SASL mechanism", "sasl.mechanisms"


@pytest.mark.parametrize("make", [without_certificate, certificate_of_another, tls_to_plaintext, plaintext_to_tls,
                                  other_mechanism])
def test_troubles_on_our_side(secure, run, tmp_path, make):
    """Told by the daemon, which goes on trying."""
    properties, reason, advice = make(secure, tmp_path)
    daemon = run.daemon(properties)
    line = daemon.wait_log("kafka", "trouble", reason=re.compile(reason))
    assert advice in line["advice"]
    daemon.stop()


@pytest.mark.parametrize("change, says", [
    ({"sasl.mechanisms": "OAUTHBEARER"}, "nobody would get tokens"),
    ({"sasl.mechanism": "OAUTHBEARER", "sasl.mechanisms": None, "enable.sasl.oauthbearer.unsecure.jwt": "true"},
     "nobody would get tokens"),
    ({"sasl.mechanisms": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": "relay",
      "sasl.oauthbearer.client.secret": "Topsecret", "sasl.oauthbearer.token.endpoint.url": "https://localhost/token"},
     "sasl.oauthbearer.method: librdkafka .* was built without OIDC"),
])
def test_tokens_that_nobody_gets(secure, run, change, says):
    """Debian's librdkafka has no OIDC: said at the start, with exit code 2."""
    daemon = run.daemon({**secure.scram(), **change})
    assert daemon.wait_exit() == 2
    assert re.search(says, "\n".join(daemon.noise)) and "Topsecret" not in "\n".join(daemon.noise)
    daemon.noise.clear()


@pytest.mark.parametrize("change, says", [
    ({"ssl.ca.location": "/nonexistent/ca.pem"}, "ssl.ca.location: '/nonexistent/ca.pem' cannot be read: No such file"),
    ({"ssl.key.location": "/nonexistent/key.pem"}, "ssl.key.location: '/nonexistent/key.pem' cannot be read: No such file"),
    ({"sasl.username": None}, "sasl.username"),
])
def test_what_cannot_work_ends_at_the_start(secure, run, change, says):
    properties = {**secure.scram(), **change}
    daemon = run.daemon(properties)
    assert daemon.wait_exit() == 1
    assert says in daemon.find("main", "cannot start")[0]["reason"]
