"""Lists of seeds as people write them."""

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.serving.limits import LimitError, Limits
from darkroom.studio.seeds import numbers_in, seeds_in


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-3, 7", [0, 1, 2, 3, 7]),
        ("7", [7]),
        (" 5 , 5, 3–5 ;1", [5, 3, 4, 1]),
        ("2 - 2\n9,", [2, 9]),
        (str(2**63 - 1), [2**63 - 1]),
    ],
)
def test_a_list_gives_its_seeds_in_its_order_each_once(text: str, seeds: list[int]) -> None:
    assert seeds_in(text, Limits()) == seeds


@pytest.mark.parametrize("text", ["", " , ", "a", "-1", "1.5", "3-", "3-1", "1 2", str(2**63), "1-2-3", "٣"])
def test_what_is_not_such_a_list_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(DarkroomError, match="seed") as refused:
        seeds_in(text, Limits())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["0-64", "0-9223372036854775806", "0-40, 100-140"])
def test_more_than_a_request_may_have_is_refused_before_it_is_laid_out(text: str) -> None:
    """Catches a range that fills the memory."""
    with pytest.raises(LimitError, match=r"at most 64 are taken \(DARKROOM_SERVE_ROWS\)"):
        seeds_in(text, Limits())


def test_numbers_are_read_in_their_order() -> None:
    assert numbers_in("1, 3 7.5;3", "guidance") == [1, 3, 7.5]
    for text in ("", "a", "1, x", "inf", "nan"):
        with pytest.raises(DarkroomError, match="guidance = "):
            numbers_in(text, "guidance")
