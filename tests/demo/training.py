"""A training that can be stopped at any step, and what is learned: text, or several budgets at once from a teacher."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from demo_text import Tokens
from recorded import Loss
from sub_model import SubModel
from torch import Tensor

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget

BATCH, TOKENS = 32, 256
#: Of a batch, for each budget from the largest to the smallest: first the same, then more for the largest (the two
#: stages of Nemotron Elastic's curriculum, arXiv 2511.16664).
SHARES = ((12, 10, 10), (16, 10, 6))
_FIRST_STAGE = 0.6
_SAVED = 200  # steps between two states on the disk
_CLIP = 1.0


@dataclass(frozen=True)
class Run:
    """What a stage's result depends on; a folder holds one run of each.

    Rates are of Muon for the layers' matrices (Jordan et al. 2024) and of AdamW for all else; both rise over `warm` of
    the steps, stay until `flat` and fall to zero in a line.
    """

    steps: int
    muon: float
    adamw: float
    seed: int
    warm: float = 0.02
    flat: float = 0.4

    def rate(self, step: int) -> float:
        """What the rates are multiplied with."""
        done = (step + 1) / self.steps
        return min(1.0, done / self.warm, max(0.0, (1 - step / self.steps) / (1 - self.flat)))


class Batches:
    """Windows of a token stream, chosen by the step's number."""

    def __init__(self, tokens: Tokens, seed: int, device: str = "cpu") -> None:
        self._tokens, self._seed, self._device = tokens, seed, device

    def __call__(self, step: int) -> Tensor:
        """int64 [BATCH, TOKENS + 1]."""
        starts = np.random.default_rng((self._seed, step)).integers(0, len(self._tokens) - TOKENS - 1, BATCH)
        windows = np.stack([self._tokens[s : s + TOKENS + 1] for s in starts]).astype(np.int64)
        return torch.from_numpy(windows).to(self._device)


class Training:
    """Parameters on their way, with what their optimisers remember.

    Args:
        file: where the state is kept; one that is there is gone on with.
        run: what is asked for; a state of another one is refused.
        parameters: where it begins.
        device: where it computes.
    """

    def __init__(self, file: Path, run: Run, parameters: dict[str, Tensor], device: str = "cpu") -> None:
        self.file, self.run = file, run
        self.parameters = {name: tensor.clone().to(device).requires_grad_() for name, tensor in parameters.items()}
        matrices = {n: t for n, t in self.parameters.items() if t.dim() == 2 and ".layers." in n}
        others = [t for n, t in self.parameters.items() if n not in matrices]
        groups = [
            {"params": [t for t in others if t.dim() > 1], "weight_decay": 0.05},
            {"params": [t for t in others if t.dim() <= 1], "weight_decay": 0.0},
        ]
        self._optimisers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(list(matrices.values()), lr=run.muon, momentum=0.95, weight_decay=0.05), run.muon),
            (torch.optim.AdamW(groups, lr=run.adamw, betas=(0.9, 0.95), fused=True), run.adamw),
        ]
        self.step, self.minutes, self.log = 0, 0.0, list[dict[str, float]]()
        if file.exists():
            self._load()

    def go_on(self, loss: Loss, batches: Batches, minutes: float) -> bool:
        """Train until the last step or for so long; whether it is done."""
        begun, before, losses = time.monotonic(), self.minutes, list[dict[str, Tensor]]()
        while self.step < self.run.steps:
            with torch.enable_grad():
                losses.append(loss(self.parameters, self.step, batches(self.step)))
            self._update()
            self.minutes = before + (time.monotonic() - begun) / 60
            out = (time.monotonic() - begun) / 60 >= minutes
            if self.step % _SAVED == 0 or out or self.step == self.run.steps:
                self._note(losses)
                losses.clear()
                self._save()
            if out:
                break
        return self.step == self.run.steps

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), _CLIP)
        for optimiser, rate in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * self.run.rate(self.step)
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1

    def _note(self, losses: list[dict[str, Tensor]]) -> None:
        names = losses[0] if losses else {}
        means = {name: round(sum(float(loss[name]) for loss in losses) / len(losses), 4) for name in names}
        self.log.append({"step": self.step, "minutes": round(self.minutes, 2), **means})
        click.echo(json.dumps(self.log[-1]))

    def _save(self) -> None:
        state = {
            "run": asdict(self.run),
            "step": self.step,
            "minutes": self.minutes,
            "log": self.log,
            "parameters": {name: tensor.detach() for name, tensor in self.parameters.items()},
            "optimisers": [optimiser.state_dict() for optimiser, _ in self._optimisers],
        }
        beside = self.file.with_name(f"{self.file.name}.new")
        torch.save(state, beside)
        beside.replace(self.file)  # whoever kills this finds the older state or the new one

    def _load(self) -> None:
        state = torch.load(self.file, "cpu", weights_only=True)
        if state["run"] != asdict(self.run):
            raise click.ClickException(f"{self.file} is of another run, {state['run']}: name another folder")
        self.step, self.minutes, self.log = state["step"], state["minutes"], state["log"]
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(state["parameters"][name])
        for (optimiser, _), kept in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)


