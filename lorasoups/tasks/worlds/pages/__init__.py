"""The world of pages: facts that are told, asked for and answered; and words with letters in them.

The second embedded base (``data/pages``) reads this language; the tasks manual QA, reading
comprehension and prompt formats live in it. As in the mini world of hard math (`lorasoups.tasks.worlds.mini`),
a prompt is *content* followed by an instruction that names the *form* of the answer, the base is
pretrained on a grid of both, and skills teach new contents or a new form. Source: issue 3, section
1.
"""

VERSION = 1  # of the generators: another number is another world
