"""Which model is served: list, activate, roll back, follow the others, watch the folder.

Redis holds what is announced and each process follows it. A bundle is loaded and checked beside
the one that serves, before it is announced, so a bad one is noticed by whoever asked for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from service.bundle_folder import BundleFolder, ListedBundle
from service.bundle_loader import LoadedBundle
from service.errors import (
    NoPreviousModel,
    ServiceError,
    StoreUnavailable,
    UnknownModel,
)
from service.logs import get_logger
from service.metrics import Metrics
from service.model_loader import ModelLoader
from service.serving_model import ModelSlot, ServingModel
from service.starting import is_news
from service.store.announcements import Announced

ModelState: TypeAlias = Literal["active", "previous", "available", "refused"]
Opener: TypeAlias = Callable[
    [LoadedBundle, ServingModel], Awaitable[tuple[ServingModel, AsyncExitStack]]
]


class Announcements(Protocol):
    """Tells all processes what to serve; every call raises StoreUnavailable."""

    async def read(self) -> Announced | None:
        """Return what is announced, None if nothing ever was."""
        ...

    async def announce(self, version: str, now_ms: int) -> Announced:
        """Announce a version that was asked for."""
        ...

    async def prepare(self, version: str, now_ms: int) -> None:
        """Let all processes load a version that will be announced if it is good."""
        ...

    async def give_up(self, version: str) -> None:
        """Take back what was said by `prepare`."""
        ...

    async def announce_pointer(self, version: str, now_ms: int) -> Announced:
        """Announce a version that CURRENT names now, unless that was taken up already."""
        ...

    async def announce_first(self, version: str, pointer: str, now_ms: int) -> Announced:
        """Announce what is served while nothing is announced."""
        ...


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A bundle of the folder, its state for all processes, and what is wrong with it here."""

    bundle: ListedBundle
    state: ModelState
    reason: str


@dataclass(frozen=True, slots=True)
class ModelsOverview:
    """All models; `serving` is this process's, `problems` says why it is not the active one."""

    models: tuple[KnownModel, ...]
    serving: str
    active: str
    previous: str
    changed_at_ms: int | None
    problems: tuple[str, ...]


