"""`sipwire trace`: the ladder of a command while it runs, or of a trace that was saved."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from pathlib import Path

from sipwire.report import LiveLadder, SIPMessageTrace
from sipwire.trace import SIPTrace, read_trace

from .output import OK, Output


async def run(arguments: argparse.Namespace, output: Output) -> int:
    """Draws it; returns the exit code, that of the command when there is one."""
    if arguments.what in arguments.commands:
        return await _run_command(arguments)
    if not Path(arguments.what).is_file():
        known = ", ".join(arguments.commands)
        raise FileNotFoundError(f"{arguments.what!r} is neither a file nor one of the commands {known}")
    trace = read_trace(arguments.what)
    output.line(trace.to_text(colour=output.colour))
    _write(arguments, trace)
    return OK


async def _run_command(arguments: argparse.Namespace) -> int:
    nested = arguments.parse([arguments.what, *arguments.words])
    nested.live = True
    with contextlib.closing(Output(json=nested.json)) as output:
        ladder = LiveLadder(colour=output.colour)
        file = sys.stderr if nested.json else sys.stdout

        def show(message: SIPMessageTrace) -> None:
            if lines := ladder.add(message):
                print(lines, file=file, flush=True)

        command = importlib.import_module(f".{arguments.what}", __package__)
        with SIPTrace(on_message=show) as trace:
            try:
                code: int = await command.run(nested, output)
            finally:
                _write(arguments, trace)
        return code


def _write(arguments: argparse.Namespace, trace: SIPTrace) -> None:
    for path, write in (
        (arguments.svg, trace.to_svg),
        (arguments.mermaid, trace.to_mermaid),
        (arguments.pcap, trace.to_pcap),
        (arguments.save, trace.to_jsonl),
    ):
        if path is not None:
            write(path)
