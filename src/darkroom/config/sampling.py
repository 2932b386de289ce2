"""How samples are drawn: by which sampler, in how many steps, at which times, with how much guidance."""

import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from darkroom.config.base import Count, Probability, Section, Whole
from darkroom.config.kinds import KIND, Kinds
from darkroom.core.errors import DarkroomError

Spacing = Literal["leading", "linspace", "trailing"]
CONTINUOUS_SPACINGS: tuple[Spacing, ...] = ("linspace", "trailing")  # that need no discrete times
InitialScale = Literal["one", "sigma"]


class SamplerOptions(Section):
    """The options of one sampler, and its facts; diffusion/samplers/ holds a file for each."""

    kind: str
    """The sampler's name, which is that of its file."""

    needs_noise_prediction: ClassVar[bool] = False
    """Whether it is defined on a predicted noise alone, so that it starts where alpha > 0."""
    needs_both_ends: ClassVar[bool] = False
    """Whether it goes from the last time to the first: linspace spacing with two steps or more."""
    takes_karras: ClassVar[bool] = True
    """Whether its steps may be uneven in time, as Karras' spacing makes them."""


SAMPLERS: Kinds[SamplerOptions] = Kinds.discovered("sampler", "darkroom.diffusion.samplers")


class Sampling(Section):
    """How samples are drawn. params.yaml states the keys without a default; the others are conventions in which
    libraries differ, at the values that are ours."""

    sampler: Annotated[SamplerOptions, SAMPLERS]
    """The update rule, by its kind, with its own options."""
    num_inference_steps: Count
    """Steps from noise to the clean picture."""
    guidance_scale: Annotated[float, Field(ge=0, le=100)]
    """How hard the condition is pressed (Ho & Salimans 2022); 1 is the conditional model itself, at half the work."""
    spacing: Spacing
    """Where the steps' times lie (Lin et al. 2024, table 2)."""
    steps_offset: Whole = 0
    """The last time of leading spacing."""
    omit_last: bool = False
    """For leading and linspace, lay out one time more and leave out the last, as diffusers' DPM solvers do."""
    set_alpha_to_one: bool = True
    """End at the clean picture; false: at the first training time, which is nearly clean."""
    karras: bool = False
    """Between the first and the last time, space sigma / alpha by eq. 5 of Karras et al. 2022."""
    initial_scale: InitialScale = "one"
    """Begin with noise of spread one (times the process', which is 1 but for variance-exploding ones), or of the first
    level's sigma, as diffusers' Euler and Heun do for trailing and linspace."""
    guidance_rescale: Probability = 0.0
    """How far the guided output is brought back to the spread of the conditional one (Lin et al. 2024, eq. 14-16)."""

    @classmethod
    def conventions(cls) -> set[str]:
        """The fields that have a default."""
        return {name for name, field in cls.model_fields.items() if not field.is_required()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        sampler = self.sampler
        if sampler.needs_both_ends and (self.spacing != "linspace" or self.omit_last):
            raise ValueError(
                f"spacing = {self.spacing!r} does not go with sampler.kind = {sampler.kind!r}, which goes from the "
                "last time to the first; use linspace, without omit_last"
            )
        if sampler.needs_both_ends and self.num_inference_steps < 2:
            raise ValueError(f"num_inference_steps = 1 does not go with sampler.kind = {sampler.kind!r}; use 2 or more")
        if self.karras and not sampler.takes_karras:
            raise ValueError(
                f"karras = True does not go with sampler.kind = {sampler.kind!r}, whose steps are even in time; choose "
                "another sampler"
            )
        return self

    def changed(self, **values: Any) -> "Sampling":
        """The same with other values.

        Args:
            values: a sampler as itself, as {"kind": …, its options}, or in words, see `sampler_in_words`; the name of
                the present one changes nothing.

        Raises:
            DarkroomError: a value that is not allowed; names key, value and what is.
        """
        if isinstance(words := values.get("sampler"), str):
            values["sampler"] = self.sampler if words == self.sampler.kind else sampler_in_words(words)
        present = {name: getattr(self, name) for name in self.model_fields_set}
        other: Sampling = checked(Sampling, {**present, **values})
        return other


def sampler_named(name: str, **options: Any) -> Any:
    """The sampler of that name, with its documented defaults but for the options given.

    Raises:
        DarkroomError: there is no such sampler, or it does not take an option; names what there is.
    """
    if name not in SAMPLERS.classes:
        raise DarkroomError(f"sampler = {name!r}: unknown; choose from {', '.join(SAMPLERS.classes)}")
    return checked(SAMPLERS.of(name), {KIND: name, **options}, f"sampler {name}: ")


def sampler_in_words(words: str) -> Any:
    """A sampler as a command line has it: NAME, or NAME,KEY=VALUE,…

    Raises:
        DarkroomError: see `sampler_named`; or an option without a value.
    """
    name, *pairs = words.split(",")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise DarkroomError(f"sampler = {words!r}: write its options as {name},KEY=VALUE")
        try:
            options[key.strip()] = json.loads(value)
        except ValueError:
            options[key.strip()] = value.strip()
    return sampler_named(name.strip(), **options)


def checked(kind: Any, values: dict[str, Any], source: str = "") -> Any:
    """A section of values that did not come from a file of ours.

    Raises:
        DarkroomError: the first fault in one line: key, value, what is allowed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise DarkroomError(source + first_fault(error, kind)) from None


def first_fault(error: ValidationError, kind: type[Section]) -> str:
    """The first fault of a section in one line."""
    fault = error.errors()[0]
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "value_error":
        return f"{key}.{fault['ctx']['error']}" if key else str(fault["ctx"]["error"])
    if fault["type"] == "missing":
        return f"{key} is missing; add it"
    if fault["type"] == "extra_forbidden":
        return f"{key} = {fault['input']!r}: unknown; there are {', '.join(kind.model_fields)}"
    allowed = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{key} = {fault['input']!r}: {allowed.replace('input should be', 'give')}"
