"""What a command prints: results on stdout, progress on stderr when it is a terminal, JSON lines when asked."""

from __future__ import annotations

import json
import os
import sys
import threading
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sipwire.notification import Notification, NotificationCenter

OK, LOCAL_ERROR, USAGE, REFUSED, TIMED_OUT = 0, 1, 2, 3, 4


def _plain(value: Any) -> Any:
    """A value of a notification as JSON knows it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def as_record(notification: Notification) -> dict[str, Any]:
    """A notification as one flat JSON object: name, sender, timestamp, then its data."""
    sender = notification.sender
    record: dict[str, Any] = {
        "name": notification.name,
        "sender": getattr(sender, "id", None) or repr(sender),
        "timestamp": datetime.fromtimestamp(notification.timestamp).astimezone().isoformat(),
    }
    record |= {key: _plain(value) for key, value in notification.data.items() if key != "timestamp"}
    return record


class Output:
    """Where one command's words go. As an observer it prints every notification in JSON mode."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._progress = sys.stderr.isatty() and not json
        self._dirty = False
        self._lock = threading.Lock()
        self._result: dict[str, Any] | None = None
        if json:
            NotificationCenter().add_observer(self)

    def handle_notification(self, notification: Notification) -> None:
        if notification.name != "SIPEngineSIPTrace":
            self._print_json(as_record(notification))

    def _print_json(self, record: dict[str, Any]) -> None:
        with self._lock:
            print(json.dumps(record, ensure_ascii=False), flush=True)

    def line(self, text: str = "") -> None:
        """One line for people; nothing in JSON mode."""
        if not self.json:
            self._clear()
            print(text, flush=True)

    def result(self, text: str, **fields: Any) -> None:
        """The last word of a command: `text` for people, the fields for machines (after the last notification)."""
        if self.json:
            self._result = {key: _plain(value) for key, value in fields.items()}
        else:
            self.line(text)

    def error(self, text: str) -> None:
        """Why a command failed, for people and machines."""
        self._result = {"error": text}
        self._clear()
        print(f"sipwire: {text}", file=sys.stderr, flush=True)

    def progress(self, text: str) -> None:
        """Replaces the line of progress, on a terminal only."""
        if self._progress:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            self._dirty = True

    def _clear(self) -> None:
        if self._dirty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._dirty = False

    def close(self) -> None:
        self._clear()
        if self.json:
            NotificationCenter().discard_observer(self)
            if self._result is not None:
                self._print_json({"result": self._result})


def meter(level: float, width: int = 20) -> str:
    """A level in dBFS as a bar: full at 0, empty at -60."""
    filled = round(width * (1 + max(-60.0, min(0.0, level)) / 60))
    return "█" * filled + "·" * (width - filled)


def clock(seconds: float) -> str:
    """Minutes and seconds: "01:05"."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def existing(path: Path | None) -> Path | None:
    """The path of a wav to play; FileNotFoundError names it when it is not there."""
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no such wav file: {path}")
    return path
