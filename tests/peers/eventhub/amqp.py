"""One AMQP connection of the peer: proton's engine, driven by bytes, and what Event Hubs makes of its events."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from eventhub import wire
from eventhub.faults import Fault, Faults
from eventhub.hubs import Hubs, path_of
from eventhub.replies import Reader, about, answer, moment, start_of
from proton import (
    UNDESCRIBED,
    Array,
    Collector,
    Condition,
    Connection,
    Data,
    Delivery,
    Endpoint,
    Event,
    Message,
    Terminus,
    Transport,
    symbol,
)

MAX_FRAME = 64 * 1024
CREDIT = 1000
INCOMING = 16 * 1024 * 1024
IDLE_S = 120.0


class Namespace:
    """What all connections share."""

    def __init__(self, hubs: Hubs, faults: Faults, max_message: int) -> None:
        self.hubs = hubs
        self.faults = faults
        self.max_message = max_message
        self.connections: set[Client] = set()
        self.opened = 0
        self.grown = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def has_grown(self, name: str) -> None:
        """Wakes who waits for events of a hub."""
        for each in list(self.connections):
            each.push(name)
        self.later(self._tell())

    async def _tell(self) -> None:
        async with self.grown:
            self.grown.notify_all()

    def later(self, work: Any) -> None:
        """Keeps a task until it is done."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Client(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, namespace: Namespace) -> None:
        self._space = namespace
        self._engine = Transport(Transport.SERVER)
        self._connection = Connection()
        self._collector = Collector()
        self._padder = wire.Padder()
        self._claims: set[str] = set()
        self._answers: list[tuple[str, Message]] = []
        self._readers: dict[str, Reader] = {}
        self._links: list[Any] = []
        self._socket: asyncio.Transport | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._tag = 0

    # --- bytes

    def connection_made(self, transport: Any) -> None:
        self._socket = transport
        self._space.connections.add(self)
        self._space.opened += 1
        self._connection.collect(self._collector)
        sasl = self._engine.sasl()
        sasl.allowed_mechs("ANONYMOUS")
        self._engine.require_auth(False)
        self._engine.max_frame_size = MAX_FRAME
        self._engine.idle_timeout = IDLE_S
        self._engine.bind(self._connection)
        self._keep_alive()

    def data_received(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = self._engine.capacity()
            if room <= 0:
                break
            self._engine.push(bytes(view[:room]))
            view = view[room:]
            self._react()
        self._write()

    def connection_lost(self, _error: Exception | None) -> None:
        self._space.connections.discard(self)
        if self._tick is not None:
            self._tick.cancel()
        self._readers.clear()
        self._links.clear()
        self._socket = None

    def drop(self) -> None:
        """Cuts the connection as a network does."""
        if self._socket is not None:
            self._socket.abort()

    def _write(self) -> None:
        if self._socket is None:
            return
        out = []
        while (size := self._engine.pending()) > 0:
            data = self._engine.peek(size)
            self._engine.pop(len(data))
            out.append(self._padder.feed(bytes(data)))
        if out:
            self._socket.write(b"".join(out))
        if size < 0:
            self._socket.close()

    def _keep_alive(self) -> None:
        self._engine.tick(time.monotonic())
        self._write()
        self._tick = asyncio.get_running_loop().call_later(5.0, self._keep_alive)

    # --- events

    def _react(self) -> None:
        while (event := self._collector.peek()) is not None:
            kind = event.type
            if kind is Event.CONNECTION_REMOTE_OPEN:
                self._connection.container = "eventhub-peer"
                self._connection.properties = {symbol("product"): "eventhub-peer"}
                self._connection.open()
            elif kind is Event.SESSION_REMOTE_OPEN:
                event.session.incoming_capacity = INCOMING
                event.session.open()
            elif kind is Event.LINK_REMOTE_OPEN:
                self._attach(event.link)
            elif kind is Event.DELIVERY:
                self._delivery(event.delivery)
            elif kind is Event.LINK_FLOW:
                self._flow(event.link)
            elif kind in {Event.LINK_REMOTE_CLOSE, Event.LINK_REMOTE_DETACH}:
                self._readers.pop(event.link.name, None)
                event.link.close()
            elif kind is Event.SESSION_REMOTE_CLOSE:
                event.session.close()
            elif kind is Event.CONNECTION_REMOTE_CLOSE:
                self._connection.close()
            self._collector.pop()

    def _attach(self, link: Any) -> None:
        outgoing = link.is_sender
        address = (link.remote_source if outgoing else link.remote_target).address or ""
        node = path_of(address)
        fault = self._space.faults.take("attach") if node not in {"$cbs", "$management"} else None
        if fault is not None:
            if fault.kind != "silent":
                self._refuse(link, fault.condition, fault.description)
            return
        if node not in {"$cbs", "$management"}:
            refusal = self._refusal(node)
            if refusal is not None:
                self._refuse(link, *refusal)
                return
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        if outgoing:
            if node not in {"$cbs", "$management"}:
                self._begin_reading(link, node)
            link.open()
        else:
            link.max_message_size = self._space.max_message
            link.open()
            link.flow(CREDIT)
        self._links.append(link)

    def _refusal(self, node: str) -> tuple[str, str] | None:
        name, _, rest = node.partition("/")
        hub = self._space.hubs.hubs.get(name)
        if not any(node.startswith(each) for each in self._claims):
            return "amqp:unauthorized-access", f"Unauthorized access. 'Send' claim(s) are required for '{node}'."
        if hub is None:
            return "amqp:not-found", f"The messaging entity '{name}' could not be found."
        partition = rest.rpartition("Partitions/")[2]
        if partition and (not partition.isdigit() or int(partition) >= len(hub.partitions)):
            return "amqp:not-found", f"The specified partition is invalid for '{name}': {partition}."
        return None

    @staticmethod
    def _refuse(link: Any, condition: str, description: str) -> None:
        # A terminus that is null says that the link was not made; the reason follows in the detach.
        (link.source if link.is_sender else link.target).type = Terminus.UNSPECIFIED
        link.open()
        link.condition = Condition(condition, description)
        link.close()

    def _delivery(self, delivery: Any) -> None:
        link = delivery.link
        if delivery.aborted or delivery.partial or not delivery.readable or link.is_sender:
            if link.is_sender and delivery.updated:
                delivery.settle()
            return
        data = bytes(link.recv(delivery.pending) or b"")
        link.advance()
        if link.credit < CREDIT // 2:
            link.flow(CREDIT // 2)
        node = path_of((link.remote_target.address) or "")
        if node in {"$cbs", "$management"}:
            self._settle(delivery, None)
            request = Message()
            request.decode(data)
            reply = self._cbs(request) if node == "$cbs" else self._management(request)
            if reply is not None:
                reply.correlation_id = request.id
                self._answers.append((node, reply))
                self._answer()
            return
        self._take(delivery, link, node, data)

    def _take(self, delivery: Any, link: Any, node: str, data: bytes) -> None:
        """What becomes of a message, or a batch, that was sent to a hub."""
        fault = self._space.faults.take("send")
        name, _, rest = node.partition("/")
        partition = int(rest.rpartition("/")[2]) if rest else None
        if fault is not None and fault.kind not in {"store-then-drop", "delay", "store-then-silent"}:
            self._fail(delivery, link, fault)
            return
        if len(data) > self._space.max_message:
            self._settle(delivery, Condition("amqp:link:message-size-exceeded", f"{len(data)} bytes are too many"))
            return
        try:
            self._space.hubs.put(name, data, partition)
        except KeyError:
            link.condition = Condition("amqp:not-found", f"The messaging entity '{name}' could not be found.")
            link.close()
            return
        except (ValueError, IndexError) as error:
            self._settle(delivery, Condition("amqp:decode-error", str(error)))
            return
        self._space.has_grown(name)
        if fault is None:
            self._settle(delivery, None)
        elif fault.kind == "store-then-drop":
            self.drop()
        elif fault.kind == "delay":
            asyncio.get_running_loop().call_later(fault.seconds, self._settle_later, delivery)

    def _fail(self, delivery: Any, link: Any, fault: Fault) -> None:
        condition = Condition(fault.condition, fault.description)
        match fault.kind:
            case "reject":
                self._settle(delivery, condition)
            case "release":
                delivery.update(Delivery.RELEASED)
                delivery.settle()
            case "detach":
                link.condition = condition
                link.close()
            case "close":
                self._connection.condition = condition
                self._connection.close()
            case "end":
                link.session.condition = condition
                link.session.close()
            case "drop":
                self.drop()
            case "silent":
                pass
            case _:
                raise ValueError(fault.kind)

    @staticmethod
    def _settle(delivery: Any, refusal: Condition | None) -> None:
        if refusal is None:
            delivery.update(Delivery.ACCEPTED)
        else:
            delivery.local.condition = refusal
            delivery.update(Delivery.REJECTED)
        delivery.settle()

    def _settle_later(self, delivery: Any) -> None:
        if self._socket is not None:
            self._settle(delivery, None)
            self._write()

    # --- requests

    def _cbs(self, request: Message) -> Message | None:
        fault = self._space.faults.take("cbs")
        audience = str((request.properties or {}).get("name", ""))
        if fault is not None:
            return None if fault.kind == "silent" else answer(fault.status, fault.description)
        refusal = self._space.hubs.refusal(str(request.body), audience, time.time())
        if refusal is not None:
            return answer(*refusal)
        self._claims.add(path_of(audience))
        return answer(202, "Accepted")

    def _management(self, request: Message) -> Message | None:
        fault = self._space.faults.take("management")
        if fault is not None:
            return None if fault.kind == "silent" else answer(fault.status, fault.description)
        asked = request.properties or {}
        name = str(asked.get("name", ""))
        token = str(asked.get("security_token", ""))
        if token and (refusal := self._space.hubs.refusal(token, name, time.time())) is not None:
            status, words = refusal
            if not words.startswith("InvalidAudience"):
                return answer(status, words)
        hub = self._space.hubs.hubs.get(name)
        if hub is None:
            return answer(404, f"The messaging entity '{name}' could not be found.")
        if asked.get("type") == "com.microsoft:partition":
            return answer(200, "OK", about(hub, str(asked.get("partition"))))
        ids = Array(UNDESCRIBED, Data.STRING, *(str(each) for each in range(len(hub.partitions))))
        body = {"name": name, "type": "com.microsoft:eventhub", "created_at": moment(hub.created_ms),
                "partition_count": len(hub.partitions), "partition_ids": ids}  # fmt: skip
        return answer(200, "OK", body)

    def _answer(self) -> None:
        """Sends what answers have a link with credit."""
        left = []
        for node, message in self._answers:
            found = next(
                (
                    each
                    for each in self._links
                    if each.is_sender
                    and path_of(each.remote_source.address or "") == node
                    and each.credit > 0
                    and not each.state & Endpoint.REMOTE_CLOSED
                ),
                None,
            )
            if found is None:
                left.append((node, message))
            else:
                self._send(found, message.encode())
        self._answers = left

    def _send(self, link: Any, data: bytes) -> None:
        self._tag += 1
        delivery = link.delivery(str(self._tag))
        link.send(data)
        delivery.settle()
        link.advance()

    # --- reading

    def _begin_reading(self, link: Any, node: str) -> None:
        name, _, rest = node.partition("/")
        hub = self._space.hubs.hubs[name]
        events = hub.partitions[int(rest.rpartition("/")[2])]
        self._readers[link.name] = Reader(link, name, events, start_of(link, events))

    def _flow(self, link: Any) -> None:
        if link.is_sender:
            if link.name in self._readers:
                self._push(self._readers[link.name])
            else:
                self._answer()

    def push(self, name: str) -> None:
        """Gives new events of a hub to who reads it."""
        mine = [each for each in self._readers.values() if each.hub == name]
        for each in mine:
            self._push(each)
        if mine:
            self._write()

    def _push(self, reader: Reader) -> None:
        while reader.link.credit > 0 and reader.at < len(reader.events):
            self._send(reader.link, reader.events[reader.at].outgoing())
            reader.at += 1

    def detach(self, name: str) -> None:
        """Ends the links of a hub that was deleted."""
        for each in self._links:
            address = (each.remote_source if each.is_sender else each.remote_target).address or ""
            if path_of(address).partition("/")[0] == name and not each.state & Endpoint.LOCAL_CLOSED:
                each.condition = Condition("amqp:not-found", f"The messaging entity '{name}' could not be found.")
                each.close()
        self._write()
