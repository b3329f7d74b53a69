"""A call, written once as steps, as a method of a client: with the same parameters, and with the result instead of the steps."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from service.client.calls import Listing
from service.client.steps import Steps

P = ParamSpec("P")
R = TypeVar("R")


class BlockingDriver(Protocol):
    """What drives steps in this thread."""

    def run(self, steps: Steps[R]) -> R:
        """The result of the steps."""

    def iterate(self, listing: Listing[R]) -> Iterator[R]:
        """The items of a list."""


class AsyncDriver(Protocol):
    """What drives steps in an event loop."""

    async def run(self, steps: Steps[R]) -> R:
        """The result of the steps."""

    def iterate(self, listing: Listing[R]) -> AsyncIterator[R]:
        """The items of a list."""


class BlockingCall(Generic[P, R]):
    """A call whose method returns the result."""

    def __init__(self, call: Callable[P, Steps[R]]) -> None:
        self.call = call

    def __get__(self, client: BlockingDriver, _owner: type) -> Callable[P, R]:
        @wraps(self.call)
        def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return client.run(self.call(*args, **kwargs))

        return method


class AsyncCall(Generic[P, R]):
    """A call whose method is awaited."""

    def __init__(self, call: Callable[P, Steps[R]]) -> None:
        self.call = call

    def __get__(self, client: AsyncDriver, _owner: type) -> Callable[P, Coroutine[Any, Any, R]]:
        @wraps(self.call)
        async def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return await client.run(self.call(*args, **kwargs))

        return method


class BlockingListing(Generic[P, R]):
    """A list whose method returns an iterator over the items, which reads page by page."""

    def __init__(self, call: Callable[P, Listing[R]]) -> None:
        self.call = call

    def __get__(self, client: BlockingDriver, _owner: type) -> Callable[P, Iterator[R]]:
        @wraps(self.call)
        def method(*args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
            return client.iterate(self.call(*args, **kwargs))

        return method


class AsyncListing(Generic[P, R]):
    """A list whose method returns an asynchronous iterator over the items, which reads page by page."""

    def __init__(self, call: Callable[P, Listing[R]]) -> None:
        self.call = call

    def __get__(self, client: AsyncDriver, _owner: type) -> Callable[P, AsyncIterator[R]]:
        @wraps(self.call)
        def method(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
            return client.iterate(self.call(*args, **kwargs))

        return method
