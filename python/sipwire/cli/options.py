"""`sipwire options`: asks a peer what it can do, and how fast it answers."""

from __future__ import annotations

import argparse
import asyncio

from sipwire import SIPURI, Engine

from .common import Ladder, engine_options, first, interruptible, make_account, routes
from .output import LOCAL_ERROR, OK, REFUSED, TIMED_OUT, Output


async def run(arguments: argparse.Namespace, output: Output) -> int:
    """Sends one OPTIONS; returns the exit code."""
    uri: SIPURI = arguments.uri
    with interruptible() as stop:
        async with Engine("options", **engine_options(arguments, uri)) as engine:
            ladder = Ladder(engine) if arguments.trace else None
            account = make_account(arguments, engine)
            question = asyncio.ensure_future(engine.options(uri, account=account, routes=routes(arguments, uri)))
            await first(asyncio.wait([question]), stop.wait(), asyncio.sleep(arguments.timeout))
            if not question.done():
                question.cancel()
        if ladder:
            ladder.show(output)
    if question.cancelled() or not question.done():
        if stop.is_set():
            output.result("interrupted", code=0, reason="interrupted")
            return LOCAL_ERROR
        output.result(f"no answer within {arguments.timeout:g} s", code=408, reason="no answer")
        return TIMED_OUT
    answer = question.result()
    if answer.rtt is None:
        output.result(f"{answer.code} {answer.reason}", code=answer.code, reason=answer.reason)
        return TIMED_OUT if answer.code == 408 else LOCAL_ERROR
    text = f"{answer.code} {answer.reason} in {answer.rtt * 1000:.1f} ms"
    output.result(text, code=answer.code, reason=answer.reason, rtt_ms=round(answer.rtt * 1000, 3))
    return OK if answer.code < 300 else REFUSED
