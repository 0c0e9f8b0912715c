"""The command line: `sipwire demo | call | answer | options`.

Results go to stdout, progress to stderr and only when it is a terminal. Exit codes: 0 ok, 1 local error, 2 usage,
3 refused by the peer, 4 time-out.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import sipwire

from .output import LOCAL_ERROR, Output


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line: every notification, then the result"
    )
    parser.add_argument("--account", metavar="ID", help="who we are: user@domain (default sipwire@ our address)")
    parser.add_argument("--local-ip", metavar="IP", help="the address to bind (default all)")
    parser.add_argument("--codec", metavar="NAME[,NAME…]", help="codecs in order: opus, G722, PCMU, PCMA")
    parser.add_argument(
        "--srtp",
        choices=["disabled", "optional", "mandatory"],
        default="optional",
        help="encrypt the audio (default optional: when the peer can)",
    )
    parser.add_argument("--trace", action="store_true", help="print the call ladder at the end")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sipwire",
        description="SIP calls from the command line.",
        epilog="Exit codes: 0 ok, 1 local error, 2 usage, 3 refused by the peer, 4 time-out.",
    )
    parser.add_argument("--version", action="version", version=f"sipwire {sipwire.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    show = commands.add_parser("demo", help="a call between two endpoints on this machine, measured")
    show.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="for recordings and report.html"
    )
    show.add_argument("--json", action="store_true", help="one JSON object a line: every notification, then the result")

    place = commands.add_parser("call", help="place a call")
    place.add_argument("uri", metavar="URI", help="sip:user@host[:port][;transport=tcp]")
    place.add_argument("--play", type=Path, metavar="FILE.wav", help="play it to the peer, then hang up")
    place.add_argument("--record", type=Path, metavar="FILE.wav", help="record both parties into it")
    place.add_argument("--stereo", action="store_true", help="record the remote party left, ourselves right")
    place.add_argument("--seconds", type=_seconds, metavar="N", help="hang up after N seconds")
    place.add_argument("--dtmf", metavar="DIGITS", help="send digits once the call is up (0-9 * # A-D)")
    place.add_argument("--transport", choices=["udp", "tcp"], help="overrides the URI's")
    place.add_argument("--proxy", metavar="HOST[:PORT]", help="send the call there, whatever the URI says")
    place.add_argument("--timeout", type=_seconds, default=60.0, metavar="N", help="give up after N seconds of ringing")
    _common(place)

    take = commands.add_parser("answer", help="answer calls")
    take.add_argument(
        "--listen",
        action="append",
        metavar="udp:HOST:PORT",
        help="where to listen, may be repeated (default udp:0.0.0.0:5060 and tcp:0.0.0.0:5060)",
    )
    what = take.add_mutually_exclusive_group()
    what.add_argument("--echo", action="store_true", help="send back what is heard")
    what.add_argument("--play", type=Path, metavar="FILE.wav", help="play it to the caller, then hang up")
    what.add_argument("--reject", type=int, metavar="CODE", help="refuse every call with this code")
    take.add_argument("--record", type=Path, metavar="DIR", help="record every call into this folder")
    take.add_argument("--stereo", action="store_true", help="record the caller left, ourselves right")
    take.add_argument("--count", type=int, metavar="N", help="stop after N calls")
    _common(take)

    ping = commands.add_parser("options", help="ask a peer what it can do, and how fast it answers")
    ping.add_argument("uri", metavar="URI")
    ping.add_argument("--transport", choices=["udp", "tcp"], help="overrides the URI's")
    ping.add_argument("--proxy", metavar="HOST[:PORT]", help="send the request there, whatever the URI says")
    ping.add_argument("--timeout", type=_seconds, default=32.0, metavar="N", help="seconds to wait for the answer")
    _common(ping)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    output = Output(json=arguments.json)
    command = importlib.import_module(
        f".{arguments.command}", __name__
    )  # only what is needed: a command starts at once
    try:
        code: int = asyncio.run(command.run(arguments, output))
        return code
    except (sipwire.SIPWireError, ValueError, OSError) as error:
        output.error(str(error))
        return LOCAL_ERROR
    except KeyboardInterrupt:
        output.error("interrupted")
        return LOCAL_ERROR
    finally:
        output.close()


if __name__ == "__main__":
    sys.exit(main())
