"""Runs when the model's code is loaded: gives methods the signatures of the stock class's."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any


def called_as(
    stock_method: Callable[..., Any], more_keywords: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a method, which takes everything by name, the signature and the docstring of a stock one.

    Its own arguments, `more_keywords`, stand in the signature as well: `Trainer` drops what is not there.

    Arguments by position get the names that they have there, whatever a release of transformers calls them. Unlike
    `functools.wraps` it leaves no `__wrapped__`: accelerate follows that down to the last function when it takes mixed
    precision off a model, and would find the stock one.
    """
    signature = inspect.signature(stock_method)
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in more_keywords]
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in by_position][1:]

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self, *args: Any, **kwargs: Any) -> Any:
            if len(args) > len(names):
                raise TypeError(
                    f"`{method.__name__}` takes {len(names)} arguments by position, but {len(args)} were given: give "
                    "the others by name."
                )
            return method(self, **dict(zip(names, args)), **kwargs)

        for name in ("__module__", "__name__", "__qualname__"):
            setattr(call, name, getattr(method, name))
        call.__doc__ = stock_method.__doc__
        stock = list(signature.parameters.values())
        rest = [parameter for parameter in stock if parameter.kind == inspect.Parameter.VAR_KEYWORD]
        named = stock[: len(stock) - len(rest)]
        call.__signature__ = signature.replace(parameters=[*named, *own, *rest])  # type: ignore[attr-defined]
        return call

    return decorate
