"""The methods of a study's table. A new merge method comes in by itself, from `lora.methods`."""

from collections.abc import Sequence
from fnmatch import filter as matching

from lorasoups.errors import SoupError
from lorasoups.study.methods.base import Method, unmerged
from lorasoups.study.methods.merges import learned, static
from lorasoups.study.methods.rivals import rivals
from lorasoups.study.profile import Profile


def methods_for(skills: Sequence[str]) -> dict[str, Method]:
    """Every method of a study with these skills, by name, in the table's order."""
    table = [*unmerged(skills), *learned(), *rivals(), *static()]
    return {method.name: method for method in table}


def methods_of(profile: Profile) -> list[Method]:
    """The methods that a profile evaluates, in the table's order.

    Raises:
        SoupError: the profile names a method that does not exist.
    """
    known = methods_for(profile.skills)
    for pattern in (*profile.methods, *profile.leave_out):
        if not matching(known, pattern):
            raise SoupError(
                f"unknown method {pattern!r}: profile {profile.name}, study {profile.study}; "
                f"choose of {', '.join(known)}"
            )
    return [method for name, method in known.items() if profile.evaluates(name)]
