"""Data parallel training whose result is that of one process.

By default accelerate hands every process other *items* of the dataset. Here an item is a whole
batch (`batching.LengthBatches`), so that n processes would train on batches n times as large, in a
schedule n times as long. Instead every process walks the same batches in the same order and takes
its share of the rows. Its mean loss counts by the tokens that it speaks for:

    loss_r = mean over the labelled tokens of r  *  n_r / (sum of all n)  *  processes

DDP averages gradients over the processes, so what the optimizer sees is the gradient of the whole
batch's mean loss, as with one process, to rounding. Padding stays as in the whole batch.

`learn_alphas`, `train_lora` and `train_xlora` make their own ``Trainer``, and their source names
artifacts that took hours (`store.source_hash`): `split_batches` therefore puts another class under
that name for the time of one call, and only where there are several processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from lorasoups.errors import SoupError
from lorasoups.learning import alphas, xlora
from lorasoups.learning import skills as training
from lorasoups.learning.sharded_base import bring_back, in_pieces
from lorasoups.models import processes as distributed

WEIGHT = "share_of_loss"


def share(batch: dict[str, Tensor], rank: int, size: int) -> dict[str, Tensor]:
    """The rows of one process, and what its mean loss counts for.

    Rows without a label are left out: they add nothing to loss or gradient. A process for which no
    row is left computes one of the others with weight 0, for all must take part in every step.

    Args:
        batch: ``input_ids``, ``labels`` [rows, tokens]; a label of the first token is never asked.
        rank, size: which process, of how many.

    Returns:
        ``input_ids``, ``labels`` of its rows (every ``size``-th: rows lie sorted by length, so that
        all have about the same work) and ``share_of_loss`` [], float32.
    """
    tokens = (batch["labels"][:, 1:] != -100).sum(1)
    labelled = tokens.nonzero()[:, 0]
    own = labelled[rank::size]
    weight = size * tokens[own].sum() / tokens.sum()  # a batch without any label: NaN, as ever
    rows = own if len(own) else tokens.argmax()[None]
    return {name: values[rows] for name, values in batch.items()} | {WEIGHT: weight}


class SplittingTrainer(Trainer):
    """A Trainer for datasets whose items are whole batches, which its processes share."""

    def __init__(self, *, args: TrainingArguments, data_collator: Callable, **more):
        if args.gradient_accumulation_steps != 1:
            raise SoupError(
                f"gradient_accumulation_steps is {args.gradient_accumulation_steps}: training on "
                "several processes; use 1, the batch is split over the processes already"
            )
        # Buffers are frozen factors (hundreds of MB at 7B) and every trained tensor has a gradient
        # in every step: DDP needs to send the former never and look for the latter never.
        args.ddp_broadcast_buffers = False
        args.ddp_find_unused_parameters = False
        rank, size = distributed.rank(), distributed.size()
        super().__init__(
            args=args, data_collator=lambda items: share(data_collator(items), rank, size), **more
        )
        self.model_accepts_loss_kwargs = False  # no counting of tokens over processes: see `share`

    def train(self, *args, **more):
        """As ever; with the base in pieces (`sharded_base`) if the launcher's config says FSDP."""
        wanted = distributed.sharding()
        if wanted is None:
            return super().train(*args, **more)
        original = self.model
        layer, again = wanted
        with in_pieces(original, layer, self.args.device, again) as twin:
            self.model = self.model_wrapped = twin
            # transformers' name for "cut already": it wraps nothing, averages gradients itself
            self.is_distributed_loading_by_transformers = True
            self.callback_handler.callbacks.insert(0, _BringBack(twin, original))
            try:
                return super().train(*args, **more)
            finally:
                self.model = self.model_wrapped = original

    def get_train_dataloader(self):
        """All batches, on every process, in the order of one process."""
        loader = torch.utils.data.DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._get_train_sampler(),
            collate_fn=self.data_collator,
        )
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=True,  # the Trainer's default: decided by its seed alone
            data_seed=self.args.data_seed,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's part of the mean loss of the whole batch, times the processes."""
        weight = inputs.pop(WEIGHT)
        outputs = model(**inputs)
        loss = outputs.loss * weight
        return (loss, outputs) if return_outputs else loss


class _BringBack(TrainerCallback):
    """Before others look at a model in training (alphas of every step): its present numbers."""

    def __init__(self, twin: torch.nn.Module, original: torch.nn.Module):
        self.twin, self.original = twin, original

    def on_log(self, *_, **__) -> None:
        bring_back(self.twin, self.original)


@contextmanager
def split_batches() -> Iterator[None]:
    """Within: training of alphas, LoRAs and X-LoRA gates shares its batches over the processes."""
    modules = (alphas, training, xlora)
    before = [module.Trainer for module in modules]
    try:
        for module in modules:
            module.Trainer = SplittingTrainer
        with warnings.catch_warnings():  # torch 2.13 renames what accelerate 1.15 passes on
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            yield
    finally:
        for module, trainer in zip(modules, before, strict=True):
            module.Trainer = trainer
