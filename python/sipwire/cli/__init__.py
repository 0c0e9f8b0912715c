"""The command line: `sipwire demo | call | answer | options | message | register | trace`.

Results go to stdout, progress to stderr and only when it is a terminal. Exit codes: 0 ok, 1 local error, 2 usage,
3 refused by the peer, 4 time-out.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import sipwire

from .output import LOCAL_ERROR, Output


class _JsonParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments as JSON too."""

    def error(self, message: str) -> NoReturn:
        print(json.dumps({"result": {"error": message}}, ensure_ascii=False), flush=True)
        super().error(message)


def _checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type for an argument whose error says what the ValueError of `check` does."""

    def read(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


@_checked
def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"{text!r} is not a number of seconds above 0")
    return value


def _number(low: int, high: int, what: str) -> Callable[[str], Any]:
    """A whole number from `low` to `high`."""

    @_checked
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"{text!r} is not {what}")
        return int(text)

    return read


@_checked
def _digits(text: str) -> str:
    for digit in text:
        if digit not in "0123456789*#ABCD":
            raise ValueError(f"digit {digit!r} of {text!r} is not one of 0-9, *, #, A-D")
    return text


@_checked
def _proxy(text: str) -> str:
    sipwire.SIPURI(f"sip:{text}")
    return text


@_checked
def _registrar(text: str) -> sipwire.SIPURI:
    return sipwire.SIPURI(text if text.startswith(("sip:", "sips:")) else f"sip:{text}")


_uri = _checked(sipwire.SIPURI)


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
    parser.set_defaults(live=False)  # `sipwire trace` draws it as it grows


def _parser(as_json: bool) -> argparse.ArgumentParser:
    kind = _JsonParser if as_json else argparse.ArgumentParser  # the commands' parsers are of the same class
    parser = kind(
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
    place.add_argument("uri", type=_uri, metavar="URI", help="sip:user@host[:port][;transport=tcp]")
    place.add_argument("--play", type=Path, metavar="FILE.wav", help="play it to the peer, then hang up")
    place.add_argument("--record", type=Path, metavar="FILE.wav", help="record both parties into it")
    place.add_argument("--stereo", action="store_true", help="record the remote party left, ourselves right")
    place.add_argument("--seconds", type=_seconds, metavar="N", help="hang up after N seconds")
    place.add_argument("--dtmf", type=_digits, metavar="DIGITS", help="send digits once the call is up (0-9 * # A-D)")
    place.add_argument("--transport", choices=["udp", "tcp"], help="overrides the URI's")
    place.add_argument("--proxy", type=_proxy, metavar="HOST[:PORT]", help="send the call there, whatever the URI says")
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
    what.add_argument(
        "--reject",
        type=_number(300, 699, "a final SIP code from 300 to 699"),
        metavar="CODE",
        help="refuse every call with this code (300 to 699)",
    )
    take.add_argument("--record", type=Path, metavar="DIR", help="record every call into this folder")
    take.add_argument("--stereo", action="store_true", help="record the caller left, ourselves right")
    take.add_argument(
        "--count", type=_number(1, 10**9, "a number of calls above 0"), metavar="N", help="stop after N calls"
    )
    _common(take)

    ping = commands.add_parser("options", help="ask a peer what it can do, and how fast it answers")
    ping.add_argument("uri", type=_uri, metavar="URI", help="sip:[user@]host[:port][;transport=tcp]")
    ping.add_argument("--transport", choices=["udp", "tcp"], help="overrides the URI's")
    ping.add_argument(
        "--proxy", type=_proxy, metavar="HOST[:PORT]", help="send the request there, whatever the URI says"
    )
    ping.add_argument("--timeout", type=_seconds, default=32.0, metavar="N", help="seconds to wait for the answer")
    _common(ping)

    send = commands.add_parser("message", help="send an instant message")
    send.add_argument("uri", type=_uri, metavar="URI", help="sip:user@host[:port][;transport=tcp]")
    send.add_argument("text", metavar="TEXT", help='the message; "-" reads it from the standard input')
    send.add_argument("--content-type", metavar="TYPE", help="what it is (default text/plain)")
    send.add_argument("--cpim", action="store_true", help="wrap it into CPIM")
    send.add_argument("--delivered", action="store_true", help="ask for a delivery report and wait for it")
    send.add_argument("--transport", choices=["udp", "tcp"], help="overrides the URI's")
    send.add_argument("--proxy", type=_proxy, metavar="HOST[:PORT]", help="send it there, whatever the URI says")
    send.add_argument("--timeout", type=_seconds, default=32.0, metavar="N", help="seconds to wait for the answer")
    _common(send)

    sign_in = commands.add_parser("register", help="register an account until Ctrl-C (SIP_USER, SIP_PASSWORD)")
    sign_in.add_argument(
        "registrar", nargs="?", type=_registrar, metavar="REGISTRAR", help="default: the domain of the ID"
    )
    sign_in.add_argument(
        "--expires", type=_seconds, default=600.0, metavar="N", help="seconds to ask for (default 600)"
    )
    sign_in.add_argument("--seconds", type=_seconds, metavar="N", help="unregister after N seconds")
    sign_in.add_argument("--transport", choices=["udp", "tcp", "tls", "ws", "wss"], help="of the way to the registrar")
    sign_in.add_argument("--proxy", type=_proxy, metavar="HOST[:PORT]", help="send the request there first")
    sign_in.add_argument("--timeout", type=_seconds, default=32.0, metavar="N", help="seconds to wait for the answer")
    _common(sign_in)

    watch = commands.add_parser(
        "trace",
        help="draw the ladder of a command while it runs, or that of a saved trace",
        description="Runs another command and draws its SIP messages as they pass, or draws those of a file.",
        epilog="Example: sipwire trace --pcap calls.pcap answer --echo",
    )
    watch.add_argument("--svg", type=Path, metavar="FILE", help="write the ladder as a picture")
    watch.add_argument("--mermaid", type=Path, metavar="FILE", help="write it as a Mermaid sequence diagram")
    watch.add_argument("--pcap", type=Path, metavar="FILE", help="write the messages for Wireshark")
    watch.add_argument("--save", type=Path, metavar="FILE", help="write the messages as JSON lines, to be drawn again")
    watch.add_argument(
        "what", metavar="COMMAND|FILE", help="answer, call, message, options, register, or a saved trace"
    )
    watch.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="what the command takes")
    watch.set_defaults(json=False, commands=("answer", "call", "message", "options", "register"), parse=_parse)
    return parser


def _parse(words: Sequence[str]) -> argparse.Namespace:
    return _parser("--json" in words).parse_args(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _parse(words)
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
