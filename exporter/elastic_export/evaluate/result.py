"""What an evaluation found: as records, which are the JSON file's schema, and as a table.

`elastic-evaluation/1`: every field required, no other allowed, all numbers finite (`elastic_runtime.format.records`).

    {"schema": "elastic-evaluation/1", "producer": "elastic-export 0.1.0",
     "subject": {"kind": "checkpoint", "name": "Nemotron-Elastic-12B", "dtype": "bf16"},
     "text": {"name": "held_out.txt", "sha256": "…", "bytes": 4096, "tokens": 1021, "windows": 1, "context": 1024,
              "stride": 1023, "whole": false},
     "reference": {"budget": "12b", "precision": "fp32"}, "vram_context": 16384,
     "rows": [{"budget": "12b", "precision": "fp32", "parameters": 12310001152, "weight_bytes": …, "vram_bytes": …,
               "bits_per_byte": …, "perplexity": …, "kl_divergence": 0.0, "top1_agreement": 1.0}]}

Where quantised weights were evaluated their rows say `"quantisation": "int8"`, as does the reference where it is one of
them. Where they were compared with those of another checkpoint, the rows of that say whose weights they are,
`"source": {"kind": "checkpoint", "name": "Nemotron-Elastic-12B", "dtype": "bf16"}`, and `loss` says what was lost:

    "loss": {"against": "Nemotron-Elastic-12B",
             "text": [{"budget": "12b", "quantisation": "int8", "precision": "fp32", "bits_per_byte": 0.001,
                       "kl_divergence": …, "top1_agreement": …, "logits": …, "embedding": …,
                       "layers": [{"layer": 0, "error": …}, …]}],
             "weights": [{"budget": "12b", "quantisation": "int8", "error": …,
                          "rows": [{"tensor": "lm_head.weight", "row": 7, "error": …}, …]}]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from elastic_export import __version__
from elastic_export.evaluate.distance import Pair
from elastic_export.evaluate.loss import LayerError, Loss, TextLoss
from elastic_export.evaluate.lost_rows import WeightLoss
from elastic_export.evaluate.passage import Passage, printable
from elastic_export.evaluate.score import Scored
from elastic_export.evaluate.sub_model import Quantisation
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.fit_table import align, parameters, short, size_text
from elastic_export.plan.reckoning import budget_size
from elastic_runtime.errors import InputError, advised
from elastic_runtime.fit.vram import gib, vram_needed
from elastic_runtime.format.interface import Precision
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.records import OPTIONAL, decode, encode, show

SCHEMA = "elastic-evaluation/1"
_LARGEST = math.log(1e300)
_STORED = "weights: as they are stored; precision: what is computed in"
_VRAM_OF = "VRAM of what is quantised is that of the engine that it goes into, of other rows of one in their precision"


@dataclass(frozen=True)
class Source:
    """Whose weights were evaluated; `dtype` is that of its matrices."""

    kind: Literal["checkpoint", "bundle"]
    name: str
    dtype: str


@dataclass(frozen=True)
class Text:
    """What was scored, see `Passage`; `sha256` is that of the file, `bytes` and `tokens` those scored."""

    name: str
    sha256: str
    bytes: int
    tokens: int
    windows: int
    context: int
    stride: int
    whole: bool


@dataclass(frozen=True)
class Reference:
    """With which row the others are compared; `quantisation`: the row's."""

    budget: str
    precision: Precision
    quantisation: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Row:
    """A sub-model in one precision.

    Attributes:
        budget, precision: which.
        parameters: of the sub-model.
        weight_bytes: of its weights in that precision; in int8 those that its engine binds, which has one precision.
        vram_bytes: that an engine of it needs with caches of `vram_context` tokens, estimated (`fit.vram_needed`).
        bits_per_byte: L / (ln 2 · B), L = Σ -log q(token) over the scored tokens, B their bytes of UTF-8: no matter
            which the tokenizer is (Gao et al. 2020, The Pile, arXiv 2101.00027, section 3.1).
        perplexity: exp(L / T), by token; None where that is no number.
        kl_divergence: (1 / T)·Σ KL(p ‖ q), nats a token: p is what the reference says of the next token (Kullback and
            Leibler 1951).
        top1_agreement: share of tokens before which reference and sub-model find the same one most likely; of equal
            logits the lowest id.
        quantisation: what its matrices have been quantised to, `int8` or a checkpoint's `FP8`; absent: to nothing.
        source: whose weights they are; absent: the evaluation's subject's.
    """

    budget: str
    precision: Precision
    parameters: int
    weight_bytes: int
    vram_bytes: int
    bits_per_byte: float
    perplexity: float | None
    kl_divergence: float
    top1_agreement: float
    quantisation: str | None = field(default=None, metadata=OPTIONAL)
    source: Source | None = field(default=None, metadata=OPTIONAL)


