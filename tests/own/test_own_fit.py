"""``lorasoups fit`` end to end on the mini base: LoRAs, files of rows, the soup and its report."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoHaConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import ttest_ind

from lorasoups import load_lora, merge, save_lora
from lorasoups.errors import SoupError
from lorasoups.files import sha256_file
from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.lora.adapters import CONFIG, WEIGHTS
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.models.base import load_base
from lorasoups.models.batching import encode_all, heldout_loss, row_losses
from lorasoups.models.fetch import fetch_lora
from lorasoups.models.generation import folded
from lorasoups.own.fit import CAT, GRID, SUM, _interval, advice, fit, rule
from lorasoups.own.rows import read_data
from lorasoups.own.verify import DIFFERS, LOADERS, UNCHECKED, VERIFIED, verify
from lorasoups.results.stats import ratio
from lorasoups.run import cli
from lorasoups.tasks.worlds.mini.tasks import dataset

BASE = "data/mini"


@pytest.fixture(scope="module")
def base():
    model, tokenizer, _ = load_base(BASE, attn_implementation="eager")
    return model.requires_grad_(False), tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory, base):
    """Two LoRAs, of different ranks, and a file of rows for each."""
    folder, (model, tokenizer) = tmp_path_factory.mktemp("own"), base
    for skill, r in (("math", 4), ("code", 8)):
        items = dataset(skill, "train", 120, 0)
        config = SkillTraining(r=r, steps=12, batch_size=8, warmup_steps=2, lr=3e-3, bf16=False)
        lora, _ = train_lora(model, encode_all(tokenizer, items), config, 0, BASE, progress=False)
        save_lora(lora, folder / skill)
        lines = [json.dumps({"prompt": i["prompt"], "answer": i["answer"]}) for i in items[:40]]
        (folder / f"{skill}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def run(place, out, *more):
    adapters = [str(place / "math"), str(place / "code")]
    data = [str(place / "math.jsonl"), str(place / "code.jsonl")]
    return cli.main(["fit", *adapters, "--base", BASE, "--data", *data, "--out", str(out), *more])


def test_a_soup_is_fitted_written_reported_and_verified(place, tmp_path, capsys):
    out = tmp_path / "soup"
    assert run(place, out, "--epochs", "2") == 0
    told = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert [m["name"] for m in report["methods"]] == [
        "base", "math", "code", "average", "plain sum", "sum, one weight", "CAT",
    ]  # fmt: skip
    assert report["verdict"] in told and report["verdict"] in (out / "README.md").read_text()
    assert len(report["alphas"]["tried"]) == len(GRID) and report["rank"] == 12
    assert [e["rank"] for e in report["ranks"]] == [8, 12]
    best = min(report["alphas"]["tried"], key=lambda e: e["loss"])
    assert report["alphas"]["lr"] == best["lr"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "http" not in page.split("Load it")[0]
    assert "ok       peft: largest difference" in told and not (tmp_path / "soup.work").exists()
    by_name = {m["name"]: m for m in report["methods"]}
    assert by_name["CAT"]["mean"] < by_name["base"]["mean"]
    assert by_name["math"]["losses"][0][0] < by_name["base"]["losses"][0][0]
    for entry in report["methods"]:
        for mean, lo, hi in entry["losses"]:
            assert lo < mean < hi


def test_the_soup_is_a_plain_adapter_at_scale_one(place, tmp_path, base):
    out = tmp_path / "soup"
    assert run(place, out, "--lr", "0.03", "--epochs", "1", "--no-verify") == 0
    config = json.loads((out / "adapter_config.json").read_text())
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        assert float(file.metadata()["lora_alpha"]) == config["lora_alpha"] == config["r"]
    alphas = json.loads((out / "alphas.json").read_text())["weights"]
    loras, soup = [load_lora(place / name) for name in ("math", "code")], load_lora(out)
    for name, (a, b) in alphas.items():
        expected = a * loras[0].delta(name) + b * loras[1].delta(name)
        assert torch.allclose(soup.delta(name), expected, atol=1e-6)
    model, tokenizer, _ = load_base(BASE, attn_implementation="eager")
    rows = encode_all(tokenizer, dataset("math", "test", 8, 0))
    before = heldout_loss(model, rows)
    assert heldout_loss(PeftModel.from_pretrained(model, out).eval(), rows) < before


@pytest.mark.parametrize("rank, expected", [("3", 3), ("0.5", 12)])
def test_the_soup_can_be_cut(place, tmp_path, rank, expected):
    out = tmp_path / "soup"
    assert run(place, out, "--lr", "0.03", "--epochs", "1", "--no-verify", "--rank", rank) == 0
    ranks = {factors.rank for factors in load_lora(out).modules.values()}
    assert max(ranks) <= expected and (rank == "3" or len(ranks) > 1)


def test_a_base_by_a_path_of_another_machine_is_taken_by_its_modules(place, tmp_path, base):
    lora = load_lora(place / "math")
    save_lora(LoRA(lora.modules, "/somebody/models/checkpoint"), tmp_path / "math")
    assert fetch_lora(str(tmp_path / "math"), base[0], BASE).modules.keys() == lora.modules.keys()


def test_another_kind_of_adapter_becomes_a_lora(place, tmp_path, base):
    loha = LoHaConfig(r=2, alpha=4, target_modules=["q_proj", "v_proj"], init_weights=False)
    model, tokenizer, _ = load_base(BASE)
    wrapped = get_peft_model(model, loha).eval()
    ids = torch.arange(1, 20)[None]
    wrapped.save_pretrained(tmp_path / "loha")
    expected = wrapped(ids).logits
    plain = wrapped.unload()
    lora = fetch_lora(str(tmp_path / "loha"), plain, BASE)
    assert lora.provenance["converted_from"] == "LOHA"
    with folded(plain, lora):
        assert torch.allclose(plain(ids).logits, expected, atol=1e-3)
    data = [read_data(place / f"{name}.jsonl", tokenizer) for name in ("math", "code")]
    how = {"lr": 0.03, "epochs": 0.5, "progress": False}
    report = fit(plain.requires_grad_(False), [load_lora(place / "math"), lora], data, **how).report
    assert "LoRA 2 is a LoRA that PEFT made of LOHA" in report["notes"]


def test_an_interrupted_fit_goes_on(place, tmp_path, monkeypatch):
    """Trials that ended are not done again; another setting starts anew."""
    from lorasoups.own import fit as module

    out, real = tmp_path / "soup", module.learn_alphas

    def learned_in(*more, stop=99):
        """Exit code, and how often alphas were learned; an interrupt at the ``stop``-th time."""
        rates = []

        def counted(*args, **how):
            if "max_steps" not in how:  # one step that is timed
                rates.append(how["lr"])
                if len(rates) == stop:
                    raise KeyboardInterrupt
            return real(*args, **how)

        monkeypatch.setattr(module, "learn_alphas", counted)
        return run(place, out, "--epochs", "1", "--no-verify", *more), len(rates)

    assert learned_in(stop=3) == (130, 3)
    assert not out.exists() and (tmp_path / "soup.work").is_dir()
    assert learned_in() == (0, 1)  # both trials lie there
    assert (out / "report.json").exists() and not (tmp_path / "soup.work").exists()
    assert learned_in("--overwrite", stop=3) == (130, 3)
    assert learned_in("--overwrite", "--share", "0.3") == (0, 3)  # of other rows


def test_as_many_rows_are_evaluated_as_the_time_was_told_for(place, base, monkeypatch):
    from lorasoups.learning import fitted
    from lorasoups.own import fit as module

    def counted(function):
        def run(model, rows, *more):
            seen.append(len(rows))
            return function(model, rows, *more)

        return run

    seen, (model, tokenizer) = [], base
    for where, name in (
        (module, "row_losses"),
        (module, "heldout_loss"),
        (fitted, "heldout_loss"),
    ):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
    loras = [load_lora(place / name) for name in ("math", "code")]
    data = [read_data(place / f"{name}.jsonl", tokenizer) for name in ("math", "code")]
    module.fit(model, loras, data, progress=False)
    assert sum(seen) == pytest.approx(module._evaluated(loras, data, len(GRID)), rel=0.25)


def test_the_advice_names_the_simplest_that_is_as_good_on_every_skill():
    far = (1.5, [0.4, 0.6])

    def told(math=far, code=far, total=far, average=far, tuned=far, cat=(1.0, [0.0, 0.0]), ends=()):
        """Of each the mean loss, and of each skill where its interval above the best ends."""
        given = {"math": math, "code": code, "plain sum": total, "average": average,
                 "sum, one weight": tuned, "CAT": cat}  # fmt: skip
        best = min(given, key=lambda name: given[name][0])
        methods = [
            {"name": name, "mean": mean, "losses": [[mean, 0, 0]] * 2,
             "minus_cat": [mean - 1, ends[0] if ends else mean - 1.1, mean - 0.9],
             "minus_best": [[0, 0, hi] for hi in above]}
            for name, (mean, above) in given.items()
        ]  # fmt: skip
        names = ["math", "code"]
        return advice({"methods": methods, "adapters": names, "sum_weight": 0.7, "best": best})

    assert told(total=(1.01, [0.03, 0.04])).startswith("The plain sum is nearly as good")
    assert "--weights 1 1." in told(total=(1.01, [0.03, 0.04]))
    assert "do not decide" in told(total=(1.01, [0.03, 0.4]))  # one skill is ruined
    assert "least held-out loss" in told(average=(0.8, [0.0, 0.0])) and "0.5 0.5" in told(
        average=(0.8, [0.0, 0.0])
    )
    better = told(total=(1.02, [0.5, 0.5]), average=(0.7, [0.2, 0.2]), tuned=(0.5, [0.0, 0.0]))
    assert better.startswith("The sum, one weight has the least") and "--weights 0.7 0.7." in better
    assert told(code=(0.9, [0.0, 0.0])).endswith("Take it alone.")
    assert told().startswith("CAT is better than every simpler merge")
    few = told(total=(1.3, [1.25, 1.2]), ends=(-0.6,))  # no difference shown, none excluded
    assert few.startswith("These rows do not decide") and "Give more rows" in few


def test_the_rule_names_the_soup_that_is_better_on_each_skill():
    def rows(loss, apart=0.0):
        return np.array([[(loss + apart) * 4, 4], [loss * 6, 6], [(loss - apart) * 4, 4]])

    losses = {CAT: [rows(0.5), rows(0.3), rows(0.4, 0.2)], SUM: [rows(0.6), rows(0.2), rows(0.41)]}
    told = rule(["math", "code", "aside"], losses)
    assert f"answers: math: {CAT}; code: {SUM}; aside: not told apart (" in told


def test_the_report_tells_the_losses_of_the_soups_that_it_names(place, base):
    model, tokenizer = base
    loras = [load_lora(place / name) for name in ("math", "code")]
    data = [read_data(place / f"{name}.jsonl", tokenizer) for name in ("math", "code")]
    fitted = fit(model, loras, data, lr=0.03, epochs=0.5, progress=False)
    weights = {"plain sum": 1.0, "average": 0.5, "sum, one weight": fitted.report["sum_weight"]}
    soups = {name: merge(loras, "cat", weights=[w, w]) for name, w in weights.items()}
    soups |= {"base": None, "LoRA 1": loras[0], "LoRA 2": loras[1], CAT: fitted.soup}
    told = {entry["name"]: entry for entry in fitted.report["methods"]}
    assert told.keys() == soups.keys()
    best = np.array(told[fitted.report["best"]]["losses"])[:, 0]
    for name, soup in soups.items():
        with folded(model, soup):
            expected = [heldout_loss(model, own.held_out) for own in data]
        entry, losses = told[name], np.array(told[name]["losses"])[:, 0]
        assert losses == pytest.approx(expected, rel=1e-4), name
        assert entry["minus_cat"][0] == pytest.approx(entry["mean"] - told[CAT]["mean"], abs=1e-9)
        assert np.array(entry["minus_best"])[:, 0] == pytest.approx(losses - best, abs=1e-9)


def test_the_rate_is_chosen_on_rows_that_the_report_is_not_on(place, base, monkeypatch):
    from lorasoups.own import fit as module

    seen, real = [], module.heldout_loss

    def watched(model, rows, *more):
        seen.append(rows)
        return real(model, rows, *more)

    monkeypatch.setattr(module, "heldout_loss", watched)
    loras = [load_lora(place / name) for name in ("math", "code")]
    data = [read_data(place / f"{name}.jsonl", base[1]) for name in ("math", "code")]
    module.fit(base[0], loras, data, epochs=0.5, progress=False)
    assert seen == [own.choice for _ in GRID for own in data]
    assert all(row not in own.held_out for own in data for row in own.choice)


def test_the_interval_over_two_skills_is_welchs():
    x, y = np.random.default_rng(0).normal(size=12), np.random.default_rng(1).normal(size=7)
    _, lo, hi = _interval([ratio(x, np.ones(12)), ratio(-y, np.ones(7))])
    welch = ttest_ind(x, y, equal_var=False).confidence_interval()
    assert (2 * lo, 2 * hi) == pytest.approx((welch.low, welch.high))


def test_row_losses_add_up_to_the_held_out_loss(base):
    model, tokenizer = base
    rows = encode_all(tokenizer, dataset("math", "test", 9, 0))
    found = row_losses(model, rows, 4)
    total = float(found[:, 0].sum() / found[:, 1].sum())
    assert total == pytest.approx(heldout_loss(model, rows), rel=1e-5)
    assert found[:, 1].tolist() == [sum(x != -100 for x in r["labels"][1:]) for r in rows]


BAD = {
    "one file too few": (["--data", "math.jsonl"], "2 adapters, 1 data files"),
    "no such file": (["--data", "math.jsonl", "none.jsonl"], "none.jsonl"),
    "no data file": (["--data", "math.jsonl", "code"], "not a data file or data set"),
    "another form": (["--data", "math.jsonl", "odd.jsonl"], "odd.jsonl, row 1 has q, a"),
    "no JSON": (["--data", "math.jsonl", "broken.jsonl"], "not a .jsonl file"),
    "too few rows": (
        ["--data", "math.jsonl", "few.jsonl"],
        "an empty prompt or answer: few.jsonl, row 1",
    ),
    "an adapter that is missing": (["ADAPTER", "nowhere"], "nowhere"),
    "a LoRA that was never trained": (["ADAPTER", "zero"], "every delta is zero"),
    "a LoRA of another base": (["ADAPTER", "other"], "the base here is"),
    "NaN in a LoRA": (["ADAPTER", "nan"], "NaN or infinity"),
    "DoRA": (["ADAPTER", "dora"], "DoRA"),
    "a module that the base lacks": (["ADAPTER", "lacks"], "the base has no module"),
    "a Hub id that does not exist": (["ADAPTER", "org/none"], "org/none"),
    "an unknown start": (["--init", "twos"], "unknown normalise 'none' or init 'twos'"),
    "a bad share": (["--share", "0.9"], "share 0.9"),
    "a bad rank": (["--rank", "0"], "rank is 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(place, tmp_path, capsys, case):
    more, expected = BAD[case]
    for name in ("math.jsonl", "code.jsonl"):
        (tmp_path / name).write_text((place / name).read_text())
    (tmp_path / "odd.jsonl").write_text('{"q": 1, "a": 2}\n')
    (tmp_path / "broken.jsonl").write_text("{not json\n")
    (tmp_path / "few.jsonl").write_text('{"prompt": "a", "answer": ""}\n' * 3)
    code = load_lora(place / "code")
    zero = {n: Factors(f.A, torch.zeros_like(f.B)) for n, f in code.modules.items()}
    save_lora(LoRA(zero, BASE), tmp_path / "zero")
    save_lora(LoRA(code.modules, "some/other-base"), tmp_path / "other")
    renamed = {n.replace("layers.0", "layers.9"): f for n, f in code.modules.items()}
    save_lora(LoRA(renamed, BASE), tmp_path / "lacks")
    for name in ("nan", "dora"):
        save_lora(code, tmp_path / name)
    file, config = tmp_path / "nan" / WEIGHTS, tmp_path / "dora" / CONFIG
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    (tmp_path / "code").mkdir()
    second = str(place / "code")
    if more[0] == "ADAPTER":
        second = more[1] if "/" in more[1] else str(tmp_path / more[1])
    data = ["math.jsonl", "code.jsonl"] if more[0] != "--data" else more[1:]
    options = more if more[0] not in ("ADAPTER", "--data") else []
    arguments = ["fit", str(place / "math"), second, "--base", BASE, "--lr", "0.01", "--data"]
    arguments += [str(tmp_path / name) for name in data]
    out = tmp_path / "soup"
    assert cli.main([*arguments, "--out", str(out), "--epochs", "1", *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and expected in error, error
    assert not out.exists()


def test_a_file_in_place_of_the_folder_stays(place, tmp_path, capsys):
    (tmp_path / "soup").write_text("mine")
    assert run(place, tmp_path / "soup") == 2
    assert "a file of this name exists" in capsys.readouterr().err
    assert (tmp_path / "soup").read_text() == "mine"


def test_inputs_and_folders_of_others_are_never_replaced(place, tmp_path, capsys):
    (tmp_path / "soup.work").mkdir()
    (tmp_path / "soup.work/mine.txt").write_text("mine")
    assert run(place, tmp_path / "soup") == 2
    assert "no work folder of fit" in capsys.readouterr().err
    assert (tmp_path / "soup.work/mine.txt").read_text() == "mine"
    before = sha256_file(place / "math" / WEIGHTS)
    assert run(place, place / "math", "--overwrite") == 2
    merge = ["merge", str(place / "math"), str(place / "code"), "--overwrite"]
    assert cli.main([*merge, "--out", str(place / "math")]) == 2
    assert capsys.readouterr().err.count("is one of the adapters") == 2
    assert sha256_file(place / "math" / WEIGHTS) == before


def test_a_small_file_counts_as_much_as_a_large_one(place, base, monkeypatch):
    from lorasoups.own import fit as module

    def learned(model, loras, rows, **how):
        seen.append(len(rows))
        return learn_alphas(model, loras, rows, **how)

    seen, (model, tokenizer) = [], base
    monkeypatch.setattr(module, "learn_alphas", learned)
    loras = [load_lora(place / name) for name in ("math", "code")]
    data = [read_data(place / f"{name}.jsonl", tokenizer) for name in ("math", "code")]
    data[1] = replace(data[1], train=data[1].train[:5])
    report = module.fit(model, loras, data, lr=0.03, epochs=0.5, progress=False).report
    assert seen == [2 * len(data[0].train)]
    assert [own["train"] for own in report["data"]] == [len(data[0].train), 5]


def test_names_of_methods_and_files_in_another_order_are_told_apart(place, base):
    model, tokenizer = base
    loras = [load_lora(place / name) for name in ("math", "code")]
    data = [read_data(place / f"{name}.jsonl", tokenizer) for name in ("code", "math")]
    how = {"lr": 0.03, "epochs": 0.5, "progress": False}
    report = fit(model, loras, data, names=["base", "CAT"], rank=3, **how).report
    names = [entry["name"] for entry in report["methods"]]
    assert names[:3] == ["base", "LoRA 1: base", "LoRA 2: CAT"] and len(set(names)) == 7
    assert sum("order of the adapters" in note for note in report["notes"]) >= 1
    assert [entry["rank"] for entry in report["ranks"]] == [3, 8, 12]


def test_an_earlier_soup_is_kept_unless_told(place, tmp_path, capsys):
    save_lora(load_lora(place / "math"), tmp_path / "soup")
    assert run(place, tmp_path / "soup") == 2
    assert "not empty" in capsys.readouterr().err


ROWS = {
    "prompt and answer": [{"prompt": f"{i} + 2 =", "answer": f" {i + 2}"} for i in range(20)],
    "text": [{"text": f"{i} + 2 = {i + 2}"} for i in range(20)],
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".json"])
def test_rows_come_from_every_kind_of_file(base, tmp_path, kind, suffix):
    import pandas as pd

    frame = pd.DataFrame(ROWS[kind])
    path = tmp_path / f"rows{suffix}"
    write = {".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
             ".json": lambda: frame.to_json(path, orient="records"),
             ".csv": lambda: frame.to_csv(path, index=False),
             ".parquet": lambda: frame.to_parquet(path)}[suffix]  # fmt: skip
    write()
    data = read_data(path, base[1])
    assert (len(data.train), len(data.choice), len(data.held_out)) == (14, 2, 4)
    same = read_data(ROWS[kind], base[1])
    assert data.train == same.train
    learned = [x for x in data.train[0]["labels"] if x != -100]
    assert (len(learned) == len(data.train[0]["labels"])) == (kind == "text")


def test_messages_take_the_base_s_own_template(base):
    tokenizer = base[1]
    rows = [{"messages": [{"role": "user", "content": f"{i} + 2"},
                          {"role": "assistant", "content": f"{i + 2}"}]}
            for i in range(12)]  # fmt: skip
    with pytest.raises(SoupError, match="no chat template: the given rows, row 1"):
        read_data(rows, tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )
    try:
        row = read_data(rows, tokenizer).train[0]
        heads = [tokenizer(f"user : {i} + 2 assistant : ").input_ids for i in range(12)]
        [whole] = [head for head in heads if row["input_ids"][: len(head)] == head]
        assert row["labels"][: len(whole)] == [-100] * len(whole)
        with pytest.raises(SoupError, match="the last message is not the assistant's"):
            read_data([{"messages": rows[0]["messages"][:1]}] * 12, tokenizer)
    finally:
        tokenizer.chat_template = None


def test_doubles_go_numbers_are_text_and_what_is_cut_is_told(base):
    rows = [{"prompt": f"{i} + 1 =", "answer": i + 1} for i in range(20)]
    data = read_data([*rows, *rows, {"prompt": "7 + " * 40, "answer": 7}], base[1], max_length=60)
    used = [tuple(row["input_ids"]) for row in data.train + data.choice + data.held_out]
    assert len(set(used)) == len(used) == 20
    assert data.told == "21 rows left out, 1 longer than 60 tokens"
    assert read_data(rows, base[1]).told == ""


def test_limit_and_seed_decide_the_rows(base):
    rows = [{"prompt": f"{i} + 1 =", "answer": f" {i + 1}"} for i in range(60)]
    first, again, other = (read_data(rows, base[1], limit=20, seed=s) for s in (1, 1, 2))
    assert first == again != other and len(first.train + first.choice + first.held_out) == 20


# --- verify ---------------------------------------------------------------------------------------


def test_a_foreign_adapter_is_told_apart(place, tmp_path, capsys):
    lora = load_lora(place / "math")
    assert verify(place / "math", BASE) == VERIFIED
    renamed = {name.replace("layers.0", "layers.9"): f for name, f in lora.modules.items()}
    save_lora(LoRA(renamed, BASE), tmp_path / "renamed")
    assert verify(tmp_path / "renamed", BASE) == DIFFERS
    zero = {n: Factors(f.A, torch.zeros_like(f.B)) for n, f in lora.modules.items()}
    save_lora(LoRA(zero, BASE), tmp_path / "zero")
    assert verify(tmp_path / "zero", BASE) == DIFFERS
    told = capsys.readouterr().out
    assert "do not fit" in told and "changes no logit" in told


def test_a_faint_adapter_is_not_verified(place, tmp_path, capsys):
    save_lora(load_lora(place / "math").scaled(1e-4), tmp_path / "faint")
    assert verify(tmp_path / "faint", BASE) == UNCHECKED
    assert "FAINT" in capsys.readouterr().out


def test_a_loader_of_another_strength_or_none_is_told(place, monkeypatch, capsys):
    from lorasoups.own import verify as module

    real = module.PeftModel.from_pretrained

    def stronger(model, folder):
        wrapped = real(model, folder)
        for layer in wrapped.modules():
            if isinstance(getattr(layer, "scaling", None), dict):
                layer.scaling["default"] *= 1.02
        return wrapped

    monkeypatch.setattr(module.PeftModel, "from_pretrained", stronger)
    assert verify(place / "math", BASE) == DIFFERS

    def missing(*known):
        raise SoupError("not installed")

    monkeypatch.setitem(LOADERS, "none", missing)
    assert (
        cli.main(["verify", str(place / "math"), "--base", BASE, "--in", "none"]) == UNCHECKED == 3
    )
    told = capsys.readouterr().out
    assert "DIFFERS  peft" in told and "UNCHECKED none: not installed" in told
    with pytest.raises(SoupError, match="unknown loader 'vllm'"):
        verify(place / "math", BASE, ["vllm"])


def test_openvino_computes_the_soup_and_ignores_lora_alpha(place, tmp_path, capsys):
    pytest.importorskip("openvino_genai")
    soup = load_lora(place / "math").scaled(3.0)
    save_lora(soup, tmp_path / "soup")
    assert verify(tmp_path / "soup", BASE, ["openvino"]) == VERIFIED
    config = tmp_path / "soup" / CONFIG
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"lora_alpha": 2 * content["r"]}))
    assert verify(tmp_path / "soup", BASE, ["peft", "openvino"]) == DIFFERS
    told = capsys.readouterr().out
    assert "ok       peft" in told and "DIFFERS  openvino" in told


def test_inspect_prints_the_totals(place, capsys):
    assert cli.main(["inspect", str(place / "math"), str(place / "code")]) == 0
    told = capsys.readouterr().out
    assert re.search(r"cosine\s+-?0\.\d{3}", told) and "not established" in told
    assert cli.main(["inspect", str(place / "math"), str(place / "code"), "--json"]) == 0
    assert np.isfinite(json.loads(capsys.readouterr().out)["pairs"][0]["total"]["cosine"])
    words = ["inspect", str(place / "math"), str(place / "code")]
    data = ["--data", str(place / "math.jsonl"), str(place / "code.jsonl")]
    assert cli.main([*words, "--base", BASE, *data]) == 0
    told = capsys.readouterr().out
    assert re.search(r"on \S*math's rows \S*code adds \d+\.\d\d of what \S*math adds", told)
    assert cli.main([*words, "--base", BASE]) == 2
    assert "0 data files for 2 adapters" in capsys.readouterr().err
