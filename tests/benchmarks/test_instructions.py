"""What a message costs is guarded by counted instructions, which no other work on the machine changes."""

from __future__ import annotations

import pytest

from benchmarks import instructions
from benchmarks.rest_call import NO_LIMIT, OURS, REFERENCE
from benchmarks.servers import upbit
from upbit_backbone.unify.scanner import is_compiled

# Ours ÷ websocket-client and json in a plain receiving loop, when it was last looked (CPython 3.11 to 3.13 differ by
# less than a tenth). Whoever makes the path cheaper writes the new ratio here; it may worsen by a quarter, no further.
RATIOS = {
    ("ticker", 20, 400): 0.59,
    ("ticker", 1, 400): 0.93,
    ("trade", 1, 400): 1.03,
    ("trade", 20, 400): 0.60,
    ("orderbook", 10, 100): 1.32,
}
COMPILED_RATIOS = {("ticker", 20, 400): 0.37, ("trade", 20, 400): 0.44, ("orderbook", 10, 100): 0.56}
RATIO_OF_A_QUESTION = 0.53  # ours ÷ requests.Session.get
MAY_WORSEN = 1.25


@pytest.mark.endurance
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", RATIOS, ids=lambda case: f"{case[0]}, {case[1]} a read")
def test_a_message_costs_no_more_beside_a_plain_loop_than_it_did(case: tuple[str, int, int]) -> None:
    cost_no_more(case, RATIOS[case], in_python=True)


@pytest.mark.endurance
@pytest.mark.timeout(600)
@pytest.mark.skipif(not is_compiled(), reason="nothing is compiled here")
@pytest.mark.parametrize("case", COMPILED_RATIOS, ids=lambda case: f"{case[0]}, {case[1]} a read")
def test_nor_does_it_with_compiled_decoding(case: tuple[str, int, int]) -> None:
    cost_no_more(case, COMPILED_RATIOS[case], in_python=False)


def cost_no_more(case: tuple[str, int, int], before: float, *, in_python: bool) -> None:
    reason = instructions.why_not()
    if reason is not None:
        pytest.skip(f"instructions cannot be counted here: {reason}")
    try:
        ours, plain = (instructions.counted(who, *case, in_python=in_python) for who in ("ours", "plain"))
    except instructions.CannotCountError as problem:
        pytest.skip(str(problem))
    assert ours / plain <= before * MAY_WORSEN, (
        f"{case[0]}: {ours:,.0f} instructions a message, the plain loop {plain:,.0f}; "
        f"it was {before} times the plain loop"
    )


@pytest.mark.endurance
@pytest.mark.timeout(600)
def test_a_rest_question_costs_no_more_beside_a_session_than_it_did() -> None:
    reason = instructions.why_not()
    if reason is not None:
        pytest.skip(f"instructions cannot be counted here: {reason}")
    with upbit(rest_limit=NO_LIMIT) as fake:
        try:
            ours, theirs = (instructions.questions(fake, who) for who in (OURS, REFERENCE))
        except instructions.CannotCountError as problem:
            pytest.skip(str(problem))
    assert ours / theirs <= RATIO_OF_A_QUESTION * MAY_WORSEN, f"{ours:,.0f} instructions, {REFERENCE} {theirs:,.0f}"


def test_where_a_tool_is_missing_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda tool: None if tool == "callgrind_control" else tool)
    assert instructions.why_not() == "callgrind_control is not installed"
