"""Components of which there are several kinds: `kind:` names one, and its class says which other keys it has."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from darkroom.config.base import Section

KIND = "kind"
S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Kinds(Generic[S]):
    """The kinds of one component; as the annotation of a field, that field takes any of them.

    Classes are imported when their kind is asked for: a params file loads no code but what it names, and a new kind is
    its file and one entry here (none, in a package of kinds; see `discovered`). Where all classes stand in one file
    without torch, a union with Field(discriminator=KIND) does instead (see `training`).

    Args:
        what: the component in words, such as "sampler".
        classes: {kind: "module:Class"}, where the class is a `Section` with the field `kind: Literal[kind]`.
    """

    what: str
    classes: Mapping[str, str]

    @classmethod
    def discovered(cls, what: str, package: str) -> "Kinds[S]":
        """The kinds of a package: each of its modules that begins with no underscore is one, named as the module is.

        The module's class is the one whose `kind` is the module's name.
        """
        path = importlib.import_module(package).__path__
        names = sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))
        return cls(what, {name: f"{package}.{name}:" for name in names})

    def of(self, kind: str) -> type[S]:
        """The class of a kind.

        Raises:
            KeyError: there is no such kind.
        """
        module_name, _, name = self.classes[kind].partition(":")
        module = importlib.import_module(module_name)
        if name:
            found: type[S] = getattr(module, name)
            return found
        return next(
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Section) and kind_of(value) == kind
        )  # type: ignore[return-value]

    def read(self, values: Any) -> S:
        """The component that values describe: {"kind": …, all its keys}, or one that is made already.

        A class's defaults serve only `sampling.sampler_named`; a file must state every key.

        Raises:
            ValidationError: what is wrong with a key, placed below this component.
            PydanticCustomError: union_tag_not_found or union_tag_invalid, as pydantic says of its own unions.
        """
        if isinstance(values, Section):
            values = values.model_dump()
        kind = values.get(KIND) if isinstance(values, dict) else None
        names = ", ".join(repr(name) for name in self.classes)
        context = {"discriminator": repr(KIND), "tag": str(kind), "expected_tags": names}
        if kind is None:
            raise PydanticCustomError("union_tag_not_found", "{discriminator} is missing", context)
        if not isinstance(kind, str) or kind not in self.classes:
            raise PydanticCustomError("union_tag_invalid", "{tag} is none of {expected_tags}", context)
        component = self.of(kind)
        missing = [
            InitErrorDetails(type="missing", loc=(name,), input=values)
            for name, field in component.model_fields.items()
            if name not in values and not field.is_required()
        ]
        if missing:
            raise ValidationError.from_exception_data(component.__name__, missing)
        return component.model_validate(values)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.model_dump()),
        )


def kind_of(component: type[Section] | Section) -> str | None:
    """The kind of a component's class; None for a section that is none of several kinds."""
    fields = (component if isinstance(component, type) else type(component)).model_fields
    choices: tuple[str, ...] = getattr(fields[KIND].annotation, "__args__", ()) if KIND in fields else ()
    return choices[0] if len(choices) == 1 else None
