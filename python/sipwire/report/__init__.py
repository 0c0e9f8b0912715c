"""Pictures of a call: the ladder of its messages, its recordings, its jitter, and one page with all of them.

Nothing but the standard library is used. Everything that came from the wire is cleaned before it reaches a terminal or
a page: no control character, no markup.
"""

from __future__ import annotations

from .charts import Mark, jitter_svg, waveform_svg
from .ladder import Kind, Ladder, LadderRow, LiveLadder, SIPMessageTrace, build_ladder, render_ladder_text
from .ladder_mermaid import ladder_mermaid
from .ladder_svg import ladder_svg
from .page import JitterTrace, NotificationRow, Recording, Verdict, write_report
from .spectrogram import SpectrogramFunction, spectrogram_svg

__all__ = [
    "JitterTrace",
    "Kind",
    "Ladder",
    "LadderRow",
    "LiveLadder",
    "Mark",
    "NotificationRow",
    "Recording",
    "SIPMessageTrace",
    "SpectrogramFunction",
    "Verdict",
    "build_ladder",
    "jitter_svg",
    "ladder_mermaid",
    "ladder_svg",
    "render_ladder_text",
    "spectrogram_svg",
    "waveform_svg",
    "write_report",
]
