"""How lmms-eval asks the questions of `mini_questions` and scores the answers."""


def doc_to_visual(doc):
    return [doc["video"]]


def doc_to_text(doc, lmms_eval_specific_kwargs):
    return lmms_eval_specific_kwargs["pre_prompt"] + doc["question"]


def process_results(doc, results):
    return {"accuracy": float(results[0].strip() == doc["answer"])}


def doc_to_messages(doc, lmms_eval_specific_kwargs=None):
    return [
        {"role": "system", "content": [{"type": "text", "text": "Answer with one word."}]},
        {
            "role": "user",
            "content": [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["question"]}],
        },
    ]