def language_loss(model: SubModel) -> Loss:
    """Cross-entropy of the next token."""

    def loss(parameters: dict[str, Tensor], _: int, window: Tensor) -> dict[str, Tensor]:
        with _narrow(window):
            logits = model(parameters, window[:, :-1])
        found = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        found.backward()
        return {"loss": found.detach()}

    return loss


def _narrow(window: Tensor) -> torch.autocast:
    """Products in bfloat16. Slices of parameters, each used once, are not worth keeping."""
    return torch.autocast(window.device.type, torch.bfloat16, cache_enabled=False)


def stage_of(run: Run, step: int) -> int:
    """Of the curriculum of several budgets: which of SHARES."""
    return int(step >= _FIRST_STAGE * run.steps)


def elastic_loss(arch: Architecture, teacher: dict[str, Tensor], budgets: list[Budget], run: Run) -> Loss:
    """Half KL divergence from the full model before, which is frozen, half cross-entropy; every budget on its share of
    the batch (Nemotron Elastic, arXiv 2511.16664, distillation of several budgets at once).

    Args:
        arch: the parent's architecture.
        teacher: the full model's parameters.
        budgets: from the largest to the smallest.
        run: how many steps there are.
    """
    full, models = SubModel(arch), [SubModel(arch, budget) for budget in budgets]

    def loss(parameters: dict[str, Tensor], step: int, window: Tensor) -> dict[str, Tensor]:
        shares = SHARES[stage_of(run, step)]
        found = {}
        with _narrow(window), torch.no_grad():
            wanted = F.log_softmax(full(teacher, window[:, :-1]), -1)
        parts = zip(models, window.split(shares), wanted.split(shares), strict=True)
        for model, part, want in parts:
            with _narrow(window):
                logits = model(parameters, part[:, :-1])
            given = F.log_softmax(logits, -1)
            entropy = F.nll_loss(given.flatten(0, 1), part[:, 1:].flatten())
            divergence = (want.exp() * (want - given)).sum(-1).mean()
            ((divergence + entropy) / 2 * len(part) / len(window)).backward()
            found |= {model.budget.name: entropy.detach(), f"{model.budget.name} KL": divergence.detach()}
        return found

    return loss


def bits_per_byte(model: SubModel, parameters: dict[str, Tensor], tokens: Tokens, size: int) -> float:
    """Of a text of `size` bytes, in windows of TOKENS tokens; each token but the first of all is predicted once."""
    windows = (len(tokens) - 1) // TOKENS
    text = torch.from_numpy(tokens[: windows * TOKENS + 1].astype(np.int64))
    lost, device = 0.0, parameters["lm_head.weight"].device
    for at in range(0, windows, BATCH):
        ids = [text[w * TOKENS : (w + 1) * TOKENS + 1] for w in range(at, min(at + BATCH, windows))]
        window = torch.stack(ids).to(device)
        with torch.no_grad():
            logits = model(parameters, window[:, :-1])
        lost += F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten(), reduction="sum").item()
    return lost / math.log(2) / (windows * TOKENS) * len(tokens) / size
