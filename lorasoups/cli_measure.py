"""``lorasoups measure``: what the stages of a profile cost here."""

import argparse


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``measure``."""
    command = subparsers.add_parser(
        "measure",
        help="tokens/s, memory and MFU of each stage on a random model of the profile's shape",
        description="Runs the real code on a randomly initialised model: no download, no learning.",
    )
    command.add_argument("--profile", default="paper", help="rank, batch, lengths; default paper")
    command.add_argument("--shape", help="llama-7b, smollm2-135m or tiny; default the profile's")
    command.add_argument("--layers", type=int, metavar="N", help="fewer decoder layers")
    command.add_argument("--steps", type=int, default=12, metavar="N", help="timed steps")
    command.add_argument("--batch", type=int, metavar="N", help="training batch")
    command.add_argument("--eval-batch", type=int, metavar="N", help="prompts per batch")
    command.add_argument("--new-tokens", type=int, default=64, metavar="N", help="per prompt")
    command.add_argument("--checkpointing", action="store_true", default=None)
    command.add_argument("--out", metavar="DIR", help="write here instead of into the project")
    command.set_defaults(run=_measure)


def _measure(arguments: argparse.Namespace) -> int:
    from lorasoups.costs import report, save_measured
    from lorasoups.measure import measure
    from lorasoups.profiles import get_profile

    measured = measure(
        get_profile(arguments.profile),
        arguments.shape,
        layers=arguments.layers,
        steps=arguments.steps,
        batch=arguments.batch,
        eval_batch=arguments.eval_batch,
        new_tokens=arguments.new_tokens,
        checkpointing=arguments.checkpointing,
    )
    print(report(measured))
    print(f"written: {save_measured(measured, arguments.out or '')}")
    return 0
