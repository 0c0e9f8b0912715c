"""`sipwire register`: registers an account, keeps it up until Ctrl-C, and unregisters."""

from __future__ import annotations

import argparse
import asyncio

from sipwire import Account, Engine, RegistrationFailed, Route
from sipwire.notification import Notification, NotificationCenter

from .common import Ladder, engine_options, first, interruptible, make_account
from .output import LOCAL_ERROR, OK, REFUSED, TIMED_OUT, Output


async def run(arguments: argparse.Namespace, output: Output) -> int:
    """Registers; returns the exit code."""
    with interruptible() as stop:
        async with Engine("register", **engine_options(arguments)) as engine:
            ladder = Ladder(engine) if arguments.trace else None
            account = make_account(arguments, engine)
            account.sip.registrar = arguments.registrar
            account.sip.register_interval = arguments.expires
            if arguments.transport:
                account.sip.transport_list = (arguments.transport,)
            if arguments.proxy:
                account.sip.outbound_proxy = Route.parse(f"{arguments.proxy};transport={arguments.transport or 'udp'}")
            code = await _register(account, arguments, stop, output)
        if ladder:
            ladder.show(output)
        return code


async def _register(account: Account, arguments: argparse.Namespace, stop: asyncio.Event, output: Output) -> int:
    task = asyncio.ensure_future(account.register())
    await first(asyncio.wait([task]), stop.wait(), asyncio.sleep(arguments.timeout))
    if not task.done() and not account.registered:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if stop.is_set():
            output.result("interrupted", code=0, reason="interrupted")
            return LOCAL_ERROR
        output.result(f"no answer within {arguments.timeout:g} s", code=408, reason="no answer")
        return TIMED_OUT
    try:
        await task
    except RegistrationFailed as error:
        output.result(f"{error.code} {error.reason}", code=error.code, reason=error.reason)
        if error.code == 408:
            return TIMED_OUT
        return REFUSED if error.code else LOCAL_ERROR
    fields = {"code": 200, "reason": "OK", "account": account.id, "contact": str(account.contact)}
    told = _Told(output)
    center = NotificationCenter()
    center.add_observer(told, sender=account)
    output.line(f"registered {account.id} at {fields['contact']}")
    await first(stop.wait(), *([asyncio.sleep(arguments.seconds)] if arguments.seconds else []))
    center.discard_observer(told, sender=account)
    await first(account.unregister(), asyncio.sleep(arguments.timeout))
    output.result(f"unregistered {account.id}", **fields)
    return OK


class _Told:
    """Says what becomes of the registration while it is up."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def handle_notification(self, notification: Notification) -> None:
        data = notification.data
        if notification.name == "SIPAccountRegistrationDidSucceed":
            self._output.line(f"registered for {data.expires} s at {data.contact}")
        elif notification.name == "SIPAccountRegistrationDidFail":
            again = "" if data.retry_after is None else f", again in {data.retry_after:.0f} s"
            self._output.line(f"not registered: {data.code} {data.reason}{again}")
