"""Look-ups (RFC 3263) against a name server of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from sipwire import Account, DNSLookup, DNSLookupError, Engine, EngineError, Route
from tests.python.conftest import Watch

A, SRV, NAPTR = 1, 33, 35


def _name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def naptr(order: int, service: str, replacement: str) -> bytes:
    return struct.pack("!HH", order, 0) + _text("s") + _text(service) + _text("") + _name(replacement)


def srv(priority: int, port: int, target: str) -> bytes:
    return struct.pack("!HHH", priority, 0, port) + _name(target)


class NameServer:
    """A name server on loopback: answers from ``zone``, and with "no such name" about the rest."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, int], list[bytes]] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._at = self._socket.getsockname()
        self.address = f"{self._at[0]}:{self._at[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(2048)
            if query == b"stop":
                return
            end = query.index(0, 12)
            labels, at = [], 12
            while at < end:
                labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            name, (kind,) = ".".join(labels), struct.unpack("!H", query[end + 1 : end + 3])
            self.asked.append(f"{name} {kind}")
            if name in self.silent:
                continue
            records = self.zone.get((name, kind), [])
            known = any(known == name for known, _ in self.zone)
            flags = 0x8180 if known else 0x8183
            answer = query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + query[12 : end + 5]
            for record in records:
                answer += struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(record)) + record
            self._socket.sendto(answer, peer)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"stop", self._at)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    server = NameServer()
    one, two, three = (socket.inet_aton(f"127.0.0.{last}") for last in (71, 72, 73))
    server.zone = {
        ("example.test", NAPTR): [
            naptr(20, "SIP+D2T", "_sip._tcp.example.test"),
            naptr(10, "SIP+D2U", "_u.example.test"),
        ],
        ("_u.example.test", SRV): [srv(2, 5060, "two.example.test"), srv(1, 5070, "one.example.test")],
        ("_sip._tcp.example.test", SRV): [srv(1, 5080, "one.example.test")],
        ("one.example.test", A): [one],
        ("two.example.test", A): [two, three],
    }
    yield server
    server.close()


@pytest.fixture
def engine(name_server: NameServer) -> Iterator[Engine]:
    engine = Engine("lookup")
    engine.start(local_ip="127.0.0.1", nameservers=[name_server.address])
    yield engine
    engine.stop()


ROUTES = [
    Route("127.0.0.71", 5070),
    Route("127.0.0.72", 5060),
    Route("127.0.0.73", 5060),
    Route("127.0.0.71", 5080, "tcp"),
]


def test_the_routes_of_a_domain_come_in_order(engine: Engine) -> None:
    lookup = DNSLookup(engine)
    with contextlib.closing(Watch()) as watch:
        assert lookup.lookup_sip_proxy("sip:bob@example.test", ["udp", "tcp"]).wait(10) == ROUTES
        notification = watch.wait("DNSLookupDidSucceed", lookup)
        assert notification.data.result == ROUTES
    assert lookup.lookup_sip_proxy("sip:bob@example.test;transport=tcp").wait(10) == ROUTES[3:]
    assert lookup.lookup_sip_proxy("sip:bob@127.0.0.9", "udp").wait(10) == [Route("127.0.0.9")]


def test_a_look_up_is_awaited(engine: Engine) -> None:
    async def look_up() -> list[Route]:
        return await DNSLookup(engine).lookup_sip_proxy("sip:bob@example.test", ["udp"])

    assert asyncio.run(look_up()) == ROUTES[:3]


def test_a_domain_that_leads_nowhere_fails_with_a_reason(engine: Engine, name_server: NameServer) -> None:
    lookup = DNSLookup(engine)
    with contextlib.closing(Watch()) as watch:
        with pytest.raises(DNSLookupError, match="nowhere.test has no address"):
            lookup.lookup_sip_proxy("sip:bob@nowhere.test").wait(10)
        assert watch.wait("DNSLookupDidFail", lookup).data.error == "nowhere.test has no address"
    name_server.silent.add("slow.test")
    with pytest.raises(DNSLookupError, match="cannot resolve slow.test"):
        lookup.lookup_sip_proxy("sip:bob@slow.test:5060").wait(10)


@pytest.mark.parametrize("transports", [[], ["sctp"], "tls,udp"])
def test_transports_that_are_not_there_are_refused(engine: Engine, transports: list[str] | str) -> None:
    with pytest.raises(ValueError, match="transports="):
        DNSLookup(engine).lookup_sip_proxy("sip:bob@example.test", transports)


def test_a_look_up_needs_an_engine_that_runs() -> None:
    with pytest.raises(EngineError, match="is not running"):
        DNSLookup(Engine("never started")).lookup_sip_proxy("sip:bob@example.test")


@pytest.mark.parametrize("nameservers", [[], ["name.example"], "127.0.0.1", 5])
def test_bad_name_servers_are_named(nameservers: object) -> None:
    with pytest.raises(EngineError, match="nameservers="):
        Engine("bad name servers").start(nameservers=nameservers)


def test_what_is_sent_without_routes_finds_its_way(engine: Engine, name_server: NameServer) -> None:
    callee = Engine("callee")
    callee.start(local_ip="127.0.0.1")
    try:
        host, port = callee.addresses["tcp"]
        # The first server refuses at once: nobody listens there.
        name_server.zone["_sip._tcp.bob.test", SRV] = [srv(1, 1, "pbx.bob.test"), srv(2, port, "pbx.bob.test")]
        name_server.zone["pbx.bob.test", A] = [socket.inet_aton(host)]
        Account("bob@bob.test", engine=callee)
        account = Account("alice@alice.test", engine=engine)
        assert engine.options("sip:bob@bob.test", account=account).wait(20).code == 200
        assert name_server.asked[0] == "bob.test 35"
    finally:
        callee.stop()
