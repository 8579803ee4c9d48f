"""What the OpenAPI document says of keys, where keys are asked for."""

from typing import Any

from service.problems import MEDIA_TYPE
from service.security.scopes import ROUTES, Table, scope_of

SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, `sjn_...`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
REFUSALS = {
    "401": "No key, or one that is unknown or has expired",
    "403": "The key has not the scope that the route asks for",
    "429": "Too many requests of the key, or wrong keys from the address; see `Retry-After`",
}


def add_security(document: dict[str, Any], table: Table = ROUTES) -> None:
    """Add the schemes, and to each operation that needs one its scope and its refusals.

    Changes the document in place; one that was changed before stays as it is.
    """
    document["components"]["securitySchemes"] = SCHEMES
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for template, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = scope_of(method.upper(), template, table)
            if scope is None:
                operation["security"] = []
                continue
            operation["security"] = [{name: []} for name in SCHEMES]
            operation["x-scope"] = scope
            for status, description in REFUSALS.items():
                operation["responses"][status] = {"description": description, "content": content}
