"""The methods, from the folder beside this file where the package is installed, from the benchmarks in a checkout."""

try:
    from .baselines import BASELINES, BaselineGenerator, PoolingHead, build_baseline, check_defined_for
except ModuleNotFoundError as error:
    if error.name != f"{__package__}.baselines":
        raise
    from benchmarks.baselines import BASELINES, BaselineGenerator, PoolingHead, build_baseline, check_defined_for

__all__ = ["BASELINES", "BaselineGenerator", "PoolingHead", "build_baseline", "check_defined_for"]
