"""Reads a configuration file: YAML into frozen sections, every fault reported at file and line.

Precedence, highest first: environment ``CASTING_<SECTION>__<KEY>``, the YAML file, the default in the model.
YAML is read by the rules of YAML 1.2: ``no`` is a word, ``012`` and ``22:30`` are strings; a key that stands
twice is a fault.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from streamer.errors import ConfigError
from streamer.terminal import printable

ENV_PREFIX = "CASTING_"
# Variables of the test suite, not of the services.
ENV_IGNORED = "CASTING_TEST_"
# Every top-level section of the product's files: a variable that names none of them is a mistake, one of
# another service's is not.
SECTIONS = frozenset(
    [
        *("kafka", "topics", "redis", "retention", "data", "event_time", "windows", "consumer", "breaker"),
        *("sources", "label_source", "http", "logging"),
        *("dataset", "triggers", "cycle", "gate", "registry", "model"),
        *(
            "architecture",
            "training",
            "optimizer",
            "scheduler",
            "early_stopping",
            "checkpoint",
            "loss",
            "data_processing",
        ),
    ]
)

Loc = tuple[int | str, ...]
SettingsT = TypeVar("SettingsT", bound="Settings")

# Of the file that is being read; None: a section is made by a program, and its paths are what they say.
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


def _beside_the_file(path: Path) -> Path:
    folder = _folder.get()
    return path if folder is None else folder / path


# A relative path means one thing wherever a service is started: it goes from the folder of the file that is read.
ConfigPath = Annotated[Path, AfterValidator(_beside_the_file)]


class PlacedError(ValueError):
    """What a check across sections found, each fault with the place it stands at."""

    def __init__(self, faults: Iterable[tuple[Loc, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{'.'.join(map(str, loc))}: {message}" for loc, message in self.faults))


class Section(BaseModel):
    """A frozen part of a configuration file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would read true as 1: a limit of one cast, an age of one second.
        if isinstance(value, bool) and not _takes_bool(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"{str(value).lower()} is no value of this key")
        return value


