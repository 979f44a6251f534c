"""The mini world: chains of arithmetic told in words, for the composed task *hard math*."""

import tomllib
from pathlib import Path

VERSION = 1  # of the generators; raise it when a text changes
WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
