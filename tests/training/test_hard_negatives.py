"""Hard negatives: nearest captions, never the same one; batches of groups, a pure function of seed and step."""

import torch

from darkroom.config.text_encoder import HardNegativesConfig
from darkroom.training.hard_negatives import HardNegatives, nearest
from tests.support.noting import noted

CONFIG = HardNegativesConfig(start_step=10, every=5, group_size=4, neighbours=6)


def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    """60 pictures of 30 captions; the embeddings of captions 10 k to 10 k + 9 lie in direction k."""
    rows = torch.arange(60) % 30
    directions = torch.eye(3).repeat_interleave(10, dim=0)
    return rows, directions + 0.05 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


def test_the_nearest_are_alike_and_of_another_caption() -> None:
    rows, embeddings = clusters()
    found = nearest(7 * embeddings[rows], rows, 6)  # cosine: lengths do not count
    assert found.shape == (60, 6)
    assert (rows[found] != rows[:, None]).all()
    assert (rows[found] // 10 == rows[:, None] // 10).all()


def test_few_pictures_give_few_neighbours() -> None:
    assert nearest(torch.eye(3), torch.arange(3), 10).shape == (3, 3)


def test_batches_are_groups_around_pictures_that_change() -> None:
    rows, embeddings = clusters()
    hard = HardNegatives(CONFIG.model_copy(update={"every": 100}), rows, embeddings.__getitem__, batch_size=16, seed=0)
    hard.search(10)
    batches = [hard.batch(step) for step in range(10, 40)]
    assert all(batch.shape == (16,) for batch in batches)
    for group in torch.cat(batches).view(-1, 4):
        assert len(set(rows[group].tolist())) > 1
        assert len(set((rows[group] // 10).tolist())) == 1
    assert {int(batch[0]) for batch in batches} != {int(batches[0][0])}
    anchors = torch.cat(batches).view(-1, 4)[:, 0]
    assert len(anchors.unique()) == 60  # every picture has its turn


def test_batches_depend_on_seed_and_step_alone() -> None:
    rows, embeddings = clusters()
    one, two, other = (HardNegatives(CONFIG, rows, embeddings.__getitem__, 16, seed) for seed in (0, 0, 1))
    for hard in (one, two, other):
        hard.search(10)
    two.batch(10)
    assert one.batch(11).equal(two.batch(11))
    assert not one.batch(11).equal(other.batch(11))


def test_the_search_is_due_at_its_start_and_every_so_many_steps() -> None:
    rows, embeddings = clusters()
    hard = HardNegatives(CONFIG, rows, embeddings.__getitem__, 16, 0)
    assert [step for step in range(25) if hard.due(step)] == [10, 15, 20]


def test_it_searches_once_where_a_batch_needs_it() -> None:
    rows, embeddings = clusters()
    asked: list[int] = []
    hard = HardNegatives(CONFIG, rows, lambda captions: noted(asked, step, embeddings[captions]), 16, 0)
    for step in range(10, 21):
        assert hard.batch(step).equal(hard.batch(step))
    assert asked == [10, 15, 20]
