"""Where a URI leads: DNS look-ups by RFC 3263."""

from __future__ import annotations

import typing as t

from sipwire.core import SIPURI, TRANSPORTS, Route

if t.TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Generator, Iterable

    from sipwire.engine import Engine

__all__ = ["DNSLookup", "LookupRequest"]


class LookupRequest:
    """A look-up on its way: ``await`` it, or :meth:`wait` for it. Both give the routes, best first."""

    def __init__(self, lookup: DNSLookup) -> None:
        import concurrent.futures

        self._lookup = lookup
        self._future: concurrent.futures.Future[list[Route]] = concurrent.futures.Future()

    def wait(self, timeout: float | None = None) -> list[Route]:
        """Blocks until the routes are there; raises :exc:`DNSLookupError`, or :exc:`TimeoutError` after ``timeout``
        seconds."""
        return self._future.result(timeout)

    def __await__(self) -> Generator[t.Any, None, list[Route]]:
        import asyncio

        return asyncio.wrap_future(self._future).__await__()


class DNSLookup:
    """Finds the servers of SIP URIs: numeric hosts, NAPTR, SRV with priorities and weights, A and AAAA.

    An engine does the work (the default one unless another is given): it has to run, and knows which transports and
    address families there are. Calls without routes are located by themselves.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        if engine is None:
            from sipwire.engine import Engine

            engine = Engine()
        self.engine = engine

    def lookup_sip_proxy(self, uri: SIPURI | str, transports: Iterable[str] = ("udp", "tcp", "tls")) -> LookupRequest:
        """The routes to a URI over these transports, in this order of preference where the domain has none.

        Takes at most 5 s. Posts DNSLookupDidSucceed(request, result) or DNSLookupDidFail(request, error) with this
        object as sender. Raises :exc:`ValueError` for a URI without a host, for an unknown transport, and when the
        engine has none of them; :exc:`EngineError` when it does not run.
        """
        uri = uri if isinstance(uri, SIPURI) else SIPURI(uri)
        wanted = [transports] if isinstance(transports, str) else list(transports)
        unknown = [transport for transport in wanted if transport not in TRANSPORTS]
        if unknown or not wanted:
            raise ValueError(f"transports={wanted!r}: choose from {', '.join(TRANSPORTS)}")
        core = self.engine._running()
        request = LookupRequest(self)
        with self.engine._binding:
            self.engine._requests[core.lookup(uri, wanted)] = request
        return request
