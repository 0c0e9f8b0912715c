"""Runs each fuzz target for a given time and prints its throughput: `python tools/fuzz.py [SECONDS] [TARGET …]`.

The targets are built with the coverage instrumentation of the stable toolchain and linked with libFuzzer. Corpora are
made from the test data; what is found goes to `fuzz/corpus/TARGET`, a crash to `fuzz/artifacts/TARGET`. Exits with 1
when a target crashed, hung or grew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "fuzz"
DATA = ROOT / "tests" / "data"

MEMORY_LIMIT = 1024
"""MiB a target may take."""

INPUT_TIMEOUT = 5
"""Seconds one input may take."""

COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]

Seeds = dict[str, bytes]


def messages() -> Seeds:
    seeds = {path.name: path.read_bytes() for path in sorted(DATA.glob("sip/*/*.dat"))}
    for path in sorted(DATA.glob("real-clients/*.txt")):
        for number, match in enumerate(re.finditer(rb"^@@ \S+ \S+ (\d+)\n", path.read_bytes(), re.M)):
            seeds[f"{path.stem}-{number}"] = path.read_bytes()[match.end() : match.end() + int(match.group(1))]
    return seeds


def uris() -> Seeds:
    found: set[bytes] = set()
    for text in messages().values():
        found.update(re.findall(rb"(?:sips?|tel|urn|mailto|http):[^\s<>\"]{1,200}", text))
        found.update(re.findall(rb"^(?:From|To|Contact): (.{1,300}?)\r?$", text, re.M))
    return {f"uri-{number}": text for number, text in enumerate(sorted(found))}


def descriptions() -> Seeds:
    seeds = {path.name: path.read_bytes() for path in sorted(DATA.glob("sdp/*.sdp"))}
    bodies = {text.split(b"\r\n\r\n", 1)[1] for text in messages().values() if b"\r\n\r\nv=0" in text}
    return seeds | {f"body-{number}": body for number, body in enumerate(sorted(bodies))}


def credentials() -> Seeds:
    found: set[bytes] = set()
    for text in messages().values():
        found.update(re.findall(rb"(?mi)^(?:WWW-|Proxy-)?Auth(?:enticate|orization): (.*?)\r?$", text))
    for path in sorted(DATA.glob("digest/*.json")):
        for case in json.loads(path.read_text())["challenges"]:
            found.update(header.encode() for header in case["headers"])
    return {f"line-{number}": text for number, text in enumerate(sorted(found))}


def streams() -> Seeds:
    every = messages()
    seeds = {name: bytes([7, 90, 200, 3]) + text for name, text in every.items()}
    names = sorted(every)
    for number in range(0, len(names) - 3, 3):
        joined = b"\r\n\r\n".join(every[name] for name in names[number : number + 3])
        seeds[f"joined-{number}"] = bytes([40, 160, 250, 90]) + joined
    return seeds


def scripts() -> Seeds:
    """Calls as scripts: each flow's messages of either side, with names the user agent chooses left open."""
    seeds: Seeds = {name: text for name, text in messages().items() if len(text) < 3000}
    for path in sorted(DATA.glob("sip/flows/*.json")):
        flow = json.loads(path.read_text())
        for role in sorted({step["from"] for step in flow["steps"]}):
            blocks: list[bytes] = []
            for step in flow["steps"]:
                raw = step["raw"].encode()
                if step["from"] == role:
                    raw = re.sub(rb"(?m)^(To:.*;tag=)[^;\r]+", rb"\1$T", raw)
                    if raw.startswith(b"SIP/2.0"):
                        raw = re.sub(rb"(?m)^(Via:.*branch=)[^;\r]+", rb"\1$B", raw)
                        raw = re.sub(rb"(?m)^(Call-ID: ).*?\r", rb"\1$C\r", raw)
                    blocks.append(raw)
                elif raw.startswith(b"INVITE"):
                    blocks.append(b"!c")
                elif raw.startswith(b"SIP/2.0 200"):
                    blocks.append(b"!a")
                elif raw.startswith((b"BYE", b"CANCEL")):
                    blocks.append(b"!e")
            seeds[f"{path.stem}-{role}"] = b"\xff".join(blocks)
    return seeds


def bodies() -> Seeds:
    return {path.name: path.read_bytes() for path in sorted(DATA.glob("cpim/*.cpim"))}


TARGETS = {
    "message": (messages, "sip.dict"),
    "stream": (streams, "sip.dict"),
    "uri": (uris, "uri.dict"),
    "digest": (credentials, "sip.dict"),
    "sdp": (descriptions, "sdp.dict"),
    "body": (bodies, "xml.dict"),
    "endpoint": (scripts, "sip.dict"),
}


def build() -> Path:
    flags = " ".join([os.environ.get("RUSTFLAGS", ""), *COVERAGE]).strip()
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    triple = next(line.split()[1] for line in host.splitlines() if line.startswith("host:"))
    # A target is named, so that build scripts are not instrumented: they have no fuzzer to report to.
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target", triple]
    subprocess.run(command, cwd=FUZZ, env={**os.environ, "RUSTFLAGS": flags}, check=True)
    return FUZZ / "target" / triple / "release"


def run(binary: Path, target: str, seconds: int) -> tuple[bool, str]:
    """Fuzzes one target; (it held, one line about it)."""
    seeds, dictionary = TARGETS[target]
    corpus, artifacts = FUZZ / "corpus" / target, FUZZ / "artifacts" / target
    for folder in (corpus, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in seeds().items():
        (corpus / re.sub(r"[^\w.-]", "_", name)).write_bytes(text)
    command = [
        *(str(binary / target), str(corpus), f"-dict={FUZZ / 'dict' / dictionary}", f"-artifact_prefix={artifacts}/"),
        *("-max_len=65536" if target == "stream" else "-max_len=8192", f"-timeout={INPUT_TIMEOUT}"),
        *(f"-rss_limit_mb={MEMORY_LIMIT}", f"-max_total_time={seconds}", "-print_final_stats=1", "-verbosity=0"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    stats = dict(re.findall(r"^stat::(\w+):\s+(\d+)", done.stderr, re.M))
    runs, memory = int(stats.get("number_of_executed_units", 0)), int(stats.get("peak_rss_mb", 0))
    line = f"{target:<9} {runs:>11,} runs {runs // max(1, seconds):>9,} a second {memory:>5} MiB at most"
    if done.returncode:
        line += f"  FAILED ({done.returncode}):\n" + done.stderr[-4000:]
    return done.returncode == 0, line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=int, default=120, help="seconds for each target (120)")
    parser.add_argument("targets", nargs="*", help=f"which of {', '.join(TARGETS)} (all)")
    arguments = parser.parse_args()
    unknown = [target for target in arguments.targets if target not in TARGETS]
    if unknown:
        parser.error(f"unknown target {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    print("building the fuzz targets (two to three minutes the first time)", flush=True)
    binaries, good = build(), True
    for target in arguments.targets or TARGETS:
        held, line = run(binaries, target, arguments.seconds)
        good &= held
        print(line, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
