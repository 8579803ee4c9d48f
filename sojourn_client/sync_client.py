"""The client that blocks; `AsyncSojourn` has the same methods for asyncio."""

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar, Unpack

import httpx

from sojourn_client import calls
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
from sojourn_client.calls import Call
from sojourn_client.errors import SojournError
from sojourn_client.events import Event
from sojourn_client.http import Connection, answer_of, content_headers, no_answer, tls
from sojourn_client.retries import Budget, Retries, Tries

T = TypeVar("T")


class Sojourn:
    """A Sojourn service.

    Every method raises `NoAnswer`, a kind of `Refused` or `BadAnswer`, all of them `SojournError`.
    What is safe to repeat is tried again as `retries` says: everything but `activate` and
    `roll_back`. Threads may share a client. After a fork make a new one: two processes must not
    talk through one socket.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 2.0,
        max_connections: int = 20,
        verify: bool | str = True,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.retries = retries or Retries()
        self._connection = Connection(
            base_url,
            api_key,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_connections=max_connections,
        )
        self._http = httpx.Client(
            headers=self._connection.headers,
            limits=self._connection.limits,
            verify=tls(verify),
            transport=transport,
        )
        self._budget = Budget(self.retries)
        self._sleep = sleep

    def __enter__(self) -> "Sojourn":
        """Return the client; leaving closes its connections."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._http.close()

    def post_events(self, events: Iterable[Event]) -> EventsStored:
        """Store events, in several calls if there are many; read `rejected` of the answer.

        Each event is judged by itself. After an error post the same events again: what was stored
        is a duplicate and changes nothing.
        """
        return EventsStored.joined(map(self.do, calls.post_events(events)))

    def recommendations(self, user_id: str, **fields: Unpack[UserFields]) -> Recommendations:
        """Recommend to a stored user."""
        return self.do(calls.user_recommendations(user_id, fields))

    def recommend(self, **fields: Unpack[RecommendFields]) -> Recommendations:
        """Recommend with candidates, filters, variety, words, pages, or without a stored user."""
        return self.do(calls.recommend(fields))

    def pages(self, **fields: Unpack[RecommendFields]) -> Iterator[Recommendations]:
        """Yield the pages of one list, `k` items each; they join without gaps and repeats."""
        fields["paginate"] = True
        page = self.recommend(**fields)
        yield page
        while page.next_cursor is not None:
            page = self.recommend(**calls.next_page(fields, page.next_cursor))
            yield page

    def rank(self, items: Iterable[Candidate], **fields: Unpack[RankFields]) -> Recommendations:
        """Order your own candidates by the model's score and numbers of yours."""
        return self.do(calls.rank(items, fields))

    def similar(self, item_id: str, k: int | None = None) -> SimilarItems:
        """Return the items most like one; raises NotFound."""
        return self.do(calls.similar(item_id, k))

    def put_item(self, item_id: str, **fields: Unpack[ItemFields]) -> Item:
        """Say what an item is, in place of what was said before."""
        return self.do(calls.put_item(item_id, fields))

    def get_item(self, item_id: str) -> Item:
        """Return an item as it is served; raises NotFound."""
        return self.do(calls.get_item(item_id))

    def delete_item(self, item_id: str) -> None:
        """Take an item away; raises NotFound, also if a try before this one took it away."""
        self.do(calls.delete_item(item_id))

    def post_items(self, items: Iterable[NamedItem]) -> ItemsStored:
        """Say something of up to 1,000 items, beside what was said before; read `rejected`."""
        return self.do(calls.post_items(items))

    def get_user(self, user_id: str) -> UserData:
        """Return everything that is held of a user."""
        return self.do(calls.get_user(user_id))

    def erase_user(self, user_id: str) -> Erased:
        """Erase a user; after an error call it again, until there is an answer."""
        return self.do(calls.erase_user(user_id))

    def user_events(
        self, user_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> HistoryPage:
        """Return a page of a user's history, newest first."""
        return self.do(calls.user_events(user_id, limit, cursor))

    def merge_users(self, from_user_id: str, into_user_id: str) -> Merged:
        """Give one user's history to another, and erase the first."""
        return self.do(calls.merge_users(from_user_id, into_user_id))

    def models(self) -> Models:
        """Return all models and what each process serves."""
        return self.do(calls.list_models())

    def activate(self, version: str) -> Switched:
        """Switch all processes to a model; raises NotFound or Conflict. Never tried again."""
        return self.do(calls.activate(version))

    def roll_back(self) -> Switched:
        """Go back to the model before; raises Conflict. Never tried again."""
        return self.do(calls.roll_back())

    def health(self) -> Health:
        """Return the service's state, also of one that is not ready."""
        return self.do(calls.health())

    def do(self, call: Call[T], retries: Retries | None = None) -> T:
        """Send a call, again if that is safe and worth it, and return what it answers."""
        tries = Tries(retries or self.retries, self._budget, call.is_repeatable, time.monotonic)
        while True:
            try:
                answer = self._try(call, tries.left_s)
            except SojournError as exc:
                self._sleep(tries.wait_after(exc))
            else:
                self._budget.give_back()
                return answer

    def _try(self, call: Call[T], left_s: float) -> T:
        try:
            response = self._http.request(
                call.method,
                self._connection.url(call.path),
                content=call.body,
                headers=content_headers(call),
                timeout=self._connection.timeout(left_s),
            )
        except httpx.RequestError as exc:
            raise no_answer(call, exc) from exc
        return answer_of(call, response)
