"""Validators for the arguments of workflows that are executed from the database."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, get_type_hints

from dbos._engine.registry import first_parameter

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Validator(Protocol):
    """Takes a call's arguments and returns them as the function wants them, or raises."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments: ...


def pydantic_args_validator(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Stands for `make_pydantic_args_validator(the function)` in `validate_args=`; not to be called."""
    raise NotImplementedError(
        "Give pydantic_args_validator to @DBOS.workflow(validate_args=...); it is not to be called"
    )


def make_pydantic_args_validator(func: Callable[..., Any]) -> Validator:
    """Make a validator that turns stored arguments into what the function's annotations say, with pydantic.

    Raises ImportError without pydantic. The validator raises ValueError naming every argument that does not fit.
    """
    try:
        import pydantic
    except ImportError as error:
        raise ImportError("pydantic_args_validator needs pydantic: pip install 'dbos-notebook[validation]'") from error
    plain = inspect.unwrap(func)
    signature = inspect.signature(plain)
    hints = get_type_hints(plain)
    names = [name for name in signature.parameters if name not in ("self", "cls") or name != first_parameter(plain)]
    kinds = {name: signature.parameters[name].kind for name in names}

    @functools.cache
    def adapter(name: str) -> pydantic.TypeAdapter[Any]:
        return pydantic.TypeAdapter(hints[name])

    def coerced(name: str, label: str, value: Any, faults: list[str]) -> Any:
        if name not in hints:
            return value
        try:
            return adapter(name).validate_python(value)
        except pydantic.ValidationError as error:
            faults.append(f"{label}: {'; '.join(each['msg'] for each in error.errors())}")
            return value

    def validate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        faults: list[str] = []
        places = _places(names, kinds, len(args))
        new_args = tuple(
            coerced(name, f"Argument '{name}' (position {place})", value, faults) if name is not None else value
            for place, (name, value) in enumerate(zip(places, args, strict=True))
        )
        rest = next((name for name in names if kinds[name] is inspect.Parameter.VAR_KEYWORD), None)
        new_kwargs = {
            key: coerced(key if key in kinds else rest or key, f"Argument '{key}'", value, faults)
            for key, value in kwargs.items()
        }
        given = {name for name in places if name is not None} | set(kwargs)
        faults += [
            f"Missing required argument: '{name}'"
            for name in names
            if name not in given
            and signature.parameters[name].default is inspect.Parameter.empty
            and kinds[name] not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        ]
        if faults:
            raise ValueError(f"Argument validation failed for workflow: {plain.__qualname__}: " + "; ".join(faults))
        return new_args, new_kwargs

    return validate


def _places(names: list[str], kinds: dict[str, Any], count: int) -> list[str | None]:
    """The parameter that each positional argument goes to; None where there is none."""
    places: list[str | None] = []
    for name in names:
        if kinds[name] is inspect.Parameter.VAR_POSITIONAL:
            places += [name] * (count - len(places))
        elif kinds[name] in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            places.append(name)
    return (places + [None] * count)[:count]
