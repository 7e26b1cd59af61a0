"""The peer as tests have it: a process beside the test, steered over its control port."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from node import FOLDER, NODE

PEERS = Path(__file__).parents[1]
NAMESPACE = "cohort.servicebus.windows.net"
FOREIGN = Path(__file__).with_name("foreign.mjs").read_text("utf-8")
WRONG = base64.b64encode(b"hush, this is another key").decode()
KEY = base64.b64encode(b"a key of the peer's own, 32 bytes").decode()


@dataclass
class Peer:
    """A namespace with hubs; `connection()` is its connection string."""

    hubs: Mapping[str, int]
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    key: str = KEY
    process: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def connection(self, hub: str | None = "people", *, key: str | None = None, port: int | None = None) -> str:
        """Gives the connection string without TLS."""
        text = f"Endpoint=sb://127.0.0.1:{port or self.ports['amqp']};SharedAccessKeyName=send"
        text += f";SharedAccessKey={key or self.key};UseDevelopmentEmulator=true"
        return text + (f";EntityPath={hub}" if hub else "")

    def cloud(self, hub: str | None = "people") -> str:
        """Gives the connection string of a namespace in the cloud, which a custom endpoint then stands for."""
        text = f"Endpoint=sb://{NAMESPACE}/;SharedAccessKeyName=send;SharedAccessKey={self.key}"
        return text + (f";EntityPath={hub}" if hub else "")

    def start(self) -> None:
        """Starts it, again on the same ports after the first time."""
        config = {
            "hubs": dict(self.hubs),
            "keys": {"send": self.key},
            "store": str(self.folder / "events"),
            "ports": self.ports,
            "certificate": str(self.ca),
            "key": str(self.folder / "key.pem"),
            **self.options,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eventhub.peer", json.dumps(config)],
            stdout=subprocess.PIPE,
            cwd=PEERS,
            env={**os.environ, "PYTHONPATH": str(PEERS)},
        )
        assert self.process.stdout is not None
        self.ports.update(json.loads(self.process.stdout.readline()))

    def send_signal(self, number: signal.Signals) -> None:
        """Stops it in its tracks (SIGSTOP), or lets it go on."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends the process."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.communicate()

    def ask_now(self, do: str, **facts: Any) -> Any:
        """Steers it, where there is no loop; see `eventhub.peer.Control`."""
        with socket.create_connection(("127.0.0.1", self.ports["control"])) as each, each.makefile("rwb") as file:
            file.write(orjson.dumps({"do": do, **facts}) + b"\n")
            file.flush()
            return orjson.loads(file.readline())

    async def ask(self, do: str, **facts: Any) -> Any:
        """Steers it; see `eventhub.peer.Control`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["control"], limit=2**28)
        try:
            writer.write(orjson.dumps({"do": do, **facts}) + b"\n")
            await writer.drain()
            return orjson.loads(await reader.readline())
        finally:
            writer.close()
            await writer.wait_closed()

    async def new_hub(self, partitions: int = 4) -> str:
        """Makes a hub and gives its name."""
        name = f"h-{uuid.uuid4().hex[:12]}"
        await self.ask("create", hub=name, partitions=partitions)
        return name

    async def wait(self, count: int, hub: str = "people", *, within_s: float = 30) -> None:
        """Waits until a hub has so many events."""
        async with asyncio.timeout(within_s):
            await self.ask("wait", hub=hub, count=count)

    async def events(self, hub: str = "people") -> list[dict[str, Any]]:
        """Gives all events of a hub, bodies as JSON, in order within each partition."""
        found = await self.ask("events", hub=hub)
        for each in found:
            each["body"] = base64.b64decode(each["body"])
            each["json"] = orjson.loads(each["body"]) if each["body"][:1] in {b"{", b"["} else None
        return found


@contextmanager
def running(folder: Path, hubs: Mapping[str, int] | None = None, **options: Any) -> Iterator[Peer]:
    """Starts a peer with hubs (name: partitions); ended on leaving."""
    _certificate(folder)
    peer = Peer({"people": 4} if hubs is None else hubs, folder, options)
    peer.start()
    try:
        yield peer
    finally:
        peer.end()


async def foreign(**asked: Any) -> Any:
    """Lets another client, the JavaScript SDK, send or receive; see foreign.mjs."""
    process = await asyncio.create_subprocess_exec(
        str(NODE), "--input-type=module", "-e", FOREIGN, json.dumps(asked), cwd=FOLDER, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return json.loads(out)


def _certificate(folder: Path) -> None:
    """Makes a certificate of this host that is its own authority."""
    from cryptography import x509  # noqa: PLC0415  (for those alone who start one)
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
