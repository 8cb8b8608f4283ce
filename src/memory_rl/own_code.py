"""A user's own code, named as file.py:Name: how it is run, what it consists of, how its errors are told."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from memory_rl.errors import ConfigError, one_line, suggest

_HERE = str(Path(__file__).parent)
_INSTALLED = ("site-packages", "dist-packages")
_NOT_THEIRS = (_HERE, *(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib")))
_one_at_a_time = threading.RLock()
_imported_as: dict[str, tuple[str, str]] = {}
"""The file, and the hash of its content, from which each module of a user's was imported here."""


def load_object(reference: str, key: str, example: str) -> Any:
    """The function, class or object that `file.py:Name` names.

    The file is run like a script: afresh each time, and while it runs it can import the modules beside it,
    anew where they have changed. Its module is in `sys.modules`, which dataclasses need, but under a name
    that hides no other.

    Args:
        reference: what was typed.
        key: the key that it was typed for.
        example: the first line of such a definition.

    Raises:
        ConfigError: if there is no such file or name, or the file cannot be run.
    """
    place, _, name = reference.rpartition(":")
    path, given = Path(place), f"{key}={reference}"
    if not path.is_file():
        meant = path.with_suffix(".py") if path.name else path
        hint = f"give the path of a Python file, as in {key}=my_file.py:Name."
        if meant.is_file():
            hint = f"did you mean {key}={meant}:{name}?"
        raise ConfigError(
            f"{given} names no file, since there is no {place or 'path before the colon'}: {hint}"
        )
    module = _run(path, given)
    if name not in vars(module):
        own = [
            known
            for known, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not known.startswith("_")
        ]
        hint = suggest(name, own[:16]) if own else f"define it there, as in {example}."
        why = f"{place} has no {name}" if name else "no name follows the colon"
        raise ConfigError(f"{given} names nothing, since {why}: {hint}")
    return vars(module)[name]


def _run(path: Path, given: str) -> ModuleType:
    """The module that the file makes.

    No bytecode is kept: a time stamp would not show that a file was changed within a second.
    """
    module = ModuleType("own_" + re.sub(r"\W", "_", str(path.resolve())))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        with _beside(path), _its_own_imports(path):
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
            exec(code, vars(module))  # noqa: S102  # the user asks for it to be run
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigError(
            f"{given} cannot be used, since {path} cannot be run ({reason_of(error)}): fix the file."
        ) from error
    return module


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """In this block, one thread at a time, modules beside a file can be imported, and leave no bytecode."""
    with _one_at_a_time:
        folder, kept = str(path.resolve().parent), sys.dont_write_bytecode
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.dont_write_bytecode = kept
            if folder in sys.path:
                sys.path.remove(folder)


@contextmanager
def _its_own_imports(path: Path) -> Iterator[None]:
    """In this block a file imports the modules that it would find in a fresh process.

    What has changed since it was imported is forgotten. A module of the same name from another folder is put
    back afterwards, for those to whom it belongs.
    """
    files = {name: file for name, file in own_files(path).items() if name in sys.modules}
    loaded = {name: sys.modules[name] for name in files}
    others = {name: module for name, module in loaded.items() if not _is_from(module, files[name])}
    state = {name: (str(file), _sha256(file)) for name, file in files.items()}
    if others or any(_imported_as.get(name, now) != now for name, now in state.items()):
        for name in files:
            del sys.modules[name]
    try:
        yield
        files = {name: file for name, file in own_files(path).items() if name in sys.modules}
        _imported_as.update({name: (str(file), _sha256(file)) for name, file in files.items()})
    finally:
        sys.modules.update(others)


def _is_from(module: ModuleType, file: Path) -> bool:
    place = getattr(module, "__file__", None)
    return place is not None and Path(place).resolve() == file


