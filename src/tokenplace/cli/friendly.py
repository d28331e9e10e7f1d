"""How a command fails: one line for a person, and a status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from tokenplace.errors import TokenPlaceError


@contextmanager
def friendly(extra: str | None = None) -> Iterator[None]:
    """Our errors in one line each; a part that is not installed by its name."""
    try:
        yield
    except TokenPlaceError as error:
        _fail(error.message)
    except BaseExceptionGroup as group:
        ours, others = group.split(TokenPlaceError)
        if ours is None or others is not None:
            raise
        _fail(*dict.fromkeys(str(leaf) for leaf in _leaves(ours)))
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").startswith("tokenplace"):
            raise
        _fail(f"the Python module {error.name!r} is missing; in a clone, pip install '.[{extra}]' brings it")
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        _fail(*(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors(include_input=False)))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _leaves(group: BaseExceptionGroup[TokenPlaceError]) -> Iterator[TokenPlaceError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fail(*messages: str) -> NoReturn:
    for message in messages:
        typer.secho(f"tokenplace: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(1) from None
