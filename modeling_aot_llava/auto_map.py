"""What a folder tells the Auto classes of transformers. Nothing is imported here: publishing does without torch."""

AUTO_MAP_OF_CONFIG = {
    "AutoConfig": "configuration_aot_llava.AOTLlavaOnevisionConfig",
    "AutoModel": "modeling_aot_llava.AOTLlavaOnevisionModel",
    "AutoModelForImageTextToText": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
    "AutoModelForPreTraining": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
}
AUTO_MAP_OF_PROCESSOR = {"AutoProcessor": "processing_aot_llava.AOTLlavaOnevisionProcessor"}
