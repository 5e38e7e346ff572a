"""Pydantic's findings in our words: the dotted path that a user types, the value, and the fix."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from src.config.errors import AsTyped, Problem, nearest
from src.config.schema import Config


def problems_of(error: ValidationError, path_of: Callable[[tuple[int | str, ...]], str] | None = None) -> list[Problem]:
    """Translate every finding; a finding about one of several allowed types is told once.

    Args:
        error: pydantic's.
        path_of: from pydantic's location to the key that a user types; by default as the trainer's configuration has it.
    """
    found: dict[tuple[str, str], Problem] = {}
    by_path: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors():
        by_path.setdefault((path_of or _dotted)(detail["loc"]), []).append(detail)
    for path, details in by_path.items():
        for problem in _translate(path, details):
            found[problem.path, problem.fix] = problem
    return list(found.values())


# What other trainers call it, where spelling alone would not lead there.
_OTHERS_WORDS = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr", "max_lr"), "optim.peak_lr"),
    **dict.fromkeys(("img_size", "input_size", "resolution"), "data.image_size"),
    **dict.fromkeys(("clip_grad", "clip_grad_norm", "gradient_clip_val"), "max_grad_norm"),
    **{
        "wd": "optim.weight_decay",
        "mom": "optim.momentum",
        "bs": "batch_size",
        "amp": "precision",
        "tta": "test_time_augmentation",
    },
    **{"num_workers": "data.workers", "smoothing": "label_smoothing", "drop_path_rate": "model.drop_path"},
}


def unknown_key(path: str, value: object) -> Problem:
    """Say that a key does not exist, and which one is near: in its own group first, then anywhere."""
    while isinstance(value, dict) and len(value) == 1:  # foo.bar=3 arrives as foo={bar: 3}
        ((name, value),) = value.items()
        path = f"{path}.{name}"
    group, _, name = path.rpartition(".")
    leaves = sorted(_leaves())
    inside = {key.rpartition(".")[2]: key for key in leaves if key.rpartition(".")[0] == group}
    anywhere = {key.rpartition(".")[2]: key for key in reversed(leaves)}
    near = (
        _OTHERS_WORDS.get(name)
        or inside.get(f"{name}s")
        or next((key for key in (*inside.values(), *leaves) if key.endswith(f"_{name}")), None)
        or nearest(name, [*inside, *_groups()] if not group else inside)
        or (nearest(name, anywhere) if len(name) > 2 else None)
        or (nearest(path, leaves) if path.partition(".")[0] not in _groups() else None)
    )
    if near is None:
        return Problem(path, value, "no such key. See --cfg job for all there are.")
    return Problem(path, value, f"no such key. Did you mean {inside.get(near) or anywhere.get(near, near)}?")


def choice_key(group: str) -> str:
    """Return the key that says which choice of a group was taken, such as `optim.name`."""
    field = Config.model_fields.get(group)
    return f"{group}.{field.discriminator if field is not None and isinstance(field.discriminator, str) else 'name'}"


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
    value = AsTyped("null") if first["input"] is None else first["input"]
    kinds = {detail["type"] for detail in details}
    context = first.get("ctx", {})
    if "extra_forbidden" in kinds:
        return [_misplaced_key(path, value, first["loc"])]
    if value == "???":
        return [Problem(path, None, f"must be given. Type {path}=...")]
    if first["type"] == "value_error":
        lines = first["msg"].removeprefix("Value error, ").splitlines()
        # A rule across fields names its fields itself; a rule on one field is told with its path and value.
        if isinstance(value, dict):
            return [Problem(*_split_rule(line)) for line in lines]
        return [Problem(path, value, line) for line in lines]
    if first["type"] == "missing" and path.rpartition(".")[2].isdecimal():
        path = path.rpartition(".")[0]
        return [Problem(path, value, f"must have {len(get_args(dict(parts_of(Config))[path].annotation))} items.")]
    if first["type"] == "too_long":
        return [Problem(path, value, f"must have {context['max_length']} items.")]
    if first["type"] == "missing":
        return [Problem(path, None, f"is missing. Type {path}=..., or write it in your own group's file.")]
    if first["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        known = str(context.get("expected_tags", "the known choices")).replace("'", "")
        return [Problem(choice_key(path), context.get("tag"), f"must be one of {known}.")]
    wanted = list(dict.fromkeys(_wanted(detail, path) for detail in details))
    field = dict(parts_of(Config)).get(path)
    if field is not None and type(None) in get_args(field.annotation):
        wanted.append("null")
    return [Problem(path, value, f"must be {' or '.join(wanted)}.")]


def _misplaced_key(path: str, value: object, location: tuple[int | str, ...]) -> Problem:
    """Tell a key of another choice of the group from one that does not exist at all."""
    group = path.partition(".")[0]
    if path not in known_keys() or "." not in path:
        return unknown_key(path, value)
    has = [tag for tag, model in _alternatives(group).items() if path.partition(".")[2] in model.model_fields]
    key = choice_key(group).removesuffix(".name")
    return Problem(path, value, f"no key of {key}={location[1]}; it belongs to {key}={', '.join(has)}.")


def _alternatives(group: str) -> dict[str, type[BaseModel]]:
    """Return the schema's classes for a group, by the tag that chooses them."""
    tag = choice_key(group).partition(".")[2]
    models = _models_in(Config.model_fields[group].annotation)
    return {str(get_args(model.model_fields[tag].annotation)[0]): model for model in models}


def _split_rule(line: str) -> tuple[str, object, str]:
    head, _, rest = line.partition("=")
    value, _, fix = (
        rest.partition(" ") if not rest.startswith("[") else (rest[: rest.index("]") + 1], "", rest[rest.index("]") + 2 :])
    )
    return head, AsTyped(value), fix


def _wanted(detail: ErrorDetails, path: str) -> str:
    """Return what follows "must be"."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "greater_than_equal":
            return f"at least {context['ge']:.20g}"
        case "greater_than":
            return f"more than {context['gt']:.20g}"
        case "less_than_equal":
            return f"at most {context['le']:.20g}"
        case "less_than":
            return f"less than {context['lt']:.20g}"
        case "int_type" | "int_parsing" | "int_from_float":
            return "a whole number"
        case "float_type" | "float_parsing":
            return "a number"
        case "finite_number":
            return "a finite number"
        case "bool_type" | "bool_parsing":
            return "true or false"
        case "string_type":
            value = detail["input"]
            return f"text (in quotes: '{path}=\"{value}\"')" if isinstance(value, int | float) else "text"
        case "string_too_short":
            return "non-empty text"
        case "literal_error":
            expected = context["expected"].replace("'", "").replace(" or ", ", ")
            return f"one of {expected}" if "," in expected else expected
        case "tuple_type":
            return "a list"
        case "dict_type" | "model_attributes_type" | "model_type":
            return "a group of keys, such as {key: value}"
        case _:
            return detail["msg"]
