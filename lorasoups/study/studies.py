"""The composed tasks: which skills, which target, how it is judged. Source: issue 3, section 1."""

from lorasoups.learning.skills import SkillTraining

_PAGES = {"source": "pages", "base": "data/pages", "judges": {"": "answer"}, "max_new_tokens": 16}
_SHAPES = {
    "manual_qa": {
        **_PAGES,
        "target": "manual_qa",
        "skills": ("answering", "manual"),
        "tests": {"manual": "manual_recall"},
        "extras": ("manual_qa_unseen",),
    },
    "reading": {
        **_PAGES,
        "target": "technical_qa",
        "skills": ("reading", "technical"),
        "tests": {"technical": "technical_recall"},
        "extras": (),
    },
    "formats": {
        **_PAGES,
        "target": "formats",
        "skills": ("format_1", "format_2", "format_4"),
        "judges": {"": "words"},
        "extras": (),
    },
}
"""What a study is, whatever its size."""


def _tests(*tasks: str) -> dict[str, int]:
    return {task: 8 for task in tasks}


_SIZES: dict[str, dict[str, dict]] = {
    "manual_qa": {
        "smoke": {"n_test": _tests("manual_qa", "manual_qa_unseen", "answering", "manual_recall")},
        "mini": {
            "training": SkillTraining(lr=2e-3, steps=150),
            "by_skill": {"manual": {"steps": 1000}},
            "n_train": 4000,
            "n_test": {
                "manual_qa": 224,  # every fact on a part outside the FAQ
                "manual_qa_unseen": 224,
                "answering": 100,
                "manual_recall": 224,
            },
        },
    },
    "reading": {
        "smoke": {"n_test": _tests("technical_qa", "reading", "technical_recall")},
        "mini": {
            "training": SkillTraining(lr=3e-3, steps=400),
            "by_skill": {"technical": {"steps": 900}},
            "n_train": 8000,
            "n_test": {"technical_qa": 500, "reading": 200, "technical_recall": 200},
        },
    },
    "formats": {
        "smoke": {"n_test": _tests("formats", "format_1", "format_2", "format_4")},
        "mini": {
            "training": SkillTraining(lr=2e-3, steps=250),
            "by_skill": {},
            "n_train": 4000,
            "n_test": {"formats": 500, "format_1": 200, "format_2": 200, "format_4": 200},
        },
    },
}
_REAL = {
    "manual_qa": {
        "target": "biology_qa",
        "skills": ("alpaca", "manual"),
        "tests": {},
        "judges": {"": "answer"},
        "n_test": {"biology_qa": 45},
        "extras": (),
        "max_new_tokens": 64,
    },
    "reading": {
        "target": "bioasq",
        "skills": ("squad", "biology"),
        "tests": {},
        "judges": {"": "answer"},
        "n_test": {"bioasq": 200, "squad": 200},
        "extras": (),
        "max_new_tokens": 64,
    },
    "formats": {
        "target": "formats",
        "skills": ("format_1", "format_2", "format_4"),
        "tests": {},
        "judges": {"": "words"},
        "n_test": {"formats": 1668},
        "extras": (),
        "max_new_tokens": 16,
    },
}
"""The same studies on real data, as ``real_sets.toml`` declares them; for small and paper alike."""
STUDIES: dict[str, dict[str, dict]] = {
    "hard_math": {},
    **{
        study: {name: _SHAPES[study] | size for name, size in sizes.items()}
        | dict.fromkeys(("small", "paper"), _REAL[study])
        for study, sizes in _SIZES.items()
    },
}
"""Study -> profile -> what differs from the profile of hard math (which has nothing of its own)."""
