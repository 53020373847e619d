"""Figures with alternative text, tunes as pictures and sounds, and frames to step through, for the lessons."""

import base64
import hashlib
import io
import wave
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from IPython.display import HTML, Audio
    from matplotlib.figure import Figure

RATE = 4000  # samples per second


def show(fig: "Figure", alt: str) -> None:
    "Display a matplotlib figure as a PNG `<img>` with `alt` as its alternative text, and close it."
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display

    buf = io.BytesIO()
    fig.savefig(buf, format="png", dpi=90, bbox_inches="tight")
    plt.close(fig)
    data = base64.b64encode(buf.getvalue()).decode()
    alt = alt.replace('"', "&quot;")
    display(HTML(f'<img alt="{alt}" src="data:image/png;base64,{data}">'))


def steps(
    frames: Sequence[str],  # HTML, one per step
    name: str = "step",  # label of a frame
) -> "HTML":
    "Show frames with a slider; without scripts (on GitHub, in print), show them all, one below the other."
    from IPython.display import HTML

    key = "steps" + hashlib.sha256("".join(frames).encode()).hexdigest()[:12]
    shown = "".join(f"<div class='frame'><b>{name} {k}</b>: {f}</div>" for k, f in enumerate(frames))
    script = (
        f"(() => {{const d = document.getElementById('{key}'), f = [...d.querySelectorAll('.frame')], "
        "r = d.querySelector('input');"
        "const go = () => f.forEach((x, i) => {x.style.display = i == r.value ? '' : 'none'});"
        "r.parentElement.style.display = ''; r.oninput = go; go()})()"
    )
    return HTML(
        f"<div id='{key}'><label style='display:none'>{name} <input type='range' min='0' "
        f"max='{len(frames) - 1}' value='0' "
        f"style='width:20em;vertical-align:middle'></label>{shown}</div><script>{script}</script>"
    )


def tune_html(
    tune: Sequence[int],  # the pitch of each syllable's note, in semitones
    *lines: tuple[str, str],  # characters, and their Jyutping with spaces
) -> "HTML":
    """Draw lines of lyrics below a tune: grey bars are its notes, dots the heights of the tones.

    Both are scaled to the same height. Steps at which tones and tune move differently are dashed and crossed.
    """
    from IPython.display import HTML

    return HTML("".join(_line_html(tune, chars, jyutping.split()) for chars, jyutping in lines))


def _line_html(tune: Sequence[int], chars: str, jyutping: Sequence[str]) -> str:
    from cantolyric.tones import Syllable, ToneScheme, pitch_level, tone_melody_conflicts

    syllables = [Syllable.parse(j) for j in jyutping]
    against = tone_melody_conflicts(syllables, tune)
    low, high = min(tune), max(tune)
    dots = [(60 * k + 30, 78 - 22 * pitch_level(s.tone)) for k, s in enumerate(syllables)]
    notes = "".join(f"M{60 * k + 6} {78 - 66 * (p - low) / (high - low):.0f}h48" for k, p in enumerate(tune))
    marks = "".join(_step(dots[k], dots[k + 1], k in against) for k in range(len(dots) - 1))
    marks += "".join(f'<circle cx="{x}" cy="{y}" r="5" fill="currentColor"/>' for x, y in dots)
    words = "".join(
        f'<text x="{x}" y="118" font-size="22" lang="yue">{c}</text><text x="{x}" y="138" font-size="13">{j}</text>'
        for (x, _), c, j in zip(dots, chars, jyutping)
    )
    code, width = ToneScheme().encode(syllables), 60 * len(tune)
    name = f"{chars}, tone code {code}: {len(against) or 'no'} step{'s' * (len(against) != 1)} against the tune"
    return (
        f'<figure style="margin:0 0 1em"><svg role="img" aria-label="{name}" viewBox="0 0 {width} 146" '
        f'style="width:100%;max-width:{width}px" fill="currentColor" stroke="currentColor" text-anchor="middle">'
        f'<path d="{notes}" stroke-width="10" opacity=".25" fill="none"/>{marks}<g stroke="none">{words}</g></svg>'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _step(start: tuple[int, int], end: tuple[int, int], against: bool) -> str:
    (a, b), (x, y) = start, end
    line = f'<path d="M{a} {b}L{x} {y}" stroke-width="2" fill="none"'
    if not against:
        return line + "/>"
    middle = f"M{(a + x) // 2 - 7} {(b + y) // 2 - 7}l14 14m0 -14l-14 14"
    return f'{line} stroke-dasharray="4 4"/><path d="{middle}" stroke-width="3" fill="none"/>'


def hum(pitches: Sequence[int]) -> "list[np.ndarray]":
    "Return a buzz for each note of a tune, in semitones; its lowest is at 123 Hz."
    return [_glide(p - min(pitches) + 2, p - min(pitches) + 2, 0.22) for p in pitches]


def speak(tones: Sequence[int], seconds: float = 0.3) -> "list[np.ndarray]":
    "Return a buzz for each Jyutping tone, with three semitones per Chao level: five levels span an octave."
    from cantolyric.tones import CHAO

    return [_glide(3 * CHAO[t][0], 3 * CHAO[t][1], seconds) for t in tones]


def _glide(start: float, end: float, seconds: float) -> "np.ndarray":
    "A buzz that glides between two pitches, in semitones above 110 Hz, and a short silence."
    import numpy as np

    f = 110 * 2 ** (np.linspace(start, end, int(seconds * RATE)) / 12)
    phase = 2 * np.pi * np.cumsum(f) / RATE
    buzz = np.sum([np.sin(k * phase) / k for k in (1, 2, 3)], axis=0) * np.hanning(len(f)) ** 0.3
    return np.r_[buzz, np.zeros(RATE // 25)]


def listen(*phrases: "Sequence[np.ndarray]") -> "Audio":
    "Return a player for some phrases with pauses between them: 8 bits per sample, a few kilobytes."
    import numpy as np
    from IPython.display import Audio

    pause = np.zeros(RATE * 2 // 5)
    x = np.concatenate([sound for phrase in phrases for sound in (*phrase, pause)])
    file = io.BytesIO()
    with wave.open(file, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(1)
        f.setframerate(RATE)
        f.writeframes((128 + 120 * x / abs(x).max()).astype(np.uint8).tobytes())
    return Audio(file.getvalue())
