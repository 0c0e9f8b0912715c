"""Instant messages: both roles, any content, CPIM, reports, failures."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sipwire import SIPURI, Account, Engine, EngineError, MessageOutcome, Route

from .conftest import PATIENCE, Pair


def test_a_message_arrives_and_its_sender_knows(pair: Pair) -> None:
    outcome = pair.alice.send_message(pair.uri, "grüße", routes=[pair.route]).wait(PATIENCE)
    assert outcome == MessageOutcome(200, "OK")
    assert outcome.accepted
    heard = pair.watch.wait("SIPEngineGotMessage", pair.callee)
    data = heard.data
    assert data.account is pair.bob
    assert data.session is None
    assert (data.from_uri, data.from_display_name) == (SIPURI("sip:alice@127.0.0.1"), "Alice")
    assert data.to_uri.user == "bob"
    assert (data.content, data.text) == ("grüße".encode(), "grüße")
    assert data.content_type == "text/plain;charset=utf-8"
    assert (data.cpim_headers, data.message_id, data.disposition) == (None, None, [])
    assert pair.watch.wait("SIPMessageDidSucceed", pair.alice).data.code == 200


async def test_bytes_of_any_type_with_await(pair: Pair) -> None:
    content = bytes(range(256))
    outcome = await pair.caller.message(pair.alice, pair.uri, content, "image/png", routes=[pair.route])
    assert outcome.code == 200
    data = pair.watch.wait("SIPEngineGotMessage", pair.callee).data
    assert (data.content, data.content_type) == (content, "image/png")


def test_delivery_and_display_are_reported(pair: Pair) -> None:
    sent = pair.alice.send_message(
        pair.uri, "read me", subject="to read", reports=["positive-delivery", "display"], routes=[pair.route]
    )
    data = pair.watch.wait("SIPEngineGotMessage", pair.callee).data
    assert (data.message_id, data.disposition) == (sent.message_id, ["positive-delivery", "display"])
    assert data.cpim_headers["Subject"] == "to read"
    assert data.cpim_headers["From"] == '"Alice" <sip:alice@127.0.0.1>'
    delivered = pair.watch.wait("SIPMessageDidGetDeliveryReport", pair.alice).data
    assert (delivered.message_id, delivered.disposition, delivered.status) == (
        sent.message_id,
        "delivery",
        "delivered",
    )
    back = [Route(*pair.caller.addresses["udp"])]
    assert pair.bob.report_message(data, "displayed", routes=back).wait(PATIENCE).accepted
    shown = pair.watch.wait(
        "SIPMessageDidGetDeliveryReport", pair.alice, where=lambda one: one.data.disposition == "display"
    ).data
    assert (shown.message_id, shown.status, shown.from_uri.user) == (sent.message_id, "displayed", "bob")


def test_a_message_for_nobody_fails(pair: Pair) -> None:
    stranger = str(pair.callee.sip_uri("nobody"))
    outcome = pair.alice.send_message(stranger, "x", routes=[pair.route]).wait(PATIENCE)
    assert (outcome.code, outcome.accepted) == (404, False)
    assert pair.watch.wait("SIPMessageDidFail", pair.alice).data.reason == outcome.reason


def test_an_engine_that_takes_no_messages_says_so(pair: Pair) -> None:
    third = Engine("takes none")
    third.start(local_ip="127.0.0.1", accepts_messages=False)
    try:
        account = Account("carol@127.0.0.1", engine=third)
        outcome = pair.alice.send_message(third.sip_uri("carol"), "x").wait(PATIENCE)
        assert outcome.code == 480
        account.delete()
    finally:
        third.stop()


def test_what_cannot_be_sent_raises(pair: Pair) -> None:
    cases: list[tuple[dict[str, object], type[Exception]]] = [
        ({"content": "x", "content_type": "nonsense"}, ValueError),
        ({"content": "x", "reports": ["read"]}, ValueError),
        ({"content": b"x" * 70_000}, ValueError),
        ({"content": 5}, TypeError),
        ({"content": "x", "uri": "tel:+1"}, ValueError),
    ]
    for arguments, error in cases:
        given = {"uri": pair.uri, "routes": [pair.route], **arguments}
        with pytest.raises(error):
            pair.alice.send_message(**given)  # type: ignore[arg-type]
    data = pair.watch.heard  # nothing was sent
    assert not [one for one in data if one.name == "SIPEngineGotMessage"]


def test_a_stop_ends_the_wait(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        sent = pair.alice.send_message("sip:x@127.0.0.1", "x", routes=[Route(*silent.getsockname())])
        with pytest.raises(TimeoutError):
            sent.wait(0.01)
        pair.caller.stop()
        with pytest.raises(EngineError, match="stopped"):
            sent.wait(PATIENCE)


async def test_a_cancelled_await_harms_nobody(pair: Pair) -> None:
    sent = pair.alice.send_message(pair.uri, "x", routes=[pair.route])
    waiting = asyncio.ensure_future(sent)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await pair.alice.send_message(pair.uri, "y", routes=[pair.route])).accepted
