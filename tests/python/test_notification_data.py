"""The table of notifications against the specification, and the classes of their data."""

from __future__ import annotations

import copy
import datetime
import json
import pickle
import time
from pathlib import Path

import pytest

from sipwire import _core
from sipwire.notification import NotificationData
from sipwire.notification_data import (
    NOTIFICATION_DATA,
    SessionState,
    SIPSessionChangedStateData,
    SIPSessionDidFailData,
    SIPSessionDidStartData,
)

TABLE = json.loads(Path(__file__).parents[1].joinpath("data", "notifications.json").read_text())


def test_the_core_makes_what_python_has_classes_for() -> None:
    core = _core.notification_table()
    for name, keys in core.items():
        assert tuple(keys) == NOTIFICATION_DATA[name]._fields, name
    of_python = ("SIPAccountDid", "SIPAccountManagerDid")
    assert {name for name in NOTIFICATION_DATA if not name.startswith(of_python)} == set(core)


def test_every_promised_notification_has_its_keys() -> None:
    for name, keys in TABLE["promised"].items():
        if name not in TABLE["later"]:
            assert set(keys) <= set(NOTIFICATION_DATA[name]._fields), name


def test_data_is_frozen_typed_and_reads_like_a_bag() -> None:
    data = SIPSessionDidFailData(timestamp=time.time(), originator="remote", code=486, reason="Busy Here")
    assert isinstance(data, NotificationData)
    assert (data.originator, data.code, data.reason) == ("remote", 486, "Busy Here")
    assert not hasattr(data, "__dict__")
    for name in ("code", "other"):
        with pytest.raises(AttributeError, match=name):
            setattr(data, name, 1)
    with pytest.raises(AttributeError, match="code"):
        del data.code
    with pytest.raises(AttributeError, match="prev_state"):
        _ = data.prev_state
    assert data.timestamp.tzinfo is not None
    assert repr(data).startswith("SIPSessionDidFailData(timestamp=datetime.datetime(")
    assert repr(data).endswith("originator='remote', code=486, reason='Busy Here')")


def test_data_copies_compares_and_pickles() -> None:
    now = datetime.datetime.now().astimezone()
    data = SIPSessionChangedStateData(timestamp=now, prev_state=SessionState.NULL, state=SessionState.CALLING)
    assert copy.copy(data) == data == pickle.loads(pickle.dumps(data))
    assert data != SIPSessionDidStartData(timestamp=now)
    with pytest.raises(TypeError):
        SIPSessionChangedStateData(timestamp=now)


def test_states_equal_their_names() -> None:
    assert SessionState.ESTABLISHED == "ESTABLISHED"
    assert f"{SessionState.NULL}" == str(SessionState.NULL) == "NULL"
    assert {SessionState.NULL: 1}["NULL"] == 1
