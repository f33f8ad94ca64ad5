"""The configs of the small models that the fixtures build."""

import transformers

TRANSFORMERS = tuple(int(number) for number in transformers.__version__.split(".")[:2])

# 7 x 7 patches a frame, pooled to 4 x 4; 4 frames in 2 clips keep 16 of 64 tokens.
SIDE = 56
SMALL = {"vision_config": {"image_size": SIDE, "patch_size": 8}}
AOT = {"local_window_size": 3, "local_attention_layer": 2, "retention_ratio": 0.25}

# Configs whose token count depends on the video.
VARYING = {
    "temporal_threshold": {"temporal_threshold": 0.3},
    "released": {"recipe": "released", "num_anchors": 16, "keep_ratio": 0.3},
    "released, no token of some videos": {"recipe": "released", "num_anchors": 12, "keep_ratio": 0.3},
    "released, more tokens than placeholders": {"recipe": "released", "num_anchors": 40, "keep_ratio": 0.9},
}
