"""Answers every call and says back what it hears, frame by frame through Python.

    python examples/echo_bot.py [PORT]

(`session.audio.echo = True` does the same without Python in the way.)
"""

import asyncio
import sys

import sipwire


async def talk(session):
    try:
        session.accept(audio=True)
        await session.wait_for("SIPSessionDidStart")
        print(f"{session.remote_uri} calls", flush=True)
        async for frame in session.audio.frames(rate=16000):
            await session.audio.write(frame, rate=16000)
    except sipwire.SIPWireError as error:  # the call ended in between
        print(f"{session.remote_uri}: {error}", flush=True)
    print(f"{session.remote_uri} has gone", flush=True)


async def main(port=5060):
    async with (
        sipwire.Engine().configured(udp_port=int(port), tcp_port=int(port)) as engine,
        asyncio.TaskGroup() as calls,
    ):
        account = await engine.add_account("sip:echo@127.0.0.1")
        account.sip.catch_all = True
        account.save()
        incoming = engine.incoming()  # takes calls from here on
        print(f"listening on {engine.addresses}", flush=True)
        async for session in incoming:
            calls.create_task(talk(session))


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
