"""`make bench`: the figures of this project, each beside a limit, a goal or a peer measured in the same run.

`python benches/run.py [parse] [import] [notifications] [sipp] [loop] [spacing]` runs only those parts. Machines are
noisy: trust ratios and medians, not single times.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCHES = ROOT / "benches"
sys.path.insert(0, str(ROOT))

Row = tuple[str, str, str]


def _figures(program: str, *arguments: str) -> dict[str, float]:
    """What one of the programs beside this one prints as its last line."""
    command = [sys.executable, str(BENCHES / program), *arguments]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures


def parse() -> list[Row]:
    """Parse and 8 typed headers of a 1.2 kB INVITE against rsipstack and rsip, and allocations a message."""
    command = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "sipwire-compare"]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [("parse", line, "") for line in out.splitlines() if line.strip()]


def import_() -> list[Row]:
    """Time and memory of `import sipwire` beyond a bare interpreter: medians of 15 fresh processes each."""

    def once(statement: str) -> tuple[float, int]:
        probe = (
            f"import time, resource; t = time.perf_counter(); {statement}; t = time.perf_counter() - t; "
            "print(t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        run = subprocess.run([sys.executable, "-c", probe], check=True, stdout=subprocess.PIPE, text=True)
        seconds, kilobytes = run.stdout.split()
        return float(seconds), int(kilobytes)

    bare = [once("pass") for _ in range(15)]
    ours = [once("import sipwire") for _ in range(15)]
    milliseconds = 1000 * statistics.median(seconds for seconds, _ in ours)
    megabytes = (statistics.median(kb for _, kb in ours) - statistics.median(kb for _, kb in bare)) / 1024
    return [
        ("import sipwire", f"{milliseconds:.1f} ms", "goal ≤ 40 ms"),
        ("memory of the import", f"{megabytes:.1f} MB", "goal ≤ 15 MB"),
    ]


def notifications() -> list[Row]:
    """Notifications a second from the engine's own queue to one Python observer."""
    figures = _figures("notifications.py")
    return [("notifications to an observer", f"{figures['per_second']:,.0f}/s", "goal ≥ 300,000/s")]


def sipp() -> list[Row]:
    """CPU a call, and peak memory, of the answering side under SIPp, without and with Python."""
    if shutil.which("sipp") is None:
        return [("calls under SIPp", "skipped", "SIPp is not installed (Debian: sip-tester)")]
    from tests.interop.peers import free_port
    from tests.interop.peers import sipp as run_sipp

    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "--example", "uas"], cwd=ROOT, check=True)
    rust = [str(ROOT / "target/release/examples/uas")]
    python = [sys.executable, str(BENCHES / "observer_uas.py")]
    rows: list[Row] = []
    for title, command, rate, calls in [
        ("answers, no Python", rust, 1000, 20_000),
        ("answers, no Python", rust, 3000, 60_000),
        ("answers by a Python observer", python, 30, 600),
        ("answers by a Python observer", python, 1000, 20_000),
        ("answers by a Python observer", python, 3000, 60_000),
    ]:
        port = free_port()
        process = subprocess.Popen([*command, str(port)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # says that it listens
        before = _cpu_seconds(process.pid)
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["-sn", "uac", f"127.0.0.1:{port}", "-r", str(rate), "-m", str(calls), "-l", "30000"]
            result = run_sipp(Path(folder), *arguments, timeout=300)
        assert process.poll() is None, f"{command} ended by itself"
        cpu, memory = _cpu_seconds(process.pid) - before, _peak_megabytes(process.pid)
        process.terminate()
        process.wait(20)
        failed, again = result.count("FailedCall(C)"), result.row.get("Retransmissions(C)", "?")
        figure = f"{1e6 * cpu / calls:.0f} µs CPU a call, {failed} of {calls} failed, {again} sent again"
        figure += f", peak {memory:.0f} MB"
        rows.append((f"{title}, {rate}/s", figure, ""))
    return rows


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def loop() -> list[Row]:
    """A tone written in Python → heard back through a remote Python echo in another process."""
    rows: list[Row] = []
    for codec, rate in (("PCMU", 8000), ("G722", 16000), ("opus", 16000)):
        figures = _figures("loop_delay.py", codec, str(rate))
        figure = f"median {figures['median']:.1f} ms, p99 {figures['p99']:.1f} ms of {figures['count']:.0f}"
        rows.append((f"loop delay, Python, {codec}, {rate} Hz", figure, "goal ≤ 50 ms, p99 ≤ 80 ms"))
    return rows


def spacing() -> list[Row]:
    """Spacing of packets that leave a program with 8 spinning threads and an observer that sleeps 0.5 s each time."""
    figures = _figures("spacing.py")
    p50, p99, most = figures["p50"], figures["p99"], figures["max"]
    figure = f"p50 {p50:.2f}, p99 {p99:.2f}, max {most:.2f} ms of {figures['count']:.0f}"
    return [("send spacing, 8 spinning threads", figure, "goal p99 ≤ 22, max ≤ 40 ms")]


PARTS: dict[str, Callable[[], list[Row]]] = {
    "parse": parse,
    "import": import_,
    "notifications": notifications,
    "sipp": sipp,
    "loop": loop,
    "spacing": spacing,
}


def main() -> int:
    wanted = sys.argv[1:] or list(PARTS)
    for name in wanted:
        if name not in PARTS:
            print(f"unknown part {name!r}: {', '.join(PARTS)}", file=sys.stderr)
            return 2
    for name in wanted:
        print(f"… {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        for title, figure, remark in PARTS[name]():
            print(f"{title:36} {figure}{'   ' + remark if remark else ''}", flush=True)
        print(f"… {name} took {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
