"""A broker that lets a user do what ACLs allow, and nothing else. Debian's Python client has no calls for ACLs: those of librdkafka itself."""
import ctypes

from .util import free_port

USER, PASSWORD = "relay", "acl-pass-word"
TYPES = {"topic": 2, "group": 3, "cluster": 4}
OPERATIONS = {"any": 1, "all": 2, "read": 3, "write": 4, "create": 5, "describe": 8, "describe_configs": 10, "idempotent_write": 12}
LITERAL, ALLOW = 3, 3
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=\"%s\";" % (USER, PASSWORD)

# What harvestd's [kafka] needs to sign in.
PROPERTIES = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD}


def broker_with_acls(bed, proxied=None, **settings):
    """Its plaintext listener is for the tests, who may do all; .user_servers is where harvestd signs in. proxied: the port of a proxy
    through which it may sign in as well, which is to lead to .proxied_port."""
    port, inner, behind, controller = free_port(), free_port(), free_port(), free_port()
    listeners = "PLAINTEXT://127.0.0.1:%d,SIGNED://127.0.0.1:%d" % (port, inner)
    options = {
        "listeners": listeners + ",PROXIED://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d" % (behind, controller),
        "advertised.listeners": listeners + ",PROXIED://127.0.0.1:%d" % (proxied or behind),
        "controller.quorum.voters": "1@127.0.0.1:%d" % controller,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SIGNED:SASL_PLAINTEXT,PROXIED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listener.name.signed.sasl.enabled.mechanisms": "PLAIN", "listener.name.signed.plain.sasl.jaas.config": PLAIN,
        "listener.name.proxied.sasl.enabled.mechanisms": "PLAIN", "listener.name.proxied.plain.sasl.jaas.config": PLAIN,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS", "auto.create.topics.enable": "false"}
    options.update(settings)
    broker = bed.own_kafka(start=False, **options)
    broker.port, broker.proxied_port = port, behind
    broker.user_servers = "127.0.0.1:%d" % inner
    return broker.start()


class Acls:
    """Grants and takes away; each call waits for the broker's answer."""

    def __init__(self, broker):
        self.lib = ctypes.CDLL("librdkafka.so.1")
        for name in ("conf_new", "new", "queue_new", "queue_poll", "AclBinding_new", "AclBindingFilter_new"):
            getattr(self.lib, "rd_kafka_" + name).restype = ctypes.c_void_p
        self.error = ctypes.create_string_buffer(512)
        conf = ctypes.c_void_p(self.lib.rd_kafka_conf_new())
        for name, value in (("bootstrap.servers", broker.servers), ("log_level", "0")):
            self.lib.rd_kafka_conf_set(conf, name.encode(), value.encode(), self.error, 512)
        self.client = ctypes.c_void_p(self.lib.rd_kafka_new(0, conf, self.error, 512))
        self.queue = ctypes.c_void_p(self.lib.rd_kafka_queue_new(self.client))

    def _ask(self, call, make, kind, name, operation):
        acl = ctypes.c_void_p(make(TYPES[kind], name.encode(), LITERAL, ("User:" + USER).encode(), b"*", OPERATIONS[operation],
                                   ALLOW, self.error, 512))
        assert acl.value, self.error.value
        call(self.client, (ctypes.c_void_p * 1)(acl), ctypes.c_size_t(1), None, self.queue)
        event = ctypes.c_void_p(self.lib.rd_kafka_queue_poll(self.queue, 20000))
        assert event.value and self.lib.rd_kafka_event_error(event) == 0, (kind, name, operation)
        self.lib.rd_kafka_event_destroy(event)

    def grant(self, kind, name, operation):
        self._ask(self.lib.rd_kafka_CreateAcls, self.lib.rd_kafka_AclBinding_new, kind, name, operation)

    def revoke(self, kind, name, operation):
        self._ask(self.lib.rd_kafka_DeleteAcls, self.lib.rd_kafka_AclBindingFilter_new, kind, name, operation)
