from __future__ import annotations

import pytest

from recsys.errors import ConfigError
from recsys.lookup import lookup

LOSSES = {"bpr": 1, "directau": 2, "sampled_softmax": 3}


@pytest.mark.parametrize("name", LOSSES)
def test_finds(name: str) -> None:
    assert lookup(LOSSES, name, "loss") == LOSSES[name]


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean 'directau'") as caught:
        lookup(LOSSES, "direct_au", "loss")
    assert str(caught.value).startswith("unknown loss 'direct_au'; known: bpr, directau, sampled")
    assert caught.value.__cause__ is None


def test_nothing_near_gets_no_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^unknown index 'zzz'; known: annoy, exact$"):
        lookup({"exact": 1, "annoy": 2}, "zzz", "index")


def test_an_implementation_that_raises_key_errors_is_not_mistaken_for_a_wrong_name() -> None:
    def broken() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        lookup({"broken": broken}, "broken", "loss")()
