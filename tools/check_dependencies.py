"""Checks every crate that can be linked against deny.toml: its licence, where it comes from, and duplicates.

`cargo deny check` does the same and more where it is installed; this needs nothing but cargo, so it runs everywhere.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allowed(expression: str, licences: set[str]) -> bool:
    """True when some choice of the SPDX expression is allowed whole ("A OR B", "A AND B", brackets, "A/B")."""
    text = expression.replace("/", " OR ")
    words = re.findall(r"\(|\)|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", text)
    python = ["or" if w == "OR" else "and" if w == "AND" else w if w in "()" else str(w in licences) for w in words]
    return bool(eval(" ".join(python), {"__builtins__": {}}, {"True": True, "False": False}))


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    licences = set(rules["licenses"]["allow"])
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--features", "python"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    edges = {
        node["id"]: [d["pkg"] for d in node["deps"] if any(kind["kind"] != "dev" for kind in d["dep_kinds"])]
        for node in metadata["resolve"]["nodes"]
    }
    shipped = {
        p["id"] for p in packages.values() if p["name"] in ("sipwire", "sipwire-devices") and p["source"] is None
    }
    queue = list(shipped)
    while queue:
        for dependency in edges[queue.pop()]:
            if dependency not in shipped:
                shipped.add(dependency)
                queue.append(dependency)
    faults: list[str] = []
    versions: dict[str, list[str]] = defaultdict(list)
    for package in (packages[key] for key in sorted(shipped)):
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].append(package["version"])
        if package["source"] is not None and not package["source"].startswith("registry+"):
            faults.append(f"{name} comes from {package['source']}, not from a registry")
        if not package["license"] or not allowed(package["license"], licences):
            faults.append(f"{name} has licence {package['license']!r}, which deny.toml does not allow")
    for name, several in versions.items():
        if len(several) > 1:
            print(f"note: {name} is linked in versions {', '.join(several)}")
    print("\n".join(faults) or f"{len(shipped)} crates: licences and sources as deny.toml asks")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
