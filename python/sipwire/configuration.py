"""Settings that outlive the program: one JSON file, read and written by :class:`ConfigurationManager`."""

from __future__ import annotations

import os
import threading
import typing as t

from sipwire.errors import SIPWireError

__all__ = ["ConfigurationError", "ConfigurationManager", "SIPSimpleSettings"]


class ConfigurationError(SIPWireError):
    """The configuration file cannot be read or written; the text names it."""


class ConfigurationManager:
    """Settings by path (``"audio/recordings_directory"``). Always the same object; starts empty.

    The file is ``$SIPWIRE_CONFIG``, else ``~/.sipwire/config.json``; it is written by :meth:`save` only.
    """

    _instance: t.ClassVar[ConfigurationManager | None] = None
    _creating: t.ClassVar[threading.Lock] = threading.Lock()

    path: str
    _values: dict[str, t.Any]

    def __new__(cls) -> ConfigurationManager:
        with cls._creating:
            if cls._instance is None:
                cls._instance = super().__new__(cls)
                cls._instance._values = {}
                cls._instance.path = _default_path()
            return cls._instance

    def start(self, path: str | os.PathLike[str] | None = None) -> None:
        """Reads the file if there is one. Raises :exc:`ConfigurationError` naming a file that is none of ours."""
        import json  # here and below: most programs keep no settings

        self.path = _default_path() if path is None else os.fspath(path)
        try:
            with open(self.path, encoding="utf-8") as file:
                values = json.load(file)
        except FileNotFoundError:
            values = {}
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.path}: {error}") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"{self.path}: not a JSON object")
        self._values = values

    def get(self, path: str, default: t.Any = None) -> t.Any:
        """The value at ``group/name``; ``default`` when nothing is set."""
        value: t.Any = self._values
        for part in path.split("/"):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    def set(self, path: str, value: t.Any) -> None:
        """Sets the value at ``group/name`` (plain JSON); ``None`` takes it away."""
        import json

        json.dumps(value)  # TypeError names what cannot be kept
        *groups, name = path.split("/")
        place = self._values
        for part in groups:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigurationError(f"{path}: {part} is a value, not a group")
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value

    def save(self) -> None:
        """Writes the file, readable by its owner only, whole or not at all."""
        import json

        temporary = self.path + ".new"
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump(self._values, file, indent=2)
                file.write("\n")
            os.replace(temporary, self.path)
        except OSError as error:
            raise ConfigurationError(f"{self.path}: {error}") from error

    def accounts(self) -> dict[str, dict[str, t.Any]]:
        """Settings of accounts by id (group ``accounts``)."""
        accounts = self.get("accounts", {})
        return {name: settings for name, settings in accounts.items() if isinstance(settings, dict)}


def _default_path() -> str:
    return os.environ.get("SIPWIRE_CONFIG") or os.path.expanduser(os.path.join("~", ".sipwire", "config.json"))


class _Group:
    """Attributes kept in one group of the configuration."""

    def __init__(self, group: str, defaults: dict[str, t.Any]) -> None:
        self.__dict__["_group"] = group
        self.__dict__["_defaults"] = defaults

    def __getattr__(self, name: str) -> t.Any:
        if name not in self._defaults:
            raise AttributeError(f"there is no setting {self._group}{name}")
        return ConfigurationManager().get(self._group + name, self._defaults[name])

    def __setattr__(self, name: str, value: t.Any) -> None:
        if name not in self._defaults:
            raise AttributeError(f"there is no setting {self._group}{name}")
        ConfigurationManager().set(self._group + name, list(value) if isinstance(value, tuple) else value)

    def __dir__(self) -> list[str]:
        return sorted(self._defaults)


class SIPSimpleSettings(_Group):
    """The settings of the default engine, in the groups ``audio``, ``rtp``, ``sip``, ``tls`` and ``logs``.

    They hold from the next :meth:`Engine.start_cfg` on; :meth:`save` keeps them in the file.
    """

    audio: _Group
    rtp: _Group
    sip: _Group
    tls: _Group
    logs: _Group

    def __init__(self) -> None:
        super().__init__("", {"local_ip": None, "advertised_ip": None, "user_agent": None, "default_account": None})
        groups: dict[str, dict[str, t.Any]] = {
            "audio": {"device": "null", "recordings_directory": ".", "codec_list": None},
            "rtp": {"port_range": (16384, 32767)},
            "sip": {
                "udp_port": 0,
                "tcp_port": 0,
                "tls_port": None,
                "ws_port": None,
                "wss_port": None,
                "websocket_origins": None,
                "max_sessions": None,
                "invite_rate": None,
            },
            "tls": {"certificate": None, "private_key": None, "ca": None, "verify": True, "verify_client": None},
            "logs": {"trace_sip": False},
        }
        for name, defaults in groups.items():
            self.__dict__[name] = _Group(f"{name}/", defaults)

    def save(self) -> None:
        ConfigurationManager().save()

    def engine_options(self) -> dict[str, t.Any]:
        """What :meth:`Engine.start` takes; settings that are not set are left to it."""
        options = {
            "local_ip": self.local_ip,
            "advertised_ip": self.advertised_ip,
            "user_agent": self.user_agent,
            "audio_device": self.audio.device,
            "recordings_directory": os.path.expanduser(self.audio.recordings_directory),
            "codecs": self.audio.codec_list,
            "rtp_port_range": tuple(self.rtp.port_range),
            "max_sessions": self.sip.max_sessions,
            "invite_rate": self.sip.invite_rate,
            "trace_sip": self.logs.trace_sip,
            "tls_port": self.sip.tls_port,
            "ws_port": self.sip.ws_port,
            "wss_port": self.sip.wss_port,
            "websocket_origins": self.sip.websocket_origins,
            "tls_verify": self.tls.verify,
            "tls_verify_client": self.tls.verify_client,
        }
        for name in ("certificate", "private_key", "ca"):
            path = getattr(self.tls, name)
            options[f"tls_{name}"] = None if path is None else os.path.expanduser(path)
        set_options = {name: value for name, value in options.items() if value is not None}
        return {**set_options, "udp_port": self.sip.udp_port, "tcp_port": self.sip.tcp_port}
