"""Figures with alternative text, for the lessons."""
import base64
import io


def show(fig, alt: str):
    "Display a matplotlib figure as a PNG `<img>` with `alt` as its alternative text, and close it."
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display
    buf = io.BytesIO()
    fig.savefig(buf, format="png", dpi=90, bbox_inches="tight")
    plt.close(fig)
    data = base64.b64encode(buf.getvalue()).decode()
    alt = alt.replace('"', "&quot;")
    display(HTML(f'<img alt="{alt}" src="data:image/png;base64,{data}">'))
