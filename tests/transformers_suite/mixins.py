"""transformers' own test mixins, from the folder that `fetch.py` fills."""

import importlib
import sys
import warnings
from types import ModuleType

import transformers

from .fetch import folder_of_release

FOLDER = folder_of_release(transformers.__version__)
_PACKAGE = "tests_of_transformers"


class _LeftOut(ModuleType):
    """A module that is not in the source distribution: every class that is asked of it is an empty mixin."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def load_model_tester_mixin() -> type:
    """`ModelTesterMixin` of the installed release.

    The distribution has the modules at the top of transformers' `tests` alone. What they import from deeper ones
    (`GenerationTesterMixin` above all) is replaced by empty classes; where a later release has it, it is used.
    """
    package = ModuleType(_PACKAGE)
    package.__path__ = [str(FOLDER)]
    sys.modules[_PACKAGE] = package
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its pytest marks are not ours
                return importlib.import_module(f"{_PACKAGE}.test_modeling_common").ModelTesterMixin
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(f"{_PACKAGE}."):
                raise
            sys.modules[error.name] = _LeftOut(error.name)
