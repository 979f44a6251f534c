"""The sub-commands ``merge`` and ``methods``. torch is imported only when one of them runs."""

import argparse
import json
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add both commands; each sets ``run``, a function of the parsed arguments."""
    command = subparsers.add_parser(
        "merge",
        help="merge LoRA adapters of one base model into one",
        description="Merge PEFT LoRA folders into one PEFT LoRA folder.",
    )
    command.add_argument("adapters", nargs="+", metavar="ADAPTER", help="PEFT LoRA folders")
    command.add_argument("--out", required=True, metavar="DIR", help="folder of the soup")
    command.add_argument("--method", default="cat", help="see `lorasoups methods`; default cat")
    source = command.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="one per adapter; default 1/k each"
    )
    source.add_argument("--alphas", metavar="FILE", help="learned per-module weights (JSON)")
    command.add_argument(
        "--on", default="delta", choices=("delta", "factors"), help="what the method works on"
    )
    command.add_argument("--rank", type=int, metavar="R", help="cut the result to this rank")
    command.add_argument("--density", type=float, help="fraction of the entries kept, in (0, 1]")
    command.add_argument("--seed", type=int, help="of the random masks of DARE")
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other option of the method",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier merge left at --out"
    )
    command.add_argument(
        "--uniform-rank", action="store_true", help="pad every module to the largest rank (exact)"
    )
    command.add_argument(
        "--into-base", metavar="BASE", help="write a full model: this base with the soup in it"
    )
    command.add_argument("--dtype", help="with --into-base: of its weights; default as stored")
    command.add_argument(
        "--any-base", action="store_true", help="with --into-base: do not compare base names"
    )
    command.set_defaults(run=_merge)
    listing = subparsers.add_parser("methods", help="list the merge methods, one line each")
    listing.set_defaults(run=_methods)


def _merge(arguments: argparse.Namespace) -> int:
    from lorasoups.lora.adapters import load_lora, save_lora
    from lorasoups.lora.merging import merge
    from lorasoups.lora.serving import advice, uniform_rank

    if not arguments.into_base and (arguments.dtype or arguments.any_base):
        option = "--dtype" if arguments.dtype else "--any-base"
        raise SoupError(f"{option} means nothing here: no --into-base; leave it out")
    options = dict(map(_option, arguments.option))
    for name in ("density", "seed"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    weights = _read_alphas(arguments.alphas) if arguments.alphas else arguments.weights
    loras = [load_lora(folder) for folder in arguments.adapters]
    common = {"weights": weights, "on": arguments.on}
    soup = merge(loras, arguments.method, **common, rank=arguments.rank, **options)
    if arguments.rank:
        _tell_loss(merge(loras, arguments.method, **common, **options), soup)
    if arguments.uniform_rank:
        soup = uniform_rank(soup)
    if arguments.into_base:
        return _into_base(arguments, soup)
    save_lora(soup, arguments.out, overwrite=arguments.overwrite)
    print(f"{arguments.out}: {soup!r}")
    print(advice(soup))
    return 0


def _into_base(arguments: argparse.Namespace, soup: Any) -> int:
    from lorasoups.models.into_base import merge_into_base

    written = merge_into_base(
        soup,
        arguments.into_base,
        arguments.out,
        dtype=arguments.dtype or "auto",
        any_base=arguments.any_base,
        overwrite=arguments.overwrite,
    )
    print(f"{arguments.out}: {written['base']['name']} with the soup, {written['dtype']}")
    return 0


def _tell_loss(whole: Any, cut: Any) -> None:
    from lorasoups.lora.serving import cut_error

    lost, module, worst = cut_error(whole, cut)
    print(f"cut to rank {cut.max_rank}: {lost:.2%} lost (Frobenius); worst {module}: {worst:.2%}")


def _methods(arguments: argparse.Namespace) -> int:
    from lorasoups.lora.methods import METHODS

    for method in METHODS.values():
        options = " ".join(f"{name}={option.default}" for name, option in method.options.items())
        print(
            f"{method.name:16} {method.summary} | {method.paper} | on {', '.join(method.on)}",
            end="",
        )
        print(f" | {options}" if options else "")
    return 0


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise SoupError(f"not of the form NAME=VALUE: --option {text}; e.g. --option density=0.5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _read_alphas(file: str) -> dict[str, list[float]]:
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise SoupError(f"cannot read ({error.strerror}): {file}; give a file of alphas") from error
    except ValueError as error:
        raise SoupError(f"not valid JSON ({error}): {file}; learn the alphas again") from error
    weights = content.get("weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise SoupError(f'no mapping "weights": {file}; give a file written by learn_alphas')
    return weights
