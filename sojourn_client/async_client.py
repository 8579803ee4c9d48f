"""The client for asyncio; its methods are those of `Sojourn`, awaited."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
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


class AsyncSojourn:
    """A Sojourn service, asked with `await`; see `Sojourn`, whose arguments and errors it shares.

    One client belongs to one event loop.
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
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.retries = retries or Retries()
        self._connection = Connection(
            base_url,
            api_key,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_connections=max_connections,
        )
        self._http = httpx.AsyncClient(
            headers=self._connection.headers,
            limits=self._connection.limits,
            verify=tls(verify),
            transport=transport,
        )
        self._budget = Budget(self.retries)
        self._sleep = sleep

    async def __aenter__(self) -> "AsyncSojourn":
        """Return the client; leaving closes its connections."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        await self._http.aclose()

    async def post_events(self, events: Iterable[Event]) -> EventsStored:
        """Store events, in several calls if there are many; read `rejected` of the answer.

        Each event is judged by itself. After an error post the same events again: what was stored
        is a duplicate and changes nothing.
        """
        answers = [await self.do(call) for call in calls.post_events(events)]
        return EventsStored.joined(answers)

    async def recommendations(self, user_id: str, **fields: Unpack[UserFields]) -> Recommendations:
        """Recommend to a stored user."""
        return await self.do(calls.user_recommendations(user_id, fields))

    async def recommend(self, **fields: Unpack[RecommendFields]) -> Recommendations:
        """Recommend with candidates, filters, variety, words, pages, or without a stored user."""
        return await self.do(calls.recommend(fields))

    async def pages(self, **fields: Unpack[RecommendFields]) -> AsyncIterator[Recommendations]:
        """Yield the pages of one list, `k` items each; they join without gaps and repeats."""
        fields["paginate"] = True
        page = await self.recommend(**fields)
        yield page
        while page.next_cursor is not None:
            page = await self.recommend(**calls.next_page(fields, page.next_cursor))
            yield page

    async def rank(
        self, items: Iterable[Candidate], **fields: Unpack[RankFields]
    ) -> Recommendations:
        """Order your own candidates by the model's score and numbers of yours."""
        return await self.do(calls.rank(items, fields))

    async def similar(self, item_id: str, k: int | None = None) -> SimilarItems:
        """Return the items most like one; raises NotFound."""
        return await self.do(calls.similar(item_id, k))

    async def put_item(self, item_id: str, **fields: Unpack[ItemFields]) -> Item:
        """Say what an item is, in place of what was said before."""
        return await self.do(calls.put_item(item_id, fields))

    async def get_item(self, item_id: str) -> Item:
        """Return an item as it is served; raises NotFound."""
        return await self.do(calls.get_item(item_id))

    async def delete_item(self, item_id: str) -> None:
        """Take an item away; raises NotFound, also if a try before this one took it away."""
        await self.do(calls.delete_item(item_id))

    async def post_items(self, items: Iterable[NamedItem]) -> ItemsStored:
        """Say something of up to 1,000 items, beside what was said before; read `rejected`."""
        return await self.do(calls.post_items(items))

    async def get_user(self, user_id: str) -> UserData:
        """Return everything that is held of a user."""
        return await self.do(calls.get_user(user_id))

    async def erase_user(self, user_id: str) -> Erased:
        """Erase a user; after an error call it again, until there is an answer."""
        return await self.do(calls.erase_user(user_id))

    async def user_events(
        self, user_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> HistoryPage:
        """Return a page of a user's history, newest first."""
        return await self.do(calls.user_events(user_id, limit, cursor))

    async def merge_users(self, from_user_id: str, into_user_id: str) -> Merged:
        """Give one user's history to another, and erase the first."""
        return await self.do(calls.merge_users(from_user_id, into_user_id))

    async def models(self) -> Models:
        """Return all models and what each process serves."""
        return await self.do(calls.list_models())

    async def activate(self, version: str) -> Switched:
        """Switch all processes to a model; raises NotFound or Conflict. Never tried again."""
        return await self.do(calls.activate(version))

    async def roll_back(self) -> Switched:
        """Go back to the model before; raises Conflict. Never tried again."""
        return await self.do(calls.roll_back())

    async def health(self) -> Health:
        """Return the service's state, also of one that is not ready."""
        return await self.do(calls.health())

    async def do(self, call: Call[T], retries: Retries | None = None) -> T:
        """Send a call, again if that is safe and worth it, and return what it answers."""
        tries = Tries(retries or self.retries, self._budget, call.is_repeatable, time.monotonic)
        while True:
            try:
                answer = await self._try(call, tries.left_s)
            except SojournError as exc:
                await self._sleep(tries.wait_after(exc))
            else:
                self._budget.give_back()
                return answer

    async def _try(self, call: Call[T], left_s: float) -> T:
        try:
            response = await self._http.request(
                call.method,
                self._connection.url(call.path),
                content=call.body,
                headers=content_headers(call),
                timeout=self._connection.timeout(left_s),
            )
        except httpx.RequestError as exc:
            raise no_answer(call, exc) from exc
        return answer_of(call, response)
