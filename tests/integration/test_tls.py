"""TLS by certificate files."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daemon.web.server import ListenError


@pytest.fixture
def certificate(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"tls_certificate": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}


async def test_with_certificate_files_the_listener_speaks_tls(tmp_path, open_daemon, certificate):
    trust = ssl.create_default_context(cafile=certificate["tls_certificate"])
    async with (
        open_daemon(tmp_path / "data", server=certificate) as opened,
        aiohttp.ClientSession() as session,
        session.get(f"{opened.address}/health", ssl=trust) as response,
    ):
        status = response.status

    assert opened.address.startswith("https://127.0.0.1:")
    assert status == 200


async def test_a_certificate_that_does_not_fit_is_refused_by_name(tmp_path, open_daemon, certificate):
    certificate["tls_key"].write_text("nonsense")

    with pytest.RaisesGroup(
        pytest.RaisesExc(ListenError, match="tls_certificate, server.tls_key"),
        flatten_subgroups=True,
        allow_unwrapped=True,
    ):
        async with open_daemon(tmp_path / "data", server=certificate):
            pass
