"""The report: rows of the ladder, pictures, the page; what a hostile peer writes stays text."""

from __future__ import annotations

import base64
import math
import re
import struct
import wave
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from sipwire.report import (
    JitterTrace,
    Kind,
    Mark,
    NotificationRow,
    Recording,
    SIPMessageTrace,
    Verdict,
    build_ladder,
    jitter_svg,
    ladder_svg,
    render_ladder_text,
    spectrogram_svg,
    waveform_svg,
    write_report,
)
from sipwire.report.ladder import MAX_PARTIES, MAX_ROWS
from sipwire.report.spectrogram import indexed_png
from sipwire.report.svg import tick_label, ticks
from sipwire.report.text import clean

ALICE, BOB = ("192.0.2.1", 5060), ("192.0.2.2", 5070)
HOSTILE = "\x1b[31m<script>alert(1)</script>\x00\u202e\"'&]]>\ud800\r\x07"


def sdp(*lines: str) -> str:
    return "\r\n".join(("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", *lines, ""))


def message(start: str, *headers: str, body: str = "") -> bytes:
    lines = [start, *headers, *(["Content-Type: application/sdp"] if body else [])]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("utf-8", "surrogatepass")


def sent(seconds: float, data: bytes, *, back: bool = False, received: bool = False) -> SIPMessageTrace:
    source, destination = (BOB, ALICE) if back else (ALICE, BOB)
    return SIPMessageTrace(seconds, received, source, destination, "udp", data)


INVITE = message(
    "INVITE sip:bob@192.0.2.2 SIP/2.0", "CSeq: 1 INVITE", "User-Agent: phone/1", body=sdp("m=audio 4000 RTP/AVP 0")
)
RINGING = message("SIP/2.0 180 Ringing", "CSeq: 1 INVITE", "Server: desk/2")
OK = message("SIP/2.0 200 OK", "CSeq: 1 INVITE", body=sdp("m=audio 4000 RTP/AVP 0", "a=recvonly"))
CALL = [
    sent(10.0, INVITE),
    sent(10.02, RINGING, back=True),
    sent(10.5, OK, back=True),
    sent(10.51, message("ACK sip:bob@192.0.2.2 SIP/2.0", "CSeq: 1 ACK")),
]


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """Half a second: a tone of 1 kHz left, silence right."""
    path = tmp_path / "stereo.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        tone = (round(8192 * math.sin(2 * math.pi * 1000 * n / 16000)) for n in range(8000))
        file.writeframes(b"".join(struct.pack("<hh", sample, 0) for sample in tone))
    return path


def gradient(pcm: bytes, rate: int, columns: int, rows: int) -> bytes:
    """Stands in for the spectrogram: the n-th line has level n."""
    assert len(pcm) % 2 == 0
    assert rate > 0
    return b"".join(bytes([row % 256]) * columns for row in range(rows))


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parse(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("data", "label", "kind"),
    [
        (INVITE, "INVITE  SDP sendrecv", Kind.REQUEST),
        (RINGING, "180 Ringing (INVITE)", Kind.PROVISIONAL),
        (OK, "200 OK (INVITE)  SDP recvonly", Kind.SUCCESS),
        (message("SIP/2.0 302 Moved", "CSeq: 1 INVITE"), "302 Moved (INVITE)", Kind.REDIRECT),
        (message("SIP/2.0 486 Busy Here", "CSeq: 1 INVITE"), "486 Busy Here (INVITE)", Kind.FAILURE),
        (message("SIP/2.0 603 Decline"), "603 Decline", Kind.FAILURE),
        (
            message("INVITE sip:x SIP/2.0", body=sdp("a=sendonly", "m=audio 4 RTP/AVP 0")),
            "INVITE  SDP sendonly",
            Kind.REQUEST,
        ),
        (
            message("INVITE sip:x SIP/2.0", body=sdp("m=audio 4 RTP/AVP 0", "m=video 5 RTP/AVP 31", "a=inactive")),
            "INVITE  SDP sendrecv",
            Kind.REQUEST,
        ),
        (message("INVITE sip:x SIP/2.0", body=sdp("m=audio 0 RTP/AVP 0")), "INVITE  SDP audio refused", Kind.REQUEST),
        (message("INVITE sip:x SIP/2.0", body=sdp("m=video 5 RTP/AVP 31")), "INVITE  SDP without audio", Kind.REQUEST),
        (b"\r\n\r\n", "keep-alive", Kind.OTHER),
        (b"", "keep-alive", Kind.OTHER),
        (b"GET / HTTP/1.1\r\n\r\n", "not SIP (18 bytes)", Kind.OTHER),
        (b"\xff\x00\xfe" * 20, "not SIP (60 bytes)", Kind.OTHER),
        (b"SIP/2.0 x0x what\r\n\r\n", "not SIP (20 bytes)", Kind.OTHER),
    ],
)  # fmt: skip
def test_labels(data: bytes, label: str, kind: Kind) -> None:
    (row,) = build_ladder([sent(1.0, data)]).rows
    assert (row.label, row.kind) == (label, kind)