class Settings(BaseSettings):
    """The root of a configuration file; read one with `load_settings`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_default=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load_settings(settings_cls: type[SettingsT], path: Path) -> SettingsT:
    """Reads and checks one configuration file, the environment on top.

    Relative paths, wherever they are given, go from the folder of the file.

    Args:
        settings_cls: The root model.
        path: A YAML file.

    Raises:
        ConfigError: The file is missing, is not YAML, or any value is wrong; the message holds all faults,
            one a line, as ``file:line: key: what is wrong``.
    """
    tree, lines, faults = _read_yaml(path)
    faults += [f"environment: {name}: {hint}" for name, hint in _unknown_variables()]
    token = _folder.set(path.resolve().parent)
    try:
        # A section that is not given is made here and not when it was declared: its paths go from this file as well.
        settings = settings_cls(**{name: {} for name in _sections_with_defaults(settings_cls)} | tree)
    except SettingsError as exc:
        faults += _not_json(settings_cls, str(exc))
    except ValidationError as exc:
        from_env = EnvSettingsSource(settings_cls)()
        for error in exc.errors():
            if isinstance(placed := error.get("ctx", {}).get("error"), PlacedError):
                faults += [_fault(path, lines, from_env, loc, message) for loc, message in placed.faults]
                continue
            message = error["msg"].removeprefix("Value error, ")
            if error["type"] == "extra_forbidden":
                message = _no_such_key(settings_cls, error["loc"])
            faults.append(_fault(path, lines, from_env, error["loc"], message))
    finally:
        _folder.reset(token)
    if faults:
        raise ConfigError("\n".join(faults))
    return settings


def read_secret(path: Path) -> str:
    """Reads a secret from its file, without the newline at its end.

    Raises:
        ConfigError: The file cannot be read or is empty.
    """
    try:
        secret = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot read the secret: {exc}") from exc
    if not secret:
        raise ConfigError(f"{path}: the secret file is empty")
    return secret


def _fault(path: Path, lines: dict[Loc, int], from_env: dict[str, Any], loc: Loc, message: str) -> str:
    if loc[-1:] == ("[key]",):  # pydantic's word for a key that is wrong itself
        loc = loc[:-1]
    key = printable(".".join(str(part) for part in loc))
    if depth := _held(from_env, loc):
        variable = ENV_PREFIX + "__".join(str(part).upper() for part in loc[:depth])
        within = printable(".".join(str(part) for part in loc[depth:]))
        return f"environment: {variable}: {within and f'{within}: '}{message}"
    known = loc
    while known and known not in lines:
        known = known[:-1]
    return f"{path}:{lines.get(known, 1)}: {key or 'file'}: {message}"


def _sections_with_defaults(settings_cls: type[Settings]) -> list[str]:
    return [name for name, field in settings_cls.model_fields.items() if isinstance(field.default, BaseModel)]


def _no_such_key(settings_cls: type[BaseModel], loc: Loc) -> str:
    """What to write instead of a key that its section does not have."""
    section: Any = settings_cls
    for part in loc[:-1]:
        if _is_model(section):
            field = section.model_fields.get(str(part))
            section = field.annotation if field else None
        else:
            # The items of a list, the values of a mapping.
            section = next((item for item in reversed(get_args(section)) if _is_model(item)), None)
    if not _is_model(section):
        return "no such key"
    near = difflib.get_close_matches(str(loc[-1]), section.model_fields, n=1)
    known = f"did you mean {near[0]}?" if near else f"keys are {', '.join(section.model_fields)}"
    return f"no such key; {known}"


def _takes_bool(annotation: Any) -> bool:
    return annotation is bool or any(_takes_bool(part) for part in get_args(annotation))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _not_json(settings_cls: type[Settings], message: str) -> list[str]:
    """Faults of variables that should hold JSON: pydantic names the section only."""
    sections = [name for name in settings_cls.model_fields if f'"{name}"' in message]
    prefixes = tuple(ENV_PREFIX + name.upper() for name in sections)
    names = [name for name in sorted(os.environ) if name.upper().startswith(prefixes)]
    return [f"environment: {', '.join(names)}: a section or a list is given as JSON, and this is not"]


def _held(tree: Any, loc: Loc) -> int:
    """How much of a place a tree gives by name, 0 if the place is not of it; a list is given as one."""
    for depth, part in enumerate(loc):
        if not isinstance(tree, dict):
            return depth
        if part not in tree:
            return 0
        tree = tree[part]
    return len(loc)


def _unknown_variables() -> Iterator[tuple[str, str]]:
    for name in sorted(os.environ):
        if not name.upper().startswith(ENV_PREFIX) or name.upper().startswith(ENV_IGNORED):
            continue
        section = name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower()
        if section not in SECTIONS:
            yield name, f"no such section: {section}; sections are {', '.join(sorted(SECTIONS))}"


class _Yaml12Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own form


_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    ),
    list("-+0123456789."),
)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    # PyYAML's own float constructor reads 1:30 as base 60.
    return float(loader.construct_scalar(node))


_Yaml12Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Loc, int], list[str]]:
    """The tree, the line of each key, and a fault for each key that stands twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: no such file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot read it: {exc}") from exc
    lines: dict[Loc, int] = {}
    twice: list[str] = []
    try:
        root = yaml.compose(text, Loader=_Yaml12Loader)
        tree = yaml.load(text, Loader=_Yaml12Loader)  # noqa: S506 - the loader derives from SafeLoader
        if root is not None:
            _walk(root, (), lines, twice)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {exc.problem}") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(f"{path}: not YAML: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}: an alias holds itself, or the file is nested too deeply") from exc
    if root is None:
        return {}, {}, []
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"{path}:1: expected sections such as 'kafka:', found {str(tree)[:40]}")
    return tree, lines, [f"{path}:{fault}" for fault in twice]


def _walk(node: yaml.Node, loc: Loc, lines: dict[Loc, int], twice: list[str]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*loc, str(key.value))
            line = key.start_mark.line + 1
            if child in lines:
                twice.append(
                    f"{line}: {'.'.join(map(str, child))}: stands twice, first at line {lines[child]}"
                )
            lines[child] = line
            _walk(value, child, lines, twice)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*loc, index)] = value.start_mark.line + 1
            _walk(value, (*loc, index), lines, twice)
