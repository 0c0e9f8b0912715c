"""URIs, routes, credentials, errors."""

from __future__ import annotations

import copy
import pickle

import pytest

from sipwire.core import SIPURI, CallBusy, CallDeclined, CallFailed, CallTimeout, Credentials, Route, SessionStateError
from sipwire.errors import CallCancelled, IllegalStateError, SIPWireError, call_failed


def test_a_uri_from_text_and_from_parts() -> None:
    uri = SIPURI("sips:bob:secret@example.com:5071;transport=TCP;lr?Subject=x")
    assert (uri.user, uri.password, uri.host, uri.port, uri.secure) == ("bob", "secret", "example.com", 5071, True)
    assert uri.parameters == {"transport": "TCP", "lr": None}
    assert uri.headers == {"Subject": "x"}
    assert uri.transport == "tcp"
    built = SIPURI(user="bob", host="example.com", port=5070, parameters={"transport": "tcp"})
    assert str(built) == "sip:bob@example.com:5070;transport=tcp"
    assert SIPURI(host="::1", user="bob").host == "::1"
    assert str(SIPURI(host="::1", user="bob")) == "sip:bob@[::1]"
    assert SIPURI.parse('"Bob" <sip:bob@example.com>;tag=1') == SIPURI("sip:bob@example.com")
    assert SIPURI(uri) == uri == copy.copy(uri) == pickle.loads(pickle.dumps(uri))
    assert repr(built) == 'SIPURI("sip:bob@example.com:5070;transport=tcp")'


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("sip:bob@example.com", "sip:bob@EXAMPLE.com", True),
        ("sip:bob@example.com", "sip:Bob@example.com", False),
        ("sip:bob@example.com", "sip:bob@example.com:5060", False),
        ("sip:bob@example.com;foo=1", "sip:bob@example.com", True),
        ("sip:bob@example.com;transport=udp", "sip:bob@example.com", False),
        ("sip:b%6fb@example.com", "sip:bob@example.com", True),
        ("sip:bob@example.com", "sips:bob@example.com", False),
    ],
)
def test_equality_is_that_of_rfc_3261(one: str, other: str, equal: bool) -> None:
    assert (SIPURI(one) == SIPURI(other)) is equal
    if equal:
        assert hash(SIPURI(one)) == hash(SIPURI(other))


def test_a_uri_does_not_change() -> None:
    uri = SIPURI("sip:bob@example.com")
    with pytest.raises(AttributeError):
        uri.host = "other"  # type: ignore[misc]
    uri.parameters["x"] = "y"
    assert uri.parameters == {}


@pytest.mark.parametrize(
    "text", ["", "bob", "sip:", "sip:bob@", "sip:bob@exa mple.com", "sip:bob@host:99999", "tel:+1"]
)
def test_what_is_no_uri_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="URI"):
        SIPURI(text)


def test_text_and_parts_do_not_mix() -> None:
    with pytest.raises(TypeError, match="not both"):
        SIPURI("sip:bob@example.com", user="x")
    with pytest.raises(TypeError, match="needs"):
        SIPURI()
    with pytest.raises(TypeError, match="not a str"):
        SIPURI(5)  # type: ignore[arg-type]


def test_routes() -> None:
    route = Route("1.2.3.4")
    assert (route.address, route.port, route.transport) == ("1.2.3.4", 5060, "udp")
    assert Route("sip.example.com", transport="tls").port == 5061
    assert Route("[::1]", 5070) == Route("::1", 5070)
    assert hash(Route("Host")) == hash(Route("host"))
    assert Route.parse("[::1]:5070;transport=tcp") == Route("::1", 5070, "tcp")
    assert Route.for_uri(SIPURI("sips:bob@example.com")) == Route("example.com", 5061, "tls")
    assert str(Route("::1")) == "udp:[::1]:5060"
    with pytest.raises(AttributeError, match="read-only"):
        route.port = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(route)) == route


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("",), "''"),
        (("a b",), "'a b'"),
        (("host", 0), "0"),
        (("host", 70000), "70000"),
        (("host", 5060, "sctp"), "sctp"),
    ],
)
def test_a_bad_route_is_named(arguments: tuple[str, int, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Route(*arguments)


def test_credentials_do_not_show_their_secret() -> None:
    assert "hunter2" not in repr(Credentials("sip:bob@example.com", "hunter2", ha1="0123"))
    assert "0123" not in repr(Credentials("sip:bob@example.com", "hunter2", ha1="0123"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (486, CallBusy),
        (600, CallBusy),
        (603, CallDeclined),
        (408, CallTimeout),
        (487, CallCancelled),
        (404, CallFailed),
    ],
)
def test_a_failed_call_by_its_code(code: int, kind: type[CallFailed]) -> None:
    error = call_failed(code, "reason")
    assert type(error) is kind
    assert isinstance(error, SIPWireError)
    assert (error.code, error.reason, str(error)) == (code, "reason", f"{code} reason")
    assert pickle.loads(pickle.dumps(error)).code == code


def test_session_state_error_tells_state_and_allowed() -> None:
    error = SessionStateError("accept() is not allowed", "NULL", ["INCOMING"])
    assert error.state == "NULL"
    assert error.allowed == ("INCOMING",)
    assert isinstance(error, RuntimeError)
    assert SessionStateError is IllegalStateError
    assert pickle.loads(pickle.dumps(error)).allowed == ("INCOMING",)
