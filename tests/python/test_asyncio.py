"""The asyncio face: calls as blocks, incoming sessions, waiting, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from sipwire import CallBusy, CallCancelled, CallDeclined, CallFailed, Engine, Session, SIPWireError
from sipwire.audio import FrameStream

from .conftest import Pair, Watch


@pytest_asyncio.fixture
async def answering(pair: Pair) -> AsyncIterator[Callable[[Callable[[Session], Awaitable[None]]], None]]:
    """Lets a coroutine take the calls of Bob."""
    tasks: list[asyncio.Task[None]] = []

    def start(handle: Callable[[Session], Awaitable[None]]) -> None:
        async def serve() -> None:
            async for session in pair.callee.incoming():
                tasks.append(asyncio.ensure_future(handle(session)))

        tasks.append(asyncio.ensure_future(serve()))

    yield start
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def accept(session: Session) -> None:
    session.accept(audio=True)
    await session.wait_for("SIPSessionDidStart", timeout=10)


async def test_a_call_is_a_block(pair: Pair, answering: Callable[..., None]) -> None:
    answering(accept)
    await asyncio.sleep(0)
    async with pair.alice.call(pair.uri) as session:
        assert session.state == "ESTABLISHED"
        assert session.audio is not None
    assert session.state == "TERMINATED"
    assert pair.watch.of(session)[-1] == "DidEnd local"


@pytest.mark.parametrize(("code", "kind"), [(486, CallBusy), (603, CallDeclined), (404, CallFailed)])
async def test_a_refused_call_raises(pair: Pair, answering: Callable[..., None], code: int, kind: type) -> None:
    async def refuse(session: Session) -> None:
        session.reject(code, "No thanks")

    answering(refuse)
    await asyncio.sleep(0)
    with pytest.raises(kind) as caught:
        async with pair.alice.call(pair.uri):
            pytest.fail("the block must not be entered")
    assert (caught.value.code, caught.value.reason) == (code, "No thanks")


async def test_cancelling_while_it_rings_tells_the_peer(pair: Pair, answering: Callable[..., None]) -> None:
    arrived: asyncio.Future[Session] = asyncio.get_running_loop().create_future()

    async def ring(session: Session) -> None:
        arrived.set_result(session)

    answering(ring)
    await asyncio.sleep(0)

    async def place() -> None:
        async with pair.alice.call(pair.uri):
            pytest.fail("the block must not be entered")

    task = asyncio.ensure_future(place())
    incoming = await asyncio.wait_for(arrived, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(CallFailed) as caught:
        await incoming.wait_for("SIPSessionDidStart", timeout=10)
    assert caught.value.code in (0, 487)


async def test_ending_from_elsewhere_while_it_rings(pair: Pair, answering: Callable[..., None]) -> None:
    async def ring(session: Session) -> None:
        pass

    answering(ring)
    await asyncio.sleep(0)
    attempt = pair.alice.call(pair.uri)

    async def hang_up() -> None:
        await attempt.session.wait_for("SIPSessionNewOutgoing", timeout=10)
        attempt.session.end()

    task = asyncio.ensure_future(hang_up())
    with pytest.raises(CallCancelled):
        async with attempt:
            pytest.fail("the block must not be entered")
    await task


async def test_a_block_survives_the_peer_hanging_up(pair: Pair, answering: Callable[..., None]) -> None:
    async def greet_and_go(session: Session) -> None:
        await accept(session)
        session.end("enough")

    answering(greet_and_go)
    await asyncio.sleep(0)
    async with pair.alice.call(pair.uri) as session:
        ended = await session.wait_for("SIPSessionDidEnd", timeout=10)
        assert ended.data.originator == "remote"
        assert session.end_reason == "enough"
        # What happened once is still there; what did not is an error at once.
        assert (await session.wait_for("SIPSessionDidStart")).name == "SIPSessionDidStart"
        with pytest.raises(SIPWireError, match="ended before SIPSessionGotDTMF"):
            await session.wait_for("SIPSessionGotDTMF")


async def test_notifications_of_a_session_end_with_it(pair: Pair, answering: Callable[..., None]) -> None:
    answering(accept)
    await asyncio.sleep(0)
    async with pair.alice.call(pair.uri) as session:
        stream = session.notifications()
        session.end()
        names = [notification.name async for notification in stream]
    assert names[0] == "SIPSessionChangedState"
    assert names[-1] == "SIPSessionDidEnd"
    assert [notification async for notification in session.notifications()] == []


async def test_nothing_is_missed_between_a_verb_and_waiting(pair: Pair, answering: Callable[..., None]) -> None:
    answering(accept)
    await asyncio.sleep(0)
    async with pair.alice.call(pair.uri) as session:
        for turn in range(3):
            session.start_recording_audio(f"{turn}.wav")
            pair.watch.wait("SIPSessionDidStartRecordingAudio", session)  # blocks the loop: it was there before
            started = await session.wait_for("SIPSessionDidStartRecordingAudio", timeout=10)
            assert started.data.file_name.endswith(f"{turn}.wav")
            session.stop_recording_audio()
            await session.wait_for("SIPSessionDidStopRecordingAudio", timeout=10)


async def test_two_tasks_hear_the_same(pair: Pair, answering: Callable[..., None]) -> None:
    digits: list[str] = []

    async def listen(session: Session) -> None:
        await accept(session)
        waits = [session.wait_for("SIPSessionGotDTMF", timeout=10) for _ in range(2)]
        digits.extend(one.data.digit for one in await asyncio.gather(*waits))

    answering(listen)
    await asyncio.sleep(0)
    async with pair.alice.call(pair.uri) as session:
        await asyncio.sleep(0.1)
        session.send_dtmf("7")
        await asyncio.to_thread(pair.watch.wait, "SIPSessionGotDTMF")
        await asyncio.sleep(0.1)
    assert digits == ["7", "7"]


async def test_waiting_has_a_limit(pair: Pair, answering: Callable[..., None]) -> None:
    answering(accept)
    await asyncio.sleep(0)
    async with pair.alice.call(pair.uri) as session:
        with pytest.raises(TimeoutError):
            await session.wait_for("SIPSessionGotDTMF", timeout=0.05)
        with pytest.raises(TypeError):
            await session.wait_for()
        assert session.state == "ESTABLISHED"


async def test_many_calls_at_once(pair: Pair, answering: Callable[..., None]) -> None:
    answering(accept)
    await asyncio.sleep(0)

    async def place() -> str:
        async with pair.alice.call(pair.uri) as session:
            return session.state

    assert await asyncio.gather(*(place() for _ in range(20))) == ["ESTABLISHED"] * 20


async def test_an_engine_is_a_block(watch: Watch) -> None:
    async with Engine("block").configured(local_ip="127.0.0.1") as engine:
        assert engine.is_running
        await engine.add_account("sip:alice@127.0.0.1")
        assert [account.id for account in engine.accounts] == ["alice@127.0.0.1"]
    assert not engine.is_running
    assert watch.of(engine) == ["EngineWillStart", "EngineDidStart", "EngineWillEnd", "EngineDidEnd"]


async def test_incoming_ends_with_the_engine(pair: Pair) -> None:
    async def serve() -> int:
        return len([session async for session in pair.callee.incoming()])

    task = asyncio.ensure_future(serve())
    await asyncio.sleep(0)
    await asyncio.to_thread(pair.callee.stop)
    assert await asyncio.wait_for(task, 10) == 0


def test_a_stream_of_another_loop_says_so(pair: Pair) -> None:
    outgoing, incoming = pair.established()

    async def opened() -> FrameStream:
        assert outgoing.audio is not None
        return outgoing.audio.frames()

    async def read(stream: FrameStream) -> None:
        async for _ in stream:
            pass

    stream = asyncio.run(opened())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(read(stream))
    assert outgoing.state == "ESTABLISHED"
    outgoing.end()
    pair.ended(outgoing, incoming)


def test_one_loop_after_the_other(pair: Pair) -> None:
    """Each `asyncio.run` has a loop of its own; nothing of the one before is in the way."""

    async def main() -> None:
        async def serve() -> None:
            async for session in pair.callee.incoming():
                await accept(session)

        task = asyncio.ensure_future(serve())
        await asyncio.sleep(0)
        async with pair.alice.call(pair.uri) as session:
            assert session.audio is not None
            frames = session.audio.frames()
            assert (await anext(frames)).rate == 16000
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    for _ in range(3):
        asyncio.run(main())
