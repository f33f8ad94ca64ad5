"""AOT and the methods that the paper compares it with, as models of lmms-eval.

lmms-eval finds them by itself where both are installed (an entry point, no fork):

    python -m lmms_eval --model aot_llava --model_args pretrained=...,retention_ratio=0.1 --tasks mvbench

`manifests` says which there are, `models` how they answer, `arguments` what they take, `conversations` how a prompt is
written, and `frame_sampling` which frames of a video are read.
"""
