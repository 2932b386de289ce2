"""Parts of the page in HTML. Whatever was written by somebody is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from darkroom.core.text import printable_text
from darkroom.studio.comparison import Comparison, Difference
from darkroom.studio.films import Frame

HEAD = '<div class="dr-head"><b>Darkroom studio</b><span>draw with a model, change pictures, compare</span></div>'


def plain(text: object) -> str:
    """Text from anywhere as HTML shows it."""
    return escape(printable_text(text, "\n"), quote=True)


def note(lines: Iterable[object], kind: str = "") -> str:
    """A remark, a paragraph for each line. kind: "warn", "good" or "", which is quiet."""
    return "".join(f'<p class="{kind}">{plain(line)}</p>' for line in lines)


def lineage(text: str) -> str:
    """What an audit says, in its columns."""
    return f"<pre>{plain(text)}</pre>" if text else ""


def source(path: Path) -> str:
    """The address of a file that was made here."""
    return f"gradio_api/file={quote(str(path))}"


def grid(comparison: Comparison, apart: Sequence[Sequence[Difference | None]] | None) -> str:
    """A comparison as a table; apart: how each picture differs from that of the first column."""
    head = "".join(f"<th>{plain(label)}</th>" for label in comparison.labels)
    lines = []
    for i, (prompt, seed) in enumerate(comparison.rows):
        cells = "".join(
            f"<td>{_picture(files[i], f'{comparison.labels[k]}, seed {seed}: {prompt}')}"
            f"{'' if apart is None or k == 0 else _difference(apart[k][i])}</td>"
            for k, files in enumerate(comparison.files)
        )
        lines.append(
            f'<tr><th class="row">{plain(prompt or "no prompt")}<br><small>seed {seed}</small></th>{cells}</tr>'
        )
    return (
        f'<div class="dr-scroll"><table class="dr-grid"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def frame(moment: Frame) -> str:
    """A moment of a film."""
    figures = "".join(
        f"<figure>{_picture(path, label)}<figcaption>{plain(label)}</figcaption></figure>"
        for label, path in moment.files
    )
    return f'<div class="dr-film">{figures}<p>{plain(moment.said)}</p></div>'


def _picture(path: Path, said: str) -> str:
    address = source(path)
    return f'<a href="{address}" download="{plain(path.name)}"><img src="{address}" alt="{plain(said)}"></a>'


def _difference(apart: Difference | None) -> str:
    if apart is None:
        return "<small>another size</small>"
    said = f"mean {apart.mean:.1f}, max. {apart.most}" if apart.most else "identical"
    return f"{_picture(apart.file, f'difference, {said}')}<small>{said}</small>"
