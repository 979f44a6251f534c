"""X-LoRA: a gate that mixes frozen LoRAs anew for every token (arXiv 2402.07148), by way of PEFT.

For each token the base runs once without adapters; a gate on its last hidden state gives k scalings
(a softmax: they sum to 1), and a second run weighs each LoRA with them. In PEFT 0.21.2 the two runs
would share one cache, so it generates without. Here each has layers of its own in it. That is
exact: the first run sees the base alone and attention is causal, so no scaling ever changes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from peft import XLoraConfig, XLoraModel
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from lorasoups.errors import SoupError
from lorasoups.learning.cat import OnBase
from lorasoups.learning.fit import fit, scheduled
from lorasoups.lora.adapters import save_lora
from lorasoups.lora.lora import LoRA, module_names
from lorasoups.lora.merging import merge


@dataclass(frozen=True, eq=False)
class XLora:
    """A trained gate; the LoRAs that it mixes are kept apart."""

    tensors: dict[str, Tensor]  # state dict of PEFT's XLoraClassifier, float32 on the CPU
    history: list[dict] = field(default_factory=list)  # `fit.Fit`'s, and ``scaling_mean`` [k]


def train_xlora(
    model, loras: Sequence[LoRA], rows: Sequence[dict], *, epochs: float = 3.0,
    batch_size: int = 16, lr: float = 1e-2, max_steps: int = -1, seed: int = 0,
    checkpoints: Path | str | None = None, progress: bool = True,
) -> XLora:  # fmt: skip
    """Train the gate over frozen LoRAs on a frozen model with AdamW and linear decay.

    Args:
        model: a causal LM with plain linear layers; it comes back as it was.
        loras: k adapters; ranks may differ, a module that one lacks counts as zero.
        rows: see `alphas.learn_alphas`; the same batches for the same seed.
        epochs, batch_size, lr, max_steps: see `fit.scheduled`.
        seed: of the gate's start and of the data order.
        checkpoints, progress: see `fit.fit`.

    Raises Diverged for a loss that is not finite, SoupError for nothing to learn from, a bad
    schedule, and LoRAs of another base.
    """
    if not rows:
        raise SoupError("no data to train X-LoRA on: rows is empty; give the rows CAT gets")
    schedule = {"epochs": epochs, "batch_size": batch_size, "max_steps": max_steps, "lr": lr}
    batches = scheduled(rows, model, seed=seed, **schedule)
    with _Mixture(model, loras, seed) as mixture:
        trained = fit(
            mixture, batches, lr=lr, seed=seed, name="X-LoRA gate", describe=mixture.describe,
            checkpoints=checkpoints, progress=progress,
        )  # fmt: skip
        state = mixture.classifier.state_dict()
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        return XLora(tensors, trained.history)


@contextmanager
def mixed(model, loras: Sequence[LoRA], xlora: XLora) -> Iterator:
    """The base with the mixture in it, for losses and generation; afterwards bit for bit the base.

    ``loras`` are those of the training, in the same order. Batches are padded on the left with an
    attention mask. Raises SoupError for a gate of other LoRAs or another base.
    """
    with _Mixture(model, loras) as mixture:
        try:
            mixture.classifier.load_state_dict(xlora.tensors)
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()
            raise SoupError(f"the gate does not fit ({why}); it is of other LoRAs") from error
        model.eval()
        yield model


class _Mixture(OnBase):
    """PEFT's X-LoRA layers and gate on a base, which then computes the mixture, in two runs."""

    def __init__(self, model: nn.Module, loras: Sequence[LoRA], seed: int = 0):
        for name in module_names(loras):
            if not name.startswith("model."):  # PEFT 0.21.2 looks for this prefix when it loads
                raise SoupError(f"module {name!r}: PEFT's X-LoRA takes only modules under 'model.'")
        super().__init__(model, loras, "X-LoRA", alone=True)
        merge(loras, "cat")  # refuses what does not belong together
        self._attributes = set(vars(model))
        self._hooks = []
        self._scalings: Tensor | None = None  # [batch, tokens, modules, k], of the present call
        try:
            torch.manual_seed(seed)
            self._xlora = [_peft_xlora(model, loras)]  # in a list: no submodule of ours
            self.classifier = self._xlora[0].internal_xlora_classifier.float()
        except BaseException:
            self.remove()
            raise

        def inject(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return args, kwargs | {"scalings": self._scalings}

        hooks = {model.get_submodule(name): inject for name in self.names}
        for module, hook in {model.base_model: self._gate, **hooks}.items():
            self._hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _gate(self, decoder: nn.Module, args: tuple, kwargs: dict) -> None:
        """First run: the base alone, up to its last hidden state; then the gate."""
        if self._xlora[0].disabled:  # this is the first run
            return
        input_ids = args[0] if args else kwargs["input_ids"]
        names = ("attention_mask", "position_ids", "cache_position")
        given = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        cache = self._first_runs(kwargs.get("past_key_values"))
        self._scalings = None
        self._xlora[0].disabled = True
        try:
            with torch.no_grad():
                given |= {"past_key_values": cache, "use_cache": cache is not None}
                hidden = decoder(input_ids=input_ids, **given).last_hidden_state
        finally:
            self._xlora[0].disabled = False
        states = SimpleNamespace(hidden_states=(hidden.float(),))
        self._scalings = self.classifier(states, input_ids=input_ids)

    def _first_runs(self, cache: Cache | None) -> Cache | None:
        """The first run's cache: as many layers again, behind the second run's, so that whatever
        is done to the rows of one is done to both."""
        if cache is None:
            return None
        n = self.model.config.num_hidden_layers
        cache.layers += [DynamicLayer() for _ in range(len(cache.layers), 2 * n)]
        twin = Cache(layers=cache.layers[n:])
        if cache.get_seq_length() != twin.get_seq_length():
            raise SoupError("X-LoRA cannot go on from this cache; generate from the whole text")
        return twin

    def describe(self, labels: Tensor) -> dict:
        """The mean scaling of each LoRA over the answer tokens of the step's batch."""
        of_answers = self._scalings.detach()[labels != -100]  # [tokens, modules, k]
        return {"scaling_mean": of_answers.mean((0, 1)).tolist()}

    def train(self, mode: bool = True) -> "_Mixture":
        """The gate alone follows ``mode``."""
        super().train(mode)
        self.classifier.train(mode)
        return self

    def remove(self) -> None:
        """Put every original layer back, and take off what else PEFT left on the base."""
        while self._hooks:
            self._hooks.pop().remove()
        for name in set(vars(self.model)) - self._attributes:
            delattr(self.model, name)
        super().remove()


def _peft_xlora(model, loras: Sequence[LoRA]) -> XLoraModel:
    """PEFT's layers and gate; it reads adapters from folders and wants the keys "0", "1", ..."""
    use_cache, size = model.config.use_cache, model.config.hidden_size
    with tempfile.TemporaryDirectory() as folder:
        paths = {str(i): str(save_lora(lora, Path(folder, str(i)))) for i, lora in enumerate(loras)}
        config = XLoraConfig(task_type="CAUSAL_LM", adapters=paths, hidden_size=size, xlora_depth=1)
        try:
            model.config.use_cache = False  # PEFT refuses otherwise; here each run has its cache
            return XLoraModel(model, config, "default", torch_device=str(model.device))
        finally:
            model.config.use_cache = use_cache
