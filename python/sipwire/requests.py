"""Requests inside a call that have an outcome: INFO and transfers."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Generator

__all__ = ["InfoOutcome", "InfoRequest", "TransferOutcome", "TransferRequest"]


class InfoOutcome(t.NamedTuple):
    """The final answer to an INFO: its code (408 when none came, 487 when the call ended first) and reason."""

    code: int
    reason: str

    @property
    def delivered(self) -> bool:
        return 200 <= self.code < 300


class TransferOutcome(t.NamedTuple):
    """What the peer reports of the call it made: 200, or 202 when it has taken it on and reports nothing."""

    code: int
    reason: str


Outcome = t.TypeVar("Outcome")


class _Request(t.Generic[Outcome]):
    def __init__(self) -> None:
        import concurrent.futures

        self._future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()

    def wait(self, timeout: float | None = None) -> Outcome:
        """Blocks until the outcome is there; raises :exc:`TimeoutError` after ``timeout`` seconds."""
        return self._future.result(timeout)

    def __await__(self) -> Generator[t.Any, None, Outcome]:
        import asyncio

        return asyncio.wrap_future(self._future).__await__()

    def _over(self, outcome: Outcome | BaseException) -> None:
        if self._future.done():  # a cancelled await is done
            return
        if isinstance(outcome, BaseException):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)


class InfoRequest(_Request[InfoOutcome]):
    """An INFO on its way: ``await`` it, or :meth:`wait` for it; made by :meth:`Session.send_info`."""


class TransferRequest(_Request[TransferOutcome]):
    """A transfer under way: ``await`` it, or :meth:`wait` for it; made by :meth:`Session.transfer`.

    Raises :exc:`TransferFailed` with code and reason when the peer refuses, its new call fails, or it falls silent.
    """
