"""AOT and the methods that the paper compares it with, as models of lmms-eval.

lmms-eval finds them by itself where both are installed (an entry point, no fork):

    python -m lmms_eval --model aot_llava --model_args pretrained=...,retention_ratio=0.1 --tasks mvbench

`manifests` says which there are, `models` what lmms-eval asks them, `arguments` what they take, `conversations` how a
prompt is written, and `frame_sampling` which frames of a video are read. `preparing` makes tensors of both,
`running_ahead` in a thread of its own, `answering` answers, and `kept_videos` keeps videos for further questions.
"""
