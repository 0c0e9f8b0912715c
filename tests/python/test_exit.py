"""The end of a program in the middle of a call: right exit code, in time, BYE sent, recording playable; and forks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from conftest import Pair
from sipwire import NotificationCenter
from sipwire.notification import Notification
from sipwire.testing import read_wav

ROUNDS = int(os.environ.get("SIPWIRE_EXITS", "4"))
"""Exits of each kind; the figure of the release is 200 in all."""

PROGRAM = """
import os, signal, sys, threading, time
from sipwire import *
from sipwire.notification import NotificationCenter

uri, recording, how, moment = sys.argv[1:]
engine = Engine()
engine.start(local_ip="127.0.0.1")
session = Session(Account("alice@127.0.0.1"))
started = threading.Event()

class Observer:
    def handle_notification(self, notification):
        if notification.name == "SIPSessionDidStart":
            session.start_recording_audio(recording)
            session.audio.tone(500)
        if notification.name == "SIPSessionDidStartRecordingAudio":
            started.set()
            if how == "exit in a handler":
                threading.Timer(float(moment), os.kill, (os.getpid(), signal.SIGTERM)).start()
                sys.exit(9)

NotificationCenter().add_observer(Observer(), sender=session)
session.connect(uri, [Route.for_uri(SIPURI(uri))], audio=True)
assert started.wait(20)
print("recording", flush=True)
if how == "end of main":
    time.sleep(float(moment))
elif how == "sys.exit":
    time.sleep(float(moment))
    sys.exit(3)
elif how == "exception":
    time.sleep(float(moment))
    raise RuntimeError("on purpose")
elif how == "thread":
    threading.Thread(target=time.sleep, args=(float(moment),)).start()
else:
    time.sleep(60)
"""


def accepting(notification: Notification) -> None:
    notification.sender.accept(audio=True)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("end of main", {0}),
        ("sys.exit", {3}),
        ("exception", {1}),
        ("thread", {0}),
        ("SIGTERM", {128 + signal.SIGTERM}),
        ("SIGINT", {-signal.SIGINT, 1, 130}),
        ("exit in a handler", {128 + signal.SIGTERM}),
    ],
)
def test_exits(pair: Pair, tmp_path: Path, how: str, code: set[int]) -> None:
    NotificationCenter().add_observer(accepting, "SIPSessionNewIncoming")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    try:
        for number in range(ROUNDS):
            before = len(pair.watch.heard)
            moment = random.uniform(0.0, 0.4)
            recording = tmp_path / f"{number}.wav"
            with subprocess.Popen(
                [sys.executable, str(program), pair.uri, str(recording), how, str(moment)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "recording\n", process.stderr and process.stderr.read()
                began = time.monotonic()
                if how.startswith("SIG"):
                    time.sleep(moment)
                    process.send_signal(getattr(signal, how))
                _, errors = process.communicate(timeout=20)
                took = time.monotonic() - began - moment
            assert process.returncode in code, f"{how} after {moment:.3f} s: {process.returncode} {errors}"
            assert took < 3.0, f"{how} after {moment:.3f} s took {took:.1f} s"
            assert "panicked" not in errors
            session = next(one.sender for one in pair.watch.heard[before:] if one.name == "SIPSessionNewIncoming")
            pair.watch.wait("SIPSessionDidEnd", session)
            assert pair.watch.of(session)[-1] == "DidEnd remote", "no BYE came"
            assert read_wav(recording).rate > 0
    finally:
        NotificationCenter().remove_observer(accepting, "SIPSessionNewIncoming")


def test_kill_leaves_a_playable_recording(pair: Pair, tmp_path: Path) -> None:
    NotificationCenter().add_observer(accepting, "SIPSessionNewIncoming")
    program, recording = tmp_path / "program.py", tmp_path / "killed.wav"
    program.write_text(PROGRAM)
    try:
        with subprocess.Popen(
            [sys.executable, str(program), pair.uri, str(recording), "kill", "0"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(1.5)
            process.kill()
        assert read_wav(recording).seconds > 0.7
    finally:
        NotificationCenter().remove_observer(accepting, "SIPSessionNewIncoming")


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
