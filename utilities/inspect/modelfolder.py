"""A run's model as a folder such as model hubs have: weights, keys and a card.

    model.safetensors   as `export` writes it
    config.json         the keys of the run; its model_type is one that nobody else has
    vocabulary.json     token <-> character
    README.md           the card: what it is, that no library loads it, how to read it

Owns what these hold. Does not own where they go.
"""

import json
from textwrap import dedent

from utilities.export import exported
from utilities.runs import RunRecord
from utilities.trained import Model

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocabulary.json"
CARD = "README.md"

_READING = dedent(
    """\
    import json
    from pathlib import Path

    import numpy as np

    folder = Path(".")
    data = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__")
    w = {}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        dtype = {"F32": "<f4", "I32": "<i4"}[entry["dtype"]]
        w[name] = np.frombuffer(data[first:last], dtype).reshape(entry["shape"])
    token_of = {int(point): n for n, point in enumerate(w["codePoints"]) if point >= 0}


    def probabilities(text):
        \"\"\"Return the probability of each token after the start of a document.\"\"\"
        state = [np.zeros(w[f"Wh{n}"].shape[0], "f4") for n in range(LAYERS)]
        for token in [1, *(token_of.get(ord(c), 0) for c in text)]:
            below = np.eye(len(w["codePoints"]), dtype="f4")[token]
            for n, h in enumerate(state):
                below = state[n] = cell(n, below @ w[f"Wx{n}"] + w[f"b{n}"], h)
        logits = below @ w["Wo"] + w["bo"]
        odds = np.exp(logits - logits.max())
        return odds / odds.sum()
    """
)
_CELLS = {
    "rnn": dedent(
        """\
        def cell(n, x, h):
            return np.tanh(x + h @ w[f"Wh{n}"])
        """
    ),
    "gru": dedent(
        """\
        def cell(n, x, h):
            size, y = h.size, h @ w[f"Wh{n}"]
            r, z = np.split(1 / (1 + np.exp(-(x + y)[: 2 * size])), 2)
            new = np.tanh(x[2 * size :] + r * (y[2 * size :] + w[f"bn{n}"]))
            return (1 - z) * new + z * h
        """
    ),
}


def folder_files(model: Model, record: RunRecord) -> dict[str, bytes]:
    """Return name and content of each file; the weights come last.

    Args:
        model: whose weights it holds.
        record: of the run.
    """
    keys = record.config.to_json()
    config = {"model_type": f"character-{keys['modelType']}", **keys}
    config["stepNum"] = model.step
    return {
        CARD: _card(model, record).encode("utf-8"),
        CONFIG: _json(config),
        VOCABULARY: _json(model.vocabulary.to_json()),
        WEIGHTS: exported(model, record, "safetensors"),
    }


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def reading_code(model: Model) -> str:
    """Return a program that reads the folder with numpy alone."""
    layout = model.layout
    code = _READING.replace("LAYERS", str(layout.n_layers))
    return f"{code}\n\n{_CELLS[layout.model_type]}"


def _card(model: Model, record: RunRecord) -> str:
    layout = model.layout
    # In a code span nothing is markup, and what would end it or the line is left out.
    text = " ".join(record.text_name.replace("`", "'").split())
    kind = {"rnn": "tanh RNN", "gru": "GRU"}[layout.model_type]
    layers = f"{layout.n_layers} layer{'' if layout.n_layers == 1 else 's'}"
    rows = [
        f"| `{tensor.name}` | {' x '.join(map(str, tensor.shape))} |"
        for tensor in layout.tensors
    ]
    return "\n".join(
        [
            *("---", "library_name: numpy", "pipeline_tag: text-generation"),
            *("tags:", "- character-level", "- evolution-strategies", "---", ""),
            *(f"# A character-level {kind}", ""),
            f"{layers} of {layout.hidden_size} units, {layout.size:,} weights, "
            f"{layout.vocab_size} tokens, after {model.step:,} steps of evolution "
            f"strategies on the text ` {text} `.",
            "",
            "**`AutoModel` cannot load it**: no class of transformers computes this "
            "network. It takes no tokenizer either: each character is a token "
            f"(`{VOCABULARY}`; 0 stands for unknown ones, 1 ends a document).",
            *("", "Its licence depends on that of the text; none is stated here.", ""),
            *("## Tensors", "", f"float32, in `{WEIGHTS}`:", ""),
            *("| name | shape |", "|---|---|", *rows, ""),
            "`codePoints`, int32, has the character of each token, -1 for the two "
            "special ones.",
            *("", "## Reading it", "", "With numpy alone:", ""),
            *("```python", reading_code(model).rstrip("\n"), "```", ""),
        ]
    )
