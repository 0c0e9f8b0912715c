"""Instant messages in pager mode (MESSAGE): the request on its way, and what becomes of it."""

from __future__ import annotations

import typing as t

from sipwire.core import SIPURI

if t.TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Generator, Iterable, Sequence

    from sipwire.account import Account
    from sipwire.core import Route
    from sipwire.notification_data import SIPEngineGotMessageData

__all__ = ["MessageOutcome", "MessageRequest", "Report"]

Report = t.Literal["positive-delivery", "negative-delivery", "processing", "display"]
"""What the sender of a message can ask to be told (RFC 5438)."""

ReportStatus = t.Literal["delivered", "failed", "displayed", "processed", "stored"]

_REPORTS: t.Final = t.get_args(Report)


class MessageOutcome(t.NamedTuple):
    """The final answer to a message: its code (408 when none came, 503 when it could not be sent) and reason."""

    code: int
    reason: str
    answered: bool = True
    """False when the failure is on this side: nobody answered, or it could not be sent."""

    @property
    def accepted(self) -> bool:
        """Somebody took it. That it was delivered or displayed a report says, when one was asked for."""
        return 200 <= self.code < 300


class MessageRequest:
    """A message on its way: ``await`` it, or :meth:`wait` for it."""

    message_id: str | None
    """What SIPMessageDidGetDeliveryReport will name; ``None`` for a message that asks for no reports."""

    def __init__(self, message_id: str | None = None) -> None:
        import concurrent.futures

        self.message_id = message_id
        self._future: concurrent.futures.Future[MessageOutcome] = concurrent.futures.Future()

    def wait(self, timeout: float | None = None) -> MessageOutcome:
        """Blocks until the answer is there; raises :exc:`TimeoutError` after ``timeout`` seconds."""
        return self._future.result(timeout)

    def __await__(self) -> Generator[t.Any, None, MessageOutcome]:
        import asyncio

        return asyncio.wrap_future(self._future).__await__()


def send_message(
    account: Account,
    uri: SIPURI | str,
    content: str | bytes,
    content_type: str | None = None,
    *,
    cpim: bool = False,
    subject: str | None = None,
    reports: Iterable[Report] = (),
    routes: Sequence[Route] | None = None,
) -> MessageRequest:
    """What :meth:`Account.send_message` does."""
    from sipwire.account import routes_for

    wanted = [reports] if isinstance(reports, str) else list(reports)
    unknown = [report for report in wanted if report not in _REPORTS]
    if unknown:
        raise ValueError(f"reports={reports!r}: choose from {', '.join(_REPORTS)}")
    if not isinstance(content, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"content {content!r} of a message is neither str nor bytes")
    body = content.encode() if isinstance(content, str) else bytes(content)
    if content_type is None:
        content_type = "text/plain;charset=utf-8" if isinstance(content, str) else "application/octet-stream"
    wrap = (subject, ", ".join(wanted)) if cpim or subject is not None or wanted else None
    engine = account.engine
    core = engine._running()
    uri = uri if isinstance(uri, SIPURI) else SIPURI(uri)
    number = engine._account_number(account)
    chosen = [(route.address, route.port, route.transport) for route in routes_for(account, uri, routes)]
    with engine._binding:
        request_number, message_id = core.message(number, uri, chosen, content_type, body, wrap)
        request = engine._requests[request_number] = MessageRequest(message_id)
    return request


def send_report(
    account: Account,
    message: SIPEngineGotMessageData,
    status: ReportStatus,
    *,
    routes: Sequence[Route] | None = None,
) -> MessageRequest:
    """What :meth:`Account.report_message` does."""
    from sipwire.account import routes_for

    if message.message_id is None:
        raise ValueError("this message has no id: its sender wants no reports")
    engine = account.engine
    core = engine._running()
    number = engine._account_number(account)
    uri = message.from_uri
    chosen = [(route.address, route.port, route.transport) for route in routes_for(account, uri, routes)]
    written = (message.cpim_headers or {}).get("DateTime", "")
    with engine._binding:
        request_number = core.report(number, uri, chosen, message.message_id, written, status)
        request = engine._requests[request_number] = MessageRequest()
    return request
