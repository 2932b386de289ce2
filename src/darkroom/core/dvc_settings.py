"""DVC's settings, as far as others need to know them: where its cache is, and whether it has a remote."""

import configparser
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from darkroom.core.errors import DarkroomError

DVC = Path(".dvc")
DVC_APP = ("dvc", "iterative")  # by which DVC has its folders named
REMOTE = re.compile(r"""\s*['"]?remote\s""")  # a section of DVC's settings: ['remote "NAME"']


def cache_root() -> Path:
    """DVC's cache, as `dvc cache dir` tells it for this project."""
    found = DVC / "cache"
    for folder, config in _configs():
        if chosen := config.get("cache", "dir", fallback=""):
            found = folder / Path(chosen.strip("'\"")).expanduser()  # an absolute one stands for itself
    return found


def has_remote() -> bool:
    """Whether DVC has somewhere to fetch from."""
    return any(REMOTE.match(section) for _, config in _configs() for section in config.sections())


def _configs() -> Iterator[tuple[Path, configparser.ConfigParser]]:
    """DVC's settings with the folder that their paths are relative to: the machine's, the user's, the project's."""
    import platformdirs  # which comes with DVC, and stages run without that too

    usual: dict[str, Callable[[str, str], str]] = {  # unless the environment names another; later ones win
        "DVC_SYSTEM_CONFIG_DIR": platformdirs.site_config_dir,
        "DVC_GLOBAL_CONFIG_DIR": platformdirs.user_config_dir,
    }
    names = (os.environ.get(variable) or folder(*DVC_APP) for variable, folder in usual.items())
    for file in (*(Path(name) / "config" for name in names), DVC / "config", DVC / "config.local"):
        config = configparser.ConfigParser(interpolation=None)
        if file.exists() and not file.is_file():
            raise DarkroomError(f"{file}: is not a file; rm -rf {file}, and put DVC's settings back")
        try:
            config.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise DarkroomError(f"{file}: not DVC's settings ({' '.join(str(error).split())}); correct it") from None
        yield file.parent, config