class Measured(NamedTuple):
    """What a row is made of: a sub-model in a precision, its scores, and whose weights it has if not the subject's."""

    budget: str
    architecture: Architecture
    precision: Precision
    scored: Scored
    quantisation: Quantisation | None = None
    source: Source | None = None


@dataclass(frozen=True)
class Evaluation:
    """The whole result; rows in the order of the request, the reference first where it was not asked for. `loss`:
    absent where nothing quantised was compared with what it comes from.
    """

    producer: str
    subject: Source
    text: Text
    reference: Reference
    vram_context: int
    rows: tuple[Row, ...]
    loss: Loss | None = field(default=None, metadata=OPTIONAL)

    def to_json(self) -> str:
        """The text of the JSON file."""
        return json.dumps({"schema": SCHEMA, **encode(self)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read such a file. Raises InputError that names the field."""
        with advised("evaluate again"):
            document = read_json(path)
            if (schema := document.pop("schema", None)) != SCHEMA:
                raise InputError(f"{path}: schema", expected=repr(SCHEMA), found=show(schema))
            return decode(cls, document, str(path))

    def best(self) -> list[Row]:
        """The rows that no other with as little VRAM, or less, beats in bits per byte: by VRAM, the smallest first."""
        found: list[Row] = []
        for row in sorted(self.rows, key=lambda row: (row.vram_bytes, row.bits_per_byte)):
            if not found or row.bits_per_byte < found[-1].bits_per_byte:
                found.append(row)
        return found

    @property
    def quantised(self) -> bool:
        """Whether rows have to say in which form their weights are."""
        return any(row.quantisation for row in self.rows)

    def weights_of(self, row: Row) -> str:
        """What a row's matrices are stored as: `int8`, `bf16`; those of another than the subject `fp32 (against)`."""
        stored = row.quantisation or (row.source or self.subject).dtype
        return stored if row.source is None else f"{stored} (against)"

    @property
    def compared_with(self) -> str:
        """The reference, and in which form where there are several."""
        of = self.reference
        same = (row for row in self.rows if Reference(row.budget, row.precision, row.quantisation) == of)
        row = next(same, None) if self.quantised else None
        return f"{of.budget} in {of.precision}" + ("" if row is None else f", weights {self.weights_of(row)}")

    @property
    def owners(self) -> str:
        """Whose weights were evaluated."""
        mine = f"weights of the {self.subject.kind} {self.subject.name}, {self.subject.dtype}"
        others = dict.fromkeys(row.source for row in self.rows if row.source is not None)
        return "; (against): ".join([mine, *(f"of the {other.kind} {other.name}, {other.dtype}" for other in others)])

    def table(self) -> str:
        """For people."""
        heading = ["budget", "precision", "params", f"VRAM@{short(self.vram_context)}", "bits/byte", "perplexity"]
        best = self.best()
        rows = [[*heading, "KL", "top-1", ""], *([*_cells(row), "*" if row in best else ""] for row in self.rows)]
        left = [0, 1]
        if self.quantised:
            stored = ["weights", *map(self.weights_of, self.rows)]
            rows = [[*cells[:2], kind, *cells[2:]] for cells, kind in zip(rows, stored, strict=True)]
            left.append(2)
        text = self.text
        part = "all" if text.whole else "the first part"
        return "\n".join(
            [
                *align(rows, left=left),
                f"{text.name}: {part} of it, {text.tokens} tokens, {text.bytes} bytes, windows of {text.context} "
                f"every {text.stride}",
                f"KL (nats a token) and top-1 against {self.compared_with}; * best within its VRAM, which is estimated",
                *([_STORED, _VRAM_OF] if self.quantised else []),
                f"{self.owners}; loss on a text is no measure of reasoning",
                *([] if self.loss is None else ["", *self.loss.table()]),
            ]
        )


def evaluation(
    subject: Source,
    passage: Passage,
    found: Sequence[Measured],
    reference: Reference,
    vram_context: int,
) -> Evaluation:
    """What scores mean, by row."""
    subject = replace(subject, name=printable(subject.name))
    text = Text(
        passage.name,
        passage.sha256,
        passage.nbytes,
        passage.tokens,
        len(passage.windows),
        passage.context,
        passage.stride,
        passage.whole,
    )
    rows = tuple(_row(measured, text, vram_context) for measured in found)
    return Evaluation(f"elastic-export {__version__}", subject, text, reference, vram_context, rows)


def with_loss(found: Evaluation, against: str, pairs: Sequence[Pair], weights: Sequence[WeightLoss]) -> Evaluation:
    """The evaluation with what quantisation took.

    Args:
        found: its rows are in the order of the subjects.
        against: the checkpoint of the unquantised budgets.
        pairs: of subjects, measured.
        weights: what each budget's have lost.
    """
    text = tuple(_text_loss(found.rows[pair.quantised], found.rows[pair.plain], pair, found.text) for pair in pairs)
    return replace(found, loss=Loss(printable(against), text, tuple(weights)))


def _text_loss(row: Row, plain: Row, pair: Pair, text: Text) -> TextLoss:
    distance = pair.result()
    assert row.quantisation is not None, row
    return TextLoss(
        budget=row.budget,
        quantisation=row.quantisation,
        precision=row.precision,
        bits_per_byte=row.bits_per_byte - plain.bits_per_byte,
        kl_divergence=max(0.0, distance.divergence / text.tokens),
        top1_agreement=distance.agreed / text.tokens,
        logits=distance.logits,
        embedding=distance.embedding,
        layers=tuple(LayerError(layer, error) for layer, error in distance.layers.items()),
    )


def _row(measured: Measured, text: Text, context: int) -> Row:
    name, arch, precision, scored, quantisation, source = measured
    mean = scored.nats / text.tokens
    # Who computes a quantised one in float32 wants to know what its values are worth in the engine that there is.
    engine = (precision, None) if quantisation is None or quantisation.engine is None else quantisation.engine
    size = budget_size(name, arch, engine[0], weight_bytes=engine[1])
    return Row(
        budget=name,
        precision=precision,
        parameters=size.parameters,
        weight_bytes=size.weight_bytes,
        vram_bytes=vram_needed(size, context=context).total,
        bits_per_byte=scored.nats / (math.log(2) * text.bytes),
        perplexity=math.exp(mean) if mean < _LARGEST else None,
        kl_divergence=max(0.0, scored.divergence / text.tokens),  # of equal distributions what rounding leaves of 0
        top1_agreement=scored.agreed / text.tokens,
        quantisation=None if quantisation is None else quantisation.name,
        source=None if source is None else replace(source, name=printable(source.name)),
    )


def _cells(row: Row) -> list[str]:
    vram = f"{gib(row.vram_bytes)} GiB" if row.vram_bytes >= 1 << 30 else size_text(row.vram_bytes)
    perplexity = "-" if row.perplexity is None else f"{row.perplexity:.4g}"
    figures = [f"{row.bits_per_byte:.4f}", perplexity, f"{row.kl_divergence:.4g}", f"{row.top1_agreement:.1%}"]
    return [row.budget, row.precision, parameters(row.parameters), vram, *figures]
