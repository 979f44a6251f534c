"""The sandbox: contains attacks, keeps order, survives dead workers, is quick."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest
from attacks import ATTACKS, MEMORY_AND_BIG_NUMBERS, TIME, body, value
from processes import child

from lorasoups.errors import SoupError
from lorasoups.tasks.judging import judges, sandbox
from lorasoups.tasks.judging.sandbox import STATUSES, Outcome, run_programs

SHORT = 0.3  # seconds
SENTINEL = 90210.125  # a target that no program can know


def workers_left(seconds: float = 5.0) -> list[psutil.Process]:
    """Child processes that are still there after a while."""
    until = time.monotonic() + seconds
    while (alive := psutil.Process().children(recursive=True)) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """All attacks, run once from an empty folder; those that may not end by time have time enough,
    also on a loaded machine."""
    folder, home, outcomes = tmp_path_factory.mktemp("attacked"), os.getcwd(), {}
    os.chdir(folder)
    try:
        for seconds in (SHORT, 30):
            may = {n: source for n, (source, allowed) in ATTACKS.items()
                   if ("timeout" in allowed) == (seconds == SHORT)}  # fmt: skip
            outcomes |= dict(zip(may, run_programs(may.values(), seconds=seconds), strict=True))
    finally:
        os.chdir(home)
    return folder, outcomes


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_contained(attacked, name):
    outcome = attacked[1][name]
    assert outcome.status in ATTACKS[name][1], outcome
    assert outcome.status in STATUSES
    assert (outcome.detail == "") == (outcome.status == "ok")


def test_attacks_leave_nothing_behind(attacked):
    assert list(attacked[0].iterdir()) == []
    assert not os.path.exists("/escaped")
    assert workers_left() == []


def test_no_attack_scores(attacked):
    for name, outcome in attacked[1].items():
        if outcome.status == "ok":
            assert not judges.matches(outcome.value, SENTINEL), name


def test_the_target_never_enters_the_sandbox(monkeypatch):
    entered = []
    monkeypatch.setattr(
        judges,
        "run_programs",
        lambda *args, **options: entered.append(repr((args, options))) or [Outcome("ok", 1)],
    )
    judges.score([value("1")], [SENTINEL])
    assert len(entered) == 1
    assert str(SENTINEL) not in entered[0]


def test_campaign_keeps_order_and_memory_and_time():
    rng = random.Random(0)
    slow = {"many short sleeps", *TIME, *MEMORY_AND_BIG_NUMBERS, "10 MB of source"}
    quick = [name for name in ATTACKS if name not in slow and "for ever" not in name]
    programs, expected = [], []
    for i in range(2000):
        if rng.random() < 0.1:
            name = "endless loop" if i % 100 == 0 else rng.choice(quick)
            programs.append(ATTACKS[name][0])
            expected.append(ATTACKS[name][1])
        else:
            programs.append(body(f"a = {i}", "b = a * 3", "return b + 1"))
            expected.append(3 * i + 1)
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    outcomes = run_programs(programs, seconds=SHORT)
    seconds = time.perf_counter() - started
    for outcome, wanted in zip(outcomes, expected, strict=True):
        if isinstance(wanted, int):
            assert outcome == Outcome("ok", wanted)
        else:
            assert outcome.status in wanted
    assert seconds < 30
    assert psutil.Process().memory_info().rss - before < 200 * 2**20
    assert workers_left() == []


def test_at_least_500_programs_per_second():
    programs = [body(f"a = {i}", "b = a / 4", "return b") for i in range(1000)]
    best = 0.0
    for _ in range(4):  # other processes may have the machine for a moment
        started = time.perf_counter()
        outcomes = run_programs(programs)
        best = max(best, len(programs) / (time.perf_counter() - started))
        if best >= 500:
            break
    assert [outcome.value for outcome in outcomes] == [i / 4 for i in range(1000)]
    assert best >= 500


def test_killed_workers_shift_and_lose_nothing():
    programs = [body(f"for i in range(20000): a = i + {i}", "return a") for i in range(300)]
    killed = []
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set() and len(killed) < 10:
            time.sleep(0.03)
            for worker in psutil.Process().children()[:1]:
                worker.kill()
                killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcomes = run_programs(programs)
    finally:
        stop.set()
        killer.join()
    assert len(killed) >= 3
    wrong = [i for i, outcome in enumerate(outcomes) if outcome != Outcome("ok", 19999 + i)]
    assert len(wrong) <= len(killed)
    assert all(outcomes[i].status == "exception" for i in wrong)


def test_a_program_whose_worker_always_dies_costs_its_own_verdict_only():
    programs = [value("1"), body("while True:", "    pass"), value("2"), value("3")]
    stop = threading.Event()

    def kill_the_busy() -> None:
        while not stop.is_set():
            for worker in psutil.Process().children():
                try:
                    if worker.cpu_times().user > 0.15:
                        worker.kill()
                except psutil.Error:
                    pass
            time.sleep(0.02)

    killer = threading.Thread(target=kill_the_busy)
    killer.start()
    try:
        outcomes = run_programs(programs, seconds=20)
    finally:
        stop.set()
        killer.join()
    assert [outcome.status for outcome in outcomes] == ["ok", "exception", "ok", "ok"]
    assert [outcome.value for outcome in outcomes] == [1, None, 2, 3]
    assert "died" in outcomes[1].detail


def test_one_worker_and_four_give_the_same_outcomes():
    programs = [source for source, _ in ATTACKS.values()][-60:]
    one, four = (run_programs(programs, seconds=SHORT, workers=n) for n in (1, 4))
    assert repr(one) == repr(four)  # as text: a NaN equals no NaN


def test_clock_and_random_numbers_are_fixed():
    programs = [
        value("random.random()", head="import random\n"),
        value("time.time()", head="import time\n"),
    ]
    first, second = run_programs(programs), run_programs(programs)
    assert first == second
    assert {outcome.status for outcome in first} == {"ok"}


def test_programs_share_no_state():
    programs = ["seen = 1\n" + value("seen")] + [value("seen")] * 9
    outcomes = run_programs(programs, workers=1)
    assert [outcome.status for outcome in outcomes] == ["ok"] + ["exception"] * 9


def test_missing_programs_need_no_sandbox(monkeypatch):
    assert run_programs([]) == []
    monkeypatch.setattr(sandbox.monty, "Monty", None)
    assert [o.status for o in run_programs([None, None])] == ["no_solution"] * 2


def test_none_among_programs_keeps_its_place():
    outcomes = run_programs([None, value("1"), None, value("2")])
    assert [outcome.value for outcome in outcomes] == [None, 1, None, 2]
    assert outcomes[0].status == outcomes[2].status == "no_solution"


def test_works_inside_a_running_event_loop_as_in_jupyter():
    async def cell() -> list[Outcome]:
        return run_programs([value("6 * 7")])

    assert asyncio.run(cell()) == [Outcome("ok", 42)]


def test_a_sandbox_that_does_not_start_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("MONTY_BIN", "/nowhere/monty")
    with pytest.raises(SoupError, match="does not start") as told:
        run_programs([value("1")])
    assert "\n" not in str(told.value)


HOST = textwrap.dedent("""
    from lorasoups.tasks.judging.sandbox import run_programs
    print("started", flush=True)
    run_programs(["def solution():\\n    while True: pass\\n"] * 500, seconds=1)
""")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_host_leaves_no_worker(sent):
    with child(
        [sys.executable, "-c", HOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as host:
        host.stdout.readline()
        process = psutil.Process(host.pid)
        until = time.monotonic() + 30
        while len(process.children()) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        workers = process.children()  # two, or more while one is being started
        host.send_signal(sent)
        _, told = host.communicate(timeout=20)
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert len(gone) >= 2 and alive == []
    assert host.returncode != 0
    if sent == signal.SIGINT:
        assert told.rstrip().endswith("KeyboardInterrupt")
