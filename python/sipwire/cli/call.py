"""`sipwire call`: places one call, plays, records, sends digits, hangs up."""

from __future__ import annotations

import argparse
import asyncio

from sipwire import SIPURI, Account, CallFailed, CallTimeout, Engine, Session

from .common import (
    Ladder,
    during,
    engine_options,
    first,
    in_words,
    interruptible,
    make_account,
    routes,
    shown,
    summary,
)
from .output import LOCAL_ERROR, OK, REFUSED, TIMED_OUT, Output, existing


async def run(arguments: argparse.Namespace, output: Output) -> int:
    """Places the call; returns the exit code."""
    existing(arguments.play)
    uri: SIPURI = arguments.uri
    if arguments.record and not arguments.record.absolute().parent.is_dir():
        raise FileNotFoundError(f"no such folder to record into: {arguments.record.parent}")
    with interruptible() as stop:
        async with Engine("call", **engine_options(arguments, uri)) as engine:
            ladder = Ladder(engine) if arguments.trace else None
            code = await _place(make_account(arguments, engine), uri, arguments, stop, output)
        if ladder:
            ladder.show(output)
        return code


async def _place(
    account: Account, uri: SIPURI, arguments: argparse.Namespace, stop: asyncio.Event, output: Output
) -> int:
    output.progress(f"calling {uri} …")
    ended: Session | None = None

    async def whole() -> None:
        nonlocal ended
        async with attempt as session:
            answered.set()
            ended = session
            await _talk(session, arguments, stop, output)

    attempt = account.call(uri, audio=True, routes=routes(arguments, uri))
    answered = asyncio.Event()
    task = asyncio.ensure_future(whole())
    await first(asyncio.wait([task]), answered.wait(), stop.wait(), asyncio.sleep(arguments.timeout))
    if not answered.is_set() and not task.done():
        task.cancel()  # still ringing: leaving the block sends CANCEL
        await asyncio.gather(task, return_exceptions=True)
        if stop.is_set():
            output.result("cancelled", code=487, reason="cancelled")
            return LOCAL_ERROR
        output.result(f"no answer within {arguments.timeout:g} s", code=408, reason="no answer")
        return TIMED_OUT
    try:
        await task
    except CallFailed as error:
        output.result(f"{error.code} {error.reason}", code=error.code, reason=error.reason)
        if isinstance(error, CallTimeout):
            return TIMED_OUT
        return REFUSED if attempt.session.response_headers else LOCAL_ERROR  # nobody was reached to refuse it
    assert ended is not None
    fields = {"code": 200, "reason": "OK", **summary(ended)}
    if arguments.record:
        fields["recording"] = str(arguments.record)
    output.result(f"200 OK: {in_words(fields)}", **fields)
    return OK


async def _talk(session: Session, arguments: argparse.Namespace, stop: asyncio.Event, output: Output) -> None:
    """Does what was asked during the call; returns when it is time to hang up or the peer has."""
    audio = session.audio
    assert audio is not None, "a call placed with audio that has started has audio"
    if arguments.record:
        audio.start_recording(arguments.record, channels="stereo" if arguments.stereo else "mix")

    async def act() -> None:
        for digit in arguments.dtmf or "":
            session.send_dtmf(digit)
        if arguments.play:
            await audio.play(arguments.play)
        if arguments.seconds or not arguments.play:
            await asyncio.Event().wait()  # the clock, the peer or Ctrl-C ends it

    waits = [stop.wait(), act()]
    if arguments.seconds:
        waits.append(asyncio.sleep(arguments.seconds))
    async with shown(session, output):
        await during(session, *waits)
