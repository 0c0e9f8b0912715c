"""The outbound call of outbound_call.py, in asyncio.

python examples/outbound_call_asyncio.py sip:bob@192.0.2.7 [SECONDS]
"""

import asyncio
import sys

import sipwire


async def main(callee, seconds=5.0):
    async with sipwire.Engine() as engine:
        account = await engine.add_account("sip:alice@127.0.0.1")
        try:
            async with account.call(callee, audio=True) as session:
                print(f"Session started with {session.remote_uri}, {session.audio_codec}")
                try:
                    await session.wait_for("SIPSessionDidEnd", timeout=float(seconds))
                except TimeoutError:
                    print("Hanging up")
        except sipwire.CallFailed as error:
            print(f"Failed to connect: {error}")
            return 1
    print("Session ended")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
