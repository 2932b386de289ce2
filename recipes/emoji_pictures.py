"""Emoji by seven hands as a captioned folder, for the recipe emoji: SPLIT/IDEA-STYLE.png, with captions and labels.

    pip install resvg-py
    DARKROOM_DATA=FOLDER python recipes/emoji_pictures.py [--size 64] [--packs noto openmoji …] [--from FOLDER …]

Seven icon sets that npm publishes show the same ideas, a goat, a violin, each in its own style. They are fetched by
`npm pack`; --from names files or folders that hold the .tgz instead. Styles are called what one sees, not what their
makers are called: "goat, black outline". Only ideas that three sets or more show are taken, without skin tones and
without flags of countries and regions.

A style shows an idea once, so a picture that is held out is a pair of style and idea that training never sees, while it
sees the style and the idea in other pairs. A tenth of the pairs is `novel`, a twentieth each `test` and `validation`.
"""

import argparse
import csv
import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from darkroom.core.ahead import forked, workers
from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import track
from darkroom.core.text import article
from darkroom.data.manifest import data_root

OUT = "emoji"  # below the data root
LEAST_SETS = 3  # that show an idea
LEAST_TRAINED = 2  # pictures of an idea that stay in train
HELD_OUT = {"novel": 0.1, "test": 0.05, "validation": 0.05}  # of the pairs
ICONS_AT_ONCE = 64  # drawn by a process
SKIPPED = "skipped.csv"
SKIN = {f"1f3f{digit}" for digit in "bcdef"}
REGION = re.compile(r"1f1e[6-9a-f]|1f1f[0-9a-f]|e00[2-7][0-9a-f]")  # letters and tags that flags are written with
VARIANTS = {"fe0e", "fe0f"}  # as text, as a picture
VIEW_BOX = {"left": 0, "top": 0, "width": 16, "height": 16}


@dataclass(frozen=True)
class Style:
    """A set of icons, and what its hand is called.

    package: on npm, with the version. name: its class, and before the idea, "outlined goat". tail: behind it.
    """

    package: str
    name: str
    tail: str

    def captions(self, idea: str) -> list[str]:
        """What people say who ask for it."""
        return [
            f"{idea}, {self.tail}",
            f"{idea} as {article(self.name)} {self.name} drawing",
            f"{self.name} {idea}",
        ]


STYLES = {
    "noto": Style("@iconify-json/noto@1.2.9", "shaded", "shaded cartoon"),
    "twemoji": Style("@iconify-json/twemoji@1.2.5", "bold", "bold simple shapes"),
    "openmoji": Style("@iconify-json/openmoji@1.2.29", "outlined", "black outline"),
    "fluent-emoji-flat": Style("@iconify-json/fluent-emoji-flat@1.2.6", "flat", "flat colors"),
    "fluent-emoji": Style("@iconify-json/fluent-emoji@1.2.7", "glossy", "glossy with soft gradients"),
    "emojione": Style("@iconify-json/emojione@1.2.3", "clip art", "old clip art"),
    "fxemoji": Style("@iconify-json/fxemoji@1.2.2", "muted", "muted colors"),
}


@dataclass(frozen=True)
class Pack:
    """A set as published. icons: name -> SVG that lacks its outer element, and sizes. names: icon -> all its names."""

    prefix: str
    version: str
    about: Mapping[str, Any]
    icons: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, Sequence[str]]
    codes: Mapping[str, str]

    @classmethod
    def read(cls, file: Path) -> "Pack":
        """From the .tgz of npm.

        Raises:
            DarkroomError: it is not one, or holds no icons.
        """
        try:
            with tarfile.open(file, "r:gz") as archive:
                package, icons, about = (_member(archive, name) for name in ("package", "icons", "info"))
                characters = _member(archive, "chars")
        except (OSError, tarfile.TarError, KeyError, ValueError):
            raise DarkroomError(f"{file}: not an icon set as `npm pack` writes it; fetch it again") from None
        sizes = VIEW_BOX | {key: icons[key] for key in VIEW_BOX if key in icons}
        there = {name: sizes | icon for name, icon in icons["icons"].items() if not icon.get("hidden")}
        names = {name: [name] for name in there}
        for alias, of in icons.get("aliases", {}).items():
            if set(of) == {"parent"} and of["parent"] in names:  # others turn the picture
                names[of["parent"]].append(alias)
        codes: dict[str, str] = {}
        for code, name in sorted(characters.items(), key=lambda item: (len(item[0]), item[0])):
            codes.setdefault(name, "-".join(part for part in code.split("-") if part not in VARIANTS))
        return cls(icons["prefix"], package["version"], about, dict(sorted(there.items())), names, codes)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(f"package/{name}.json")
    return json.loads(file.read()) if file is not None else None


