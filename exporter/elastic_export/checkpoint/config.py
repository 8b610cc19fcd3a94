"""`config.json` of a Nemotron-H checkpoint → Architecture, and back.

Every key is one of four things, and none is skipped silently: *honoured* (it becomes a number of the Architecture),
*fixed* (it changes the mathematics and only one value is supported, every other is refused by name), *harmless* (listed
below with the reason) or *unknown*. An unknown key that is set to anything is refused, whatever its name: only the user
can know that it has no effect, and says so with `--ignore-config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elastic_export.checkpoint import experts
from elastic_export.checkpoint.quantised import FULL_ONES, describe
from elastic_export.checkpoint.shards import shorten
from elastic_export.layers.all_kinds import AXES, KIND_OF, KIND_OF_AXIS, KINDS
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import Axis
from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.jsonfile import json_type, read_json

EPSILON_NAMES = ("layer_norm_epsilon", "rms_norm_eps", "rms_norm_epsilon", "norm_eps")
LIMIT_NAMES = ("time_step_limit", "mamba_dt_limit")
LAYER_LISTS = ("layers_block_type", "layer_types")
#: Normal numbers of float32, in which norms and time steps are computed whatever the model's dtype. A bound above the
#: largest is none: tools that cannot write Infinity write 1e308.
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
_LETTER_OF_TYPE = {name: kind.letter for kind in KINDS for name in kind.types}
_LETTERS = ", ".join(list(KIND_OF)[:-1]) + f" or {list(KIND_OF)[-1]}"
_MEANINGS = ", ".join(f"{kind.letter} is {kind.noun}" for kind in KINDS)

#: Keys that change the mathematics and of which one value only is supported. An absent key has that value: these are
#: the defaults of every published implementation.
FIXED: dict[str, object] = {
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "mamba_proj_bias": False,
    "add_bias_linear": False,
    "use_conv_bias": True,
    "mamba_conv_bias": True,
    "mlp_hidden_act": "relu2",
    "hidden_act": "relu2",
    "mamba_hidden_act": "silu",
    "residual_in_fp32": False,
    "is_causal": True,
    "rms_norm": True,
    "mamba_rms_norm": True,
    "norm_before_gate": False,
    "mamba_norm_before_gate": False,
    "tie_word_embeddings": False,
    "sliding_window": None,
    "rope_scaling": None,
    "rope_parameters": None,
    "quantization_config": None,
    "compression_config": None,
}

_QUANTISED = ("quantization_config", "compression_config")

#: Keys no implementation of nemotron_h computes with at inference, by the reason.
_HARMLESS_BY_REASON = {
    # time_step_min, _max and _floor only seed dt_bias in the published code; transformers up to 5.23 clamps dt at
    # time_step_min, against it. time_step_limit is what counts.
    "training and initialisation": "attention_dropout hidden_dropout initializer_range rescale_prenorm_residual "
    "time_step_min time_step_max time_step_floor mamba_dt_min mamba_dt_max mamba_dt_init_floor",
    "H·P is heads times head size everywhere (the published 9B has expand 2 and H·P ≠ 2d)": "expand mamba_expand",
    "how it is computed, not what (our SSM state is FP32 always)": "chunk_size mamba_chunk_size mamba_ssm_cache_dtype "
    "use_mamba_kernels use_cache num_logits_to_keep attn_implementation _attn_implementation "
    "_attn_implementation_autoset experts_implementation chunk_size_feed_forward",
    "the rank of dt in Mamba-1, which Mamba-2 does not have": "time_step_rank mamba_dt_rank",
    "experts, of which there is no layer": "moe_intermediate_size moe_latent_size moe_shared_expert_intermediate_size "
    "moe_shared_expert_overlap n_group n_routed_experts num_local_experts n_shared_experts norm_topk_prob "
    "num_experts_per_tok output_router_logits routed_scaling_factor topk_group router_aux_loss_coef",
    "prediction heads beside the model, whose tensors are reported by name": "mtp_hybrid_override_pattern "
    "mtp_layers_block_type num_nextn_predict_layers",
    "the context trained for; what is exported is the user's choice": "max_position_embeddings",
    "no nemotron_h implementation rotates queries and keys (reported in a warning)": "rope_theta partial_rotary_factor",
    "generation settings of older saves; generation_config.json travels in the bundle": "bad_words_ids "
    "begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size "
    "exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores remove_invalid_values "
    "repetition_penalty return_dict_in_generate suppress_tokens temperature top_k top_p typical_p",
    "identity and bookkeeping": "architectures auto_map name_or_path _name_or_path _commit_hash transformers_version "
    "torch_dtype dtype bos_token_id eos_token_id pad_token_id decoder_start_token_id sep_token_id id2label label2id "
    "problem_type is_encoder_decoder is_decoder output_attentions output_hidden_states return_dict finetuning_task "
    "task_specific_params tokenizer_class prefix torchscript use_bfloat16 elastic_per_layer_widths",
}
HARMLESS = frozenset(key for keys in _HARMLESS_BY_REASON.values() for key in keys.split())

#: Keys read by a method of their own below.
_READ_ELSEWHERE = frozenset(
    ("model_type", "hybrid_override_pattern", *LAYER_LISTS, "num_hidden_layers", *(n for a in AXES for n in a.names))
)


def read_config(path: Path) -> dict[str, Any]:
    """The raw config. `Infinity` is allowed; its spelling in newer saves, `{"__float__": "Infinity"}`, is undone."""
    with advised("name the checkpoint's folder, or download its config.json again"):
        config = read_json(path, any_number=True)
    return {key: _plain_float(value) for key, value in config.items()}


def parse_config(config: Mapping[str, Any], subject: str, ignore: Sequence[str] = ()) -> tuple[Architecture, list[str]]:
    """The architecture a raw config describes, and warnings about keys that were not understood.

    `ignore` names unknown keys that have no effect on the model.

    `intermediate_size` and `mamba_num_heads` may be lists with one entry a layer of the kind, as sub-models whose
    widths vary by layer are written.

    Raises:
        InputError: naming `subject` and the key.
    """
    reader = _Reader(config, subject)
    reader.exactly("model_type", "nemotron_h", required=True)
    for key, value in FIXED.items():
        reader.exactly(key, value)
    pattern = reader.pattern()
    architecture = Architecture(
        pattern=pattern,
        epsilon=reader.epsilon(),
        time_step_limit=reader.time_step_limit(),
        **{axis.field: reader.axis(axis, pattern) for axis in AXES},
    )
    reader.check_axes(architecture)
    return architecture, reader.unknown_keys(ignore)


def config_document(architecture: Architecture) -> dict[str, Any]:
    """The keys of a `config.json` that say what `architecture` is; transformers loads it when widths are scalar.

    Widths that vary by layer become lists, and `elastic_per_layer_widths` names them: no scalar-width tool should
    take such a config for one of its own.
    """
    a = architecture
    document: dict[str, Any] = {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        "hybrid_override_pattern": a.pattern,
        "num_hidden_layers": len(a.pattern),
        **{axis.key: axis.of(a) for axis in AXES if not axis.per_layer},
        "layer_norm_epsilon": a.epsilon,
        "time_step_limit": list(a.time_step_limit),
    }
    lists = {axis.key: getattr(a, axis.field) for axis in AXES if axis.per_layer}
    for key, widths in lists.items():
        if widths:
            document[key] = widths[0] if len(set(widths)) == 1 else list(widths)
    varying = [key for key in lists if isinstance(document.get(key), list)]
    return document | ({"elastic_per_layer_widths": varying} if varying else {})


class _Reader:
    """Typed access to a raw config; every fault names the file and the key."""

    def __init__(self, config: Mapping[str, Any], subject: str) -> None:
        self._config, self._subject = config, subject

    def fault(self, key: str, expected: str, found: str, todo: str) -> InputError:
        return InputError(f"{self._subject}, {key}", expected=expected, found=found, todo=todo)

    def exactly(self, key: str, value: object, *, required: bool = False) -> None:
        """`key` has this one value; absent or null counts as it unless required."""
        found = self._config.get(key)
        if (found is None and not required) or (type(found) is type(value) and found == value):
            return
        wanted = "absent or null" if value is None else json_type(value)
        shown = "nothing" if found is None else json_type(found)
        todo = "export a Nemotron-H checkpoint without it: another value computes something else"
        if key in _QUANTISED:
            shown, todo = f"{shown}: its weights are quantised ({describe(found) or 'it does not say how'})", FULL_ONES
        raise self.fault(key, f"{wanted} (nothing else is supported)", shown, todo)

    def agreed(self, names: tuple[str, ...]) -> tuple[str, Any]:
        """(key, value) of the names that are present and not null; ("", None) where there is none."""
        present = [(name, self._config[name]) for name in names if self._config.get(name) is not None]
        for name, value in present[1:]:
            if value != present[0][1]:
                todo = f"remove the wrong one of {present[0][0]} and {name}"
                raise self.fault(name, f"{json_type(present[0][1])}, as {present[0][0]} says", json_type(value), todo)
        return present[0] if present else ("", None)

    def axis(self, axis: Axis, pattern: str) -> Any:
        """The length of an axis; with `per_layer`, one for each layer of its kind."""
        if axis.per_layer:
            return self._widths(axis.key, pattern.count(KIND_OF_AXIS[axis].letter))
        key, value = self.agreed(axis.names)
        if not key:
            raise self.fault(" or ".join(axis.names), "an integer", "nothing", f"add {axis.key} as the tensors have it")
        return self._positive(key, value)

    def _positive(self, key: str, value: object) -> int:
        if type(value) is not int or not 1 <= value < 1 << 31:
            raise self.fault(key, "an integer ≥ 1", json_type(value), "write the width that the tensors have")
        return value

    def _widths(self, key: str, layers: int) -> tuple[int, ...]:
        value = self._config.get(key)
        if isinstance(value, list):
            if len(value) != layers:
                todo = "count the layers of the kind in the layer pattern"
                raise self.fault(key, f"{layers} entries, one a layer of the kind", json_type(value), todo)
            return tuple(self._positive(f"{key}[{i}]", item) for i, item in enumerate(value))
        if value is None and not layers:
            return ()
        return (self._positive(key, value),) * layers

    def pattern(self) -> str:
        """The pattern string, or the list of layer types as one; both must agree, with each other and the count."""
        found: dict[str, str] = {}
        if self._config.get("hybrid_override_pattern") is not None:
            found["hybrid_override_pattern"] = self._pattern_string(self._config["hybrid_override_pattern"])
        for key in LAYER_LISTS:
            if self._config.get(key) is not None:
                found[key] = self._pattern_list(key, self._config[key])
        if not found:
            names = "hybrid_override_pattern, layers_block_type or layer_types"
            todo = f"add hybrid_override_pattern: one of {' '.join(KIND_OF)} a layer, in order"
            raise self.fault("layer pattern", f"one of {names}", "none of them", todo)
        first, pattern = next(iter(found.items()))
        for key, other in found.items():
            if other != pattern:
                todo = f"remove the wrong one of {first} and {key}"
                raise self.fault(key, f"the layers that {first} gives, {pattern}", other, todo)
        layers = self._config.get("num_hidden_layers")
        if layers is not None and (type(layers) is not int or layers != len(pattern)):
            todo = "correct it, or the pattern"
            raise self.fault("num_hidden_layers", f"{len(pattern)}, the length of {first}", json_type(layers), todo)
        return pattern

    def _pattern_string(self, value: object) -> str:
        key = "hybrid_override_pattern"
        if not isinstance(value, str) or not value:
            raise self.fault(key, "a text of the letters M, - and *", json_type(value), "write one letter a layer")
        return "".join(self._letter(key, index, letter, letter) for index, letter in enumerate(value))

    def _pattern_list(self, key: str, value: object) -> str:
        if not isinstance(value, list) or not value:
            raise self.fault(key, "a list of layer types", json_type(value), "write one type a layer: mamba, mlp, …")
        known = _LETTER_OF_TYPE | {experts.TYPE: experts.LETTER}
        letters = (known.get(item, "?") if isinstance(item, str) else "?" for item in value)
        return "".join(self._letter(key, i, letter, value[i]) for i, letter in enumerate(letters))

    def _letter(self, key: str, index: int, letter: str, shown: object) -> str:
        if letter == experts.LETTER:
            where = f"{self._subject}, {key}, layer {index}"
            raise experts.mixture(where, "a Mamba-2, MLP or attention layer")
        if letter not in KIND_OF:
            kinds = _LETTERS if key == "hybrid_override_pattern" else ", ".join(_LETTER_OF_TYPE)
            todo = f"correct it: {_MEANINGS}; other layers are not supported"
            raise self.fault(f"{key}, layer {index}", kinds, json_type(shown), todo)
        return letter

    def epsilon(self) -> float:
        key, value = self.agreed(EPSILON_NAMES)
        if not key:
            return 1e-5  # the default of every published implementation
        if type(value) not in (int, float) or not _SMALLEST <= value < 1:
            small = type(value) is float and 0 < value < 1
            expected = f"a number that float32 holds, {_SMALLEST:.1e} or more" if small else "a number between 0 and 1"
            raise self.fault(key, expected, json_type(value), "write the one trained with, such as 1e-5")
        return float(value)

    def time_step_limit(self) -> tuple[float, float]:
        key, value = self.agreed(LIMIT_NAMES)
        if not key:
            return (0.0, math.inf)
        if isinstance(value, list) and len(value) == 2 and all(type(bound) in (int, float) for bound in value):
            low, high = (math.inf if bound > _LARGEST else float(bound) for bound in value)
            if 0 <= low <= high and low < math.inf:
                return (low, high)
        found = str(value)[:60] if isinstance(value, list) else json_type(value)
        todo = "write [0.0, Infinity] where dt is not limited"
        raise self.fault(key, "[low, high] with 0 ≤ low ≤ high", found, todo)

    def check_axes(self, a: Architecture) -> None:
        """Grouped axes divide by their groups, and none is shorter than is supported."""
        for axis, kind in KIND_OF_AXIS.items():
            lengths = [axis.of(a, k) for k in range(a.count(kind) if axis.per_layer else min(1, a.count(kind)))]
            for ordinal, length in enumerate(lengths):
                where = f"{axis.key} ({kind.called} layer {ordinal})" if axis.per_layer else axis.key
                if axis.groups is not None and length % axis.step(a):
                    expected = f"a multiple of the {axis.step(a)} {axis.groups.called}"
                    raise self.fault(where, expected, str(length), f"correct it, or {axis.groups.key}")
        for axis in AXES:
            least, why = axis.least
            if not axis.per_layer and axis.of(a) < least:
                raise self.fault(axis.key, f"{least} or more", str(axis.of(a)), f"export another model: {why}")

    def unknown_keys(self, ignore: Sequence[str]) -> list[str]:
        known = {*FIXED, *HARMLESS, *_READ_ELSEWHERE, *EPSILON_NAMES, *LIMIT_NAMES}
        unknown = [key for key in self._config if key not in known]
        if refused := [key for key in unknown if _is_set(self._config[key]) and key not in ignore]:
            first, others = refused[0], [key[:60] for key in refused[1:]]
            more = f" (and {shorten(others)}, unknown too)" if others else ""
            todo = f"if it has no effect on the model, pass --ignore-config {first[:60]}"
            expected = "no key that may change what is computed"
            raise self.fault(first[:60], expected, json_type(self._config[first]) + more, todo)
        warnings = [f"{self._subject}: {key} is not known and was ignored" for key in unknown]
        for key in ("rope_theta", "partial_rotary_factor"):
            if self._config.get(key) is not None:
                warnings.append(f"{self._subject}: {key} was ignored; Nemotron-H attention has no rotary embedding")
        idle = [key for key in ignore if key not in unknown]
        return [*warnings, *(f"--ignore-config {key}: is no unknown key of {self._subject}" for key in idle)]


def _is_set(value: object) -> bool:
    """Whether an unknown key says anything; zeros do."""
    return value is not None and value is not False and value not in ("", [], {})


_SPELT = ("Infinity", "-Infinity", "NaN")


def _plain_float(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain_float(item) for item in value]
    if isinstance(value, dict) and list(value) == ["__float__"] and value["__float__"] in _SPELT:
        return float(value["__float__"])
    return value
