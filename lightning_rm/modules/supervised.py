"""`SupervisedLM`: fine-tuning on chosen responses as text, the step before reward modelling.

The paper's reward models start from the SFT model (arXiv 2401.06080, section 2.1). Those who have one start from it;
this is for those who train their own, as the made world's tiny decoder must.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.data.tokenize.tokenizer import starting_texts
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.counted import mean_losses, metrics_of
from lightning_rm.modules.progress import Totals
from lightning_rm.modules.requirements import Target


class SupervisedLM(PairwiseRM):
    """Minimise the next-token loss on chosen responses; the reward head is frozen meanwhile.

    The exported folder is a causal language model: a policy to sample from, and what reward models start from. Nobody
    trains its rewards, so that it is measured by its loss on chosen responses and their perplexity.
    """

    measures_text = True

    @property
    def reads(self) -> frozenset[Target]:
        """None: chosen responses are trained on, whatever is said of the pair."""
        return frozenset()

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """Return the reward head's parameters: the loss of text does not read rewards."""
        return self.model.head_parameters()

    def export(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write what was trained as a Hugging Face folder: the language model."""
        self.model.save_policy(folder, starting_texts(tokenizer))

    def measure(self, batch: PreferenceBatch | GroupBatch) -> dict[str, Tensor]:
        """Count the text of chosen responses, each token once a row; of groups, which have none, the rewards."""
        if isinstance(batch, GroupBatch):
            return super().measure(batch)
        output = self.model(batch.tokens, keep_hidden=True)
        self._measured.update_text(batch, self.model.lm_loss(output, batch.tokens))
        return {}

    def training_metrics(self, totals: Totals) -> dict[str, Tensor]:
        """Return the mean loss of the pairs, its exponential and their number."""
        loss = mean_losses(totals)["loss"]
        return {"loss": loss, "perplexity": loss.exp(), "num_pairs": metrics_of(totals)["num_pairs"]}

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Return rewards (2, P) and features (2, P, H); every hidden state too in training."""
        return self.model(batch.tokens, keep_hidden=self.training)

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the mean next-token loss over the tokens of chosen responses, all of the step alike."""
        loss = batch.text_share * self.model.lm_loss(output, batch.tokens)
        return {"loss": loss, "lm": loss}
