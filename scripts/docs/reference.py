"""The configuration reference: every key with its meaning and default from conf/, and what it may be from the schema."""

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from src.config import Config
from src.config.overrides import CONF_DIR

_LINE = re.compile(r"^( *)(\w+):(?: +(.*?))?(?: +# ?(.*))?$")
_MORE = re.compile(r"^ +# ?(.*)$")


class Line(NamedTuple):
    """One key of a file of conf/: its default as it is written there, and its comment."""

    default: str
    comment: str


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [
        "# Configuration\n",
        "Made from `conf/` and the schema in `src/config/`. A key is typed as `key=value` behind the command, a group's choice as",
        "`group=choice`. `python -m src.train --cfg job` prints a command's whole configuration.\n",
        "## The run\n",
        *_table(lines_of(CONF_DIR / "config.yaml", stop=("defaults", "hydra")), [Config], prefix=""),
    ]
    for folder in sorted(path for path in CONF_DIR.iterdir() if path.is_dir() and path.name not in ("experiment", "debug")):
        parts += [f"\n## {folder.name}\n", *_group(folder)]
    parts.append("\n## debug\n")
    parts += [f"- {_code('debug=' + file.stem)}: {_purpose(file)}" for file in _choices(CONF_DIR / "debug")]
    parts.append("\n## The other commands\n")
    for file in sorted(CONF_DIR.glob("*.yaml")):
        if file.stem != "config":
            parts += [f"\n### python -m src.{file.stem}\n", *_table(lines_of(file), [schema_of(file)], prefix="")]
    return "\n".join(parts) + "\n"


def schema_of(file: Path) -> type[BaseModel]:
    """Return the schema of another command's keys: the one of its file in src/config/ that has just these."""
    module = importlib.import_module(f"src.config.{file.stem.removeprefix('ffcv_')}")
    keys = set(lines_of(file))
    (found,) = (
        schema
        for schema in vars(module).values()
        if isinstance(schema, type) and issubclass(schema, BaseModel) and set(schema.model_fields) == keys
    )
    return found


def lines_of(file: Path, *, stop: tuple[str, ...] = ()) -> dict[str, Line]:
    """Return the keys at a YAML file's own level, in order; a comment may go on in the lines below.

    Args:
        file: of conf/, where a key and its comment stand in one line.
        stop: keys that are Hydra's own, with all that stands below them.
    """
    found: dict[str, Line] = {}
    last, skipping = None, False
    for text in file.read_text(encoding="utf-8").splitlines():
        if match := _LINE.match(text):
            indent, key, default, comment = match.groups()
            if not indent:
                skipping = key in stop or key == "defaults"
                last = None if skipping else key
                if last is not None:
                    found[key] = Line((default or "").strip(), (comment or "").strip())
        elif last is not None and (more := _MORE.match(text)):
            found[last] = found[last]._replace(comment=f"{found[last].comment} {more[1].strip()}".strip())
    return found


def inherited(file: Path) -> dict[str, Line]:
    """Return a choice's keys with those of the files that its defaults list names in the same folder."""
    found: dict[str, Line] = {}
    listing = re.search(r"^defaults:\n((?: +- .*\n)+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    for parent in re.findall(r"- (\w+)\s*$", listing[1], re.MULTILINE) if listing else []:
        if (other := file.with_name(f"{parent}.yaml")).exists() and parent != "_self_":
            found |= inherited(other)
    for key, line in lines_of(file).items():
        found[key] = line if line.comment or key not in found else found[key]._replace(default=line.default)
    return found


def allowed(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema's property takes."""
    if "$ref" in schema:
        return allowed(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema:
        return _code(str(schema["const"]))
    if "enum" in schema:
        return ", ".join(_code(str(value)) for value in schema["enum"])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(allowed(option, definitions) for option in options))
    match schema.get("type"):
        case "null":
            return _code("null")
        case "boolean":
            return f"{_code('true')}, {_code('false')}"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _bounds(schema)
        case "array":
            return f"list of {allowed(schema['items'], definitions)}" if "items" in schema else _fixed(schema, definitions)
        case "string":
            return "text"
        case "object":
            return "mapping"
        case _:
            return "anything"


def _fixed(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    items = schema.get("prefixItems", [])
    return f"{len(items)} x {allowed(items[0], definitions)}" if items else "list"


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]:g}" for key, sign in words.items() if key in schema and abs(schema[key]) < 2**62]
    return " " + ", ".join(found) if found else ""


def _group(folder: Path) -> Iterator[str]:
    choices = _choices(folder)
    yield "| choice | |\n|---|---|"
    for file in choices:
        yield f"| {_code(f'{folder.name}={file.stem}')} | {_cell(_purpose(file))} |"
    yield ""
    lines: dict[str, Line] = {}
    defaults: dict[str, dict[str, list[str]]] = {}
    for file in choices:
        for key, line in inherited(file).items():
            lines[key] = line if line.comment or key not in lines else lines[key]
            defaults.setdefault(key, {}).setdefault(line.default, []).append(file.stem)
    for key, by_value in defaults.items():
        common = max(by_value, key=lambda value: len(by_value[value]))
        others = [f"{value} ({', '.join(names)})" for value, names in by_value.items() if value != common]
        lines[key] = lines[key]._replace(default="; ".join([common, *others]) if len(others) < 5 else "by choice")
    annotation = Config.model_fields[folder.name].annotation
    models = [part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, BaseModel)]
    yield from _table(lines, models, prefix=f"{folder.name}.")


def _table(lines: Mapping[str, Line], models: list[type[BaseModel]], *, prefix: str) -> Iterator[str]:
    schemas = [model.model_json_schema() for model in models]
    yield "| key | may be | default | meaning |\n|---|---|---|---|"
    for key, line in lines.items():
        kinds = dict.fromkeys(
            allowed(schema["properties"][key], schema.get("$defs", {})) for schema in schemas if key in schema.get("properties", {})
        )
        if kinds and key != "name":
            default = _code(line.default) if line.default else ""
            yield f"| {_code(prefix + key)} | {_cell(' or '.join(kinds))} | {_cell(default)} | {_cell(line.comment)} |"


def _choices(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!_]*.yaml"))


def _purpose(file: Path) -> str:
    """Return the comment that a file begins with, without the choice's own name."""
    comments = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("# ").strip())
    text = " ".join(comments)
    return re.sub(rf"^\S*={re.escape(file.stem)}\S*\s*:\s*", "", text)


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