def test_times_are_relative_and_parties_in_order_of_appearance() -> None:
    ladder = build_ladder(reversed(CALL))
    assert [(round(row.time, 3), row.source, row.destination) for row in ladder.rows] == [
        (0.0, 0, 1), (0.02, 1, 0), (0.5, 1, 0), (0.51, 0, 1),
    ]  # fmt: skip
    assert ladder.parties == [("phone/1", "192.0.2.1:5060"), ("desk/2", "192.0.2.2:5070")]
    assert build_ladder(CALL, {BOB: "bob"}).parties[1] == ("bob", "192.0.2.2:5070")


def test_what_both_ends_traced_is_one_arrow_and_a_retransmission_two() -> None:
    again = sent(10.5, INVITE)
    records = [CALL[0], sent(10.001, INVITE, received=True), again, sent(10.502, INVITE, received=True)]
    assert [row.time for row in build_ladder(records).rows] == [0.0, 0.5]
    lost = [CALL[0], again, sent(10.502, INVITE, received=True)]
    assert len(build_ladder(lost).rows) == 2
    assert len(build_ladder([sent(1.0, INVITE, received=True)]).rows) == 1


def test_a_wildcard_address_is_the_party_at_that_port() -> None:
    records = [SIPMessageTrace(1.0, False, ("0.0.0.0", 5060), BOB, "udp", INVITE), sent(1.1, RINGING, back=True)]
    assert len(build_ladder(records).parties) == 2


def test_ladders_are_bounded() -> None:
    records = [
        SIPMessageTrace(float(n), False, ("192.0.2.9", 20000 + n), BOB, "udp", RINGING) for n in range(MAX_ROWS + 7)
    ]
    ladder = build_ladder(records)
    assert (len(ladder.rows), ladder.left_out, len(ladder.parties)) == (MAX_ROWS, 7, MAX_PARTIES)
    assert ladder.parties[-1] == ("others", "")
    assert "7 more messages" in ladder_svg(ladder)
    assert "7 more messages" in render_ladder_text(records)


