"""What Darkroom brings besides its modules: recipes, the stages, the pipeline's definition, manifests.

A wheel has them in the package's folder `shipped`, where pyproject.toml puts them as it is built; an editable
installation reads them from its clone. Names are relative to the clone's folder.
"""

from pathlib import Path

import darkroom
from darkroom.core.errors import DarkroomError

SHIPPED = "shipped"
RECIPES = Path("recipes")
DEFAULT = "scenes"


def shipped(name: str) -> Path:
    """Where something of the installation lies, such as "recipes" or "dvc.yaml".

    Raises:
        DarkroomError: the installation lacks it.
    """
    package = Path(darkroom.__file__).resolve().parent
    wheel = package / SHIPPED
    path = (wheel if wheel.is_dir() else package.parents[1]) / name
    if not path.exists():
        raise DarkroomError(f"{path}: the installation lacks it; install Darkroom again")
    return path


def recipes_folder() -> Path:
    """Where recipes are read: in the current folder if it has any, as a clone does, else the installation's."""
    return RECIPES if any(RECIPES.glob("*.yaml")) else shipped(str(RECIPES))


def default_recipe() -> Path:
    """The file of the recipe that is used unless another is named."""
    return recipes_folder() / f"{DEFAULT}.yaml"
