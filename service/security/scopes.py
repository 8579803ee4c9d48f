"""Which scope each route asks for: the one table, and the way from a request to its entry."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from starlette.routing import compile_path

from service.security.keys import Scope

# Of the routes that ask for no key. Orchestrators ask whether a process lives, is ready and is
# healthy, and have no key to ask with. The description and the page are the same for every
# deployment of a version and say nothing of its data; what the page calls asks for a key itself.
OPEN = None

Table: TypeAlias = Mapping[tuple[str, str], Scope | None]

# Methods and templates as the routers state them; of two that fit a path the first is taken. A
# route that is not here is refused where keys are asked for, and `tests/service/security` fails.
ROUTES: Table = {
    ("POST", "/v1/events"): "write-events",
    ("POST", "/v1/recommendations"): "recommend",
    ("GET", "/v1/users/{user_id:text}/recommendations"): "recommend",
    ("POST", "/v1/rank"): "recommend",
    ("GET", "/v1/models"): "admin",
    ("POST", "/v1/models/rollback"): "admin",
    ("POST", "/v1/models/{version}/activate"): "admin",
    # Counts of a shop's business, and of who was refused.
    ("GET", "/metrics"): "admin",
    ("GET", "/v1/items/{item_id:text}/similar"): "recommend",
    # What a list shows of its items anyway, and where they are.
    ("GET", "/v1/about"): "recommend",
    ("GET", "/v1/items"): "recommend",
    ("POST", "/v1/items"): "catalogue",
    ("PUT", "/v1/items/{item_id:text}"): "catalogue",
    ("GET", "/v1/items/{item_id:text}"): "catalogue",
    ("DELETE", "/v1/items/{item_id:text}"): "catalogue",
    ("POST", "/v1/users/merge"): "privacy",
    ("GET", "/v1/users"): "privacy",
    ("DELETE", "/v1/users"): "privacy",
    ("GET", "/v1/users/{user_id:text}/events"): "privacy",
    ("GET", "/v1/users/{user_id:text}"): "privacy",
    ("DELETE", "/v1/users/{user_id:text}"): "privacy",
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/playground/{name}"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("HEAD", "/openapi.json"): OPEN,
    ("GET", "/docs"): OPEN,
    ("HEAD", "/docs"): OPEN,
    ("GET", "/docs/oauth2-redirect"): OPEN,
    ("HEAD", "/docs/oauth2-redirect"): OPEN,
    ("GET", "/redoc"): OPEN,
    ("HEAD", "/redoc"): OPEN,
}


@dataclass(frozen=True, slots=True)
class Access:
    """What one route asks for; `template` is as the framework names it, without converters."""

    method: str
    template: str
    scope: Scope | None


@dataclass(frozen=True, slots=True)
class _Path:
    pattern: re.Pattern[str]
    accesses: Mapping[str, Access]


class AccessTable:
    """Finds a request's entry in a table of routes."""

    def __init__(self, table: Table = ROUTES) -> None:
        by_path: dict[str, dict[str, Access]] = {}
        for (method, path), scope in table.items():
            _, template, _ = compile_path(path)
            by_path.setdefault(path, {})[method] = Access(method, template, scope)
        self._paths = [_Path(compile_path(path)[0], accesses) for path, accesses in by_path.items()]

    def find(self, method: str, path: str) -> Access | None:
        """Return the first entry that fits; None if there is none."""
        fitting = (found.accesses.get(method) for found in self._fitting(path))
        return next((access for access in fitting if access is not None), None)

    def methods(self, path: str) -> list[str]:
        """Return the methods that have an entry for a path, in order of the alphabet."""
        return sorted({method for found in self._fitting(path) for method in found.accesses})

    def _fitting(self, path: str) -> Iterable[_Path]:
        return (found for found in self._paths if found.pattern.match(path))


def scope_of(method: str, template: str, table: Table = ROUTES) -> Scope | None:
    """Return the scope of a route by the template that the framework names it by.

    Raises KeyError if there is no entry.
    """
    named = {(way, compile_path(path)[1]): scope for (way, path), scope in table.items()}
    return named[method, template]