def test_the_ladder_of_a_terminal() -> None:
    lines = render_ladder_text(CALL, colour=False).split("\n")
    assert [lines.pop(0).split() for _ in range(2)] == [["phone/1", "desk/2"], ["192.0.2.1:5060", "192.0.2.2:5070"]]
    assert all(line.count("│") == 2 for line in lines)
    assert len({line.rindex("│") for line in lines}) == 1, "the lifelines stand upright"
    assert re.fullmatch(r"  0\.000 s +│─+ INVITE  SDP sendrecv ─+▶│", lines[0])
    assert re.fullmatch(r"  0\.020 s +│◀─+ 180 Ringing \(INVITE\) ─+│", lines[1])


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[32m" in render_ladder_text(CALL, colour=True)
    assert "\x1b" not in render_ladder_text(CALL)  # stdout is captured, no terminal
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[34m" in render_ladder_text(CALL)
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b" not in render_ladder_text(CALL)


def test_no_messages() -> None:
    assert render_ladder_text([]) == "no SIP messages"
    assert texts(ladder_svg([])) == ["no SIP messages"]


def test_the_ladder_as_picture() -> None:
    svg = ladder_svg(CALL)
    shown = texts(svg)
    assert {"phone/1", "192.0.2.2:5070", "0.500 s", "200 OK (INVITE)  SDP recvonly"} <= set(shown)
    rows = list(parse(svg).iter("{http://www.w3.org/2000/svg}g"))
    assert len(rows) == 4
    colours = [row[2].attrib["stroke"] for row in rows]
    assert colours == ["var(--request)", "var(--provisional)", "var(--success)", "var(--request)"]


def test_a_message_to_oneself_is_drawn() -> None:
    record = SIPMessageTrace(1.0, False, ALICE, ALICE, "udp", INVITE)
    assert "↺ INVITE" in render_ladder_text([record])
    assert len(texts(ladder_svg([record]))) == 4


@pytest.mark.parametrize("field", ["start", "header", "body", "agent"])
def test_hostile_messages_stay_text(field: str) -> None:
    parts = dict.fromkeys(("start", "header", "body", "agent"), "x") | {field: HOSTILE}
    data = message(
        f"SIP/2.0 200 {parts['start']}", f"CSeq: 1 {parts['header']}", f"Server: {parts['agent']}", body=parts["body"]
    )
    record = SIPMessageTrace(1.0, False, (f"h{HOSTILE}", 5), BOB, HOSTILE, data)
    parse(ladder_svg([record]))  # well-formed XML
    text = render_ladder_text([record], colour=False)
    assert all(character.isprintable() or character == "\n" for character in text)


def test_clean() -> None:
    assert clean("a\u00a0b\u200bc\x1b[0m\ud800é漢") == "a b�c�[0m�é漢"
    assert clean("one\n\ttwo\r", lines=True) == "one\n\ttwo�"
    assert clean("one\ntwo") == "one�two"
    assert clean("x" * 300, 200) == "x" * 200 + "…"


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 8, 10, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (-0.5, 0.5, 5, [-0.4, -0.2, 0, 0.2, 0.4]),
        (0, 3600, 10, [0, 500, 1000, 1500, 2000, 2500, 3000, 3500]),
        (0, 0, 5, [0]),
    ],
)
def test_ticks(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


def test_tick_labels() -> None:
    assert [tick_label(value, 0.2) for value in (-0.4, -1e-17, 0.2)] == ["\N{MINUS SIGN}0.4", "0.0", "0.2"]
    assert tick_label(2000, 500) == "2000"


def test_a_waveform_has_a_strip_for_each_channel(stereo: Path) -> None:
    svg = waveform_svg(
        stereo, channels=("remote", "local"), marks=[Mark(0.1, 0.2, "hold"), Mark(7, 8, "after the end")]
    )
    shown = texts(svg)
    assert {"remote", "local", "peak \N{MINUS SIGN}12.0 dBFS", "silent", "hold", "0.50 s"} <= set(shown)
    assert "after the end" not in shown
    assert texts(waveform_svg(stereo))[0] == "channel 1"
    # The tone fills its strip: the envelope reaches a quarter of full scale, the top of the scale at 0.3.
    outline = next(p for p in parse(svg).iter("{http://www.w3.org/2000/svg}path") if p.get("fill") == "var(--wave)")
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", outline.attrib["d"])]
    assert (max(ys) - min(ys)) / 120 == pytest.approx(0.25 / 0.3, abs=0.02)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"RIFF", "too early"),
        (b"no wav at all, only words", "RIFF"),
        (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0", "no samples"),
        (b"RIFF\x25\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\1\0\0\0\x80", "8 bits"),
        (b"RIFF\x24\0\0\0WAVElist\xff\xff\xff\xff", "read"),
    ],
)
def test_broken_recordings_are_named(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"broken\.wav .*{reason}"):
        waveform_svg(path)
    page = write_report(tmp_path / "r.html", title="t", recordings=[Recording(path)], spectrogram=gradient).read_text()
    assert "broken.wav" in page
    assert "<img" not in page


