"""Programs that end in the middle of a call, each in its own way, and a far side that checks what they leave behind.

Used by ``test_exit.py`` for one of each kind and by ``benches/exits.py`` for hundreds. Run as a program it is the one
that ends: ``endings.py KIND MOMENT URI NAME RECORDING``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path
from typing import Any, NamedTuple

from sipwire import (
    Account,
    CallFailed,
    Engine,
    MediaError,
    Notification,
    NotificationCenter,
    Route,
    Session,
    SessionManager,
    SessionStateError,
    _core,
)
from sipwire.testing import read_wav

PATIENCE = 2.0
"""Seconds a program may take to end its calls and itself."""

LOST_BY_A_KILL = 0.5
"""Seconds of a recording that may be lost by ``kill -9``."""

_CTRL_C = {-signal.SIGINT, 1}  # 1: CPython forgets that it was Ctrl-C when another thread is importing just then

KINDS: dict[str, set[int]] = {
    "end of main": {0},
    "sys.exit in main": {3},
    "exception in main": {1},
    "end of another thread": {0},
    "SIGTERM while another thread runs": {-signal.SIGTERM},
    "SIGTERM": {128 + signal.SIGTERM},
    "SIGTERM twice": {
        128 + signal.SIGTERM,
        -signal.SIGTERM,
    },  # the second may find Python gone and only the process left
    "SIGINT": _CTRL_C,
    "SIGINT twice": _CTRL_C,
    "os.kill SIGINT in an observer": _CTRL_C,
    "sys.exit in an observer": {0},
    "stop in an observer": {0},
    "asyncio, sys.exit": {3},
    "asyncio, exception": {1},
    "asyncio, SIGTERM": {128 + signal.SIGTERM},
    "asyncio, SIGINT": _CTRL_C,
}
"""Every way to end, and its exit code."""

_TRACEBACKS = {
    "exception in main",
    "SIGINT",
    "SIGINT twice",
    "os.kill SIGINT in an observer",
    "sys.exit in an observer",
    "asyncio, exception",
    "asyncio, SIGINT",
}
"""Where Python itself prints a traceback (or the center logs that an observer raised)."""


class Outcome(NamedTuple):
    """What is left of one program."""

    faults: list[str]
    state: str
    """Of the call when the program began to end."""


class FarSide:
    """Takes the calls of the programs, after ringing for a while, and remembers how each ended."""

    def __init__(self, folder: Path, engine: str = "far side") -> None:
        self.folder = folder
        self.engine = Engine(engine)
        self.engine.start(local_ip="127.0.0.1")
        SessionManager()
        self.account = Account("far@127.0.0.1", engine=self.engine)
        self._news = threading.Condition()
        self._sessions: dict[str, Session] = {}
        self._ends: dict[str, str] = {}
        self._rings: dict[str, float] = {}
        NotificationCenter().add_observer(self)

    def close(self) -> None:
        NotificationCenter().remove_observer(self)
        self.engine.stop()
        self.account.delete()

    def handle_notification(self, notification: Notification) -> None:
        session = notification.sender
        if not isinstance(session, Session) or session.engine is not self.engine:
            return
        name = str(session.remote_uri and session.remote_uri.user)
        if notification.name == "SIPSessionNewIncoming":
            threading.Timer(self._rings[name], self._accept, (session,)).start()
            with self._news:
                self._sessions[name] = session
                self._news.notify_all()
        elif notification.name == "SIPSessionDidEnd":
            with self._news:
                self._ends[name] = notification.data.originator
                self._news.notify_all()

    @staticmethod
    def _accept(session: Session) -> None:
        try:
            session.accept(audio=True)
        except Exception:
            if session.state == "INCOMING":
                raise  # otherwise the program had gone

    def run(self, kind: str, name: str, random: random.Random) -> Outcome:
        """Runs one program that ends in the way of `kind` at a random moment of its call; says what was wrong."""
        ring, moment = random.uniform(0.0, 0.5), random.uniform(0.0, 0.9)
        self._rings[name] = ring
        recording = self.folder / f"{name}.wav"
        arguments = [kind, str(moment), str(self.engine.sip_uri("far")), name, str(recording)]
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process:
            said = process.stdout.readline()
            if said != "calling\n":
                return Outcome([f"did not start: {process.communicate()}"], "")
            if "SIGTERM" in kind or kind in ("SIGINT", "SIGINT twice", "asyncio, SIGINT"):
                number = signal.SIGTERM if "SIGTERM" in kind else signal.SIGINT
                time.sleep(moment)
                with self._news:
                    session = self._sessions.get(name)
                state = "no call yet" if session is None else str(session.state)
                process.send_signal(number)
                began = time.monotonic()
                if kind.endswith("twice"):
                    time.sleep(random.uniform(0.0, 0.1))
                    process.send_signal(number)
                said = ""
            else:
                said = process.stdout.readline()
                while said.startswith("recording"):
                    said = process.stdout.readline()
                began = time.monotonic()
                state = said.removeprefix("ending").strip()
            try:
                out, errors = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                return Outcome([f"hangs {process.communicate()}"], state)
            took = time.monotonic() - began
        faults = []
        if process.returncode not in KINDS[kind]:
            faults.append(f"exit code {process.returncode}, expected {KINDS[kind]}: {errors}")
        if took > PATIENCE:
            faults.append(f"took {took:.1f} s")
        noise = errors if kind not in _TRACEBACKS else errors.replace("Traceback", "")
        for word in ("Traceback", "panicked", "Fatal", "Exception ignored", "never awaited", "Warning"):
            if word in noise:
                faults.append(f"{word} in {errors}")
        faults += self._check_call(name)
        faults += self._check_recording(recording, "recording" in said + out)
        return Outcome([f"{kind} after {moment:.3f} s, ringing {ring:.3f} s: {fault}" for fault in faults], state)

    def kill(self, name: str, random: random.Random) -> Outcome:
        """Kills a recording program with SIGKILL at a random moment: half a second is lost at most."""
        moment = random.uniform(0.0, 1.5)
        self._rings[name] = 0.0
        path = self.folder / f"{name}.wav"
        arguments = ["SIGKILL", "0", str(self.engine.sip_uri("far")), name, str(path)]
        with subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = ""
            while not said.startswith("recording"):
                said = process.stdout.readline()
                if not said:
                    return Outcome([f"did not start: {process.wait(20)}"], "")
            time.sleep(moment)
            recorded = time.monotonic() - float(said.split()[1])
            process.kill()
        faults = self._check_recording(path, must_be=True)
        if not faults:
            wav = read_wav(path)
            if wav.seconds < recorded - LOST_BY_A_KILL:
                faults.append(f"{wav.seconds:.3f} s are left of {recorded:.3f}")
            heard = wav.samples[wav.rate // 4 :]  # without the beginning: the tone starts with the recording
            gaps, clicks = _core.find_breaks(heard, wav.rate)
            if gaps or clicks:
                faults.append(f"gaps {gaps} and clicks {clicks} in what is left")
        session = self._sessions.get(name)
        if session is not None:
            session.end()  # nobody is there to say BYE
        return Outcome([f"killed after {moment:.3f} s: {fault}" for fault in faults], "ESTABLISHED")

    def _check_call(self, name: str) -> list[str]:
        """A call that arrived has to have been ended by the program: BYE or CANCEL came."""
        with self._news:
            if name not in self._sessions:
                return []
            if not self._news.wait_for(lambda: name in self._ends, PATIENCE):
                return [f"neither BYE nor CANCEL came: {self._sessions[name].state}"]
            return [] if self._ends[name] == "remote" else [f"the call was ended by {self._ends[name]}"]

    @staticmethod
    def _check_recording(path: Path, must_be: bool) -> list[str]:
        if not path.exists():
            return ["no recording"] if must_be else []
        try:
            with wave.open(str(path)) as file:
                whole = file.getnframes() * file.getsampwidth() * file.getnchannels()
                read = len(file.readframes(file.getnframes()))
        except Exception as error:
            return [f"{path} cannot be played: {error!r}"]
        return [] if whole == read else [f"{path}: {read} bytes of {whole} in its header"]


# --- the program that ends -------------------------------------------------------------------------------------------


class _Observer:
    def __init__(self, kind: str, moment: float, recording: str) -> None:
        self.kind, self.moment, self.recording = kind, moment, recording
        self.ending = threading.Event()

    def handle_notification(self, notification: Notification) -> None:
        session = notification.sender
        if notification.name == "SIPSessionDidStart":
            with contextlib.suppress(MediaError, SessionStateError):  # the program may be ending already
                session.start_recording_audio(self.recording)
                session.audio.tone(500)
        elif notification.name == "SIPSessionDidStartRecordingAudio":
            print("recording", time.monotonic(), flush=True)
        if not self.ending.is_set() and time.monotonic() >= BEGAN + self.moment and "observer" in self.kind:
            self.end()

    def end(self) -> None:
        self.ending.set()
        say_ending()
        if self.kind == "os.kill SIGINT in an observer":
            os.kill(os.getpid(), signal.SIGINT)
        elif self.kind == "sys.exit in an observer":
            sys.exit(9)
        elif self.kind == "stop in an observer":
            Engine().stop()


def say_ending() -> None:
    print("ending", *(session.state for session in Engine().sessions), flush=True)


BEGAN = time.monotonic()


def _call(kind: str, moment: float, uri: str, name: str, recording: str) -> None:
    engine = Engine()
    engine.start(local_ip="127.0.0.1")
    session = Session(Account(f"{name}@127.0.0.1"))
    observer = _Observer(kind, moment, recording)
    NotificationCenter().add_observer(observer, sender=session)
    session.connect(uri, [Route.for_uri(engine.sip_uri("x").parse(uri))], audio=True)
    global BEGAN
    BEGAN = time.monotonic()
    print("calling", flush=True)
    if kind == "SIGTERM while another thread runs":
        threading.Timer(60, int).start()
    elif kind.startswith("SIG"):
        time.sleep(60)
    elif "observer" in kind:
        while not observer.ending.is_set() and time.monotonic() < BEGAN + 5:
            if session._core is not None and session._number is not None:
                session._core._flood(session._number, 1)  # so that handlers run all the time
            time.sleep(0.01)
        if kind == "os.kill SIGINT in an observer":
            time.sleep(60)
    elif kind == "end of another thread":
        threading.Timer(moment, say_ending).start()
    else:
        time.sleep(moment)
        say_ending()
        if kind == "sys.exit in main":
            sys.exit(3)
        if kind == "exception in main":
            raise RuntimeError("on purpose")


async def _call_asyncio(kind: str, moment: float, uri: str, name: str, recording: str) -> None:
    import asyncio

    async with Engine().configured(local_ip="127.0.0.1") as engine:
        account = await engine.add_account(f"{name}@127.0.0.1")
        NotificationCenter().add_observer(_Observer(kind, moment, recording))

        async def talk() -> None:
            with contextlib.suppress(CallFailed):  # the end of the engine comes before the answer
                async with account.call(uri) as session:
                    assert session.audio is not None
                    async for _ in session.audio.frames():
                        pass

        talking = asyncio.ensure_future(talk())
        await asyncio.sleep(0)
        print("calling", flush=True)
        await asyncio.wait([talking], timeout=moment if "SIG" not in kind else 60)
        say_ending()
        if kind == "asyncio, sys.exit":
            sys.exit(3)
        raise RuntimeError("on purpose")


def main(kind: str, moment: str, *arguments: Any) -> None:
    if kind.startswith("asyncio"):
        import asyncio

        asyncio.run(_call_asyncio(kind, float(moment), *arguments))
    else:
        _call(kind, float(moment), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
