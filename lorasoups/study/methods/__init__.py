"""The methods of a study's table. A new merge method comes in by itself, from `lora.methods`."""

from collections.abc import Sequence
from fnmatch import filter as matching

from lorasoups.errors import SoupError
from lorasoups.results.reading import CAT, CONTROLS, MIX, SEARCH, SKILLS
from lorasoups.study.methods.base import Base, DataMix, FewShot, Fresh, Method, Trained
from lorasoups.study.methods.merges import Cat, RandomCat, static
from lorasoups.study.methods.rivals import LoraHub, XLora
from lorasoups.study.profile import Profile


def methods_for(skills: Sequence[str]) -> dict[str, Method]:
    """Every method of a study with these skills, by name, in the table's order."""
    table = [
        Base("base", "base", SKILLS, main=True),
        FewShot("few_shot", "base, few-shot", SKILLS),
        *(Trained(name, f"{name} LoRA", SKILLS, main=True) for name in skills),
        DataMix("data_mix", "DATA-MIX (rank r)", MIX, main=True),
        DataMix("data_mix_2r", "DATA-MIX (rank k r)", MIX),
        Fresh("fresh", "new LoRA on the alpha data", CONTROLS, main=True),
        Cat("cat", "CAT (learned alphas)", CAT, main=True),
        Cat("cat_global", "CAT, one alpha per LoRA", CONTROLS, main=True, preset="global"),
        Cat("cat_lr0", "CAT, lr = 0", CONTROLS, preset="lr0"),
        RandomCat("cat_random", "CAT, random alphas", CONTROLS),
        Cat("released", "CAT, released schedule", CONTROLS, main=True, preset="released"),
        LoraHub("lorahub@delta", "LoraHub (delta)", SEARCH),
        LoraHub("lorahub@factors", "LoraHub (factors, as released)", SEARCH, on="factors"),
        XLora("xlora", "X-LoRA (mixture of experts)", SEARCH),
        *static(),
    ]
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
