"""setup_text_encoder: where the conditions come from."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import Count, Imported, Section, Seed, check_multiple_of
from darkroom.config.networks import ConvTowerConfig, TrainedTextConfig
from darkroom.config.training import Training

NullCondition = Literal["empty_prompt", "zeros"]


class HardNegativesConfig(Section):
    """Batches of easily confused captions (after Yuksekgonul et al. 2023, arXiv:2210.01936)."""

    start_step: Count
    """Step from which batches are made of groups: a picture, and others of similar captions."""

    every: Count
    """Steps after which similar captions are sought anew."""

    group_size: Annotated[int, Field(ge=2, le=1024)]
    """Pictures of a group; batch_size is a multiple of it."""

    neighbours: Annotated[int, Field(ge=1, le=1024)]
    """How many of the most similar captions the others are drawn from; at least group_size - 1."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.group_size > self.neighbours + 1:
            raise ValueError(
                f"group_size = {self.group_size} needs neighbours >= {self.group_size - 1}, not {self.neighbours}; "
                "lower it, or raise neighbours"
            )
        return self


class CaptionDropout(Section):
    """Captions without some of their tags or sentences, so that a model obeys each of them, and short prompts too."""

    unit: Literal["tags", "sentences"]
    """What is left out: tags stand between commas, sentences end with . ! or ? and a space."""

    probability: Annotated[float, Field(gt=0, lt=1)]
    """Of each of them to be left out of a variant; one always stays."""

    keep_first: Annotated[int, Field(ge=0, le=100)]
    """How many, from the first on, are never left out."""

    seed: Seed
    """Of what is left out."""

    variants: Annotated[int, Field(ge=1, le=64)]
    """Variants of each training caption, drawn once and cached like captions; every step draws one of them. The cache
    grows as many times."""


class TrainedTextEncoder(Training):
    """CLIP's text encoder, trained with an image tower to tell captions apart by their pictures."""

    kind: Literal["clip"]
    """Trained here, on the captions of the training pictures."""

    null_condition: NullCondition
    """What the U-Net is given where nothing is asked, for guidance: the empty prompt's embedding, or zeros."""

    cache: Literal["states", "tokens"]
    """What is kept of each caption for the U-Net's training: the text encoder's states, which take captions x tokens x
    width x 2 bytes, or its token ids, 4 bytes each, of which the training makes the states again at every step."""

    caption_dropout: CaptionDropout | None
    """Of what the U-Net is trained with; the text encoder itself and held-out captions stay whole. null: none."""

    text: TrainedTextConfig
    """Shape of the text encoder."""

    image: ConvTowerConfig
    """Shape of the image tower, which training alone needs."""

    hard_negatives: HardNegativesConfig | None
    """null: batches are drawn at random to the end."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hard_negatives is not None:
            check_multiple_of(
                "batch_size", self.batch_size, self.hard_negatives.group_size, "hard_negatives.group_size"
            )
        return self


class PretrainedTextEncoder(Imported):
    """An imported text encoder with its tokenizer, used as they are."""

    null_condition: NullCondition
    """What the U-Net is given where nothing is asked, for guidance: the empty prompt's embedding, or zeros."""

    cache: Literal["states", "tokens"]
    """What is kept of each caption for the U-Net's training: the text encoder's states, which take captions x tokens x
    width x 2 bytes, or its token ids, 4 bytes each, of which the training makes the states again at every step."""

    caption_dropout: CaptionDropout | None
    """Of what the U-Net is trained with; the text encoder itself and held-out captions stay whole. null: none."""


class ClassCondition(Section):
    """Pictures are asked for by their class; the source must bring classes."""

    kind: Literal["class"]
    """One embedding for each class, which the U-Net learns."""


class NoCondition(Section):
    """Nothing is asked."""

    kind: Literal["none"]
    """Pictures are drawn as they come."""


SetupTextEncoder = Annotated[
    TrainedTextEncoder | PretrainedTextEncoder | ClassCondition | NoCondition, Field(discriminator="kind")
]
