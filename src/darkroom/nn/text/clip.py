"""The text encoder of CLIP (Radford et al. 2021, arXiv:2103.00020), transformers' `CLIPTextModel`."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.networks import CLIPTextConfig, TokenSizes
from darkroom.core.errors import DarkroomError
from darkroom.nn.layers.attention import attend


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU (Hendrycks & Gimpel 2016), with which OpenAI's CLIP was trained."""
    return x * torch.sigmoid(1.702 * x)


NORM_EPS = 1e-5  # of every layer norm
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class TextOutput(NamedTuple):
    """last_hidden_state (N, L, hidden_size) after the final norm; pooled (N, hidden_size), its row at the first EOS."""

    last_hidden_state: Tensor
    pooled: Tensor


class _Embeddings(nn.Module):
    def __init__(self, c: CLIPTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position_embedding = nn.Embedding(c.max_length, c.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        # fmt: off
        tokens = self.token_embedding(input_ids)                              # (N, L, D), D: hidden_size
        positions = self.position_embedding.weight[: input_ids.shape[1]]      # (L, D)
        out: Tensor = tokens + positions                                      # (N, L, D)
        return out
        # fmt: on


class _SelfAttention(nn.Module):
    def __init__(self, c: CLIPTextConfig) -> None:
        super().__init__()
        self.heads = c.num_attention_heads
        self.q_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.k_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.v_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.out_proj = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        # fmt: off
        projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))          # each (N, L, D)
        split = (p.reshape(*p.shape[:2], self.heads, -1) for p in projected)  # each (N, L, heads, D / heads)
        q, k, v = (p.transpose(1, 2) for p in split)                          # each (N, heads, L, D / heads)
        out: Tensor = self.out_proj(attend(q, (k, v), causal=True))           # (N, L, D)
        return out
        # fmt: on


class _MLP(nn.Module):
    def __init__(self, c: CLIPTextConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[c.hidden_act]
        self.fc1 = nn.Linear(c.hidden_size, c.intermediate_size)
        self.fc2 = nn.Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        # fmt: off
        hidden = self.activation(self.fc1(x))                                 # (N, L, intermediate_size)
        out: Tensor = self.fc2(hidden)                                        # (N, L, D)
        return out
        # fmt: on


class _EncoderLayer(nn.Module):
    def __init__(self, c: CLIPTextConfig) -> None:
        super().__init__()
        self.self_attn = _SelfAttention(c)
        self.layer_norm1 = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.mlp = _MLP(c)
        self.layer_norm2 = nn.LayerNorm(c.hidden_size, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        # fmt: off
        x = x + self.self_attn(self.layer_norm1(x))                           # (N, L, D)
        out: Tensor = x + self.mlp(self.layer_norm2(x))                       # (N, L, D)
        return out
        # fmt: on


class _Encoder(nn.Module):
    def __init__(self, c: CLIPTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(c) for _ in range(c.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class CLIPTextModel(nn.Module):
    """Token ids to one vector per token, each seeing the tokens before it, and one vector for the whole text."""

    def __init__(self, config: CLIPTextConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, NORM_EPS)
        self._init_weights()

    def _init_weights(self) -> None:
        """CLIP's for the projections: by width, and by depth where they end a residual branch; larger for embeddings.

        With CLIP's .02 and .01 the layers' own output drowns which word stands where until long training has raised it.
        What the U-Net attends to are these states, trained here in a minute: .5 and .1 keep the words readable in them
        (a linear probe for the shape of the second object rose from .35 to .57).
        """
        c = self.config
        width = c.hidden_size**-0.5
        branch_end = width * (2 * c.num_hidden_layers) ** -0.5
        nn.init.normal_(self.embeddings.token_embedding.weight, std=0.5)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.1)
        for module in self.modules():
            if isinstance(module, _SelfAttention):
                for layer in (module.q_proj, module.k_proj, module.v_proj):
                    nn.init.normal_(layer.weight, std=width)
                nn.init.normal_(module.out_proj.weight, std=branch_end)
            elif isinstance(module, _MLP):
                nn.init.normal_(module.fc1.weight, std=(2 * c.hidden_size) ** -0.5)
                nn.init.normal_(module.fc2.weight, std=branch_end)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor) -> TextOutput:
        """Encode token ids (N, L) int64, L up to max_length, each row with an eos_token_id in it.

        Raises:
            DarkroomError: the rows are longer than max_length.
        """
        n, length = input_ids.shape
        if length > self.config.max_length:
            raise DarkroomError(f"{length} tokens exceed max_length = {self.config.max_length}; truncate the text")
        # fmt: off
        x = self.encoder(self.embeddings(input_ids))                          # (N, L, D), D: hidden_size
        hidden = self.final_layer_norm(x)                                     # (N, L, D)
        end = (input_ids == self.sizes.eos_token_id).int().argmax(dim=1)      # (N,), the first: padding may repeat it
        pooled = hidden[torch.arange(n, device=hidden.device), end]           # (N, D)
        return TextOutput(hidden, pooled)
        # fmt: on