def test_a_png_reads_back() -> None:
    png = indexed_png(3, 2, bytes([0, 128, 255, 1, 2, 3]))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", png, at + 8 + size) == (zlib.crc32(kind + data),)
        chunks[kind], at = data, at + 12 + size
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (3, 2, 8, 3, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == b"\0\x00\x80\xff\0\x01\x02\x03"
    assert len(chunks[b"PLTE"]) == 768
    brightness = [sum(chunks[b"PLTE"][3 * n : 3 * n + 3]) for n in range(256)]
    assert brightness == sorted(brightness), "louder is brighter"
    with pytest.raises(ValueError, match="5 levels are not a picture of 3 by 2"):
        indexed_png(3, 2, b"12345")


def test_a_spectrogram_shows_the_lowest_8_khz(tmp_path: Path) -> None:
    path = tmp_path / "wide.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(b"\0\0" * 4800)
    asked = []

    def levels(pcm: bytes, rate: int, columns: int, rows: int) -> bytes:
        asked.append((len(pcm), rate, rows))
        return gradient(pcm, rate, columns, rows)

    svg = spectrogram_svg(path, levels, channels=("remote",))
    assert asked == [(9600, 48000, 540)]  # three times what is shown
    assert {"spectrogram — remote", "8", "kHz"} <= set(texts(svg))
    png = base64.b64decode(re.search(r"base64,([^\"]+)", svg).group(1))  # type: ignore[union-attr]
    image = zlib.decompress(png[png.index(b"IDAT") + 4 :])
    assert image[1] == 360 % 256, "the upper two thirds are cut off"
    with pytest.raises(ValueError, match="came with 3 levels"):
        spectrogram_svg(path, lambda *_: b"abc")


def test_jitter() -> None:
    packets = [(n * 0.02, (-1) ** n * 2.0, 1.0 + n / 100, 2 if n == 40 else 0) for n in range(100)]
    shown = texts(jitter_svg(packets, title="jitter of alice", marks=[Mark(0.5, 0.6, "DTMF 5")]))
    assert shown[0] == "jitter of alice (100 packets, 2 lost)"
    assert {"DTMF 5", "\N{MINUS SIGN}2", "RFC 3550 jitter", "lost packets", "ms"} <= set(shown)
    whole = jitter_svg([(n * 0.02, 1.0, 1.0, 0) for n in range(100_000)])
    assert len(whole) < 60_000, "packets of a long call are drawn together"
    assert "lost packets" not in whole


def test_jitter_of_nothing_and_of_one_packet() -> None:
    assert "no packet was received" in jitter_svg([])
    parse(jitter_svg([(0.0, 0.0, 0.0, 0)]))


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        for name, value in attrs:
            if name in ("href", "src"):
                assert (value or "").startswith("data:image/png;base64,")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_the_page_holds_everything(tmp_path: Path, stereo: Path) -> None:
    path = write_report(
        tmp_path / "report.html",
        title="A call",
        verdicts=[
            Verdict("tone", "1000.1 Hz", True, "1000 Hz"),
            Verdict("lost", "3", False, "0"),
            Verdict("codec", "opus"),
        ],
        ladder=CALL,
        names={ALICE: "alice"},
        recordings=[Recording(stereo, "alice's recording", ("remote", "local"))],
        jitter=[JitterTrace("what alice received", [(0.0, 0.0, 0.0, 0), (0.02, 1.0, 0.1, 1)])],
        notifications=[NotificationRow(10.5, "session 1", "SIPSessionDidStart", "streams=audio")],
        spectrogram=gradient,
    )
    assert path.is_absolute()
    page = read(path)
    words = " ".join(page.words)
    for expected in ("A call", "1 of 2 failed", "1000.1 Hz", "alice", "INVITE  SDP sendrecv", "alice's recording",
                     "spectrogram — remote", "what alice received (2 packets, 1 lost)", "SIPSessionDidStart", "0.500",
                     "0.020 s · desk/2 → alice · UDP · 180 Ringing (INVITE)", "User-Agent: phone/1"):  # fmt: skip
        assert expected in words, expected
    assert page.tags.count("svg") == 4
    assert "script" not in page.tags


def test_an_empty_page(tmp_path: Path) -> None:
    page = read(write_report(tmp_path / "empty.html", title="nothing", spectrogram=gradient))
    assert page.tags.count("section") == 0
    assert "nothing" in page.words


def test_a_hostile_page_stays_a_page(tmp_path: Path) -> None:
    data = message(f"SIP/2.0 200 {HOSTILE}", f"CSeq: 1 {HOSTILE}", f"Server: {HOSTILE}", body=HOSTILE)
    path = write_report(
        tmp_path / "report.html",
        title=HOSTILE + "{title}",
        verdicts=[Verdict(HOSTILE, HOSTILE, True, HOSTILE)],
        ladder=[SIPMessageTrace(1.0, True, (HOSTILE, 5), BOB, HOSTILE, data)],
        names={BOB: HOSTILE},
        recordings=[Recording(tmp_path / "<b>missing.wav", HOSTILE)],
        jitter=[JitterTrace(HOSTILE, [(0.0, 0.0, 0.0, 0)], [Mark(0, 1, HOSTILE)])],
        notifications=[NotificationRow(1.0, HOSTILE, HOSTILE, HOSTILE)],
        spectrogram=gradient,
    )
    page = read(path)
    assert "script" not in page.tags
    assert "b" not in page.tags
    text = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_row_of_a_notification() -> None:
    data = SimpleNamespace(timestamp=1, code=486, reason="Busy Here", data=b"x" * 500)
    notification = SimpleNamespace(name="SIPSessionDidFail", sender="s1", timestamp=12.5, data=data)
    row = NotificationRow.of(notification)
    assert (row.timestamp, row.sender, row.name) == (12.5, "'s1'", "SIPSessionDidFail")
    assert row.details.startswith("code=486, reason=Busy Here, data=b'xxx")
    assert len(row.details) < 130
    bare = SimpleNamespace(name="SIPEngineDidStart", sender="e", timestamp=1.0, data=None)
    assert NotificationRow.of(bare, "engine") == NotificationRow(1.0, "engine", "SIPEngineDidStart", "")
