"""Full ranking: seen items, baselines, and one code path."""

import numpy as np

from service.contract.features import Arrays, Float32s
from tests.training import builders
from training.baselines import LastItemCooccurrence, Markov, Popularity, RecentPopularity
from training.dataset import case_batches
from training.evaluate import evaluate, rank_cases, results_by_rule
from training.splits import leave_one_out


class LowIndexFirst:
    """Scores item 1 highest, then 2 and so on."""

    def score(self, arrays: Arrays) -> Float32s:
        """Return the same descending scores for every case."""
        return np.tile(-np.arange(5, dtype=np.float32), (len(arrays["items"]), 1))


def test_seen_items_do_not_rank_under_removed_and_do_under_kept() -> None:
    """Of abcd the test target d ranks 4th of all, and first once a, b, c are removed."""
    events = builders.events(["abcd"])
    split = leave_one_out(events)
    results = evaluate(
        {"fixed": LowIndexFirst()},
        events,
        split.test,
        train=split.train,
        window_len=2,
        request_time="known",
    )
    assert results["kept"]["fixed"]["mrr"] == 1 / 4
    assert results["removed"]["fixed"]["mrr"] == 1.0


def test_a_repeated_target_is_a_miss_when_seen_items_are_removed() -> None:
    """A service that never shows seen items never shows this one."""
    events = builders.events(["abca"])
    split = leave_one_out(events)
    scorer = Popularity(events, split.train)
    results = evaluate(
        {"popularity": scorer},
        events,
        split.test,
        train=split.train,
        window_len=4,
        request_time="known",
    )
    assert results["kept"]["popularity"]["hr@1"] == 1.0
    assert results["removed"]["popularity"]["hr@1"] == 0.0


def test_cases_come_back_with_their_rows() -> None:
    """Cases are ranked by window length; each rank still belongs to the row beside it."""
    events = builders.events(["abcd", "dcab", "abdc"])
    split = leave_one_out(events)
    ranking = rank_cases(
        {"fixed": LowIndexFirst()}, events, split.test, window_len=4, request_time="known"
    )
    assert sorted(ranking.rows.tolist()) == split.test.tolist()
    targets = events.window.items[ranking.rows]  # item index n ranks n-th while nothing is removed
    assert ranking.ranks("kept")["fixed"].tolist() == targets.tolist()


def test_recall_and_popularity_stand_beside_the_other_metrics() -> None:
    """Training events are a, b, c and b, x; a list of all five items averages 5 / 5 of them.

    The targets are d and c, with (0 + 1) / 2 events, floored at 1.
    """
    events = builders.events(["abcad", "bxxc"])
    split = leave_one_out(events)
    ranking = rank_cases(
        {"popularity": Popularity(events, split.train)}, events, split.test,
        window_len=4, request_time="known",
    )  # fmt: skip
    results = results_by_rule(ranking, events, split.train)["kept"]["popularity"]
    assert results["recall@5"] == results["hr@5"]
    assert results["arp@10"] == 5 / 5
    assert results["popularity_bias@10"] == (5 / 5) / 1


def _scores(kind: type[Popularity | RecentPopularity | Markov], words: list[str]) -> Float32s:
    events = builders.events(words)
    split = leave_one_out(events)
    ((_, arrays),) = case_batches(events, split.test[:1], 10, "known")
    scores: Float32s = kind(events, split.train).score(arrays)[0]
    return scores


def test_popularity_counts_training_events_only() -> None:
    """The held-out b and a of the first user do not count."""
    assert _scores(Popularity, ["aaba", "bbaa"]).tolist() == [0.0, 2.0, 2.0]


def test_recent_popularity_ignores_what_is_old() -> None:
    """Only the newest tenth of training events counts: the j of a ten-day word."""
    scores = _scores(RecentPopularity, ["abcdefghijyz"])
    assert scores.argmax() == 10
    assert (scores > 0).sum() == 1


def test_markov_counts_what_followed_the_last_item() -> None:
    """The window ends in a; after a came b twice and c once in training."""
    scores = _scores(Markov, ["zzaz", "abyz", "abyz", "acyz"])
    ranked = np.argsort(-scores)
    assert ranked[:2].tolist() == [2, 3]


def test_cooccurrence_counts_both_directions() -> None:
    """B came before a once; the transition count knows nothing of it."""
    events_words = ["zzaz", "bayz"]
    assert _scores(LastItemCooccurrence, events_words)[2] >= 1
    assert _scores(Markov, events_words)[2] < 1
