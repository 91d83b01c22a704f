"""Stands in for Prefect where it is not installed, as on a bare GPU machine: stages import, and their bodies run.

`make gpu` puts the folder above on the path of its own processes, and only where there is no Prefect. Nothing runs as a
flow or a task with it: every name is a class that takes anything and does nothing, apart from those that are asked for
the run that is going on, of which there is none.
"""

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any

__path__: list[str] = []


class _Anything:
    def __init__(self, *arguments: Any, **named: Any) -> None: ...

    def __class_getitem__(cls, item: Any) -> type:
        return cls


class MissingContextError(RuntimeError):
    """No run goes on."""


def get_run_logger() -> Any:
    """Refuse, as Prefect does outside of a run."""
    raise MissingContextError("Prefect is not installed")


class _TaskRunContext:
    @staticmethod
    def get() -> None:
        return None


_KNOWN = {"MissingContextError": MissingContextError, "TaskRunContext": _TaskRunContext}


def _attribute(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _KNOWN.get(name) or type(name, (_Anything, Exception), {})


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes any `prefect.*`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.startswith("prefect."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = _attribute  # type: ignore[method-assign]


sys.meta_path.append(_Submodules())
__getattr__ = _attribute
