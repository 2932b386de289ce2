"""Prompts in the form the U-Net was trained on: text embeddings, class ids, or nothing; and the one null condition."""

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.denoiser import Condition
from darkroom.inference.words import same_name
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.nn.denoiser.unet import select_context
from darkroom.nn.text.clip import CLIPTextModel

EMBED_BATCH = 256
log = logging.getLogger("darkroom")


class Prompts(Protocol):
    """The prompts of one call, ready to condition any of its batches."""

    def conditions(self, unet: DenoisingNetwork, rows: slice) -> tuple[Condition, Condition]:
        """(condition, null) of the prompts in `rows`, prepared once for all steps of a batch."""
        ...


class TextPrompts:
    """Distinct prompts embedded once.

    Args:
        negatives: what guidance leads away from, one for each prompt; None: the null condition.
        null: "empty_prompt" or "zeros", as the U-Net was trained.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str] | None,
        tokenizer: CLIPTokenizer,
        encoder: CLIPTextModel,
        null: str,
        device: torch.device,
    ) -> None:
        texts = list(dict.fromkeys([*prompts, *(negatives or ())]))
        for text in texts:
            if dropped := tokenizer.cut(text):
                log.warning("prompt cut after %d tokens; not seen: %r", tokenizer.max_length, dropped)
        row = {text: i for i, text in enumerate(texts, 1)}
        self.rows = torch.tensor([row[text] for text in prompts])
        self.null_rows = torch.tensor([row[text] for text in negatives]) if negatives else torch.zeros_like(self.rows)
        ids = tokenizer(["", *texts]).to(device)
        embedded = torch.cat(
            [encoder(part).last_hidden_state for part in torch.split(ids, EMBED_BATCH)]
        )  # (1 + M, L, D)
        self.null = embedded[:1] if null == "empty_prompt" else torch.zeros_like(embedded[:1])
        self.embeddings = embedded[1:]

    def conditions(self, unet: DenoisingNetwork, rows: slice) -> tuple[Condition, Condition]:
        """Keys and values are computed for the batch's distinct prompts alone."""
        n, device = len(self.rows[rows]), self.embeddings.device
        used, which = torch.unique(torch.cat([self.rows[rows], self.null_rows[rows]]), return_inverse=True)
        prepared = unet.prepare_context(torch.cat([self.null, self.embeddings])[used.to(device)])
        which = which.to(device)
        return Condition(select_context(prepared, which[:n])), Condition(select_context(prepared, which[n:]))


class ClassPrompts:
    """Names of classes; the null condition is the id behind the last class, or negatives are classes too.

    A name is the same in NFC and NFD.

    Raises:
        DarkroomError: a prompt is not a class.
    """

    def __init__(
        self, prompts: Sequence[str], negatives: Sequence[str] | None, classes: Sequence[str], device: torch.device
    ) -> None:
        ids = {name: i for i, name in enumerate(classes)}
        normalised_ids = {same_name(name): i for name, i in ids.items()}  # folders that name classes may be in NFD

        def id_of(prompt: str) -> int:
            found = ids.get(prompt, normalised_ids.get(same_name(prompt)))
            if found is None:
                names = ", ".join(map(printable, classes))
                raise DarkroomError(f"prompt {printable(prompt)!r} is not a class of this model; its classes: {names}")
            return found

        self.ids: Tensor = torch.tensor([id_of(prompt) for prompt in prompts], device=device)
        self.nulls = torch.full_like(self.ids, len(classes))
        if negatives:
            self.nulls = torch.tensor([id_of(prompt) for prompt in negatives], device=device)

    def conditions(self, unet: DenoisingNetwork, rows: slice) -> tuple[Condition, Condition]:
        """Ids; the embedding is the U-Net's."""
        return Condition(class_ids=self.ids[rows]), Condition(class_ids=self.nulls[rows])


class NoPrompts:
    """For a model without a condition, which takes the empty prompt only.

    Raises:
        DarkroomError: a prompt says something.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        if said := next(filter(None, prompts), None):
            raise DarkroomError(
                f"prompt {printable(said)!r}: this model was trained without captions; give the empty prompt ''"
            )

    def conditions(self, unet: DenoisingNetwork, rows: slice) -> tuple[Condition, Condition]:
        """Nothing, twice."""
        return Condition(), Condition()
