"""`sipwire message`: sends an instant message."""

from __future__ import annotations

import argparse
import asyncio
import sys

from sipwire import SIPURI, Engine, NotificationCenter
from sipwire.messaging import Report

from .common import Ladder, engine_options, first, interruptible, make_account, routes
from .output import LOCAL_ERROR, OK, REFUSED, TIMED_OUT, Output


class _Delivered:
    """Hears of delivery reports."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.status: asyncio.Future[str] = self._loop.create_future()

    def handle_notification(self, notification: object) -> None:
        data = getattr(notification, "data", None)
        status = str(getattr(data, "status", ""))
        self._loop.call_soon_threadsafe(self._heard, status)

    def _heard(self, status: str) -> None:
        if not self.status.done():
            self.status.set_result(status)


async def run(arguments: argparse.Namespace, output: Output) -> int:
    """Sends one MESSAGE; returns the exit code."""
    uri: SIPURI = arguments.uri
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    reports: tuple[Report, ...] = ("positive-delivery", "negative-delivery") if arguments.delivered else ()
    with interruptible() as stop:
        async with Engine("message", **engine_options(arguments, uri)) as engine:
            ladder = Ladder(engine) if arguments.trace else None
            account = make_account(arguments, engine)
            report = _Delivered()
            NotificationCenter().add_observer(report, name="SIPMessageDidGetDeliveryReport", sender=account)
            request = account.send_message(
                uri,
                text,
                arguments.content_type,
                cpim=arguments.cpim,
                reports=reports,
                routes=routes(arguments, uri),
            )
            sent = asyncio.ensure_future(request)
            deadline = asyncio.get_running_loop().time() + arguments.timeout
            await first(asyncio.wait([sent]), stop.wait(), asyncio.sleep(arguments.timeout))
            answered = sent.done()
            if not answered:
                sent.cancel()
            elif reports and sent.result().accepted:
                left = deadline - asyncio.get_running_loop().time()
                await first(asyncio.wait([report.status]), stop.wait(), asyncio.sleep(max(0.0, left)))
            NotificationCenter().discard_observer(report)
        if ladder:
            ladder.show(output)
    if stop.is_set():
        output.result("interrupted", code=0, reason="interrupted")
        return LOCAL_ERROR
    if not answered:
        output.result(f"no answer within {arguments.timeout:g} s", code=408, reason="no answer")
        return TIMED_OUT
    outcome = sent.result()
    fields = {"code": outcome.code, "reason": outcome.reason}
    if not outcome.accepted:
        output.result(f"{outcome.code} {outcome.reason}", **fields)
        if outcome.answered:
            return REFUSED
        return TIMED_OUT if outcome.code == 408 else LOCAL_ERROR
    if not reports:
        output.result(f"{outcome.code} {outcome.reason}", **fields)
        return OK
    if not report.status.done():
        output.result(f"{outcome.code} {outcome.reason}, but no report of its delivery", **fields)
        return TIMED_OUT
    status = report.status.result()
    output.result(status, **fields, status=status)
    return OK if status == "delivered" else REFUSED
