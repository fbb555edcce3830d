"""The exact calls that give a model's rewards, for its card: Python that runs as it stands, and the servers' lines.

Every one of them gives the reward of training: the chat template writes all special tokens and the exported tokenizer
adds none. It knows what kind of model a folder holds; not the model.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

MESSAGES = """messages = [
    {"role": "user", "content": "Is 9 prime?"},
    {"role": "assistant", "content": "No: 9 = 3 * 3."},
]"""


@dataclass(frozen=True)
class Kind:
    """What the calls depend on.

    Args:
        folder: what the model is called in them: a folder or a hub name.
        base: of an adapter alone, the model that it is put on; None for whole weights.
        pad_id: the padding token.
        takes_pairs: whether `tokenizer(prompt, response)` gives the template's ids too.
        serves: whether vLLM and SGLang can load it: decoders.
        num_members: the models on one backbone that the folder holds; its own weights are their average.
        dtype: of the weights.
    """

    folder: str
    base: str | None = None
    pad_id: int = 0
    takes_pairs: bool = False
    serves: bool = True
    num_members: int = 1
    dtype: str = "float32"


def python_calls(kind: Kind) -> list[tuple[str, str]]:
    """Return heading and Python of each way to call the model; each leaves the reward of `messages` in `reward`."""
    folder = json.dumps(kind.folder, ensure_ascii=False)  # whatever is in the name, Python reads it
    # By itself transformers computes in the weights' dtype, of adapters in their base's, and rounds rewards to it.
    exactly = "" if kind.base is None and kind.dtype == "float32" else ', dtype="float32"'
    load = (
        "import torch\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder})\n"
        f"model = AutoModelForSequenceClassification.from_pretrained({folder}{exactly}).eval()\n"
    )
    if kind.base is not None:
        load = (
            "import torch\n"
            "from peft import AutoPeftModelForSequenceClassification\n"
            "from transformers import AutoTokenizer\n\n"
            f"tokenizer = AutoTokenizer.from_pretrained({folder})\n"
            "model = AutoPeftModelForSequenceClassification.from_pretrained(\n"
            f"    {folder}, num_labels=1, pad_token_id={kind.pad_id}{exactly}\n"
            ").eval()\n"
        )
    calls = [
        (
            "Messages, with transformers",
            f"{load}\n{MESSAGES}\n"
            'inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)\n'
            "with torch.no_grad():\n"
            "    reward = model(**inputs).logits[0, 0].item()",
        ),
        (
            "Text, with transformers",
            f"{load}\n{MESSAGES}\n"
            "text = tokenizer.apply_chat_template(messages, tokenize=False)\n"
            "with torch.no_grad():\n"
            '    reward = model(**tokenizer(text, return_tensors="pt")).logits[0, 0].item()',
        ),
    ]
    if kind.base is not None:
        return calls
    pipeline = (
        "from transformers import pipeline\n\n"
        f'rate = pipeline("text-classification", model={folder}, function_to_apply="none"{exactly})\n'
    )
    calls.append(
        (
            "Text, with a pipeline",
            f"{pipeline}\n{MESSAGES}\n"
            "text = rate.tokenizer.apply_chat_template(messages, tokenize=False)\n"
            'reward = rate(text)[0]["score"]',
        )
    )
    if kind.takes_pairs:
        calls.append(
            (
                "A prompt and its response, with a pipeline",
                f'{pipeline}\nreward = rate({{"text": "Is 9 prime?", "text_pair": "No: 9 = 3 * 3."}})["score"]',
            )
        )
    calls.append(
        (
            "Many conversations, with lightning_rm",
            "from lightning_rm import load_model, score\n\n"
            f"model, tokenizer = load_model({folder})\n\n{MESSAGES}\n"
            f"reward = score(model, tokenizer, [messages]){'.mean()' if kind.num_members > 1 else ''}.item()",
        )
    )
    return calls


def server_lines(kind: Kind) -> str:
    """Return the lines that start servers, and the request that each answers with the reward."""
    folder = shlex.quote(kind.folder)
    lines = [
        f"lightning-rm serve {shlex.quote(f'model={kind.folder}')}",
        "curl localhost:8000/classify -d '{\"messages\": [...]}'                              # data[0].probs[0]",
    ]
    if kind.serves:
        request = '{"input": "TEXT", "use_activation": false}'
        lines += [
            "",
            f"vllm serve {folder} --runner pooling",
            f"curl localhost:8000/classify -H 'Content-Type: application/json' -d '{request}'  # data[0].probs[0]",
            "",
            f"python -m sglang.launch_server --model-path {folder} --is-embedding",
            'curl localhost:30000/classify -d \'{"text": ["TEXT"]}\'                           # [0].embedding[0]',
        ]
    return "\n".join(lines)
