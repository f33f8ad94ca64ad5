"""The methods, from the folder beside this file where the package is installed, from the benchmarks in a checkout."""

try:
    from .baselines import BASELINES, BaselineGenerator, PoolingHead, build_baseline
except ModuleNotFoundError as error:
    if error.name != f"{__package__}.baselines":
        raise
    from benchmarks.baselines import BASELINES, BaselineGenerator, PoolingHead, build_baseline

__all__ = ["BASELINES", "BaselineGenerator", "PoolingHead", "build_baseline"]
