"""A route without the framework's machinery for parameters and answers, for what is asked most."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from service.api.dependencies import check_access


class DirectRoute(APIRoute):
    """Gives its endpoint the request, and sends the response that it returns.

    The endpoint reads what it needs by itself, and has no dependencies; OpenAPI says of its
    parameters what `openapi_extra` says.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            # The application's one dependency, which this route would pass by.
            if request.state.gate is not None:
                check_access(request)
            return await endpoint(request)

        return handle
