"""Every call of the service as a value: what to send, and how to read the answer.

Both clients are made of these, so what is said and understood is written once.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

from sojourn_client.answers import (
    Erased,
    EventsStored,
    Health,
    HistoryPage,
    Item,
    ItemsStored,
    Merged,
    Models,
    Recommendations,
    SimilarItems,
    Switched,
    UserData,
)
from sojourn_client.asking import (
    Candidate,
    ItemFields,
    NamedItem,
    RankFields,
    RecommendFields,
    UserFields,
)
from sojourn_client.errors import BadAnswer
from sojourn_client.events import Event, moment
from sojourn_client.reading import read

MAX_EVENTS_PER_CALL = 1_000
# The service takes 1 MiB; what is around the events has to fit too.
MAX_BODY_BYTES = 1_000_000
OK = frozenset({200})
NO_CONTENT = 204
NOT_READY = 503
# What is sent as an array, in a body, or with commas between, in a query string.
ARRAYS = (list, tuple, set, frozenset)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request; `path` has its query string.

    `is_repeatable` says that it may be sent again if nobody knows whether it was done.
    `statuses` are those whose body is an answer and no problem.
    """

    method: str
    path: str
    read: Callable[[object], T]
    body: bytes | None = None
    is_repeatable: bool = True
    statuses: frozenset[int] = OK


def post_events(events: Iterable[Event]) -> Iterator[Call[EventsStored]]:
    """Return the calls that store events, each as large as one may be."""
    for batch in _batches(events):
        body = b'{"events":[' + b",".join(batch) + b"]}"
        yield Call("POST", "/v1/events", partial(_events_stored, len(batch)), body)


def user_recommendations(user_id: str, fields: UserFields) -> Call[Recommendations]:
    """Return the call for a stored user."""
    path = f"/v1/users/{_segment('user_id', user_id)}/recommendations"
    return Call("GET", path + _query_string(fields), partial(read, Recommendations))


def recommend(fields: RecommendFields) -> Call[Recommendations]:
    """Return the call for anything that recommendations can be asked for."""
    return Call("POST", "/v1/recommendations", partial(read, Recommendations), _encode(fields))


def next_page(fields: RecommendFields, cursor: str) -> RecommendFields:
    """Return what to ask for the page after one: whose it is, its length and nothing else."""
    kept = {name: fields[name] for name in ("user_id", "k") if name in fields}
    return cast("RecommendFields", kept | {"cursor": cursor})


def rank(items: Iterable[Candidate], fields: RankFields) -> Call[Recommendations]:
    """Return the call that orders the caller's candidates."""
    body = _encode({"items": list(items), **fields})
    return Call("POST", "/v1/rank", partial(read, Recommendations), body)


def similar(item_id: str, k: int | None) -> Call[SimilarItems]:
    """Return the call for the items most like one."""
    path = _item(item_id) + "/similar"
    return Call("GET", path + _query_string({"k": k}), partial(read, SimilarItems))


def put_item(item_id: str, fields: ItemFields) -> Call[Item]:
    """Return the call that says what an item is, in place of what was said before."""
    return Call("PUT", _item(item_id), partial(read, Item), _encode(fields))


def post_items(items: Iterable[NamedItem]) -> Call[ItemsStored]:
    """Return the call that says something of up to 1,000 items."""
    body = _encode({"items": list(items)})
    return Call("POST", "/v1/items", partial(read, ItemsStored), body)


def get_item(item_id: str) -> Call[Item]:
    """Return the call for an item as it is served."""
    return Call("GET", _item(item_id), partial(read, Item))


def delete_item(item_id: str) -> Call[None]:
    """Return the call that takes an item away."""
    statuses = frozenset({NO_CONTENT})
    return Call("DELETE", _item(item_id), lambda _nothing: None, statuses=statuses)


def get_user(user_id: str) -> Call[UserData]:
    """Return the call for everything that is held of a user, whatever the id holds."""
    return Call("GET", "/v1/users" + _whole_user(user_id), partial(read, UserData))


