"""Self-signed certificates, for trying the service: an authority, and what it signs for servers and clients."""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aisec_lab.core.files import written_beside

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
DAYS = 90  # a trial that lasts longer should have a real authority


@dataclass(frozen=True)
class Authority:
    """A certificate authority that lives as long as this object: its private key is never written.

    Args:
        key: signs.
        certificate: what clients and servers trust.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str = "aisec trial authority") -> "Authority":
        """A new authority; its name says that it is for trying."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs certificates only
        builder = (
            _builder(_name(name), _name(name), key.public_key(), _now(), DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(key, builder.sign(key, SHA256()))

    def issue(
        self,
        name: str,
        use: x509.ObjectIdentifier,
        certificate: Path,
        key: Path,
        *,
        hosts: tuple[str, ...] = (),
        begin: datetime.datetime | None = None,
    ) -> None:
        """Write a certificate and its private key, which only its owner may read.

        Args:
            name: of the holder.
            use: `SERVER` or `CLIENT`; a certificate for the one is refused as the other.
            certificate, key: PEM files that are not there yet.
            hosts: names and addresses of a server.
            begin: of the 90 days in which it is valid; None for now.

        Raises:
            FileExistsError: one of the files is there.
        """
        for file in (certificate, key):
            if file.exists():
                raise FileExistsError(f"{file} is there already: remove it, or choose another place")
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            _builder(_name(name), self.certificate.subject, own.public_key(), begin or _now(), DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(issuer, critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), False)
        signed = builder.sign(self.key, SHA256())
        secret = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with (
            written_beside(key) as beside,
            open(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as sink,
        ):
            sink.write(secret)
        self._write(certificate, signed)

    def write(self, path: Path) -> None:
        """Write the authority's own certificate, for those who shall trust it; FileExistsError if a file is there."""
        if path.exists():
            raise FileExistsError(f"{path} is there already: remove it, or choose another place")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(path, self.certificate)

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate) -> None:
        with written_beside(path) as beside:
            beside.write_bytes(certificate.public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)  # clocks differ
