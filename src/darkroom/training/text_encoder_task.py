"""The training of the text encoder that conditions the U-Net, for `fit`."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from darkroom.config.networks import TowersConfig, TowersSizes
from darkroom.config.text_encoder import TrainedTextEncoder
from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Stateful
from darkroom.core.rng import seeded
from darkroom.data.prepared import PreparedSplit
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.nn.judge.towers import Towers
from darkroom.training.contrastive import ContrastiveLoss, retrieval, retrieval_by_chance
from darkroom.training.engine.blank import matched
from darkroom.training.engine.chance import Reached
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.phase import Phase
from darkroom.training.engine.task import Task
from darkroom.training.engine.throughput import TRAINING, flops


class TextEncoderTask(Task[Towers]):
    """A text encoder beside an image tower, both with initial weights.

    Args:
        splits: train and validation.
        input_ids: (M, L), the distinct captions. index: split -> (N,), picture -> its caption.
    """

    stage, description = "setup_text_encoder", "text encoder"

    def __init__(
        self,
        config: TrainedTextEncoder,
        splits: Mapping[str, PreparedSplit],
        tokenizer: CLIPTokenizer,
        input_ids: Tensor,
        index: Mapping[str, Tensor],
        context: TrainingContext,
    ) -> None:
        self.context, self.info, self.tokens = context, splits["train"].info, config.text.max_length
        shape = TowersConfig(image=config.image, text=config.text.learnt(len(tokenizer.vocab)))
        sizes = TowersSizes(in_channels=self.info.channels, tokens=tokenizer.sizes)
        with seeded(config.seed, "text encoder"):
            self.network = Towers(shape, sizes).to(context.device)
        train, held_out = splits["train"], splits["validation"]
        self.training = ContrastiveLoss(
            self.network, train.squares, input_ids, index["train"], context, config.hard_negatives
        )
        self.held_out = ContrastiveLoss(self.network, held_out.squares, input_ids, index["validation"], context)

    def phases(self, config: Optimization) -> Sequence[Phase]:
        """See `Task`."""
        return [Phase("", self.network, config, self.training.loss)]

    def validate(self, network: Towers) -> dict[str, float]:
        """See `Task`."""
        return retrieval(self.held_out, network)

    def reached(self, network: Towers, held_out: Mapping[str, float]) -> list[Reached]:
        """See `Task`."""
        rows, batch_size = self.held_out.rows, self.context.batch_size
        chance = retrieval_by_chance(rows, batch_size)["held_out/loss"]
        by = f"captions told apart by no more than luck, ln {min(batch_size, len(rows))}"
        return [Reached("held_out/loss", held_out["held_out/loss"], chance, by)]

    def flops(self) -> float:
        """See `Task`."""
        size = (self.info.channels, self.info.image_size, self.info.image_size)
        return TRAINING * flops(self.network, lambda: matched(self.network, 1, size, self.tokens))

    @property
    def state(self) -> dict[str, Stateful]:
        """See `Task`."""
        return self.training.state()
