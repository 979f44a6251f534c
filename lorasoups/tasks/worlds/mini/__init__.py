"""The mini world: a generated language in which skills and their composition can be measured.

Every text is *content* (a chain of operations on one number, told in some wording) followed by an
instruction that names an *output form*. The base model is pretrained on a grid of contents x forms
with cells held out. ``math`` then teaches new content (wordings and operations the base never saw,
answered in words), ``code`` a new form (Python, on explicit instructions only); the target ``hard
math`` crosses the two. Source: issue 2, section 5.
"""

VERSION = 1  # of the generators: another number is another world
