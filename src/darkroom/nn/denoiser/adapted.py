"""A denoiser of which low-rank adapters alone are trained, and with it, if asked for, those of its text encoder."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor

from darkroom.nn.denoiser.base import Context, DenoisingNetwork
from darkroom.nn.layers.lora import adapt, adapted_layers, adapters_of, halve, is_adapter
from darkroom.nn.text.clip import CLIPTextModel

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # as diffusers' scripts have it


class AdaptedDenoiser(DenoisingNetwork):
    """`unet` with new adapters; its own weights are frozen.

    What it states and loads as its state are the adapters, under the names of PEFT: unet.….lora_A.weight. Copies share
    the frozen weights, so that an average costs no more than its adapters.

    Args:
        text: a text encoder that gets adapters too; conditions are then token ids (N, L) in place of states.
        targets: see `nn.layers.lora.adapt`.
        halved: the frozen convolutions and linear layers are kept in bfloat16, to which autocast would round them at
            every call; what runs outside of autocast then runs in bfloat16 too. Networks that were read so are not
            copied; fp32 ones are rounded here, and were in memory whole.
    """

    def __init__(
        self,
        unet: DenoisingNetwork,
        text: CLIPTextModel | None,
        targets: Sequence[str],
        rank: int,
        alpha: float,
        halved: bool,
    ) -> None:
        super().__init__(unet.config, unet.sizes)
        self.unet, self.text_encoder, self.halved = unet, text, halved
        adapt(unet, targets, rank, alpha)
        if text is not None:
            adapt(text, TEXT_TARGETS, rank, alpha)
        if halved:
            halve(self)

    def prepare_context(self, encoder_hidden_states: Tensor) -> Context:
        """See `UNet2DConditionModel`; of token ids (N, L) where the text encoder is trained too."""
        with self._in_16_bits(encoder_hidden_states):
            if self.text_encoder is not None:
                encoder_hidden_states = self.text_encoder(encoder_hidden_states.long()).last_hidden_state
            return self.unet.prepare_context(encoder_hidden_states)

    def forward(
        self, sample: Tensor, timestep: Tensor, context: Context | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """See `DenoisingNetwork`."""
        with self._in_16_bits(sample):
            out: Tensor = self.unet(sample, timestep, context, class_labels)
        return out

    def _in_16_bits(self, x: Tensor) -> AbstractContextManager[Any]:
        return torch.autocast(x.device.type, torch.bfloat16) if self.halved else nullcontext()

    @contextmanager
    def without(self) -> Iterator[None]:
        """The network as it was before its adapters, in this block."""
        layers = list(adapted_layers(self))
        strengths = [layer.strength for layer in layers]
        for layer in layers:
            layer.strength = 0.0
        try:
            yield
        finally:
            for layer, strength in zip(layers, strengths, strict=True):
                layer.strength = strength

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The adapters."""
        found = super().state_dict(*args, **kwargs)
        return {name: found[name] for name in adapters_of(found)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """The adapters, all of them and nothing else.

        Raises:
            RuntimeError: others.
        """
        if strict and state_dict.keys() != self.state_dict().keys():
            odd = sorted(state_dict.keys() ^ self.state_dict().keys())
            raise RuntimeError(f"the state is not of these adapters: {odd[0]}, and {len(odd) - 1} more")
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        for name, parameter in self.named_parameters():
            if not is_adapter(name):
                memo[id(parameter)] = parameter
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return copied
