"""A program whose Python is hostile to timing: what its peer hears has to be whole all the same."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from sipwire import NotificationCenter, _core
from sipwire.notification import Notification
from sipwire.testing import assert_tone, read_wav

from .conftest import Pair, Watch

SECONDS = 3.0

PROGRAM = """
import sys, threading, time
from sipwire import *
from sipwire.notification import NotificationCenter

def sleep(notification):
    time.sleep(0.5)

def spin():
    while not over:
        sum(range(1000))

over = False
uri, recording = sys.argv[1:]
engine = Engine()
engine.start(local_ip="127.0.0.1")
NotificationCenter().add_observer(sleep)
threads = [threading.Thread(target=spin) for _ in range(8)]
for thread in threads:
    thread.start()
session = Session(Account("hostile@127.0.0.1"))
session.connect(uri, [Route.for_uri(SIPURI(uri))], audio=True)
while session.state != "ESTABLISHED":
    time.sleep(0.01)
session.audio.tone(440)
session.start_recording_audio(recording)
print("talking", flush=True)
sys.stdin.readline()
statistics = session.audio.statistics
media = engine.stats().media
print(statistics.packets_sent, sum(thread.skipped_ticks for thread in media), flush=True)
over = True
engine.stop()
"""


def accepting(notification: Notification) -> None:
    notification.sender.accept(audio=True)


def test_spinning_threads_and_sleeping_observers_leave_no_gap(pair: Pair, tmp_path: Path, watch: Watch) -> None:
    """Nothing here looks at a clock: packets are counted, and the recordings listened to."""
    NotificationCenter().add_observer(accepting, "SIPSessionNewIncoming")
    mine, theirs = tmp_path / "mine.wav", tmp_path / "theirs.wav"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, pair.uri, str(theirs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            session = watch.wait("SIPSessionDidStart").sender
            assert process.stdout.readline() == "talking\n"
            while session.audio.level < -40:  # the tone is on its way through the jitter buffer
                time.sleep(0.01)
            session.audio.start_recording(mine, channels="stereo")
            time.sleep(SECONDS)
            session.stop_recording_audio()
            watch.wait("SIPSessionDidStopRecordingAudio", session)
            statistics = session.audio.statistics
            process.stdin.write("\n")
            process.stdin.flush()
            sent, skipped = map(int, process.stdout.readline().split())
            watch.wait("SIPSessionDidEnd", session)
            assert process.wait(20) == 0
        finally:
            process.kill()
            NotificationCenter().remove_observer(accepting, "SIPSessionNewIncoming")
    assert sent > 50 * SECONDS
    assert (skipped, statistics.lost, statistics.late, statistics.discarded) == (0, 0, 0, 0), statistics
    for recording in (read_wav(mine), read_wav(theirs)):
        assert recording.seconds > SECONDS - 0.5
        assert_tone(recording, 440, snr_db=6)
        assert _core.find_breaks(recording.samples, recording.rate) == ([], [])
