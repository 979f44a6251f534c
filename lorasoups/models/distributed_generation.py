"""Generation over several processes, with the texts of one."""

from collections.abc import Sequence

from lorasoups.models import generation as evaluation
from lorasoups.models import processes as distributed


def generate(
    model, tokenizer, prompts: Sequence[str], max_new_tokens: int = 96, batch_size: int = 256
) -> list[str]:
    """As `evaluation.generate`, on every process the same list; each computes some batches.

    The batches are those of one process: which prompts share a batch decides its padding, and
    padding changes rounding. Batch i goes to process i modulo the processes; they are sorted by
    length, so that all have about the same work. A set of fewer batches than processes leaves some
    idle: choose ``batch_size`` for the number of devices before the first run (it names artifacts).
    """
    size, rank = distributed.size(), distributed.rank()
    if size == 1:
        return evaluation.generate(model, tokenizer, prompts, max_new_tokens, batch_size)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    own: dict[int, str] = {}
    for chosen in batches[rank::size]:  # sorted already, and sorting is stable: one batch, as it is
        texts = evaluation.generate(
            model, tokenizer, [prompts[i] for i in chosen], max_new_tokens, len(chosen)
        )
        own |= zip(chosen, texts, strict=True)
    found = {i: text for part in distributed.gather(own) for i, text in part.items()}
    return [found[i] for i in range(len(prompts))]
