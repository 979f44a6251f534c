"""``lorasoups push``: a soup onto the Hub, with a model card."""

import argparse
from pathlib import Path

from lorasoups.errors import SoupError

UPLOADED = ("*.safetensors", "adapter_config.json", "config.json", "generation_config.json",
            "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "vocab.json",
            "merges.txt", "chat_template.jinja", "soup.json", "README.md")  # fmt: skip
"""Nothing else leaves the folder."""


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``push``."""
    command = subparsers.add_parser(
        "push",
        help="push a soup to the Hub, with a model card",
        description="The card tells recipe, data, licences and numbers. Token: `hf auth login`.",
    )
    command.add_argument("folder", metavar="DIR", help="what `lorasoups merge` wrote")
    command.add_argument("repo", metavar="NAME/MODEL", help="on the Hub; created if need be")
    command.add_argument("--private", action="store_true", help="of a new repository")
    command.add_argument("--licence", metavar="ID", help="of the soup, e.g. apache-2.0")
    command.add_argument("--results", metavar="FILE", help="results file with data and numbers")
    command.add_argument("--dry-run", action="store_true", help="print the card, upload nothing")
    command.set_defaults(run=_push)


def _push(arguments: argparse.Namespace) -> int:
    from lorasoups.files import write_text_atomic
    from lorasoups.results.file import read_results
    from lorasoups.run.model_card import model_card

    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise SoupError(f"no such folder: {folder}; give what `lorasoups merge` wrote")
    if arguments.repo.count("/") != 1:
        raise SoupError(f"not of the form NAME/MODEL: {arguments.repo}; name a Hub repository")
    results = read_results(arguments.results) if arguments.results else None
    card = model_card(folder, arguments.repo, licence=arguments.licence, results=results)
    if arguments.dry_run:
        print(str(card))
        return 0
    write_text_atomic(folder / "README.md", str(card))
    print(f"pushed: {_upload(folder, arguments.repo, arguments.private)}")
    return 0


def _upload(folder: Path, repo: str, private: bool) -> str:
    from huggingface_hub import HfApi

    from lorasoups.models.hub_errors import explain_hub_error

    try:
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(UPLOADED),
            commit_message="A LoRA soup",
        )
    except Exception as error:
        what = f"push to {repo}"
        raise explain_hub_error(error, what, "look at it with --dry-run") from error
    return str(done)
