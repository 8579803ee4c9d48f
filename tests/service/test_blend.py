"""Blends: each scale by values worked out by hand, and what a missing number counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.blend import blend
from service.blend_terms import PLAIN, Scale, Term

NAN = float("nan")


def x(weight: float, scale: Scale = "min-max", **settings: float) -> Term:
    """Return a term of the caller's number x."""
    return Term("features.x", weight, scale, **settings)


def scores(terms: list[Term], values: list[float], feature: str = "features.x") -> list[float]:
    """Return the blended scores of candidates with these numbers."""
    found: list[float] = blend(terms, {feature: np.array(values)}, len(values)).scores.tolist()
    return found


@pytest.mark.parametrize(
    ("term", "values", "expected"),
    [
        pytest.param(x(1.0), [10, 20, 30], [0, 0.5, 1], id="min-max spans 0 to 1"),
        pytest.param(x(1.0), [7, 7], [0, 0], id="equal numbers tell nothing apart"),
        pytest.param(x(-2.0), [10, 20], [0, -2], id="a weight may be against"),
        pytest.param(x(1.0), [NAN, 5, 9], [0, 0, 1], id="missing counts 0"),
        pytest.param(x(2.0, missing=0.5), [NAN, 5, 9], [1, 0, 2], id="or what is said"),
        pytest.param(x(1.0), [NAN, NAN], [0, 0], id="nobody has the number"),
        pytest.param(x(1.0, "rank"), [5, 1, 900], [0.5, 0, 1], id="rank ignores size"),
        pytest.param(x(1.0, "rank"), [1, 1, 3], [0.25, 0.25, 1], id="ties share a rank"),
        pytest.param(x(1.0, "rank"), [4], [0], id="one candidate has no rank"),
        pytest.param(x(1.0, "log"), [0, np.e - 1, 1 - np.e], [0, 1, -1], id="log"),
        pytest.param(
            x(1.0, "decay", half_life=7),
            [0, 7, 14, -3],
            [1, 0.5, 0.25, 1],
            id="decay",
        ),
        pytest.param(x(0.1, "none"), [3, -4], [0.3, -0.4], id="none takes it as it is"),
    ],
)
def test_a_term_scales_the_known_numbers(
    term: Term, values: list[float], expected: list[float]
) -> None:
    """Every scale is of the candidates of one request alone."""
    assert scores([term], values) == pytest.approx(expected)


def test_terms_add_up_and_say_what_each_gave() -> None:
    """Model 0 and 1, price (weight -.5) 1 and 0: -.5 and 1 in all."""
    result = blend(
        [Term("model", 1.0), Term("attributes.price", -0.5)],
        {"model": np.array([2.0, 4.0]), "attributes.price": np.array([9.0, 3.0])},
        2,
    )
    assert result.scores.tolist() == pytest.approx([-0.5, 1.0])
    assert result.parts.tolist() == [pytest.approx([0.0, 1.0]), pytest.approx([-0.5, 0.0])]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"feature": "modell", "weight": 1}, "must be one of model, distance_km"),
        ({"feature": "model", "weight": 1, "scale": "decay"}, "`half_life` must go with"),
        ({"feature": "model", "weight": 1, "half_life": 2}, "`half_life` must go with"),
        ({"feature": "model", "weight": float("inf")}, "finite"),
        ({"feature": "model", "weight": 1, "wieght": 1}, "nexpected"),
        ({"feature": "model", "weight": "1"}, "valid number"),
    ],
)
def test_a_term_that_means_nothing_is_refused(document: dict[str, object], said: str) -> None:
    """A mistyped term would otherwise count for nothing, silently."""
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(Term).validate_python(document)


def test_the_plain_blend_is_the_models_score() -> None:
    """Without a blend the order is the model's and its scores are kept."""
    assert scores(list(PLAIN), [-3.5, 0.25], "model") == [-3.5, 0.25]


@given(
    st.lists(st.floats(-1e308, 1e308) | st.just(NAN), min_size=1, max_size=20),
    st.sampled_from(["min-max", "rank", "log", "decay"]),
)
def test_scaled_numbers_are_finite_and_keep_their_order(values: list[float], scale: Scale) -> None:
    """A caller may send any finite number; `decay` turns the order round."""
    sign = -1 if scale == "decay" else 1
    term = x(sign, scale, half_life=3.0) if scale == "decay" else x(sign, scale)
    found = np.array(scores([term], values))
    assert np.isfinite(found).all()
    known = [place for place, value in enumerate(values) if not np.isnan(value)]
    ordered = sorted(known, key=lambda place: values[place])
    assert (np.diff(found[ordered]) >= 0).all()
