"""Answers every call, plays a greeting if there is one, and records the call until the caller hangs up or presses #.

python examples/recorder.py FOLDER [PORT [GREETING.wav]]
"""

import asyncio
import sys
from pathlib import Path

import sipwire


async def record(session, greeting):
    try:
        session.accept(audio=True)
        await session.wait_for("SIPSessionDidStart")
        session.start_recording_audio()  # named after the time and the caller, in the engine's folder
        print(f"{session.remote_uri} is recorded", flush=True)
        if greeting is not None:
            await session.audio.play(greeting)
        await session.audio.collect_digits(max=1, timeout=3600)
        session.end()
        stopped = await session.wait_for("SIPSessionDidStopRecordingAudio", "SIPSessionDidEnd")
        if stopped.name == "SIPSessionDidStopRecordingAudio":
            print(f"wrote {stopped.data.file_name}", flush=True)
    except sipwire.SIPWireError as error:  # the caller did not wait
        print(f"{session.remote_uri}: {error}", flush=True)


async def main(folder, port=5060, greeting=None):
    Path(folder).mkdir(parents=True, exist_ok=True)
    engine = sipwire.Engine().configured(udp_port=int(port), tcp_port=int(port), recordings_directory=folder)
    async with engine, asyncio.TaskGroup() as calls:
        account = await engine.add_account("sip:recorder@127.0.0.1")
        account.sip.catch_all = True
        account.save()
        incoming = engine.incoming()  # takes calls from here on
        print(f"listening on {engine.addresses}", flush=True)
        async for session in incoming:
            calls.create_task(record(session, greeting))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
