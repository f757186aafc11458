"""Certificates for loopback addresses: in order, expired, self-signed, for another host, of an unknown authority."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.hostile.cases import Transport


class Certificates:
    """Makes them; a client is given ``write_bundle``'s authority and no other."""

    def __init__(self) -> None:
        self._trusted = trustme.CA()
        self._unknown = trustme.CA()

    def write_bundle(self, path: Path) -> None:
        """The one authority that a client should know. Raises OSError."""
        self._trusted.cert_pem.write_to_path(str(path))

    def context(self, transport: Transport, address: str) -> ssl.SSLContext:
        """For the server of ``address``, with what ``transport`` says is wrong with it. Raises KeyError for others."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._certificate(transport, address).configure_cert(context)
        if transport is Transport.NO_CIPHER:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("eNULL:@SECLEVEL=0")  # ciphers that do not encipher: no client offers them
        context.set_alpn_protocols(["h2"] if transport is Transport.HTTP2 else ["http/1.1"])
        return context

    def _certificate(self, transport: Transport, address: str) -> trustme.LeafCert:
        match transport:
            case Transport.TLS | Transport.HTTP2 | Transport.NO_CIPHER:
                return self._trusted.issue_cert(address)
            case Transport.EXPIRED:
                yesterday = datetime.now(timezone.utc) - timedelta(days=1)
                long_ago = yesterday - timedelta(days=400)
                return self._trusted.issue_cert(address, not_before=long_ago, not_after=yesterday)
            case Transport.WRONG_HOST:
                return self._trusted.issue_cert("another.example")
            case Transport.UNTRUSTED:
                return self._unknown.issue_cert(address)
            case Transport.SELF_SIGNED:
                return _self_signed(address)
            case _:
                raise KeyError(transport)


def _self_signed(address: str) -> trustme.LeafCert:
    """What an administrator makes by ``openssl req -x509``: right in all else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(key_pem, certificate.public_bytes(Encoding.PEM), [])
