"""Ids in paths: any text, also slashes and line ends."""

from starlette.convertors import Convertor, register_url_convertor


class AnyTextConvertor(Convertor[str]):
    r"""Takes any text. The framework's `path` stops at a line end: it takes "anna\n" for "anna"."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the text."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text."""
        return value


# Routes name their convertor in their path, and look it up when they are declared.
register_url_convertor("text", AnyTextConvertor())
USER = "/v1/users/{user_id:text}"
ITEM = "/v1/items/{item_id:text}"
