"""Text to image, Darkroom against diffusers: the same folder, steps, guidance and precision, in turns.

    python benchmarks/inference.py                the default model at batch 1 and 16, and a random one of SD 1.x's size
    python benchmarks/inference.py --skip-large   without the latter, which takes some 12 GiB and minutes

Prints the table that benchmarks/README.md shows, and at Stable Diffusion 1.x's size the peak memory of a 512² picture,
for which there are bounds: exit status 1 when one is exceeded.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from side_by_side import Measured, compare, serve

PROMPT = "a small red circle above a large blue square"
NAMES = ("darkroom", "diffusers")
SMALLER: tuple[dict[str, Any], ...] = (  # networks of the kind of Stable Diffusion's: U-Net, autoencoder, text encoder
    {"sample_size": 8, "block_out_channels": [16, 16, 32, 32], "norm_num_groups": 4, "cross_attention_dim": 32},
    {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4},
    {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32},
)
PEAK_MIB = {"fp32": 8192, "bf16": 5120}  # the bounds of a 512² picture


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    folder: Path
    batch: int
    size: int
    steps: int
    precision: str
    rounds: int


def work(library: str, case: Case) -> None:
    """In the worker: load the model and draw on demand."""
    import torch

    prompts, seeds = [PROMPT] * case.batch, list(range(case.batch))
    if library == "darkroom":
        from darkroom import Pipeline

        ours = Pipeline.from_pretrained(case.folder, device="cpu", precision=case.precision)  # type: ignore[arg-type]
        size = {"height": case.size, "width": case.size}
        how = {"num_inference_steps": case.steps, "guidance_scale": 5.0, "sampler": "ddim"}
        serve(lambda: ours.text_to_image(prompts, seeds=seeds, **how, **size))  # type: ignore[arg-type]
        return
    from darkroom.data.sources.torchvision_import import torchvision

    torchvision("datasets")  # before diffusers imports it: beside a CPU build of PyTorch it needs the help
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.precision]
    theirs = StableDiffusionPipeline.from_pretrained(case.folder, torch_dtype=dtype, safety_checker=None)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)

    def draw() -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        size = {"height": case.size, "width": case.size}
        theirs(prompts, num_inference_steps=case.steps, guidance_scale=5.0, generator=generators, **size)

    serve(draw)


def random_sd(folder: Path, device: str = "cpu", smaller: bool = False) -> Path:
    """A diffusers folder of a model of Stable Diffusion 1.x's size with random weights.

    Args:
        device: where the weights are drawn. smaller: of its kind, but with next to no weights, for 64 x 64 pictures.
    """
    import torch

    from darkroom.core.rng import seeded
    from darkroom.data.tokenizer import CLIPTokenizer
    from darkroom.interop.configs import text_spec, unet_spec, vae_spec
    from darkroom.interop.diffusers import write_folder
    from darkroom.interop.single_file import in_memory
    from darkroom.interop.tokenizer import CONTEXT
    from darkroom.nn.autoencoder.vae import AutoencoderKL
    from darkroom.nn.denoiser.unet import UNet2DConditionModel
    from darkroom.nn.text.clip import CLIPTextModel

    words = CLIPTokenizer.train([PROMPT], 1024, CONTEXT)
    of_unet, of_vae, of_text = SMALLER if smaller else ({}, {}, {})
    unet, vae = unet_spec(of_unet, folder), vae_spec(of_vae, folder)
    text = text_spec({**words.sizes.model_dump(), **of_text}, folder)
    with seeded(0, "random"), torch.device(device):
        networks = (
            UNet2DConditionModel(unet.network, unet.sizes),
            AutoencoderKL(vae.network, vae.sizes),
            CLIPTextModel(text.network, text.sizes),
        )
    write_folder(in_memory(*networks, words), folder / "random-sd")
    return folder / "random-sd"


def measure(case: Case, names: Sequence[str] = NAMES) -> dict[str, Measured]:
    """The libraries on one case."""
    given = [str(case.folder), str(case.batch), str(case.size), str(case.steps), case.precision]
    commands = {name: [sys.executable, __file__, "--worker", name, *given] for name in names}
    return compare(commands, case.rounds)


def report(case: Case, found: dict[str, Measured]) -> None:
    """A row of the table."""
    ours, theirs = (found[name] for name in NAMES)
    print(
        f"| {case.name} | {case.batch} | {case.precision} | {case.batch / ours.seconds:.3g} | "
        f"{case.batch / theirs.seconds:.3g} | {theirs.seconds / ours.seconds:.2f} | {ours.peak_mib:.0f} | "
        f"{theirs.peak_mib:.0f} |",
        flush=True,
    )


def main() -> int:
    """Measure all cases; the number of bounds exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, default=Path("artifacts/pipeline"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        library, folder, batch, size, steps, precision = given.worker
        work(library, Case("", Path(folder), int(batch), int(size), int(steps), precision, 0))
        return 0
    print("| model | batch | precision | images/s | diffusers | ratio | peak MiB | diffusers |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for batch in given.batches:
        for precision in ("fp32", "bf16"):
            case = Case("default, 32²", given.pipeline, batch, 32, given.steps, precision, given.rounds)
            report(case, measure(case))
    if given.skip_large:
        return 0
    exceeded = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_sd(Path(scratch))
        for precision in ("fp32", "bf16"):
            case = Case("SD 1.x size, 256²", folder, 1, 256, 4, precision, 3)
            report(case, measure(case))
        for precision, bound in PEAK_MIB.items():
            found = measure(Case("", folder, 1, 512, 1, precision, 1), ["darkroom"])["darkroom"]
            print(f"512², {precision}: peak {found.peak_mib:.0f} MiB, at most {bound} wanted", flush=True)
            exceeded += found.peak_mib > bound
    return exceeded


if __name__ == "__main__":
    sys.exit(min(main(), 1))
