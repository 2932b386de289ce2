"""`darkroom params upgrade`: an older params file brought to today's keys, with the values that keep its meaning.

A change of the keys adds a step here: a function that changes the plain values in place where they are of the form
before it, and does nothing otherwise. Steps run in order; a file may be of any form since the first of them.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from darkroom.config.upgrade_diffusion import upgrade_diffusion
from darkroom.core.errors import DarkroomError

Values = dict[str, Any]
Step = Callable[[Values], None]
TRAININGS = ("train_vae", "setup_text_encoder", "train_unet", "train_evaluator")
SAMPLINGS = ("train_unet", "evaluate")


def upgraded(values: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """Values in today's form, and what each step that changed something did, in words.

    Raises:
        DarkroomError: the old values do not say what the new ones must.
    """
    now, done = copy.deepcopy(dict(values)), list[str]()
    for step in STEPS:
        before = copy.deepcopy(now)
        try:
            step(now)
        except KeyError as missing:
            raise DarkroomError(f"{missing.args[0]} is missing, which no step can know; add it, as it was") from None
        if now != before:
            done.append(" ".join((step.__doc__ or step.__name__).split()))
    return now, done


def is_older(values: Mapping[str, Any]) -> bool:
    """Whether a file is of an older form than today's."""
    try:
        return bool(upgraded(values)[1])
    except DarkroomError:
        return True


def _section(values: Values, name: str) -> Values:
    """A section of the file; an empty one where there is none, which is not part of the file."""
    section: Any = values
    for part in name.split("."):
        section = section.get(part) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def _before_kinds(values: Values) -> bool:
    """Whether the file is older than `kind` in train_vae, so that keys may be missing that were added before that."""
    return "mode" in _section(values, "train_vae")


def _add(values: Values, section: str, **keys: Any) -> None:
    """Add keys that are missing to a section of a file older than `train_vae.kind`."""
    if _before_kinds(values) and (found := _section(values, section)):
        for key, value in keys.items():
            found.setdefault(key, value)


def _in_place_of(section: Values, key: str, wanted: Values, without: tuple[str, ...] = ()) -> None:
    """Put `wanted` where `key` stands, and leave out `without`."""
    before = dict(section)
    section.clear()
    for name, value in before.items():
        if name == key:
            section |= wanted
        elif name not in without and name not in section:
            section[name] = value


def name_optimizers(values: Values) -> None:
    """Trainings name their optimizer, which was adamw."""
    for stage in TRAININGS:
        _add(values, stage, optimizer="adamw")


def offer_hard_negatives(values: Values) -> None:
    """setup_text_encoder.hard_negatives: null, since batches were drawn at random."""
    _add(values, "setup_text_encoder", hard_negatives=None)


def offer_imported_models(values: Values) -> None:
    """train_vae, setup_text_encoder and train_unet say which imported network they start from: none."""
    _add(values, "train_vae", pretrained_path=None)
    _add(values, "setup_text_encoder", pretrained_path=None)
    _add(values, "train_unet", init_from=None)


def name_the_network(values: Values) -> None:
    """train_unet.unet and train_unet.process say their kind: unet_2d_condition and vp."""
    for key, kind in (("unet", "unet_2d_condition"), ("process", "vp")):
        section = _section(values, f"train_unet.{key}")
        if section and "kind" not in section and _before_kinds(values):
            _in_place_of(section, next(iter(section)), {"kind": kind, **dict(list(section.items())[:1])})


def add_choices_of_the_loss(values: Values) -> None:
    """The process says that betas are as given, the loss that it is a mean of squares, sampling its variance."""
    if _section(values, "train_unet.process").get("kind") == "vp":
        _add(values, "train_unet.process", scale_betas=False, rescale_betas_zero_snr=False)
    _add(values, "train_unet", loss="l2", reduction="mean", horizontal_flip=False)
    for stage in SAMPLINGS:
        _add(values, f"{stage}.sampling", variance="beta_tilde", snr=0.16)


