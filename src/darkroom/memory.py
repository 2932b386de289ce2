"""`darkroom params check --memory`: what each stage will need at its peak, before it is run.

The stage's own networks are built, and a step of its full batch is made, on tensors that have sizes and no content
(PyTorch's FakeTensorMode): what lives at once is counted, nothing is computed. What the optimiser, the average and the
best weights hold is added. On other devices than the CPU norms and softmax compute in fp32 under bf16, and attention
is one kernel: as PyTorch's autocast and attention do there.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from darkroom.core.choices import Precision
from darkroom.core.device import autocast, resolve_device, runtime
from darkroom.core.progress import readable_size
from darkroom.nn import attention
from darkroom.nn.discriminator import DiscriminatorConfig, PatchDiscriminator
from darkroom.nn.evaluator import ROTATIONS, Classifier, ClassifierConfig, SelfSupervised
from darkroom.nn.image import ConvTowerConfig
from darkroom.nn.perceptual import PerceptualDistance
from darkroom.nn.recompute import checkpoint_activations
from darkroom.nn.text import CLIPTextConfig
from darkroom.nn.towers import Towers
from darkroom.nn.vae import AutoencoderKL, AutoencoderKLConfig
from darkroom.params import Params
from darkroom.params_sections import TextEncoder
from darkroom.shapes import conditioned, denoiser_config, latent_size, picture_size
