"""Pydantic's findings in our words: the dotted path that a user types, the value, and the fix."""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from src.config.errors import Problem, did_you_mean
from src.config.schema import Config


def problems_of(error: ValidationError) -> list[Problem]:
    """Translate every finding; a finding about one of several allowed types is told once."""
    found: dict[tuple[str, str], Problem] = {}
    by_path: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors():
        by_path.setdefault(_dotted(detail["loc"]), []).append(detail)
    for path, details in by_path.items():
        for problem in _translate(path, details):
            found[problem.path, problem.fix] = problem
    return list(found.values())


def unknown_key(path: str, value: object) -> Problem:
    """Say that a key does not exist, and which one is near: in its own group first, then anywhere."""
    if isinstance(value, dict):
        return Problem(path, value, f"no such group. There are: {', '.join(_groups())}.")
    group, _, name = path.rpartition(".")
    if path in known_keys():
        return Problem(path, value, f"belongs to another choice of {group}=, not to this one. See --cfg job.")
    leaves = sorted(_leaves())
    inside = [key for key in leaves if key.rpartition(".")[0] == group]
    longer = [key for key in (*inside, *leaves) if key.rpartition(".")[2].endswith(f"_{name}")]
    if longer:
        near = f" Did you mean {longer[0]}?"
    else:
        anywhere = {key.rpartition(".")[2]: key for key in reversed(leaves)}
        hint = did_you_mean(path, inside) or did_you_mean(name, list(anywhere)) or did_you_mean(path, leaves)
        word = hint.removeprefix(" Did you mean ").removesuffix("?")
        near = f" Did you mean {anywhere.get(word, word)}?" if hint else ""
    return Problem(path, value, f"no such key.{near}")


@cache
def known_keys() -> tuple[str, ...]:
    """Return every dotted key of the schema, all alternatives included."""
    return tuple(dict.fromkeys(path for path, _ in parts_of(Config)))


def parts_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted key, field) for every field at every depth."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for part in _models_in(field.annotation):
            yield from parts_of(part, f"{prefix}{name}.")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _dotted(location: tuple[int | str, ...]) -> str:
    """Leave away what pydantic adds to a path: the tag of a union, the name of an alternative type."""
    keys = set(known_keys())
    parts: list[str] = []
    for part in location:
        path = ".".join([*parts, str(part)])
        last = part == location[-1]
        if isinstance(part, int) or path in keys or (last and ".".join(parts) not in _leaves()):
            parts.append(str(part))
    return ".".join(parts)


def _groups() -> list[str]:
    return sorted({key.partition(".")[0] for key in known_keys() if "." in key})


@cache
def _leaves() -> frozenset[str]:
    keys = known_keys()
    return frozenset(key for key in keys if not any(other.startswith(f"{key}.") for other in keys))


def _translate(path: str, details: list[ErrorDetails]) -> list[Problem]:
    first = details[0]
    value = first["input"]
    kinds = {detail["type"] for detail in details}
    if "extra_forbidden" in kinds:
        return [unknown_key(path, value)]
    if value == "???":
        return [Problem(path, None, f"must be given. Type {path}=...")]
    if first["type"] == "value_error":
        lines = first["msg"].removeprefix("Value error, ").splitlines()
        # A rule across fields names its fields itself; a rule on one field is told with its path and value.
        if isinstance(value, dict):
            return [Problem(*_split_rule(line)) for line in lines]
        return [Problem(path, value, line) for line in lines]
    if first["type"] == "missing":
        return [Problem(path, None, "is missing. Leave the group's name alone and it is set by conf/.")]
    if first["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        context = first.get("ctx", {})
        tag = str(context.get("discriminator", "")).strip("'")
        return [
            Problem(f"{path}.{tag}", context.get("tag"), f"must be one of {context.get('expected_tags', 'the known choices')}.")
        ]
    return [Problem(path, value, " or ".join(dict.fromkeys(_wanted(detail) for detail in details)) + ".")]


def _split_rule(line: str) -> tuple[str, object, str]:
    head, _, rest = line.partition("=")
    value, _, fix = (
        rest.partition(" ") if not rest.startswith("[") else (rest[: rest.index("]") + 1], "", rest[rest.index("]") + 2 :])
    )
    return head, _Plain(value), fix


class _Plain(str):
    """A value that is shown as it was typed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _wanted(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "greater_than":
            return f"must be more than {context['gt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "less_than":
            return f"must be less than {context['lt']}"
        case "int_type" | "int_parsing" | "int_from_float":
            return "must be a whole number"
        case "float_type" | "float_parsing":
            return "must be a number"
        case "finite_number":
            return "must be a finite number"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
        case "string_type":
            return "must be text"
        case "string_too_short":
            return "must not be empty"
        case "literal_error":
            return f"must be one of {context['expected'].replace(' or ', ', ')}"
        case "tuple_type":
            return "must be a list"
        case _:
            return detail["msg"]
