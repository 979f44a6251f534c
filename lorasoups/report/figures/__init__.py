"""The figures: one file each, ``draw(results) -> Figure`` from the results file alone.

`style` holds the one look and ``save``.
"""
