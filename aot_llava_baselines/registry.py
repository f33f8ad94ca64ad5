"""The methods by name."""

from dataclasses import fields
from difflib import get_close_matches

from .dycoke import DyCoke
from .earlytom import EarlyTom
from .fastv import FastV
from .fastvid import FastVID
from .flashvid import FlashVID
from .framefusion import FrameFusion
from .holitom import HoliTom
from .interface import Baseline
from .pdrop import PDrop
from .prunevid import PruneVid
from .stc_cacher import STCCacher
from .stc_pruner import STCPruner
from .vidcom2 import VidCom2
from .visionzip import VisionZip

METHODS = (
    *(FastV, PDrop, DyCoke, VisionZip, PruneVid, FastVID, HoliTom),
    *(VidCom2, FlashVID, FrameFusion, STCPruner, STCCacher, EarlyTom),
)
BASELINES: dict[str, type[Baseline]] = {method.name: method for method in METHODS}


def build_baseline(name: str, **settings) -> Baseline:
    """A method by its name; what is not set has the value of the tables.

    Raises:
        ValueError: if there is no such method or setting, or a value is not allowed.
    """
    if name not in BASELINES:
        raise ValueError(f"There is no method {name!r}; the methods are {', '.join(BASELINES)}.")
    method = BASELINES[name]
    known = [field.name for field in fields(method)]
    for setting in settings:
        if setting not in known:
            (nearest, *_) = [*get_close_matches(setting, known, n=1, cutoff=0), known[0]]
            raise ValueError(
                f"{name} has no setting {setting!r}; did you mean {nearest!r}? Its settings are {', '.join(known)}."
            )
    return method(**settings)
