"""The model of `utilities.model` in PyTorch, to be trained by backpropagation.

The same tensors in the same layout, the same computation: windows from a zero state,
mean negative log-likelihood. Needs PyTorch (requirements-benchmarks.txt).
"""

from typing import Any, TypeAlias

import numpy as np
import torch

from utilities.evolution import Setting
from utilities.model import Floats, Layout, Tokens

Variable: TypeAlias = Any  # torch.Tensor, which mypy knows only where it is installed
VERSION: str = torch.__version__


class Network:
    """Weights that know their gradient."""

    def __init__(self, setting: Setting, weights: Floats) -> None:
        """Copy the weights (P,)."""
        self.layout: Layout = setting.layout
        self.tensors: dict[str, Variable] = {
            name: torch.tensor(view, requires_grad=True)
            for name, view in self.layout.views(weights.copy()).items()
        }

    def weights(self) -> Floats:
        """Return a copy of all weights as one vector (P,)."""
        parts = [self.tensors[t.name].detach().numpy() for t in self.layout.tensors]
        return np.concatenate([part.ravel() for part in parts])

    def loss(self, windows: Tokens) -> Variable:
        """Return the mean loss of windows (T + 1, n), in nats per character."""
        tokens = torch.from_numpy(windows.astype(np.int64))
        size, hidden = self.layout.vocab_size, self.layout.hidden_size
        x = torch.nn.functional.one_hot(tokens[:-1], size).float()  # (T, n, V)
        start = torch.zeros(self.layout.n_layers, tokens.shape[1], hidden)
        run = torch.gru if self.layout.model_type == "gru" else torch.rnn_tanh
        # biases, layers, dropout, training, both directions, batch first
        top, _ = run(x, start, self._cells(), True, len(start), 0.0, True, False, False)
        logits = top @ self.tensors["Wo"] + self.tensors["bo"]  # (T, n, V)
        return torch.nn.functional.cross_entropy(
            logits.reshape(-1, size), tokens[1:].reshape(-1)
        )

    def _cells(self) -> list[Variable]:
        """Return, of each layer, two matrices and two biases as PyTorch has them.

        PyTorch gives each sum of gates two biases; ours has one, except inside the
        reset gate. The other stays zero.
        """
        parts: list[Variable] = []
        for layer in range(self.layout.n_layers):
            bias = self.tensors[f"b{layer}"]
            second = torch.zeros_like(bias)
            if self.layout.model_type == "gru":
                inner = self.tensors[f"bn{layer}"]
                second = torch.cat([second[: -len(inner)], inner])
            matrices = (self.tensors[f"{name}{layer}"].T for name in ("Wx", "Wh"))
            parts += [*matrices, bias, second]
        return parts


class Adam:
    """Adam on the weights of a network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._adam = torch.optim.Adam(network.tensors.values(), fused=True)

    def step(self, windows: Tokens, rate: float) -> None:
        """Update the network once, downhill on these windows (T + 1, n)."""
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.zero_grad()
        self._network.loss(windows).backward()
        self._adam.step()


def use_threads(count: int) -> None:
    """Let PyTorch compute with that many threads."""
    torch.set_num_threads(count)
