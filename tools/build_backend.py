"""PEP 517 build backend: maturin, after the optional sound-card library has been built beside the package.

The extension itself never links ALSA. The second library (`devices/`, through cpal) does, so it is built only where the
ALSA headers are, and loaded on first use. Run as a program it does that first step alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "sipwire"
LIBRARY = {"darwin": "libsipwire_devices.dylib", "win32": "sipwire_devices.dll"}.get(
    sys.platform, "libsipwire_devices.so"
)


def _alsa_headers() -> bool:
    """True where a C program that includes ALSA's header compiles (other systems need no ALSA)."""
    if not sys.platform.startswith("linux"):
        return True
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    compiler = compiler if shutil.which(compiler) else "cc"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <alsa/asoundlib.h>\nint main(void) { return snd_asoundlib_version() == 0; }\n")
        command = [compiler, str(source), "-o", str(Path(folder, "probe")), "-lasound"]
        return shutil.which("pkg-config") is not None and subprocess.run(command, capture_output=True).returncode == 0


def build_devices(quiet: bool = False) -> Path | None:
    """Builds the sound-card library into the package; returns its path, or None (after one clear line) without ALSA."""
    target = PACKAGE / LIBRARY
    if not _alsa_headers():
        target.unlink(missing_ok=True)
        print(
            "sipwire: no ALSA headers here (Debian: libasound2-dev, pkg-config): sound cards are left out; "
            "calls use files, Python audio and the null device.",
            flush=True,
        )
        return None
    if not quiet:
        print("sipwire: building the sound-card library (about a minute the first time)", flush=True)
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "sipwire-devices"], cwd=ROOT, check=True)
    shutil.copy2(ROOT / "target" / "release" / LIBRARY, target)
    return target


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    import maturin

    build_devices()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    import maturin

    build_devices()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


def __getattr__(name: str) -> Any:
    """Every other hook (sdist, requirements, metadata) is maturin's own."""
    import maturin

    return getattr(maturin, name)


if __name__ == "__main__":
    if sys.argv[1:] == ["--debug"]:  # for the Rust tests only, which look for it beside themselves
        if _alsa_headers():
            subprocess.run(["cargo", "build", "--quiet", "--locked", "-p", "sipwire-devices"], cwd=ROOT, check=True)
    else:
        build_devices()
