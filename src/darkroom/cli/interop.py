"""The commands that exchange models with other tools: import, export."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from darkroom.config.paths import PIPELINE
from darkroom.core.errors import DarkroomError
from darkroom.core.text import plural, printable_text

if TYPE_CHECKING:
    from darkroom.interop.model import Model

Tokenizer = Annotated[
    Path | None,
    typer.Option(help="Folder of vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz. [default: beside SOURCE]"),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="Diffusers folder whose configurations hold for a single file. [default: Stable Diffusion 1.x's]"
    ),
]


def import_model(
    source: Annotated[Path, typer.Argument(help="A .safetensors or .ckpt file, or a diffusers folder.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="Folder to write, such as artifacts/imported/sd15.")
    ],
    tokenizer: Tokenizer = None,
    config: Config = None,
) -> None:
    """Import a Stable Diffusion 1.x model: every key used once, every shape checked, fp32.

        DEST is a pipeline like artifacts/pipeline. Its networks are what params.yaml can start from: DEST/vae as
    train_vae.path, DEST/text_encoder as setup_text_encoder.path, DEST/unet as
        train_unet.init_from.

    \b
    darkroom import v1-5-pruned.safetensors artifacts/imported/sd15 --tokenizer clip-vit-large-patch14
    darkroom import stable-diffusion-v1-5/ artifacts/imported/sd15
    """
    from darkroom.core.artifact import content_hash
    from darkroom.inference.folder import write_imported
    from darkroom.interop.source import read_model

    _check_destination(destination, source, tokenizer, config)
    model = read_model(source, tokenizer, config)
    write_imported(model, source, destination)
    if model.aside:
        print(printable_text(f"{source}: not read: {', '.join(model.aside)}"))
    print(printable_text(f"{destination}: {_described(model)}, {content_hash(destination)}"))


def export_model(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Folder or .safetensors file to write.")],
    format: Annotated[
        Literal["diffusers", "single-file"], typer.Option(help="A diffusers folder, or the one file of SD 1.x.")
    ] = "diffusers",
    dtype: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Of the weights.")] = "fp32",
    pipeline: Annotated[Path, typer.Option(help="Folder of the pipeline to export.")] = PIPELINE,
) -> None:
    """Write a pipeline for other tools: a diffusers folder, or a single file with the names of Stable Diffusion 1.x.

    \b
    darkroom export my-model
    darkroom export my-model.safetensors --format single-file --dtype fp16
    """
    from darkroom.core.artifact import atomic_path
    from darkroom.inference.folder import PipelineInfo, carry_words, check_exportable
    from darkroom.interop.diffusers import write_folder
    from darkroom.interop.single_file import unsaid, write_single_file
    from darkroom.interop.source import read_model

    if (destination.suffix == ".safetensors") != (format == "single-file"):
        raise DarkroomError(
            f"{destination}: --format {format} writes "
            + (
                "a file; give a name that ends in .safetensors"
                if format == "single-file"
                else "a folder; give its name"
            )
        )
    _check_destination(destination, pipeline, file=format == "single-file")
    if not pipeline.exists():
        PipelineInfo.read(pipeline)  # says what to do
    check_exportable(pipeline)
    model = read_model(pipeline)
    with atomic_path(destination) as beside:
        if format == "diffusers":
            write_folder(model, beside, dtype)
            carry_words(pipeline, beside)
        else:
            write_single_file(model, beside, dtype)
    print(printable_text(f"{destination}: {_described(model)}, {dtype}"))
    if format == "single-file" and (silent := unsaid(model)):
        said = f"cannot hold {', '.join(silent)}; readers need --config FOLDER, one that export wrote"
        print(printable_text(f"{destination}: {said}"))


def merge_adapters(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to write.")],
    lora: Annotated[
        list[str],
        typer.Option(
            help="Adapter, by its file or folder, and how strongly it acts (1); may be given again.",
            metavar="FILE[:STRENGTH]",
            show_default=False,
        ),
    ],
    pipeline: Annotated[Path, typer.Option(help="Folder of the pipeline that they are added to.")] = PIPELINE,
) -> None:
    """Write a pipeline with adapters added to its weights: it draws as --lora does, and needs their files no more.

    \b
    darkroom merge artifacts/with-brown --lora artifacts/unet:0.8
    """
    from darkroom.inference.adapters import merge
    from darkroom.interop.lora import LoRA

    _check_destination(destination, pipeline)
    for adapter in merge(pipeline, destination, [LoRA.parse(text) for text in lora]):
        print(printable_text(f"{adapter.path}: {plural(len(adapter.factors), 'layer')}, strength {adapter.strength:g}"))
    print(printable_text(str(destination)))


def _described(model: "Model") -> str:
    numbers = [sum(math.prod(shape) for shape in part.shapes.values()) for part in model.weights]
    names = ("U-Net", "autoencoder", "text encoder")
    return ", ".join(f"{name} {number / 1e6:.1f} M" for name, number in zip(names, numbers, strict=True))


def _check_destination(destination: Path, *sources: Path | None, file: bool = False) -> None:
    """Refuse a destination where something would be lost: one of the sources, or a folder that is not a model.

    file: whether a file will be written, not a folder.
    """
    from darkroom.core.artifact import PIPELINE as DESCRIPTION
    from darkroom.core.system_files import left_by_system
    from darkroom.interop.contents import INDEX

    if destination.name in ("", ".."):
        raise DarkroomError(f"{destination}: would be replaced as a whole; name a folder in it")
    there = destination.resolve()
    for source in filter(None, sources):
        here = source.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise DarkroomError(f"{destination}: overlaps {source}, which it would overwrite; give another path")
    if not destination.exists():
        return
    if destination.is_dir() == file:
        raise DarkroomError(f"{destination}: is a {'folder' if file else 'file'}; give another name")
    model = any((destination / name).is_file() for name in (INDEX, DESCRIPTION))
    if not (file or model) and any(not left_by_system([inside.name]) for inside in destination.iterdir()):
        raise DarkroomError(
            f"{destination}: is a folder of other files (no {INDEX}, no {DESCRIPTION}), which would be lost; "
            "give another path, or empty it"
        )