def erase_user(user_id: str) -> Call[Erased]:
    """Return the call that erases a user; after a lost answer it has to be repeated."""
    return Call("DELETE", "/v1/users" + _whole_user(user_id), partial(read, Erased))


def user_events(user_id: str, limit: int | None, cursor: str | None) -> Call[HistoryPage]:
    """Return the call for a page of a user's history."""
    path = f"/v1/users/{_segment('user_id', user_id)}/events"
    asked = _query_string({"limit": limit, "cursor": cursor})
    return Call("GET", path + asked, partial(read, HistoryPage))


def merge_users(from_user_id: str, into_user_id: str) -> Call[Merged]:
    """Return the call that gives one user's history to another; it is safe to repeat."""
    body = _encode({"from_user_id": from_user_id, "into_user_id": into_user_id})
    return Call("POST", "/v1/users/merge", partial(read, Merged), body)


def list_models() -> Call[Models]:
    """Return the call for all models."""
    return Call("GET", "/v1/models", partial(read, Models))


def activate(version: str) -> Call[Switched]:
    """Return the call that switches all processes.

    It is never repeated: somebody may have switched again in between.
    """
    path = f"/v1/models/{_segment('version', version)}/activate"
    return Call("POST", path, partial(read, Switched), is_repeatable=False)


def roll_back() -> Call[Switched]:
    """Return the call that goes back to the model before; a second one would go forth again."""
    return Call("POST", "/v1/models/rollback", partial(read, Switched), is_repeatable=False)


def health() -> Call[Health]:
    """Return the call for the service's state; not being ready is an answer too."""
    return Call("GET", "/healthz", partial(read, Health), statuses=frozenset({200, NOT_READY}))


def _events_stored(num_events: int, document: object) -> EventsStored:
    """Return the answer to a batch; raises BadAnswer unless it speaks of each event."""
    answer = read(EventsStored, document)
    if len(answer.results) != num_events:
        raise BadAnswer(f"{num_events} events were sent and {len(answer.results)} answered for")
    return answer


def _batches(events: Iterable[Event]) -> Iterator[list[bytes]]:
    """Return the events' JSON in batches of at most as many and as large as a call may be."""
    batch: list[bytes] = []
    num_bytes = 0
    for event in events:
        encoded = _encode(event.to_json())
        is_over = num_bytes + len(encoded) > MAX_BODY_BYTES or len(batch) == MAX_EVENTS_PER_CALL
        if batch and is_over:
            yield batch
            batch, num_bytes = [], 0
        batch.append(encoded)
        num_bytes += len(encoded) + 1
    if batch:
        yield batch


def _encode(document: object) -> bytes:
    """Return JSON; raises ValueError for NaN and times without a zone, TypeError for the rest."""
    return json.dumps(_plain(document), allow_nan=False, separators=(",", ":")).encode("ascii")


def _plain(value: object) -> object:
    """Return a value with arrays for sequences and sets, and text for times."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, ARRAYS):
        return [_plain(one) for one in value]
    return moment(value) if isinstance(value, datetime) else value


def _segment(name: str, text: str) -> str:
    """Return an id as one segment of a path; raises ValueError if it is empty.

    A segment of dots alone is encoded too: clients and proxies take `..` for a step upwards.
    """
    if not text:
        raise ValueError(f"{name} must not be empty")
    return text.replace(".", "%2E") if set(text) == {"."} else quote(text, safe="")


def _item(item_id: str) -> str:
    return f"/v1/items/{_segment('item_id', item_id)}"


def _whole_user(user_id: str) -> str:
    if not user_id:
        raise ValueError("user_id must not be empty")
    return _query_string({"user_id": user_id})


def _query_string(fields: Mapping[str, Any]) -> str:
    """Return a query string of what is known, empty or with its question mark."""
    pairs = [(name, _as_text(value)) for name, value in fields.items() if value is not None]
    return "?" + urlencode(pairs, quote_via=quote) if pairs else ""


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return str(moment(value))
    return ",".join(map(str, value)) if isinstance(value, ARRAYS) else str(value)
