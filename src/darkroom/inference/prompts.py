"""Prompts in the form the U-Net was trained on: text embeddings, class ids, or nothing; and the one null condition."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.diffusion.denoiser import Condition, Conditions
from darkroom.inference.text_encoder import TextEncoder
from darkroom.inference.words import same_name

log = logging.getLogger("darkroom")


class Prompts(Protocol):
    """The prompts of one call, ready to condition any of its batches."""

    def conditions(self, rows: slice) -> Conditions:
        """Those of the prompts in `rows`."""
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
        encoder: TextEncoder,
        null: str,
    ) -> None:
        texts = list(dict.fromkeys([*prompts, *(negatives or ())]))
        for text in texts:
            if dropped := encoder.cut(text):
                log.warning("prompt cut after %d tokens; not seen: %r", encoder.max_length, dropped)
        row = {text: i for i, text in enumerate(texts, 1)}
        self.rows = torch.tensor([row[text] for text in prompts])
        self.null_rows = torch.tensor([row[text] for text in negatives]) if negatives else torch.zeros_like(self.rows)
        self.encoded = encoder.encode(["", *texts])  # the null condition, then M texts
        if null != "empty_prompt":
            tokens = torch.cat([torch.zeros_like(self.encoded.tokens[:1]), self.encoded.tokens[1:]])
            self.encoded = self.encoded._replace(tokens=tokens)

    def conditions(self, rows: slice) -> Conditions:
        """Both share one table of the batch's distinct prompts, so that each is prepared once."""
        n, device = len(self.rows[rows]), self.encoded.tokens.device
        used, which = torch.unique(torch.cat([self.rows[rows], self.null_rows[rows]]), return_inverse=True)
        used, which = used.to(device), which.to(device)
        table = Condition(*(None if part is None else part[used] for part in self.encoded))
        return Conditions(replace(table, rows=which[:n]), replace(table, rows=which[n:]))


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

    def conditions(self, rows: slice) -> Conditions:
        """Ids; the embedding is the U-Net's."""
        return Conditions(Condition(class_ids=self.ids[rows]), Condition(class_ids=self.nulls[rows]))


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

    def conditions(self, rows: slice) -> Conditions:
        """Nothing, twice."""
        return Conditions(Condition(), Condition())
