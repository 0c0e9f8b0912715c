"""`sipwire answer`: takes calls, echoes, plays, records or refuses them."""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import Any

from sipwire import Engine, Session, SIPWireError

from .common import Ladder, during, engine_options, first, in_words, interruptible, make_account, summary
from .output import OK, Output, existing


def _listen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Engine options of `--listen udp:HOST:PORT …`."""
    options: dict[str, Any] = {"udp_port": None, "tcp_port": None}
    for text in arguments.listen or ["udp:0.0.0.0:5060", "tcp:0.0.0.0:5060"]:
        parts = re.fullmatch(r"(udp|tcp):(\[[0-9a-fA-F:.]+\]|[^:]+):(\d{1,5})", text)
        if parts is None:
            raise ValueError(f"--listen {text}: expected udp:HOST:PORT or tcp:HOST:PORT")
        transport, host, port = parts[1], parts[2].strip("[]"), int(parts[3])
        if options.setdefault("local_ip", host) != host:
            raise ValueError(f"--listen {text}: all listeners share one address, {options['local_ip']} so far")
        options[f"{transport}_port"] = port
    if options["local_ip"] == "0.0.0.0":
        del options["local_ip"]
    return options


class Answerer:
    """Takes every call of one engine and does the same with each."""

    def __init__(self, engine: Engine, arguments: argparse.Namespace, output: Output) -> None:
        self.arguments, self.output = arguments, output
        self._incoming = engine.incoming()  # before "listening" is said, so that no call comes too early
        self.answered = self.failed = 0
        self._calls: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Runs until `--count` calls have ended."""
        taken = 0
        async for session in self._incoming:
            task = asyncio.ensure_future(self._take(session))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            taken += 1
            if taken == self.arguments.count:
                break
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _take(self, session: Session) -> None:
        if self.arguments.reject:
            session.reject(self.arguments.reject)
            return
        try:
            session.accept(audio=True)
            await session.wait_for("SIPSessionDidStart")
        except SIPWireError:  # the caller gave up first
            self.failed += 1
            return
        self.answered += 1
        try:
            await self._talk(session)
        except (SIPWireError, ValueError, OSError) as error:  # a wav that cannot be played or written: the next may
            self.output.error(str(error))
            session.end()
        await session.wait_for("SIPSessionDidEnd")
        if not self.output.json:
            self.output.line(f"{session.remote_uri}: {in_words(summary(session))}")

    async def _talk(self, session: Session) -> None:
        """Does what was asked during one call."""
        audio = session.audio
        assert audio is not None, "a call accepted with audio that has started has audio"
        if self.arguments.record:
            audio.start_recording(channels="stereo" if self.arguments.stereo else "mix")
        if self.arguments.echo:
            audio.echo = True
        self.output.progress(f"{self.answered} calls, {len(self._calls)} now")
        if self.arguments.play:
            await during(session, audio.play(self.arguments.play))
            session.end()


async def run(arguments: argparse.Namespace, output: Output) -> int:
    """Answers until Ctrl-C or `--count`; returns the exit code."""
    existing(arguments.play)
    options = {**engine_options(arguments), **_listen(arguments)}
    if arguments.record:
        arguments.record.mkdir(parents=True, exist_ok=True)
        options["recordings_directory"] = arguments.record
    with interruptible() as stop:
        engine = Engine("answer", **options)
        account = make_account(arguments, engine)
        account.sip.catch_all = True
        account.save()
        ladder = Ladder(engine) if arguments.trace else None
        answerer = Answerer(engine, arguments, output)  # everything is ready before the engine listens
        async with engine:
            where = ", ".join(
                f"{name}:[{host}]:{port}" if ":" in host else f"{name}:{host}:{port}"
                for name, (host, port) in engine.addresses.items()
            )
            output.line(f"listening on {where}; Ctrl-C ends")
            await first(answerer.serve(), stop.wait())
        if ladder:
            ladder.show(output)
    output.result(f"{answerer.answered} calls answered", answered=answerer.answered, failed=answerer.failed)
    return OK
