"""Scenes are what their captions and labels say, drawn cleanly, and depend on nothing but their own index."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from darkroom.data.sources.scenes import COLORS, HEADS, LAYOUTS, RADII, SHAPES, Scene, Scenes
from darkroom.data.sources.scenes_captions import RELATION_WORDS, SIZE_WORDS
from darkroom.data.sources.scenes_drawing import DISTANCES, Background, Thing, draw

SOURCE = Scenes(600, 50, 50, 200, seed=3)
NAMES = [head.name for head in HEADS]
SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
NOUN = re.compile(rf"\b(an?) (?:({'|'.join(SIZES)}) )?({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")
RELATIONS = {word: relation for relation, both in RELATION_WORDS.items() for words in both for word in words}
RELATION = re.compile("|".join(sorted(RELATIONS, key=len, reverse=True)))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [SOURCE.scene("train", i) for i in range(600)]


@pytest.fixture(scope="module")
def pictures(scenes: list[Scene]) -> np.ndarray:
    return SOURCE.draw(scenes)


def labels(scene: Scene) -> dict[str, str | None]:
    """Head -> class by name, None where absent."""
    return {h.name: h.classes[k] if k >= 0 else None for h, k in zip(HEADS, scene.labels, strict=True)}


def read(caption: str) -> tuple[str, list[dict[str, str | None]]]:
    """Understand a caption: the layout, and the things with the left or upper one first."""
    things = [dict(zip(("size", "color", "shape"), m.groups()[1:], strict=True)) for m in NOUN.finditer(caption)]
    for thing in things:
        thing["size"] = SIZES.get(thing["size"])
    skeleton = NOUN.sub("@", caption)
    for sides, layout in ((("left", "right"), "horizontal"), (("top", "bottom"), "vertical")):
        if all(re.search(rf"(on|at) the {side}(?! of)", skeleton) for side in sides):
            return layout, things if skeleton.index(sides[0]) < skeleton.index(sides[1]) else things[::-1]
    if len(things) == 1:
        return "single", things
    relation = RELATIONS[RELATION.search(skeleton).group()]
    forms = {"@ REL @": 0, "@ is REL @": 0, "REL @ is @": 1, "REL @ there is @": 1, "@ with @ REL": 1}
    plain = re.sub(r"^(there is|this is|here is|an? \w+ of) (?=@)", "", RELATION.sub("REL", skeleton))
    subject = things[forms[plain]]
    other = things[1 - forms[plain]]
    layout = "horizontal" if relation in ("left", "right") else "vertical"
    return layout, [subject, other] if relation in ("left", "above") else [other, subject]


def test_captions_say_what_the_labels_say(scenes: list[Scene]) -> None:
    for scene in scenes:
        layout, things = read(scene.caption)
        truth, mentioned = labels(scene), dict(zip(NAMES, scene.mentioned, strict=True))
        assert layout == truth["layout"], scene.caption
        assert mentioned["layout"] == (layout != "single")
        for i, which in enumerate(("first", "second")):
            for attribute in ("shape", "color", "size"):
                said = things[i][attribute] if i < len(things) else None
                assert mentioned[f"{which}.{attribute}"] == (said is not None), scene.caption
                assert said is None or said == truth[f"{which}.{attribute}"], scene.caption
            assert (truth[f"{which}.shape"] is None) == (i >= len(things))


def test_captions_name_the_left_or_upper_thing_first_mostly_but_not_always(scenes: list[Scene]) -> None:
    in_order: dict[str | None, list[bool]] = {"horizontal": [], "vertical": []}
    for scene in scenes:
        truth, mentioned = labels(scene), NOUN.search(scene.caption)
        pairs = [(truth[f"{which}.color"], truth[f"{which}.shape"]) for which in ("first", "second")]
        if truth["layout"] != "single" and pairs[0] != pairs[1]:
            assert mentioned is not None
            in_order[truth["layout"]].append(mentioned.groups()[2:] == pairs[0])
    for layout, found in in_order.items():
        assert 0.65 < np.mean(found) < 0.85, layout


def test_captions_are_short_lower_case_and_varied(scenes: list[Scene]) -> None:
    captions = [scene.caption for scene in scenes]
    assert max(len(c.split()) for c in captions) <= 20
    assert all(c == c.lower() for c in captions)
    assert not any(re.search(r"\ba [aeiou]|\ban [^aeiou]", c) for c in captions)
    assert len({NOUN.sub("@", c) for c in captions}) > 60
    sizeless = np.mean([any(m.group(2) is None for m in NOUN.finditer(c)) for c in captions])
    assert 0.05 < sizeless < 0.16


def _nearest_color(picture: np.ndarray) -> np.ndarray:
    """(H, W) index into COLORS, -1 for background: grey, or between a colour and it."""
    rgb = picture.astype(float) / 255
    distance = np.abs(rgb[:, :, None] - np.array(list(COLORS.values()))).max(-1)
    return np.where(distance.min(-1) < 0.1, distance.argmin(-1), -1)


def test_pictures_show_what_the_labels_say(scenes: list[Scene], pictures: np.ndarray) -> None:
    """From pixels alone: the colours, where they lie to each other, and that large is larger."""
    widths: dict[tuple[str, str], list[int]] = {}
    for scene, picture in zip(scenes, pictures, strict=True):
        truth, found = labels(scene), _nearest_color(picture)
        colors = [c for c in (truth["first.color"], truth["second.color"]) if c]
        present = {list(COLORS)[k] for k, n in Counter(found[found >= 0].tolist()).items() if n >= 4}
        assert present == set(colors), scene.caption
        if len(set(colors)) < len(colors):
            continue
        spots = [np.argwhere(found == list(COLORS).index(c)) for c in colors]
        for which, spot in zip(("first", "second"), spots, strict=False):
            widths.setdefault((truth[f"{which}.shape"], truth[f"{which}.size"]), []).append(
                int(np.ptp(spot, axis=0).max())
            )
        if len(spots) == 2:
            down, right = spots[1].mean(0) - spots[0].mean(0)
            along, across = (right, down) if truth["layout"] == "horizontal" else (down, right)
            assert along > 8, scene.caption
            assert abs(across) < along / 2, scene.caption
    for shape in SHAPES:
        assert min(widths[shape, "large"]) > max(widths[shape, "small"]) + 1, shape


def test_things_lie_inside_and_apart(scenes: list[Scene]) -> None:
    for scene in scenes:
        for t in scene.things:
            assert min(t.x, t.y, 1 - t.x, 1 - t.y) >= t.radius + 0.5 / 32
        if len(scene.things) == 2:
            a, b = scene.things
            assert max(abs(a.x - b.x), abs(a.y - b.y)) - a.radius - b.radius >= 1 / 32


def test_every_class_occurs_about_equally(scenes: list[Scene]) -> None:
    for i, head in enumerate(HEADS):
        counts = Counter(s.labels[i] for s in scenes if s.labels[i] >= 0)
        assert min(counts[k] for k in range(len(head.classes))) > 0.6 * counts.total() / len(head.classes), head.name
    assert set(LAYOUTS) == {labels(s)["layout"] for s in scenes}


@pytest.mark.parametrize("seed", range(5))
def test_novel_pairs_appear_only_in_the_novel_split(seed: int) -> None:
    source = Scenes(0, 0, 0, 0, seed)
    novel = set(source.novel_pairs)
    assert len(novel) == 5
    assert all(len({pair[i] for pair in novel}) == 5 for i in range(2))

    def pairs(split: str, index: int) -> set[tuple[str | None, str | None]]:
        truth = labels(source.scene(split, index))
        return {(truth[f"{w}.color"], truth[f"{w}.shape"]) for w in ("first", "second")}

    for split in ("train", "validation", "test"):
        assert not any(pairs(split, i) & novel for i in range(100))
    assert all(pairs("novel", i) & novel for i in range(100))


def test_a_scene_depends_on_its_index_alone(scenes: list[Scene], pictures: np.ndarray) -> None:
    for i in (0, 17, 255, 256, 599):
        assert SOURCE.scene("train", i) == scenes[i]
        assert np.array_equal(SOURCE.draw([scenes[i]])[0], pictures[i])
    longer = Scenes(3, 4, 5, 6, seed=3)
    samples = {s.path: s for s in longer}
    assert len(samples) == 18
    assert np.array_equal(samples["train/000002.png"].image, pictures[2])
    assert SOURCE.scene("test", 0) != scenes[0]
    assert Scenes(1, 1, 1, 1, seed=4).scene("train", 0) != scenes[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_free_of_aliasing(shape: str) -> None:
    """A small picture is the large one averaged: coverage is exact to a few grey levels, wherever the shape lies."""
    places = np.random.default_rng(0).uniform(0.3, 0.7, (20, 2))
    things = [[Thing(shape, x, y, RADII["small"], (1.0, 1.0, 1.0))] for x, y in places]
    black = [Background("plain", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))] * len(things)
    small = draw(black, things, 32).astype(float)
    large = draw(black, things, 512).astype(float).reshape(20, 32, 16, 32, 16, 3).mean((2, 4))
    assert np.abs(small - large).max() < 16
    assert np.abs(small - large).mean() < 0.15
    assert ((small > 20) & (small < 235)).any((1, 2, 3)).all()


def test_shapes_differ_by_many_pixels_even_small() -> None:
    black = [Background("plain", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))] * len(SHAPES)
    drawn = draw(black, [[Thing(s, 0.5, 0.5, RADII["small"], (1.0, 1.0, 1.0))] for s in SHAPES], 32) / 255.0
    for i in range(len(SHAPES)):
        for k in range(i):
            assert np.abs(drawn[i] - drawn[k]).mean(-1).sum() > 12, (SHAPES[i], SHAPES[k])


def test_any_two_shapes_differ_in_three_tenths_of_their_square() -> None:
    steps = (np.arange(400, dtype=np.float32) + 0.5) / 200 - 1
    inside = {name: distance(*np.meshgrid(steps, steps)) < 0 for name, distance in DISTANCES.items()}
    for one, other in itertools.combinations(inside, 2):
        assert (inside[one] ^ inside[other]).mean() > 0.3, (one, other)
