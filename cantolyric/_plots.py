"""Figures with alternative text, and frames to step through, for the lessons."""

import base64
import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure


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