def sources(given: Any) -> dict[str, str]:
    """The SHA-256 of all code that a user's own object is made of, by the names of its parts.

    Of `file.py:Name`, the file and every module that it imports, directly or not, from outside the standard
    library and the installed packages. Of an object in Python, the text of its class or function, and what
    its file imports. Nothing is run; what is imported otherwise than by an import statement is not seen.
    """
    if isinstance(given, str):
        path = Path(given.rpartition(":")[0])
        return {name: _sha256(file) for name, file in own_files(path).items()} if path.is_file() else {}
    while isinstance(given, functools.partial):
        given = given.func
    given = getattr(given, "__func__", given)
    kind = given if inspect.isclass(given) or inspect.isfunction(given) else type(given)
    found = dict[str, str]()
    for one in inspect.getmro(kind) if inspect.isclass(kind) else (kind,):
        with suppress(OSError, TypeError):  # what is typed into a shell, or compiled, has no source
            file = Path(inspect.getsourcefile(one) or "").resolve()
            if _is_theirs(file):
                found[one.__qualname__] = hashlib.sha256(inspect.getsource(one).encode()).hexdigest()
                found |= {name: _sha256(place) for name, place in [*own_files(file).items()][1:]}
    return found


def own_files(path: Path) -> dict[str, Path]:
    """A user's file and those that it imports, directly or not, by the names of their modules.

    The file itself is the first, by its name. What cannot be found or parsed is left to whoever runs it.
    """
    path = path.resolve()
    found, waiting = {path.name: path}, [(path, "")]
    with _beside(path):
        while waiting:
            file, package = waiting.pop()
            specs = [spec for name in _imports_of(file, package) for spec in _specs_of(name)]
            for name, place, inside in (_place_of(spec) for spec in specs):
                if name not in found and place != path:
                    found[name] = place
                    waiting.append((place, inside))
    return found


def _imports_of(file: Path, package: str) -> Iterator[str]:
    """The absolute names of all modules that a file may import; some are names of what is in a module."""
    try:
        tree = ast.parse(file.read_bytes() if file.suffix == ".py" else b"")
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # from beyond a package
                name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from (f"{name}.{alias.name}" for alias in node.names)


def _specs_of(name: str) -> Iterator[ModuleSpec]:
    """Where a module is, and the packages that it is in, from the outside inwards; nothing is imported."""
    parts, places = name.split("."), list[str]()
    for depth in range(len(parts)):
        spec = _find_spec(".".join(parts[: depth + 1]), places)
        if spec is None or not (spec.origin is None or _is_theirs(Path(spec.origin).resolve())):
            return
        if spec.origin is not None:  # else it is a folder without __init__.py
            yield spec
        places = list(spec.submodule_search_locations or ())
        if not places:
            return


def _find_spec(name: str, places: list[str]) -> ModuleSpec | None:
    """Of a module in a package at these places, or in none."""
    if not places:
        found = (finder.find_spec(name, None) for finder in sys.meta_path)
    else:  # those of `sys.meta_path` would ask the packages around it, which are not imported
        found = (finder.find_spec(name) for place in places if (finder := pkgutil.get_importer(place)))
    return next(filter(None, found), None)


def _place_of(spec: ModuleSpec) -> tuple[str, Path, str]:
    """A module's name, its file, and the package that its relative imports start from."""
    inside = spec.name if spec.submodule_search_locations is not None else spec.name.rpartition(".")[0]
    return spec.name, Path(spec.origin or "").resolve(), inside


def _is_theirs(file: Path) -> bool:
    """Whether a file is neither of the standard library, nor installed, nor ours."""
    installed = any(part in _INSTALLED for part in file.parts)
    return file.is_file() and not installed and not any(file.is_relative_to(folder) for folder in _NOT_THEIRS)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def reason_of(error: BaseException) -> str:
    """An error of a user's code in one line, with the place in their file."""
    frame, places = error.__traceback__, list[tuple[str, int]]()
    while frame is not None:
        places.append((frame.tb_frame.f_code.co_filename, frame.tb_lineno))
        frame = frame.tb_next
    theirs = [place for place in places if not place[0].startswith((_HERE, "<"))]  # "<": what has no file
    lines = [line for file, line in theirs if file == theirs[0][0]]
    where = f" in {Path(theirs[0][0]).name}, line {lines[-1]}" if theirs else ""
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": ")) + where


def place_of(function: Any) -> str:
    """Where a function of the user's is defined, in brackets."""
    code = getattr(function, "__code__", None)
    return "" if code is None else f" (in {Path(code.co_filename).name}, line {code.co_firstlineno})"
