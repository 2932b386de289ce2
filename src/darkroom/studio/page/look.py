"""What the page looks like: the system's fonts, and nothing that has to be fetched."""

from typing import Any

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
PAINT = "#ff3b6b"  # of the brush
PIXELATED = 128  # pixels of a side up to which pictures are enlarged as squares

CSS = """
.gradio-container {max-width: 1500px !important; margin: 0 auto;}
.dr-head {display: flex; align-items: baseline; gap: .75rem; flex-wrap: wrap;}
.dr-head b {font-size: 1.3rem; letter-spacing: .01em;}
.dr-head span {color: var(--body-text-color-subdued);}
button[role=tab][aria-selected=true] {color: var(--body-text-color) !important; font-weight: 600;}
#refresh {align-self: flex-end; height: 3rem;}
#refresh, .dr-small {font-size: .875rem; font-weight: 500;}
.dr-note {color: var(--body-text-color-subdued); font-size: .875rem; line-height: 1.45; overflow-wrap: anywhere;}
.dr-note p {margin: .15rem 0; color: var(--body-text-color-subdued);}
.dr-note p.warn {color: var(--body-text-color); border-left: 3px solid #d97706; padding-left: .6rem;}
.dr-note p.good {color: var(--body-text-color); border-left: 3px solid #2e9e6b; padding-left: .6rem;}
.dr-lineage pre {font-family: var(--font-mono); font-size: .75rem; line-height: 1.5; overflow: auto;
  max-height: 30rem; margin: 0; padding: .75rem; border: 1px solid var(--border-color-primary); border-radius: 6px;
  background: var(--background-fill-secondary); color: var(--body-text-color); white-space: pre;}
.dr-scroll {overflow-x: auto; padding-bottom: .5rem;}
.dr-grid {border-collapse: separate; border-spacing: 8px; color: var(--body-text-color);}
.dr-scroll .dr-grid, .dr-scroll .dr-grid th, .dr-scroll .dr-grid td {border: 0; padding: 0; width: auto;}
.dr-grid th {font-weight: 500; text-align: center; font-size: .875rem; vertical-align: bottom; max-width: 190px;
  overflow-wrap: anywhere; line-height: 1.3;}
.dr-grid th.row {text-align: left; vertical-align: middle; min-width: 7rem; max-width: 12rem;}
.dr-grid th small, .dr-grid td small, .dr-film small {color: var(--body-text-color-subdued); font-weight: 400;}
.dr-grid td {text-align: center; vertical-align: top; line-height: 1.3;}
.dr-scroll .dr-grid img {display: block; width: 112px; max-width: none; height: auto; border-radius: 3px;
  margin: 0 auto 3px;}
.dr-film {display: flex; gap: 1rem; flex-wrap: wrap; color: var(--body-text-color);}
.dr-film figure {margin: 0; flex: 1 1 180px; max-width: 340px;}
.dr-film img {display: block; width: 100%; height: auto; border-radius: 3px;}
.dr-film figcaption {margin-top: .3rem; font-size: .875rem;}
.dr-film p {flex-basis: 100%; margin: 0; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: pre-wrap;}
@media (max-width: 640px) {.dr-scroll .dr-grid img {width: 104px;} .dr-grid th.row {min-width: 6rem; max-width: 8rem;}
  .dr-grid {border-spacing: 6px 6px;}}
"""
ENLARGED = """
.dr-gallery img, .dr-grid img, .dr-film img, .dr-start img {image-rendering: pixelated;}
.dr-start img {width: 100%; height: 100%; object-fit: contain;}
.dr-gallery .preview img, .dr-gallery .media-button img {width: 100%; height: 100%; object-fit: contain;}
"""


def css(side: int) -> str:
    """For a model that draws pictures of `side` pixels."""
    return CSS + (ENLARGED if side <= PIXELATED else "")


def theme(gradio: Any) -> Any:
    """Quiet colours; dark or light as the browser has it."""
    return gradio.themes.Base(
        primary_hue="slate", secondary_hue="slate", neutral_hue="slate", radius_size="sm", font=SANS, font_mono=MONO
    ).set(
        button_primary_background_fill="#1f6f5c",
        button_primary_background_fill_hover="#185a4a",
        button_primary_background_fill_dark="#2b8a73",
        button_primary_background_fill_hover_dark="#34a389",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        slider_color="#1f6f5c",
        slider_color_dark="#34a389",
        block_label_text_weight="500",
    )
