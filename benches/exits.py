"""Programs that end, or are killed, at random moments of a call: `exits.py [COUNT] [--kill COUNT] [--seed SEED]`.

Every way to end in `tests/python/endings.py` in turn, a few at a time. Checked: exit code, two seconds, BYE or CANCEL
at the far side, a recording that can be played, nothing on stderr that does not belong there. Prints what was wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "python"))

from endings import KINDS, FarSide, Outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=200)
    parser.add_argument("--kill", type=int, default=0, metavar="COUNT", help="so many kill -9 of a recording program")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=list(KINDS), help="only this one")
    parser.add_argument("--at-once", type=int, default=4)
    arguments = parser.parse_args()
    kinds = [arguments.kind] if arguments.kind else list(KINDS)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.at_once) as pool:
        far = FarSide(Path(folder))

        def once(number: int) -> Outcome:
            dice = random.Random(f"{arguments.seed} {number}")
            if number >= arguments.count:
                return far.kill(f"killed{number}", dice)
            return far.run(kinds[number % len(kinds)], f"exit{number}", dice)

        outcomes = list(pool.map(once, range(arguments.count + arguments.kill)))
        far.close()
    bad = [fault for outcome in outcomes for fault in outcome.faults]
    for fault in bad:
        print(fault)
    print(
        f"{len(outcomes)} ends, {sum(bool(outcome.faults) for outcome in outcomes)} of them wrong; the call was in",
        ", ".join(f"{state} {count}×" for state, count in Counter(one.state for one in outcomes).most_common()),
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