class ModelRegistry:
    """Switches one process between models; `announcements` is None where there is one bundle.

    Loads, announcements and switches happen one at a time. `open_model` is given a bundle that was
    loaded and the model before it.
    """

    def __init__(
        self,
        *,
        folder: BundleFolder,
        announcements: Announcements | None,
        slot: ModelSlot,
        loader: ModelLoader,
        open_model: Opener,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._folder = folder
        self._announcements = announcements
        self._slot = slot
        self._loader = loader
        self._open_model = open_model
        self._metrics = metrics
        self._clock = clock
        self._switching = asyncio.Lock()
        self._problems: dict[str, str] = {}
        self._announced: Announced | None = None
        self._watched: tuple[int, int, int] | None = None
        self._log = get_logger(__name__)
        self._state_served()

    @property
    def serving(self) -> str:
        """Return the version that the next request gets."""
        return self._slot.current.version

    @property
    def problems(self) -> tuple[str, ...]:
        """Return why this process does not serve what it should, nothing if it does."""
        return tuple(self._problems.values())

    async def overview(self) -> ModelsOverview:
        """Return all models; raises BundleRefused if the folder cannot be read."""
        listed = await asyncio.to_thread(self._folder.bundles)
        refused = await self._loader.refusals()
        announced = await self._last_announced()
        active = announced.active if announced else self.serving
        previous = announced.previous if announced else ""
        return ModelsOverview(
            models=tuple(
                _known(bundle, active, previous, refused.get(bundle.version, ""))
                for bundle in listed
            ),
            serving=self.serving,
            active=active,
            previous=previous,
            changed_at_ms=announced.changed_at_ms if announced else None,
            problems=self.problems,
        )

    async def activate(self, version: str) -> Announced:
        """Load a version, announce it, and serve it; what fails leaves all as it was.

        Raises UnknownModel, ModelRefused or StoreUnavailable.
        """
        async with self._switching:
            if self._announcements is None:
                return self._only(version)
            # Asked before the load: without Redis the load would be for nothing.
            await self._settled(self._announcements)
            return await self._change(self._announcements, version)

    async def roll_back(self) -> Announced:
        """Activate the version that was active before; raises as activate, or NoPreviousModel."""
        async with self._switching:
            if self._announcements is None:
                raise NoPreviousModel("SOJOURN_BUNDLE names one bundle; there is no other")
            announced = await self._settled(self._announcements)
            if not announced.previous:
                raise NoPreviousModel(f"{announced.active} is the first model that was active")
            return await self._change(self._announcements, announced.previous)

    async def follow(self) -> None:
        """Serve what is announced; one that cannot be loaded is a problem, not an error.

        Raises StoreUnavailable, and this process goes on with what it has.
        """
        if self._announcements is None:
            return
        async with self._switching:
            announced = await self._settled(self._announcements)
            try:
                await self._catch_up(announced)
            except ServiceError as exc:
                self._note("announced", f"{announced.active} is announced, but {exc}")
            else:
                self._note("announced", "")

    async def watch(self) -> None:
        """Activate what CURRENT names, if that is news; raises StoreUnavailable."""
        stamp = await asyncio.to_thread(self._folder.pointer_stamp)
        if self._announcements is None or stamp == self._watched:
            return
        async with self._switching:
            pointer = await asyncio.to_thread(self._folder.pointer)
            announced = await self._settled(self._announcements)
            if (
                pointer
                and is_news(pointer, announced, at_start=self._watched is None)
                and not await self._take_up(self._announcements, pointer.version)
            ):
                # Looked at again at the next turn: the bundle may be repaired.
                return
            self._note("pointer", "")
            self._watched = stamp

    def _only(self, version: str) -> Announced:
        if version != self.serving:
            raise UnknownModel(
                f"SOJOURN_BUNDLE names one bundle, {self.serving}; "
                "name the folder above it to choose from several"
            )
        return Announced(version, "", "", self._clock())

    async def _change(self, announcements: Announcements, version: str) -> Announced:
        loaded = await self._loaded_for_all(announcements, version)
        self._announced = await announcements.announce(version, self._clock())
        await self._switch(loaded)
        self._note("announced", "")
        return self._announced

    async def _take_up(self, announcements: Announcements, version: str) -> bool:
        """Activate what CURRENT names; say whether it could be loaded."""
        try:
            loaded = None if version == self.serving else await self._loader.load_once(version)
        except ServiceError as exc:
            self._note("pointer", f"CURRENT names {version!r}, but {exc}")
            return False
        self._announced = await announcements.announce_pointer(version, self._clock())
        if self._announced.active == version:
            await self._switch(loaded)
        return True

    async def _catch_up(self, announced: Announced) -> None:
        """Serve what is announced, or have ready what somebody is about to announce."""
        if announced.active != self.serving:
            await self._switch(await self._loader.load_once(announced.active))
        elif announced.is_preparing(self._clock()):
            await self._loader.prepare(announced.preparing)
        else:
            self._loader.drop_prepared()

    async def _settled(self, announcements: Announcements) -> Announced:
        """Return what is announced; a store that knows nothing is told what is served here."""
        announced = await announcements.read()
        if announced is None:
            pointer = await asyncio.to_thread(self._folder.pointer)
            named = pointer.version if pointer else ""
            announced = await announcements.announce_first(self.serving, named, self._clock())
        self._announced = announced
        return announced

    async def _last_announced(self) -> Announced | None:
        if self._announcements is None:
            return None
        try:
            return await self._announcements.read()
        except StoreUnavailable:
            # A list that is a moment old is worth more than none.
            return self._announced

    async def _loaded_for_all(
        self, announcements: Announcements, version: str
    ) -> LoadedBundle | None:
        """Load a version here while all others do; None if it is served already.

        Raises UnknownModel, ModelRefused, BundleRefused or StoreUnavailable.
        """
        if version == self.serving:
            return None
        await self._loader.check_there(version)
        await announcements.prepare(version, self._clock())
        try:
            return await self._loader.load(version)
        except ServiceError:
            # The others let it go after a while anyway; the caller hears why it was refused.
            with suppress(StoreUnavailable):
                await announcements.give_up(version)
            raise

    async def _switch(self, loaded: LoadedBundle | None) -> None:
        """Serve a bundle from the next request on; None goes on with what is served."""
        if loaded is None:
            return
        before = self.serving
        # Nothing may be awaited between: what is said of items is laid over what is served.
        self._slot.put(*await self._open_model(loaded, self._slot.current))
        self._metrics.model_switches.inc()
        self._state_served()
        self._log.info("model switched", version=self.serving, before=before)

    def _state_served(self) -> None:
        manifest = self._slot.current.bundle.manifest
        made_s = _seconds(manifest.created_at)
        self._metrics.set_bundle(manifest.bundle_version, manifest.name, made_s)

    def _note(self, where: str, problem: str) -> None:
        """Keep, count and log a problem, each once; "" ends it."""
        if problem == self._problems.get(where, ""):
            return
        if problem:
            self._problems[where] = problem
            self._log.error("model not switched", reason=problem, serving=self.serving)
        else:
            self._problems.pop(where)
        self._metrics.model_behind.set(bool(self._problems))


def _seconds(moment: str) -> float:
    """Return a time as seconds since 1970; 0, as of no time at all, if a bundle says nonsense."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def _known(bundle: ListedBundle, active: str, previous: str, refused: str) -> KnownModel:
    reason = bundle.reason or refused
    state: ModelState = "refused" if reason else "available"
    if bundle.version in (active, previous):
        state = "active" if bundle.version == active else "previous"
    return KnownModel(bundle, state, reason)
