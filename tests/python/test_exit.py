"""The end of a program in the middle of a call: right exit code, in time, BYE sent, recording playable; and forks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from sipwire import NotificationCenter
from sipwire.notification import Notification

from .conftest import Pair
from .endings import KINDS, FarSide

AT_ONCE = 3
"""Programs that run at the same time."""


def accepting(notification: Notification) -> None:
    notification.sender.accept(audio=True)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarSide]:
    far = FarSide(tmp_path)
    yield far
    far.close()


def test_every_way_to_end(far: FarSide) -> None:
    """``benches/exits.py`` does 200 of them."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = [pool.submit(far.run, kind, f"exit{number}", Random()) for number, kind in enumerate(KINDS)]
        faults = [fault for end in ends for fault in end.result().faults]
    assert not faults, "\n".join(faults)


def test_a_killed_program_leaves_its_recording(far: FarSide) -> None:
    """Playable, and less than half a second lost; ``benches/exits.py 0 --kill 100`` does more."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = [pool.submit(far.kill, f"killed{number}", Random()) for number in range(6)]
        faults = [fault for end in ends for fault in end.result().faults]
    assert not faults, "\n".join(faults)


def run(text: str, *arguments: str, code: int = 0) -> str:
    """Runs a program; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "panicked" not in done.stderr
    return done.stdout


def test_a_fork_has_no_engine_and_leaves_the_parent_alone(pair: Pair) -> None:
    NotificationCenter().add_observer(accepting, "SIPSessionNewIncoming")
    try:
        printed = run(
            """
            import os, sys, threading, warnings
            warnings.simplefilter("ignore")
            from sipwire import *
            from sipwire.notification import NotificationCenter
            engine = Engine()
            engine.start(local_ip="127.0.0.1")
            session = Session(Account("alice@127.0.0.1"))
            started, ended = threading.Event(), threading.Event()
            NotificationCenter().add_observer(lambda _: started.set(), "SIPSessionDidStart")
            NotificationCenter().add_observer(lambda _: ended.set(), "SIPSessionDidEnd")
            session.connect(sys.argv[1], [Route.for_uri(SIPURI(sys.argv[1]))], audio=True)
            assert started.wait(20)
            child = os.fork()
            if child == 0:
                assert not engine.is_running
                for verb in (session.end, session.start_recording_audio, engine.stats,
                             lambda: engine.options(sys.argv[1])):
                    try:
                        verb()
                    except EngineError as error:
                        assert "fork" in str(error), error
                    else:
                        raise AssertionError(f"{verb} did not raise")
                assert session.state == "ESTABLISHED"  # the last that was known
                engine.stop()
                engine.start(local_ip="127.0.0.1")  # one of its own
                assert engine.is_running
                engine.stop()
                sys.exit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0, status
            assert session.state == "ESTABLISHED"
            session.end()
            assert ended.wait(20)
            print("fine")
            """,
            pair.uri,
        )
    finally:
        NotificationCenter().remove_observer(accepting, "SIPSessionNewIncoming")
    assert printed == "fine\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys, warnings
            warnings.simplefilter("ignore")
            import sipwire

            def work(queue):
                engine = sipwire.Engine("worker")
                engine.start(local_ip="127.0.0.1")
                queue.put(engine.is_running)
                engine.stop()

            if __name__ == "__main__":
                sipwire.Engine().start(local_ip="127.0.0.1")
                context = multiprocessing.get_context(sys.argv[1])
                queue = context.Queue()
                process = context.Process(target=work, args=(queue,))
                process.start()
                assert queue.get(timeout=30)
                process.join(30)
                assert process.exitcode == 0, process.exitcode
                print("fine")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "worker.py"), method], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_importing_is_quick_and_light() -> None:
    """40 ms and 15 MB are the goals; twice that fails, so that nobody imports asyncio by mistake."""
    printed = run(
        """
        import resource, sys, time
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        import sipwire
        took = time.perf_counter() - began
        print(took, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        for module in ("asyncio", "dataclasses", "inspect", "logging", "concurrent.futures", "json", "pathlib"):
            assert module not in sys.modules, module
        """
    )
    took, megabytes = map(float, printed.split())
    assert took < 0.4, "on a loaded machine"
    assert megabytes < 30


def test_an_engine_that_runs_does_not_keep_the_program_alive() -> None:
    run("import sipwire; sipwire.Engine().start(local_ip='127.0.0.1')")