@dataclass(frozen=True)
class Icon:
    """One icon of a set, and the idea that it shows."""

    pack: str
    name: str
    idea: str
    svg: str


@dataclass(frozen=True)
class Picture:
    """An icon, drawn; pixels: their hash."""

    icon: Icon
    png: bytes
    pixels: bytes


Skips = dict[tuple[str, str], str]  # (pack, icon) -> why


def icons_of(packs: Sequence[Pack]) -> tuple[list[Icon], Skips]:
    """The icons whose idea is known, with skin tones, flags, and icons that are another's repetition left out.

    An idea is a sequence of Unicode characters. Sets that do not say which one an icon is are asked by their names.
    """
    characters, called = _characters(packs), _called(packs)
    found: list[Icon] = []
    skipped: Skips = {}
    for pack in packs:
        seen: set[str] = set()
        for name, icon in pack.icons.items():
            known = (characters.get(_letters(alias)) for alias in pack.names[name])
            code = pack.codes.get(name) or next((one for one in known if one), None)
            why = _unwanted(name, code, icon["body"]) or ("its idea is there already" if code in seen else "")
            if why or code is None or code not in called:
                skipped[pack.prefix, name] = why or "another idea has its name"
                continue
            seen.add(code)
            found.append(Icon(pack.prefix, name, called[code], _svg(icon)))
    return found, skipped


def _characters(packs: Sequence[Pack]) -> dict[str, str]:
    """The letters of a name -> the characters it stands for; an icon's own name goes before another's alias."""
    found: dict[str, str] = {}
    for begin, end in ((0, 1), (1, None)):
        for pack in packs:
            for name in pack.icons:
                for known in pack.names[name][begin:end]:
                    if name in pack.codes:
                        found.setdefault(_letters(known), pack.codes[name])
    return found


def _called(packs: Sequence[Pack]) -> dict[str, str]:
    """The characters of an idea -> the name that most sets have for it; no two ideas have one."""
    words: dict[str, Counter[str]] = {}
    for pack in packs:
        for name in pack.icons:
            if name in pack.codes:
                words.setdefault(pack.codes[name], Counter())[name] += 1
    found: dict[str, str] = {}
    taken: set[str] = set()
    for code, names in sorted(words.items(), key=lambda item: (-item[1].total(), item[0])):
        for name, _ in sorted(names.items(), key=lambda item: (-item[1], item[0])):
            if name not in taken:
                taken.add(name)
                found[code] = name
                break
    return found


