"""A model of another tool, whatever it lies in."""

from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.interop.diffusers import read_folder
from darkroom.interop.model import Model
from darkroom.interop.single_file import read_single_file


def read_model(path: Path, tokenizer: Path | None = None, config: Path | None = None) -> Model:
    """A diffusers folder or a Stable Diffusion 1.x single file.

    Args:
        tokenizer: its folder or file, in place of the folder's own or of what lies beside the single file.
        config: for a single file, a diffusers folder whose configurations hold for it.

    Raises:
        DarkroomError: nothing is there, it is another model, or not a whole one.
    """
    if not path.exists():
        raise DarkroomError(f"{path}: no such file or folder; give a diffusers folder, .safetensors or .ckpt")
    if not path.is_dir():
        return read_single_file(path, tokenizer, config)
    if config is not None:
        raise DarkroomError(f"config = {config}: only single files need one; {path} is a folder with its own")
    return read_folder(path, tokenizer)
