"""The best of a batch of questions, against a plain sort of each question's scores."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.allowed import AllBut, Only
from service.contract.features import Float32s, Int64s
from service.item_rows import ItemRows
from service.nearest import Bonus, Question, best_of
from service.ordering import top_k_of_columns

DIM = 2


@dataclass(frozen=True)
class Case:
    """A catalogue, a part of its rows added later, and questions asked of it at once."""

    rows: ItemRows
    every_row: Float32s
    asked: list[Question]

    def sorted_best(self, question: Question) -> list[int]:
        """Return the k best of what is allowed by sorting everything in Python."""
        scores = self.every_row @ question.query
        for item, weight in zip(question.bonus.items, question.bonus.weights, strict=True):
            scores[item] += weight
        every = np.arange(1, len(self.every_row))
        may = every[question.allowed.holds(every)].tolist()
        return sorted(may, key=lambda item: (-scores[item], item))[: question.k]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw small whole numbers, whose products are exact and often equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_items = draw(st.integers(1, 700))
    num_added = draw(st.integers(0, min(5, num_items)))
    every = rng.integers(-9, 10, (num_items + 1, DIM)).astype(np.float32)
    mapped = len(every) - num_added
    asked = []
    for _ in range(draw(st.integers(1, 5))):
        some = np.flatnonzero(rng.random(num_items) < draw(st.sampled_from([0, 0.05, 0.5, 1]))) + 1
        window = rng.integers(0, num_items + 1, draw(st.sampled_from([0, 6])))
        asked.append(
            Question(
                rng.integers(-3, 4, DIM).astype(np.float32),
                Bonus(window, rng.integers(0, 9, len(window)).astype(np.float32)),
                Only(some) if draw(st.booleans()) else AllBut(some, num_items),
                draw(st.sampled_from([0, 1, 2, 10, 1000])),
            )
        )
    return Case(ItemRows(every[:mapped], every[mapped:]), every, asked)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_a_batch_has_each_questions_own_best(case: Case) -> None:
    """Lists and exclusions, long and short lists, ties, bonuses and added rows share products."""
    found = best_of(case.rows, None, case.asked)
    for question, (best, scores) in zip(case.asked, found, strict=True):
        assert best.tolist() == case.sorted_best(question)
        exact = case.every_row[best] @ question.query + question.bonus.of_each(best)
        assert scores.tolist() == exact.tolist()


def test_a_batch_leaves_the_answers_of_the_one_before_as_they_were() -> None:
    """Products are made in the same memory each time; what was answered is no view of it."""
    rows = ItemRows(np.arange(60, dtype=np.float32).reshape(30, 2))
    nothing: Int64s = np.zeros(0, np.int64)
    up, down = (
        Question(np.full(2, sign, np.float32), Bonus.nothing(), AllBut(nothing, 29), 2)
        for sign in (1, -1)
    )
    [(best, scores)] = best_of(rows, None, [up])
    best_of(rows, None, [down])
    assert (best.tolist(), scores.tolist()) == ([29, 28], [58 + 59, 56 + 57])


def test_columns_of_other_lengths_are_cut_apart() -> None:
    """Each has a cutoff of its own, and -inf is nobody's."""
    scores = np.array([[1, -np.inf, 5], [3, -np.inf, 5], [2, 7, 5]], np.float32)
    found = top_k_of_columns(scores, [2, 2, 0])
    assert [places.tolist() for places, _ in found] == [[1, 2], [2], []]