def _letters(name: str) -> str:
    """What is alike in beating-heart and beatingheart."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _unwanted(name: str, code: str | None, body: str) -> str:
    if "skin-tone" in name or (code and SKIN & set(code.split("-"))):
        return "a skin tone"
    if name.startswith("flag-for") or (code and REGION.search(code)):
        return "a flag of a country or region, or a letter of one"
    if code is None:
        return "no set says which character it is"
    return "has text, which is drawn differently on each machine" if "<text" in body else ""


def _svg(icon: Mapping[str, Any]) -> str:
    left, top, width, height = (icon[key] for key in VIEW_BOX)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def drawn(icons: Sequence[Icon], size: int) -> Iterator[Picture | None]:
    """Each icon of `size` pixels a side, centred on white; None where it cannot be drawn. In order, by all processors.

    Raises:
        DarkroomError: the renderer is not installed.
    """
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise DarkroomError("the renderer is not installed; pip install resvg-py") from None
    chunks = [icons[start : start + ICONS_AT_ONCE] for start in range(0, len(icons), ICONS_AT_ONCE)]
    with forked(workers()) as processes:
        waiting = [processes.submit(partial(_drawn, size, chunk)) for chunk in chunks]
        for chunk in track(waiting, len(chunks), "draw", "chunk"):
            yield from chunk.result()


def _drawn(size: int, icons: Sequence[Icon]) -> list[Picture | None]:
    return [_draw(size, icon) for icon in icons]


def _draw(size: int, icon: Icon) -> Picture | None:
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=icon.svg, width=size, height=size, skip_system_fonts=True)
        with Image.open(io.BytesIO(bytes(png))) as image:
            found = image.convert("RGBA")
    except (ValueError, OSError):
        return None
    white = Image.new("RGBA", (size, size), "white")
    white.alpha_composite(found, ((size - found.width) // 2, (size - found.height) // 2))
    pixels = np.asarray(white.convert("RGB"))
    if pixels.min() == 255:
        return None
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return Picture(icon, out.getvalue(), hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())


def chosen(pictures: Iterable[Picture | None], icons: Sequence[Icon], sets: int, skipped: Skips) -> list[Picture]:
    """Those of ideas that `sets` sets show, without equal pictures; the others are added to `skipped`."""
    kept: list[Picture] = []
    first: dict[bytes, Icon] = {}
    for icon, picture in zip(icons, pictures, strict=True):
        if picture is None:
            skipped[icon.pack, icon.name] = "cannot be drawn, or is white all over"
        elif picture.pixels in first:
            other = first[picture.pixels]
            skipped[icon.pack, icon.name] = f"has the pixels of {other.pack}'s {other.name}"
        else:
            first[picture.pixels] = icon
            kept.append(picture)
    shown = Counter(picture.icon.idea for picture in kept)
    for picture in kept:
        if shown[picture.icon.idea] < sets:
            skipped[picture.icon.pack, picture.icon.name] = f"an idea that fewer than {sets} sets show"
    return [picture for picture in kept if shown[picture.icon.idea] >= sets]


def splits(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(style, idea) -> split. In the order of their hashes pairs are held out, unless too few of their idea or style
    would be left to train on."""
    ranked = sorted(pairs, key=lambda pair: _hash(*pair))
    found = dict.fromkeys(ranked, "train")
    left = Counter(name for pair in ranked for name in enumerate(pair))
    waiting = iter(ranked)
    for split, share in HELD_OUT.items():
        wanted = round(share * len(ranked))
        while wanted and (pair := next(waiting, None)) is not None:
            if all(left[name] > LEAST_TRAINED for name in enumerate(pair)):
                left.subtract(enumerate(pair))
                found[pair], wanted = split, wanted - 1
    return found


def _hash(*words: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest(), "big")


def write(packs: Sequence[Pack], out: Path, size: int) -> Counter[str]:
    """The captioned folder `out`, which appears whole; how many pictures each split has.

    Raises:
        DarkroomError: `out` exists, nothing is left of the sets, or the renderer is not installed.
    """
    if out.exists():
        raise DarkroomError(f"{out}: exists; remove it, or name another folder with --out")
    icons, skipped = icons_of(packs)
    pictures = chosen(drawn(icons, size), icons, min(LEAST_SETS, len(packs)), skipped)
    if not pictures:
        raise DarkroomError(f"no idea is shown by {LEAST_SETS} of these sets; give more of them")
    pairs = {(STYLES[picture.icon.pack].name, picture.icon.idea): picture for picture in pictures}
    split_of = splits(pairs)
    tables: dict[str, list[dict[str, Any]]] = {}
    with atomic_path(out) as folder:
        for (style, idea), picture in sorted(pairs.items(), key=lambda item: item[0][::-1]):
            split = split_of[style, idea]
            record = _record(picture.icon, split)
            place = folder / split / record["file_name"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(picture.png)
            tables.setdefault(split, []).append(record)
        for split, records in tables.items():
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (folder / split / "metadata.jsonl").write_text(lines, encoding="utf-8")
        counts = Counter({split: len(records) for split, records in tables.items()})
        (folder / "README.md").write_text(_readme(packs, tables, skipped, size), encoding="utf-8")
        with (folder / SKIPPED).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["set", "icon", "why"])
            rows.writerows([*icon, why] for icon, why in sorted(skipped.items()))
    return counts


def _record(icon: Icon, split: str) -> dict[str, Any]:
    """What the table says of a picture: in train all its captions, elsewhere one, for each is drawn once."""
    style, idea = STYLES[icon.pack], icon.idea.replace("-o-clock", "-o'clock").replace("-", " ")
    captions = style.captions(idea)
    if split != "train":
        captions = [captions[_hash(icon.idea, style.name) % len(captions)]]
    name = f"{icon.idea}-{style.name.replace(' ', '-')}.png"
    return {"file_name": name, "text": captions, "style": style.name, "idea": idea}


