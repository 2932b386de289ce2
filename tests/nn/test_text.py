"""CLIPTextModel: the same network as transformers', causality, pooling at the first end of text, refusals."""

from typing import Any

import pytest
import torch

from darkroom.config.networks import TextSpec
from darkroom.core.errors import DarkroomError
from darkroom.interop.configs import text_config
from tests.support.measures import Difference, Epsilons, Randomise
from tests.support.networks import built, text, tokens

TINY = text(40, inner=24, layers=2, length=10, special=tokens(0, 1))
CONFIGS = [
    TINY,
    text(50, 30, 20, 1, 5, 7, "gelu", tokens(48, 49, 3)),
    text(60, 32, 128, 3, 1, 77),
    text(49, 21, 17, 4, 3, 5, special=tokens(0, 48)),
    text(50, 2, 1, 2, 2, 4, "gelu", tokens(49, 48, 0)),
]


def token_ids(config: TextSpec, rows: int = 4) -> Any:
    length = config.network.max_length
    ids = torch.randint(3, min(config.network.vocab_size, 48), (rows, length))
    for row, end in enumerate(torch.randint(1, length, (rows,)).tolist()):
        ids[row, end], ids[row, end + 1 :] = config.sizes.eos_token_id, config.sizes.pad_token_id
    return ids


@pytest.mark.parametrize("config", CONFIGS)
def test_is_transformers_text_encoder(
    transformers: Any,
    randomise: Randomise,
    relative_difference: Difference,
    config: TextSpec,
) -> None:
    ours = built(config)
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text_config(config))).eval()
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ids = token_ids(config)
    with torch.no_grad():
        found, expected = ours(ids), theirs(ids)
    assert relative_difference(found.last_hidden_state, expected.last_hidden_state) <= 1e-5
    assert relative_difference(found.pooled, expected.pooler_output) <= 1e-5


@pytest.mark.parametrize("config", CONFIGS)
def test_takes_transformers_weights(transformers: Any, epsilons: Epsilons, config: TextSpec) -> None:
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text_config(config)))
    ours = built(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert epsilons(ours) == epsilons(theirs)


def test_a_token_sees_only_those_before_it() -> None:
    encoder = built(TINY)
    ids = torch.tensor([[0, 5, 6, 7, 1]])
    other = torch.tensor([[0, 5, 6, 9, 1]])
    a, b = encoder(ids).last_hidden_state, encoder(other).last_hidden_state
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3:], b[:, 3:])


def test_pools_at_the_first_end_of_text_whatever_follows() -> None:
    encoder = built(TINY)
    padded = encoder(torch.tensor([[0, 5, 6, 1, 1, 1, 1], [0, 39, 1, 1, 1, 1, 1]]))
    assert torch.equal(padded.pooled, padded.last_hidden_state[[0, 1], [3, 2]])
    torch.testing.assert_close(padded.pooled[:1], encoder(torch.tensor([[0, 5, 6, 1]])).pooled)


def test_every_weight_learns() -> None:
    encoder = built(TINY)
    out = encoder(token_ids(TINY))
    (out.last_hidden_state * torch.randn(16)).mean().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"num_attention_heads": 3}}, "hidden_size = 16 is not divisible by num_attention_heads = 3"),
        ({"network": {"hidden_act": "relu"}}, "hidden_act = 'relu': give quick_gelu or gelu"),
        ({"sizes": {"eos_token_id": 2}}, "eos_token_id = 2 makes transformers pool at the largest token id"),
        ({"sizes": {"eos_token_id": 40}}, "eos_token_id = 40 is not below network.vocab_size = 40"),
    ],
)
def test_bad_configs_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DarkroomError, match=message) as caught:
        TextSpec.read({key: value | change.get(key, {}) for key, value in TINY.model_dump().items()}, "file", "fix it")
    assert "\n" not in str(caught.value)


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(DarkroomError, match="11 tokens exceed max_length = 10"):
        built(TINY)(torch.ones(1, 11, dtype=torch.int64))
