"""The errors of the contract; both programs translate them into their own trees."""


class ContractError(ValueError):
    """Something does not fit what training and serving agreed on."""


class InvalidField(ContractError):
    """One field of an event or item is wrong; says which, its value and the fix."""

    def __init__(self, field: str, value: object, fix: str) -> None:
        shown = repr(value)
        self.field = field
        self.value = value
        self.fix = fix
        super().__init__(f"{field}: {shown[:80]} {fix}")


class BundleMismatch(ContractError):
    """A bundle's files, hashes, shapes or versions do not fit its manifest or this build."""
