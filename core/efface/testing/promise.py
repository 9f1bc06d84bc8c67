"""Promises of a method, and how a broken one is told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def promise(text: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A test of one promise: whatever goes wrong in it fails with the promise and with what happened instead."""

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def tell(*arguments: P.args, **named: P.kwargs) -> None:
            __tracebackhide__ = True
            try:
                test(*arguments, **named)
            except AssertionError as error:
                raise AssertionError(f"Promised: {text}. Instead: {error}") from error
            except Exception as error:
                raise AssertionError(f"Promised: {text}. Instead: {type(error).__name__}: {error}") from error

        tell.__doc__ = f"{text}."
        return tell

    return decorate


def expect(kept: object, instead: str) -> None:
    """Fail with what happened instead, unless the promise is kept."""
    __tracebackhide__ = True
    if not kept:
        raise AssertionError(instead)
