"""What went over the wire: collected from engines, shown as a ladder, written for Wireshark.

The messages are those of SIPEngineSIPTrace: engines have to be started with ``trace_sip=True``. Passwords, responses of
digests and media keys are masked before a message gets here.

>>> from sipwire.trace import SIPTrace
>>> with SIPTrace() as trace:  # doctest: +SKIP
...     ...  # calls
>>> trace.to_pcap("call.pcap")  # doctest: +SKIP
"""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import json
import os
import struct
import threading
import typing as t

from sipwire.notification import Any, NotificationCenter
from sipwire.report.ladder import SIPMessageTrace, render_ladder_text
from sipwire.report.ladder_mermaid import ladder_mermaid
from sipwire.report.ladder_svg import ladder_svg

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sipwire.engine import Engine
    from sipwire.notification import Notification
    from sipwire.report.ladder import Address

__all__ = ["SIPTrace", "read_trace"]

_MOST = 100_000
"""Messages kept unless the caller says otherwise; beyond them the oldest go."""


class SIPTrace:
    """Collects the SIP messages of engines from :meth:`start` to :meth:`stop`, or during a ``with`` block.

    ``engines``: whose messages, all when none is named. ``limit``: how many are kept; the oldest go first, counted in
    :attr:`dropped`. ``on_message`` is called for each one, in the thread that delivers notifications.
    """

    def __init__(
        self,
        *engines: Engine,
        names: Mapping[Address, str] | None = None,
        limit: int = _MOST,
        on_message: Callable[[SIPMessageTrace], object] | None = None,
    ) -> None:
        self.names: dict[Address, str] = dict(names or {})
        self.dropped = 0
        self._engines = engines
        self._on_message = on_message
        self._messages: collections.deque[SIPMessageTrace] = collections.deque(maxlen=limit)
        self._lock = threading.Lock()

    # --- collecting --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for engine in self._engines or (Any,):
            NotificationCenter().add_observer(self, name="SIPEngineSIPTrace", sender=engine)

    def stop(self) -> None:
        for engine in self._engines or (Any,):
            NotificationCenter().discard_observer(self, name="SIPEngineSIPTrace", sender=engine)

    def __enter__(self) -> SIPTrace:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def handle_notification(self, notification: Notification) -> None:
        data = t.cast("t.Any", notification.data)
        self.add(
            SIPMessageTrace(
                notification.timestamp, data.received, data.source, data.destination, data.transport, data.data
            )
        )

    def add(self, message: SIPMessageTrace) -> None:
        """Takes one more message."""
        with self._lock:
            self.dropped += len(self._messages) == self._messages.maxlen
            self._messages.append(message)
        if self._on_message is not None:
            self._on_message(message)

    @property
    def messages(self) -> list[SIPMessageTrace]:
        """A copy of what is there, in order of arrival."""
        with self._lock:
            return list(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    # --- showing -----------------------------------------------------------------------------------------------------

    def to_text(self, *, colour: bool | None = False) -> str:
        """The ladder for a terminal; ``colour`` None: when stdout is one."""
        return render_ladder_text(self.messages, colour=colour, names=self.names)

    def to_svg(self, path: str | os.PathLike[str] | None = None) -> str:
        """The ladder as a picture, written to ``path`` as well."""
        return _written(ladder_svg(self.messages, names=self.names), path)

    def to_mermaid(self, path: str | os.PathLike[str] | None = None) -> str:
        """The ladder as a Mermaid sequence diagram, written to ``path`` as well."""
        return _written(ladder_mermaid(self.messages, names=self.names), path)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """One JSON object a line; :func:`read_trace` reads it back."""
        with open(path, "w", encoding="utf-8") as file:
            for message in self.messages:
                record = {
                    "timestamp": message.timestamp,
                    "received": message.received,
                    "source": list(message.source),
                    "destination": list(message.destination),
                    "transport": message.transport,
                    "data": message.data.decode("latin-1"),
                }
                file.write(json.dumps(record) + "\n")

    def to_pcap(self, path: str | os.PathLike[str]) -> None:
        """A capture file for Wireshark and tshark.

        Messages of streams become TCP segments with running numbers; those of TLS and WebSockets too, so what was
        encrypted on the wire can be read. Timestamps count microseconds.
        """
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, _LINKTYPE_RAW))
            sent: dict[tuple[Address, Address], int] = {}
            for message in self.messages:
                seconds = int(message.timestamp)
                micros = int((message.timestamp - seconds) * 1e6)
                for packet in _packets(message, sent):
                    file.write(struct.pack("<IIII", seconds, micros, len(packet), len(packet)) + packet)