def add_decays(values: Values) -> None:
    """Learning rates may fall in stairs: lr_decay null, since none did."""
    for stage in TRAININGS:
        _add(values, stage, lr_decay=None)


def add_the_range_of_pixels(values: Values) -> None:
    """train_vae.identity_range: [-1, 1] without an autoencoder."""
    identity = _section(values, "train_vae").get("mode") == "identity"
    _add(values, "train_vae", identity_range=[-1.0, 1.0] if identity else None, initial_logvar=0.0)


def add_choices_of_the_data(values: Values) -> None:
    """prepare_data: validation from train, repeats kept, no crops; cache_latents: nothing mirrored."""
    _add(values, "prepare_data", validation_from="train", repeats="keep", crops=1)
    _add(values, "cache_latents", mirror=False)


def add_ends_of_trainings(values: Values) -> None:
    """Trainings end after their last step, only warn where they end worse than chance, and log 100 times."""
    for stage in TRAININGS:
        steps = _section(values, stage).get("steps")
        every = max(1, steps // 100) if isinstance(steps, int) else 1
        _add(values, stage, stop_at=None, on_worse_than_chance="warn", log_every=every)


def add_the_gate(values: Values) -> None:
    """register demands nothing but finite figures, since there was no gate."""
    if _before_kinds(values) and "register" not in values:
        values["register"] = {
            "valid_judge": False,
            "above_chance": None,
            "fid_below": None,
            "vae_psnr": None,
            "not_below_candidate": False,
        }


def give_optimizers_their_keys(values: Values) -> None:
    """optimizer and lr_schedule are sections of a kind, which hold the keys that only they read."""
    for name in (*TRAININGS, "train_vae.adversarial"):
        section = _section(values, name)
        if not isinstance(section.get("optimizer"), str):
            continue
        optimizer = {"kind": section["optimizer"]}
        optimizer |= {key: section[key] for key in ("learning_rate", "betas", "weight_decay", "clip_norm")}
        schedule = {"kind": section["lr_schedule"], "warmup_steps": section["warmup_steps"]}
        if schedule["kind"] == "exponential":
            if not isinstance(section["lr_decay"], dict):
                raise DarkroomError(f"{name}.lr_schedule = 'exponential' has no lr_decay; add factor, every and floor")
            schedule |= section["lr_decay"]
        moved = ("learning_rate", "betas", "weight_decay", "clip_norm", "warmup_steps", "lr_schedule", "lr_decay")
        _in_place_of(section, "optimizer", {"optimizer": optimizer, "lr_schedule": schedule}, moved)


def give_autoencoders_a_kind(values: Values) -> None:
    """train_vae is of a kind (kl, pretrained or identity) and holds the keys of that kind alone."""
    section = _section(values, "train_vae")
    if "mode" not in section:
        return
    before, mode = dict(section), section["mode"]
    if mode == "train":
        shape = ("latent_channels", "block_out_channels", "layers_per_block", "norm_num_groups")
        _in_place_of(section, "mode", {"kind": "kl"}, ("pretrained_path", "identity_range"))
        autoencoder = {"autoencoder": {key: before[key] for key in shape}}
        _in_place_of(section, shape[0], autoencoder, shape[1:])
        return
    if mode not in ("pretrained", "identity"):
        raise DarkroomError(f"train_vae.mode = {mode!r}: not known; give train, pretrained or identity")
    section.clear()
    section |= {"kind": mode}
    section |= _path(before, "train_vae") if mode == "pretrained" else {"range": before["identity_range"]}
    section |= {"batch_size": before["batch_size"]}


def give_text_encoders_a_kind(values: Values) -> None:
    """setup_text_encoder is of a kind (clip, pretrained, class or none) and holds the keys of that kind alone."""
    section = _section(values, "setup_text_encoder")
    if "mode" not in section:
        return
    before, mode = dict(section), section["mode"]
    if mode == "clip":
        _in_place_of(section, "mode", {"kind": "clip"}, ("pretrained_path",))
        return
    if mode not in ("pretrained", "class", "none"):
        raise DarkroomError(f"setup_text_encoder.mode = {mode!r}: not known; give clip, pretrained, class or none")
    section.clear()
    section |= {"kind": mode}
    if mode == "pretrained":
        section |= _path(before, "setup_text_encoder") | {"null_condition": before["null_condition"]}


def give_networks_their_own_keys(values: Values) -> None:
    """train_unet.unet counts heads and transformer blocks for each level, under num_attention_heads and
    transformer_layers_per_block, and states use_linear_projection; text encoders state hidden_act."""
    unet = _section(values, "train_unet.unet")
    if "attention_head_dim" in unet:
        levels = len(unet["block_out_channels"])
        unet["transformer_layers_per_block"] = [unet["transformer_layers_per_block"]] * levels
        heads = {"num_attention_heads": [unet["attention_head_dim"]] * levels, "use_linear_projection": False}
        _in_place_of(unet, "attention_head_dim", heads)
    for name in ("setup_text_encoder.text", "train_evaluator.text"):
        text = _section(values, name)
        if text and "hidden_act" not in text:
            text["hidden_act"] = "quick_gelu"


def _path(section: Values, name: str) -> Values:
    if not section["pretrained_path"]:
        raise DarkroomError(f"{name}.mode = 'pretrained' has no pretrained_path; give the imported network's folder")
    return {"path": section["pretrained_path"]}


def give_diffusion_its_kinds(values: Values) -> None:
    """schedule, weighting and sampler are sections of a kind with keys of their own, and the objective is a section."""
    values.update(upgrade_diffusion(values))


def add_the_cache_of_captions(values: Values) -> None:
    """setup_text_encoder.cache is states, which were kept always."""
    section = _section(values, "setup_text_encoder")
    if section.get("kind") in ("clip", "pretrained") and "null_condition" in section and "cache" not in section:
        _in_place_of(section, "null_condition", {"null_condition": section["null_condition"], "cache": "states"})


def offer_labels(values: Values) -> None:
    """prepare_data.source.labels: [], since captioned folders had no classes."""
    source = _section(values, "prepare_data.source")
    if source.get("kind") == "captioned_folder" and "labels" not in source:
        _in_place_of(source, "root", {"root": source["root"], "labels": []})


def offer_adapters(values: Values) -> None:
    """train_unet.lora: null, since all weights were trained."""
    section = _section(values, "train_unet")
    if "init_from" in section and "lora" not in section:
        _in_place_of(section, "init_from", {"init_from": section["init_from"], "lora": None})


def offer_buckets_and_captions(values: Values) -> None:
    """prepare_data.buckets and setup_text_encoder.caption_dropout are null, and train_unet.captions is each: pictures
    were squares, captions whole, and each of them a sample of its own."""
    for name, before, key, value in (
        ("prepare_data", "image_size", "buckets", None),
        ("train_unet", "horizontal_flip", "captions", "each"),
        ("setup_text_encoder", "cache", "caption_dropout", None),
    ):
        section = _section(values, name)
        if before in section and key not in section:
            _in_place_of(section, before, {before: section[before], key: value})


STEPS: tuple[Step, ...] = (
    offer_hard_negatives,
    name_optimizers,
    offer_imported_models,
    name_the_network,
    add_choices_of_the_loss,
    add_decays,
    add_the_range_of_pixels,
    add_choices_of_the_data,
    add_ends_of_trainings,
    add_the_gate,
    give_optimizers_their_keys,
    give_autoencoders_a_kind,
    give_text_encoders_a_kind,
    give_diffusion_its_kinds,
    give_networks_their_own_keys,
    add_the_cache_of_captions,
    offer_labels,
    offer_adapters,
    offer_buckets_and_captions,
)
