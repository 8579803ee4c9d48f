"""Routes without the framework's machinery for parameters and answers, for what is asked most."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.api.dependencies import check_access, services_of

JSON_TYPE = "application/json"
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """Gives its endpoint the request, and sends the response that it returns.

    The endpoint reads what it needs by itself, and has no dependencies; OpenAPI says of its
    parameters what `openapi_extra` says.
    """

    def get_route_handler(self) -> Handler:
        """Return what answers a request."""
        endpoint: Handler = self.endpoint

        async def handle(request: Request) -> Response:
            _check(request)
            return await endpoint(request)

        return handle


class BodyRoute(APIRoute):
    """Reads a body that is right from its bytes at once; the framework explains any other.

    The endpoint takes `body`, a model, `services`, and `request` if it says so; it returns a
    response.
    """

    def get_route_handler(self) -> Handler:
        """Return what answers a request."""
        explain = super().get_route_handler()
        endpoint: Callable[..., Coroutine[Any, Any, Response]] = self.endpoint
        model: type[BaseModel] = endpoint.__annotations__["body"]
        takes_request = "request" in endpoint.__annotations__

        async def handle(request: Request) -> Response:
            body = await self._read(request, model)
            if body is None:
                return await explain(request)
            _check(request)
            named = {"request": request} if takes_request else {}
            return await endpoint(body=body, services=services_of(request), **named)

        return handle

    def parse(self, model: type[BaseModel], body: bytes) -> Any:
        """Return what the endpoint takes, or None; raises ValidationError for a wrong body too."""
        return model.model_validate_json(body)

    async def _read(self, request: Request, model: type[BaseModel]) -> Any:
        """Return the body, or None if it is wrong, no JSON by its header, or does not arrive."""
        content_type = request.headers.get("content-type", "").partition(";")[0]
        if content_type.strip().lower() != JSON_TYPE:
            return None
        try:
            return self.parse(model, await request.body())
        except (ValidationError, ClientDisconnect):
            return None


def _check(request: Request) -> None:
    # The application's one dependency, which these routes pass by.
    if request.state.gate is not None:
        check_access(request)
