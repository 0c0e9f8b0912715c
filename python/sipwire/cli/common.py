"""What the commands share: engine options, accounts, routes, Ctrl-C, and the summary of a call."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

from sipwire import SIPURI, Account, Engine, Route, Session, SessionState, SIPWireError
from sipwire.notification import NotificationCenter
from sipwire.report import SIPMessageTrace, render_ladder_text

from .output import Output, clock, meter


def engine_options(arguments: argparse.Namespace, target: SIPURI | None = None) -> dict[str, Any]:
    """Options of `Engine.start` from the common arguments; of the address family in which `target` is reached."""
    options: dict[str, Any] = {"trace_sip": arguments.trace or arguments.live}
    if arguments.local_ip:
        options["local_ip"] = arguments.local_ip
    elif target is not None:
        host = SIPURI(f"sip:{arguments.proxy}").host if arguments.proxy else target.host
        if ":" in host:
            options["local_ip"] = "::"
    if arguments.codec:
        options["codecs"] = tuple(name.strip() for name in arguments.codec.split(","))
    return options


def make_account(arguments: argparse.Namespace, engine: Engine) -> Account:
    """The account of `--account`, of SIP_USER, or one at our own address. The password comes from SIP_PASSWORD only."""
    name = arguments.account or os.environ.get("SIP_USER")
    if name is None:
        host = next((host for host, _ in engine.addresses.values()), "localhost")
        name = f"sipwire@[{host}]" if ":" in host else f"sipwire@{host}"
    account = Account(name, os.environ.get("SIP_PASSWORD"), engine=engine)
    account.rtp.srtp_encryption = arguments.srtp
    account.save()
    return account


def routes(arguments: argparse.Namespace, uri: SIPURI) -> list[Route] | None:
    """The route that `--proxy` and `--transport` ask for; None leaves it to the URI."""
    if arguments.proxy is None and arguments.transport is None:
        return None
    target = SIPURI(f"sip:{arguments.proxy}") if arguments.proxy else uri
    transport = arguments.transport or target.parameters.get("transport") or uri.parameters.get("transport") or "udp"
    return [Route(target.host, target.port or 5060, transport)]


async def during(session: Session, *waits: Any) -> None:
    """Waits for the first of several or the end of the call; raises what fails unless the call ended under it."""
    try:
        await first(session.wait_for("SIPSessionDidEnd"), *waits)
    except SIPWireError:
        if session.state not in (SessionState.TERMINATING, SessionState.TERMINATED):
            raise


class Ladder:
    """Collects the traced messages of the engines it is given and draws them."""

    def __init__(self, *engines: Engine) -> None:
        self.messages: list[SIPMessageTrace] = []
        for engine in engines:
            NotificationCenter().add_observer(self, name="SIPEngineSIPTrace", sender=engine)

    def handle_notification(self, notification: Any) -> None:
        data = notification.data
        self.messages.append(
            SIPMessageTrace(
                notification.timestamp, data.received, data.source, data.destination, data.transport, data.data
            )
        )

    def show(self, output: Output) -> None:
        output.line(render_ladder_text(self.messages, colour=output.colour))


@contextlib.contextmanager
def interruptible() -> Iterator[asyncio.Event]:
    """The event is set by Ctrl-C or SIGTERM; a second Ctrl-C quits at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def handle() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, handle)
    try:
        yield stop
    finally:
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)


async def first(*waits: Any) -> None:
    """Waits for the first of several and cancels the rest; raises what the first one raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not any(task.exception() is None for task in done):  # what ended well explains the errors beside it
            await done.pop()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def shown(session: Session, output: Output) -> AsyncIterator[None]:
    """Keeps clock and level meter on the terminal while the call is up."""

    async def show() -> None:
        seconds = 0.0
        while True:
            audio = session.audio
            output.progress(f"{clock(seconds)} {meter(audio.level if audio else -127.0)} {session.remote_uri}")
            await asyncio.sleep(0.2)
            seconds += 0.2

    task = asyncio.ensure_future(show())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def summary(session: Session) -> dict[str, Any]:
    """The figures of a call that has ended."""
    fields: dict[str, Any] = {"call_id": session.call_id, "remote_uri": str(session.remote_uri)}
    if session.start_time and session.stop_time:
        fields["seconds"] = round((session.stop_time - session.start_time).total_seconds(), 3)
    audio = session.audio  # stays readable after the end, with the final figures
    if audio is not None:
        numbers = audio.statistics
        fields |= {
            "codec": audio.codec,
            "encryption": audio.encryption,
            "packets_sent": numbers.packets_sent,
            "packets_received": numbers.packets_received,
            "lost": numbers.lost,
            "jitter_ms": round(numbers.jitter_ms, 2),
        }
    return fields


def in_words(fields: dict[str, Any]) -> str:
    """That summary as a line."""
    words = [f"{fields['seconds']:.1f} s" if "seconds" in fields else "not started"]
    if "codec" in fields:
        words += [
            str(fields["codec"]),
            str(fields["encryption"] or "not encrypted"),
            f"sent {fields['packets_sent']}",
            f"received {fields['packets_received']}",
            f"lost {fields['lost']}",
        ]
    return ", ".join(words)
