"""Extending: a bundle with what callers said of items since it was made.

The bundle stays as it is; what comes out shares its encoder, its mapped matrix and every column
that did not change.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from service.bundle_loader import LoadedBundle
from service.contract.events import ItemId
from service.contract.features import Float32s
from service.contract.items import Item
from service.contract.vocabulary import item_hash
from service.item_columns import CATEGORIES
from service.store.catalogue import DELETED, Said

NO_VECTORS: Mapping[str, Float32s] = {}


def extend(
    base: LoadedBundle,
    view: LoadedBundle,
    said: Mapping[str, Said],
    vectors: Mapping[str, Float32s] = NO_VECTORS,
) -> LoadedBundle:
    """Return a view of `base` in which these items are as was said: changed, new, or withheld.

    `view` is the bundle itself, or what came of it before; items that are not named stay as they
    are there. `vectors` are those of new items whose text was read, (dim,), by id. Another new item
    stands where its categories are: its vector is the mean over its categories of the mean vector
    of their items, and zero if no category is known. One of which nothing is said any more is
    withheld.
    """
    # What is gone gets a row too, withheld: otherwise it would come back as a stranger.
    new = [text for text, one in said.items() if text not in view.vocabulary and one]
    vocabulary = view.vocabulary.extended(new) if new else view.vocabulary
    known = [text for text in said if text in vocabulary]
    items = {vocabulary.index(text): item_of(base, text, said[text]) for text in known}
    if not items:
        return view
    changed = {index: items[index] for index in sorted(items)}
    hashes = np.array([item_hash(text) for text in new], np.uint64)
    gone = [index for index, item in changed.items() if not item.available]
    gone += [
        vocabulary.index(text)
        for text in known
        if is_gone(said[text]) or not (said[text] or text in base.vocabulary)
    ]
    stayed = np.setdiff1d(view.withheld, np.array([*changed], np.int64))
    return replace(
        view,
        ranker=view.ranker.extended(_rows(base, view, changed, vectors, len(vocabulary))),
        vocabulary=vocabulary,
        titles=view.titles.patched({index: item.title for index, item in changed.items()}),
        columns=view.columns.patched(changed, len(vocabulary)),
        hash_index=view.hash_index.extended(hashes) if new else view.hash_index,
        withheld=np.union1d(stayed, np.array(gone, np.int64)),
    )


def with_vectors(
    base: LoadedBundle, view: LoadedBundle, vectors: Mapping[str, Float32s]
) -> LoadedBundle:
    """Return the view with these vectors, (dim,), of items that came after the bundle, by id.

    A vector of zeros says nothing; the item then stays where its categories are.
    """
    rows = view.ranker.vectors(np.arange(base.num_trained + 1, len(view.vocabulary) + 1))
    for item_id, vector in vectors.items():
        if vector.any():
            rows[view.vocabulary.index(item_id) - base.num_trained - 1] = vector
    return replace(view, ranker=view.ranker.extended(rows))


def is_gone(said: Said) -> bool:
    """Say whether an item was said to be no more."""
    return bool(said.get(DELETED))


def item_of(bundle: LoadedBundle, item_id: str, said: Said) -> Item:
    """Return an item: what was said of it, and for what was not said, what the bundle says."""
    index = bundle.vocabulary.index(item_id)
    facts: dict[str, Any] = {"title": None, "text": None}
    if index:
        facts |= bundle.columns.facts(index) | {"title": bundle.titles[index]}
    facts |= {name: value for name, value in said.items() if name != DELETED}
    return Item(
        item_id=ItemId(item_id),
        title=facts["title"],
        text=facts["text"],
        categories=tuple(facts.get("categories") or ()),
        attributes=_attributes(facts.get("attributes") or {}),
        lat=facts.get("lat"),
        lon=facts.get("lon"),
        opening_hours=facts.get("opening_hours"),
        available=facts.get("available") is not False,
        released_at_ms=facts.get("released_at_ms"),
    )


def _attributes(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as items have them: lists as tuples, numbers as floats."""
    return {
        name: tuple(value)
        if isinstance(value, list)
        else float(value)
        if isinstance(value, int) and not isinstance(value, bool)
        else value
        for name, value in raw.items()
    }


def _rows(
    base: LoadedBundle,
    view: LoadedBundle,
    changed: Mapping[int, Item],
    vectors: Mapping[str, Float32s],
    num_items: int,
) -> Float32s:
    """Return the vectors of all items that came after the bundle, (num_added, dim)."""
    first = base.num_trained + 1
    rows = np.zeros((num_items + 1 - first, base.manifest.features.dim), np.float32)
    there = np.arange(first, len(view.vocabulary) + 1)
    rows[: len(there)] = view.ranker.vectors(there)
    centres: dict[str, Float32s | None] = {}
    for index, item in changed.items():
        if index < first:
            continue
        vector = vectors.get(item.item_id)
        if vector is None or not vector.any():
            vector = _row(base, item.categories, centres)
        rows[index - first] = vector
    return rows


def _row(
    base: LoadedBundle, categories: tuple[str, ...], centres: dict[str, Float32s | None]
) -> Float32s:
    """Return where an item of these categories stands, (dim,); `centres` remembers theirs."""
    for category in categories:
        if category not in centres:
            centres[category] = _centre(base, category)
    found = [centre for centre in map(centres.get, categories) if centre is not None]
    if not found:
        return np.zeros(base.manifest.features.dim, np.float32)
    return np.asarray(np.mean(found, axis=0), np.float32)


def _centre(base: LoadedBundle, category: str) -> Float32s | None:
    column = base.columns.terms.get(CATEGORIES)
    members = None if column is None else column.items_of(category)
    if members is None or not len(members):
        return None
    return np.asarray(base.ranker.vectors(members).mean(axis=0), np.float32)
