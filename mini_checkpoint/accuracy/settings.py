"""What is measured: every setting, in the groups in which it is shown. Names as in the paper, where it has one."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

FULL_TOKENS = "full tokens"
AOT = "AOT"
UNIFORM_SUBSAMPLING = "uniform subsampling"
AVERAGE_POOLING = "average pooling"
RANDOM_TOKENS = "random tokens"
# Other methods by their names in `aot_llava_baselines`; INSIDE are those that work in the language model.
BASELINES = (
    *("visionzip", "fastvid", "prunevid", "holitom", "vidcom2", "flashvid", "stc_pruner", "stc_cacher", "earlytom"),
    *("dycoke", "fastv", "pdrop", "framefusion"),
)
INSIDE = ("fastv", "pdrop", "framefusion")

NUM_FRAMES = 16
RATIO = 0.10
RATIOS = (0.25, 0.20, 0.15, 0.10, 0.05)
WEIGHTS = (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0)
DEFAULT_WEIGHT = 1.0
THRESHOLDS = (0.05, 0.06, 0.08, 0.1, 0.2, 0.4)
FRAME_COUNTS = (8, 16, 32)


@dataclass(frozen=True)
class Setting:
    """One way to choose what the language model reads of a clip.

    Attributes:
        series: what a line of the plot or a row of a table is called; the same at every retention ratio.
        reduction: `AOT`, `FULL_TOKENS`, one of the references or one of `BASELINES`.
        retention_ratio: share of the video tokens; of a method in the language model, AOT's share at its FLOPs.
        num_frames: frames sampled of a clip.
        fields: AOT's config fields, or a method's settings, that are not the default.
    """

    series: str
    reduction: str
    retention_ratio: float = RATIO
    num_frames: int = NUM_FRAMES
    fields: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Unlike any other setting's."""
        frames = "" if self.num_frames == NUM_FRAMES else f", {self.num_frames} frames"
        return f"{self.series}{frames}" if self.reduction in INSIDE else f"{self.series}, {self._percent}{frames}"

    @property
    def label(self) -> str:
        """What a table calls it, where the number of frames and of all tokens stand beside it."""
        if self.retention_ratio >= 1 or self.reduction in INSIDE:
            return self.series
        return f"{self.series}, {self._percent}"

    @property
    def _percent(self) -> str:
        return f"{100 * self.retention_ratio:g} %"

    @property
    def definition(self) -> str:
        """All that its answers depend on, and nothing else."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "series"}, sort_keys=True)


def _full(num_frames: int = NUM_FRAMES) -> Setting:
    return Setting(FULL_TOKENS, FULL_TOKENS, 1.0, num_frames)


def _variant(series: str, **fields: object) -> Setting:
    return Setting(series, AOT, fields=fields)


def _sweep(symbol: str, name: str) -> list[Setting]:
    return [
        DEFAULT if weight == DEFAULT_WEIGHT else _variant(f"{symbol} = {weight:g}", **{name: weight})
        for weight in WEIGHTS
    ]


FULL = _full()
DEFAULT = Setting("AOT", AOT)
# What the mini does better with: both defaults changed that it does badly with.
LOCAL_COSINE = {
    "local_anchor_ratio": 1.0,
    "intra_frame_aggregation": "cosine",
    "inter_frame_aggregation": "cosine",
}

# AOT's shares at the prefill FLOPs that the mini takes with FastV and PDrop, which read all tokens in the first layer.
FASTV_RATIO = 0.426
PDROP_RATIO = 0.454
PDROP_FIELDS = {"retention_ratio": 1 / 8, "layers": (1, 2, 3)}
# As many tokens before the model as the others have, and no second cut.
FLASHVID_BEFORE = {"expansion": 1.0, "inner_ratio": 1.0}
# With their layers 20 and 18 of 28; FlashVID's second share follows from the mean over the layers.
FLASHVID_INSIDE = {"layer": 4, "inner_ratio": 0.4}
HOLITOM_INSIDE = {"layer": 4, "inner_ratio": 0.5}
# Its layers 6, 21 and 23 of 26, in a tower of 7.
EARLYTOM_BEFORE = {"merging_layers": (2, 5, 6), "inner_ratio": 1.0}
EARLYTOM_INSIDE = {"merging_layers": (2, 5, 6), **HOLITOM_INSIDE}

GROUPS: dict[str, list[Setting]] = {
    "Accuracy against retention": [
        FULL,
        *(Setting("AOT", AOT, ratio) for ratio in RATIOS),
        *(Setting("AOT, dynamic clips", AOT, ratio, fields={"clip_segmentation": "dynamic"}) for ratio in RATIOS),
        *(Setting("AOT, released recipe", AOT, ratio, fields={"recipe": "released"}) for ratio in RATIOS),
        *(Setting("AOT, local anchors, cosine merging", AOT, ratio, fields=LOCAL_COSINE) for ratio in RATIOS),
        *(Setting("uniform subsampling", UNIFORM_SUBSAMPLING, ratio) for ratio in RATIOS),
        *(Setting("average pooling", AVERAGE_POOLING, ratio) for ratio in RATIOS),
        *(Setting("random tokens", RANDOM_TOKENS, ratio) for ratio in RATIOS),
    ],
    # Table 1. DyCoke goes no lower than a quarter.
    "Methods at equal budgets": [
        FULL,
        *(Setting("AOT", AOT, ratio) for ratio in RATIOS),
        *(Setting("VisionZip", "visionzip", ratio) for ratio in RATIOS),
        *(Setting("PruneVid", "prunevid", ratio) for ratio in RATIOS),
        *(Setting("FastVID, no pooling head", "fastvid", ratio) for ratio in RATIOS),
        *(Setting("HoliTom", "holitom", ratio) for ratio in RATIOS),
        *(Setting("VidCom2", "vidcom2", ratio) for ratio in RATIOS),
        *(Setting("FlashVID, before the model", "flashvid", ratio, fields=FLASHVID_BEFORE) for ratio in RATIOS),
        *(
            Setting("FlashVID with true means", "flashvid", ratio, fields={**FLASHVID_BEFORE, "merging": "mean"})
            for ratio in RATIOS
        ),
        *(Setting("STC-Pruner", "stc_pruner", ratio) for ratio in RATIOS),
        *(Setting("STC-Cacher and -Pruner", "stc_cacher", ratio) for ratio in RATIOS),
        *(Setting("EarlyTom, scaled: layers 2, 5, 6", "earlytom", ratio, fields=EARLYTOM_BEFORE) for ratio in RATIOS),
        Setting("DyCoke", "dycoke", 0.25),
    ],
    # Layers of a model of 6, where the paper's has 28.
    "Methods at equal FLOPs": [
        FULL,
        Setting("FastV, scaled: K = 1, 20 % kept", "fastv", FASTV_RATIO, fields={"retention_ratio": 0.2, "layer": 1}),
        Setting("AOT", AOT, FASTV_RATIO),
        Setting("PDrop, scaled: layers 1, 2, 3, halves", "pdrop", PDROP_RATIO, fields=PDROP_FIELDS),
        Setting("AOT", AOT, PDROP_RATIO),
        Setting("AOT", AOT, 0.25),
        *(
            Setting("FlashVID in the model too, scaled: K = 4", "flashvid", ratio, fields=FLASHVID_INSIDE)
            for ratio in (0.25, 0.10)
        ),
        Setting("AOT", AOT, 0.10),
        *(
            Setting("HoliTom in the model too, scaled: k = 4", "holitom", ratio, fields=HOLITOM_INSIDE)
            for ratio in (0.25, 0.10)
        ),
        *(
            Setting("EarlyTom in the model too, scaled: k = 4", "earlytom", ratio, fields=EARLYTOM_INSIDE)
            for ratio in (0.25, 0.10)
        ),
        Setting("FrameFusion, 30 % on average", "framefusion", 0.30),
        Setting("AOT", AOT, 0.30),
        Setting("PruneVid in the model too, scaled: layer 2", "prunevid", 0.25, fields={"alpha": 0.4, "layer": 2}),
    ],
    # Tables 4, 5 and 8. "No merging" of Table 4 is "w/o OT" of Table 5.
    "Ablations": [
        DEFAULT,
        _variant("w/o local anchors", local_anchor_ratio=0.0),
        _variant("w/o global anchors", local_anchor_ratio=1.0),
        _variant("random anchors", anchor_selection="random"),
        _variant("w/o OT", intra_frame_aggregation="none", inter_frame_aggregation="none"),
        _variant("OT w/o intra-frame", intra_frame_aggregation="none"),
        _variant("OT w/o inter-frame", inter_frame_aggregation="none"),
        _variant("cosine merging", intra_frame_aggregation="cosine", inter_frame_aggregation="cosine"),
    ],
    # Fig. 3, right.
    "Weight of the transport within frames": _sweep("λ intra", "intra_frame_weight"),
    "Weight of the transport along time": _sweep("λ inter", "inter_frame_weight"),
    # Algorithm 2 as printed; `retention_ratio` gives the anchors alone, and the video the number of tokens.
    "Temporal threshold": [_variant(f"τ = {value:g}", temporal_threshold=value) for value in THRESHOLDS],
    # Fig. 3, left.
    "Frames": [
        *(_full(num_frames) for num_frames in FRAME_COUNTS),
        *(Setting("AOT", AOT, num_frames=num_frames) for num_frames in FRAME_COUNTS),
    ],
}

# Each once, though it may be shown in several groups.
SETTINGS = {setting.name: setting for group in GROUPS.values() for setting in group}