def _readme(packs: Sequence[Pack], tables: Mapping[str, list[dict[str, Any]]], skipped: Skips, size: int) -> str:
    """Licences and counts."""
    by_style = {split: Counter(record["style"] for record in records) for split, records in tables.items()}
    ideas = {record["idea"] for records in tables.values() for record in records}
    there = [split for split in ("train", *HELD_OUT) if split in tables]
    rows = []
    for pack in packs:
        style, licence, author = STYLES[pack.prefix], pack.about["license"], pack.about["author"]
        made = f"[{pack.about['name']}]({author['url']}), {author['name']}"
        terms = f"[{licence['spdx']}]({licence['url']})" if licence.get("url") else licence["spdx"]
        counts = [str(by_style[split][style.name]) for split in there]
        rows.append([style.name, f'"{style.tail}"', made, f"{pack.prefix} {pack.version}", terms, *counts])
    total = [str(len(tables[split])) for split in there]
    rows.append(["all", f"{len(ideas)} ideas", "", "", "", *total])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    head = ["style", "in words", "by", "npm package @iconify-json/…", "licence", *there]
    reasons = Counter(re.sub("(?<=the pixels of ).*", "another", why) for why in skipped.values())
    return "\n".join(
        [
            f"# Emoji by {len(packs)} hands\n",
            f"Pictures of {size} x {size} pixels on white, drawn by recipes/emoji_pictures.py from the sets below.",
            "Each is under the licence of its set: its makers are named wherever it is shown, and what is made of",
            "those under a share-alike licence (SA) is under that licence too.\n",
            "| " + " | ".join(head) + " |",
            "| " + " | ".join("---" for _ in head) + " |",
            *lines,
            "\nA set shows an idea once. So every held-out picture is a pair of style and idea that train does not",
            f"have, while train has at least {LEAST_TRAINED} other pictures of the idea. The three held-out splits are",
            "alike; novel, the largest, is for the figures that are reported.\n",
            f"Icons left out, {len(skipped)}, are listed in {SKIPPED}:\n",
            *(f"- {count}: {why}" for why, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            "",
        ]
    )


@contextmanager
def fetched(names: Sequence[str]) -> Iterator[list[Path]]:
    """The sets of these names, from npm's registry, as long as the context lasts.

    Raises:
        DarkroomError: npm is not there, or cannot fetch them.
    """
    packages = [STYLES[name].package for name in names]
    by_hand = f"fetch {', '.join(packages)} where npm is, and name their folder with --from"
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, *packages]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise DarkroomError(f"npm is not installed; {by_hand}") from None
        except subprocess.CalledProcessError as error:
            why = " ".join(error.stderr.split()) or f"it ended with {error.returncode}"
            raise DarkroomError(f"npm pack failed ({why}); {by_hand}") from None
        yield sorted(Path(folder).glob("*.tgz"))


def packs_of(files: Iterable[Path], names: Sequence[str]) -> list[Pack]:
    """The sets of these names among .tgz files and folders of them, in the order of STYLES.

    Raises:
        DarkroomError: a file is not a set, or a set is not there.
    """
    found: dict[str, Pack] = {}
    for given in files:
        for file in sorted(given.glob("*.tgz")) if given.is_dir() else [given]:
            pack = Pack.read(file)
            found[pack.prefix] = pack
    missing = [name for name in names if name not in found]
    if missing:
        raise DarkroomError(f"no file of the sets {', '.join(missing)}; found {', '.join(found) or 'none'}")
    return [found[name] for name in STYLES if name in names]


def main() -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--packs", nargs="+", choices=STYLES, default=list(STYLES), metavar="SET", help="of the sets")
    parser.add_argument(
        "--from", nargs="+", type=Path, dest="files", metavar="FILE", help=".tgz files, or their folder"
    )
    parser.add_argument("--out", type=Path, help=f"default {OUT} below DARKROOM_DATA")
    given = parser.parse_args()
    if not 8 <= given.size <= 1024:
        parser.error("--size: give 8 to 1024")
    out = given.out or data_root() / OUT
    try:
        if given.files:
            counts = write(packs_of(given.files, given.packs), out, given.size)
        else:
            with fetched(given.packs) as files:
                counts = write(packs_of(files, given.packs), out, given.size)
    except DarkroomError as error:
        raise SystemExit(f"emoji_pictures: {error}") from None
    print(f"{out}: {', '.join(f'{n} {split}' for split, n in sorted(counts.items()))}")


if __name__ == "__main__":
    main()