def read_trace(path: str | os.PathLike[str]) -> SIPTrace:
    """A trace that :meth:`SIPTrace.to_jsonl` or :meth:`SIPTrace.to_pcap` wrote.

    Raises :exc:`OSError`, and :exc:`ValueError` for a file of another kind.
    """
    trace = SIPTrace()
    with open(path, "rb") as file:
        data = file.read()
    messages = _read_pcap(data) if data[:4] == struct.pack("<I", 0xA1B2C3D4) else _read_jsonl(data, path)
    for message in messages:
        trace.add(message)
    return trace


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return text


# --- pcap ------------------------------------------------------------------------------------------------------------

_LINKTYPE_RAW = 101
"""Packets begin with their IP header."""

_UDP, _TCP = 17, 6
_LARGEST = 60_000
"""Bytes of a message in one packet; a longer one of a stream takes several."""


def _packets(message: SIPMessageTrace, sent: dict[tuple[Address, Address], int]) -> Iterator[bytes]:
    source, destination = _ips(message.source[0], message.destination[0])
    ports = message.source[1], message.destination[1]
    if message.transport == "udp":
        payload = message.data[: 65_535 - 48]
        header = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
        sum_ = _checksum(_pseudo(source, destination, _UDP, len(header) + len(payload)) + header + payload)
        yield _wrap(source, destination, _UDP, header[:6] + struct.pack("!H", sum_ or 0xFFFF) + payload)
        return
    way, back = (message.source, message.destination), (message.destination, message.source)
    for start in range(0, max(1, len(message.data)), _LARGEST):
        payload = message.data[start : start + _LARGEST]
        number, acknowledged = sent.get(way, 1), sent.get(back, 1)
        sent[way] = (number + len(payload)) & 0xFFFFFFFF
        header = struct.pack("!HHIIBBHHH", *ports, number, acknowledged, 5 << 4, 0x18, 65_535, 0, 0)
        sum_ = _checksum(_pseudo(source, destination, _TCP, len(header) + len(payload)) + header + payload)
        yield _wrap(source, destination, _TCP, header[:16] + struct.pack("!H", sum_) + header[18:] + payload)


def _ip(host: str) -> bytes:
    """The bytes of an address; all zero for a host that is none. An IPv4 address in IPv6 clothes is itself."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        return (getattr(address, "ipv4_mapped", None) or address).packed
    return bytes(4)


def _ips(source: str, destination: str) -> tuple[bytes, bytes]:
    """The bytes of both addresses, of one length."""
    one, other = _ip(source), _ip(destination)
    if len(one) == len(other):
        return one, other
    mapped = bytes(10) + b"\xff\xff"
    return (one if len(one) == 16 else mapped + one), (other if len(other) == 16 else mapped + other)


def _pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!IHBB", length, 0, 0, protocol)


def _wrap(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source + destination + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0) + source + destination
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + payload


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _read_pcap(data: bytes) -> Iterator[SIPMessageTrace]:
    linktype = struct.unpack_from("<I", data, 20)[0] if len(data) >= 24 else None
    if linktype != _LINKTYPE_RAW:
        raise ValueError(f"link type {linktype} of the capture is not {_LINKTYPE_RAW}: only our own captures are read")
    at = 24
    while at + 16 <= len(data):
        seconds, micros, length, _ = struct.unpack_from("<IIII", data, at)
        packet = data[at + 16 : at + 16 + length]
        at += 16 + length
        size = 20 if packet[:1] and packet[0] >> 4 == 4 else 40
        if len(packet) < size + 20:
            continue
        protocol = packet[9] if size == 20 else packet[6]
        addresses = packet[12:20] if size == 20 else packet[8:40]
        half = len(addresses) // 2
        source, destination = (str(ipaddress.ip_address(part)) for part in (addresses[:half], addresses[half:]))
        ports = struct.unpack_from("!HH", packet, size)
        payload = packet[size + (8 if protocol == _UDP else 20) :]
        transport = "udp" if protocol == _UDP else "tcp"
        yield SIPMessageTrace(
            seconds + micros / 1e6, False, (source, ports[0]), (destination, ports[1]), transport, payload
        )


def _read_jsonl(data: bytes, path: str | os.PathLike[str]) -> Iterator[SIPMessageTrace]:
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        try:
            record = json.loads(line)
            yield SIPMessageTrace(
                float(record["timestamp"]),
                bool(record["received"]),
                (str(record["source"][0]), int(record["source"][1])),
                (str(record["destination"][0]), int(record["destination"][1])),
                str(record["transport"]),
                str(record["data"]).encode("latin-1", "replace"),
            )
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"line {number} of {os.fspath(path)} is no message of a trace: {error}") from error
