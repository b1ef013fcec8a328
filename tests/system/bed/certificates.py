"""Certificates made for a test: authorities, and what they sign for servers and clients, also what is wrong with it."""
import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def _name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Certificate:
    """One that an authority signed, with its key."""

    def __init__(self, certificate, key, authority):
        self.certificate, self.key, self.authority = certificate, key, authority

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password=None):
        how = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)

    def pkcs12(self, password):
        how = serialization.BestAvailableEncryption(password.encode())
        return pkcs12.serialize_key_and_certificates(b"server", self.key, self.certificate, [self.authority.certificate], how)


class Authority:
    def __init__(self, name="test authority"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        self.certificate = (
            x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(name)).public_key(self.key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - 9 * DAY).not_valid_after(now + 9 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
            .sign(self.key, hashes.SHA256()))

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def _sign(self, common_name, usage, alternatives, expired):
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        builder = (
            x509.CertificateBuilder().subject_name(_name(common_name)).issuer_name(self.certificate.subject)
            .public_key(key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(now - 5 * DAY)
            .not_valid_after(now - DAY if expired else now + 5 * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False))
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(a) for a in alternatives]), False)
        return Certificate(builder.sign(self.key, hashes.SHA256()), key, self)

    def server(self, hosts=("localhost", "127.0.0.1"), expired=False):
        return self._sign(hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, hosts, expired)

    def client(self, name, expired=False):
        return self._sign(name, ExtendedKeyUsageOID.CLIENT_AUTH, (), expired)


def write(directory, name, content, mode=0o600, owner=None):
    """Writes a file and returns its path. It appears at once, with all of its rights and content."""
    path = os.path.join(str(directory), name)
    new = path + ".new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())
    os.chmod(new, mode)
    if owner is not None:
        os.chown(new, owner.pw_uid, owner.pw_gid)
    os.rename(new, path)
    return path
