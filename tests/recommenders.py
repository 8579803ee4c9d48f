"""A recommender on fakes, for tests below HTTP."""

import numpy as np

from service.answering import Answers
from service.bundle_loader import LoadedBundle
from service.exposures import Exposures
from service.fallback import LivePopularity
from service.metrics import Metrics
from service.nearest import Bonus
from service.ranker import Encoded
from service.readings import Readings
from service.recommender import Recommender
from service.serving_model import ModelSource, Ranked, Ranking, ServingModel
from service.store.keys import new_recommendation_id
from service.turns import Turns
from tests.fake_stores import FakeExposures, FakeLists
from tests.fakes import FakeClock, FakeCounters, FakeHistory

NOTHING_RANKED = Ranked([], Encoded(np.zeros(0, np.float32), Bonus.nothing(), 0))


def model_of(bundle: LoadedBundle, ranking: Ranking, *, kept_bytes: int = 0) -> ServingModel:
    """Return a model that ranks so, where nothing is popular."""
    live = LivePopularity(FakeCounters(), bundle.vocabulary, FakeClock())
    readings = Readings(bundle.vocabulary, Metrics(), kept_bytes)
    turns = Turns("explain", Metrics(), max_pending=1)
    return ServingModel(bundle, ranking, live, readings, turns)


def recommender_on(
    models: ModelSource,
    history: FakeHistory,
    *,
    metrics: Metrics | None = None,
    deadline_ms: int = 60_000,
) -> Recommender:
    """Return a recommender whose answers nobody notes."""
    metrics, clock = metrics or Metrics(), FakeClock()
    exposures = Exposures(FakeExposures(), metrics, max_pending=1, is_on=False)
    answers = Answers(
        lists=FakeLists(),
        exposures=exposures,
        metrics=metrics,
        clock=clock,
        new_id=lambda user_id: new_recommendation_id(user_id, 16),
    )
    return Recommender(
        models=models,
        history=history,
        showings=exposures,
        answers=answers,
        clock=clock,
        default_tz_offset_min=0,
        deadline_ms=deadline_ms,
        explain_events=50,
    )
