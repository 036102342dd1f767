"""What `server/engines/vllm/core.py` touches of vLLM, and whether a vLLM has it, read from its sources.

    python tests/vllm/surface.py FOLDER...    look at the `vllm` packages in these folders

Reading is enough, and works for versions that this machine cannot import. The names that are imported come
from the engine's own import lines; attributes, fields and signatures stand here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[2] / "server" / "engines" / "vllm" / "core.py"

SURFACE: Mapping[str, str] = {
    "config.cache.CacheConfig": "block_size num_gpu_blocks",
    "config.lora.LoRAConfig": "max_cpu_loras max_lora_rank max_loras",
    "config.model.ModelConfig": "get_vocab_size() max_model_len runner_type",
    "config.scheduler.SchedulerConfig": "max_num_seqs",
    "config.vllm.VllmConfig": "cache_config lora_config model_config scheduler_config",
    "engine.arg_utils.EngineArgs": (
        "create_engine_config() disable_log_stats enable_lora enable_prefix_caching kv_cache_memory_bytes "
        "max_cpu_loras max_lora_rank max_loras max_model_len max_num_batched_tokens max_num_seqs model "
        "served_model_name shutdown_timeout structured_outputs_config"
    ),
    "exceptions.VLLMValidationError": "",
    "lora.request.LoRARequest": "lora_int_id lora_name lora_path",
    "pooling_params.PoolingParams": "dimensions task",
    "sampling_params.RequestOutputKind": "DELTA",
    "sampling_params.SamplingParams": (
        "detokenize frequency_penalty ignore_eos logit_bias logprobs max_tokens min_p min_tokens output_kind "
        "presence_penalty prompt_logprobs repetition_penalty seed skip_clone stop_token_ids "
        "structured_outputs temperature top_k top_p"
    ),
    "sampling_params.StructuredOutputsParams": "grammar",
    "v1.engine.EngineCoreEvent": "timestamp type",
    "v1.engine.EngineCoreEventType": "PREEMPTED SCHEDULED",
    "v1.engine.EngineCoreOutput": (
        "events finish_reason new_logprobs new_prompt_logprobs_tensors new_token_ids prefill_stats request_id"
    ),
    "v1.engine.EngineCoreOutputs": "engine_index outputs scheduler_stats timestamp",
    "v1.engine.FinishReason": "ABORT ERROR LENGTH",
    "v1.engine.async_llm.AsyncLLM": (
        "add_lora(lora_request) encode(prompt,pooling_params,request_id,lora_request=) engine_core "
        "from_vllm_config(vllm_config,disable_log_stats=) input_processor list_loras() logger_manager "
        "remove_lora(lora_id) shutdown()"
    ),
    "v1.engine.core_client.AsyncMPClient": (
        "abort_requests_async(request_ids) add_request_async(request) get_output_async()"
    ),
    "v1.engine.core_client.BackgroundResources": "engine_dead",
    "v1.engine.core_client.MPClient": "resources",
    "v1.engine.input_processor.InputProcessor": (
        "process_inputs(request_id,prompt,params,supported_tasks=,lora_request=)"
    ),
    "v1.metrics.loggers.StatLoggerManager": "record(scheduler_stats,iteration_stats,engine_idx=)",
    "v1.metrics.stats.IterationStats": (
        "update_from_output(output,engine_core_timestamp,is_prefilling,req_stats,lora_states,lora_name) "
        "update_from_finished_request(finish_reason,request_id,num_prompt_tokens,max_tokens_param,req_stats)"
    ),
    "v1.metrics.stats.LoRARequestStates": "request_finished(req_id,lora_name)",
    "v1.metrics.stats.PrefillStats": "num_cached_tokens",
    "v1.metrics.stats.PrefixCacheStats": "hits queries",
    "v1.metrics.stats.RequestStateStats": "arrival_time",
    "v1.metrics.stats.SchedulerStats": "kv_cache_usage prefix_cache_stats",
    "v1.outputs.LogprobsLists": "logprob_token_ids logprobs",
    "v1.outputs.LogprobsTensors": "logprob_token_ids logprobs",
}
"""Class, below `vllm` → its members; a call with its positional parameters, then `name=` for others."""


@dataclass(frozen=True, slots=True)
class Class:
    """What a class offers, what it inherits from classes of its own module included."""

    members: set[str] = field(default_factory=set[str])
    methods: dict[str, ast.arguments] = field(default_factory=dict[str, ast.arguments])


def missing(package: Path) -> list[str]:
    """What the `vllm` in the folder `package` lacks, one line each, by its name."""
    return [*_missing_imports(package), *_missing_members(package)]


def _missing_imports(package: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(ENGINE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            path = (node.module or "").partition(".")[2]
            tree = _module(package, path)
            names = set() if tree is None else _bound(tree)
            yield from (
                f"{node.module}.{alias.name} is gone" for alias in node.names if alias.name not in names
            )


def _missing_members(package: Path) -> Iterator[str]:
    for path, members in SURFACE.items():
        where, _, name = path.rpartition(".")
        tree = _module(package, where)
        found = None if tree is None else _class(tree, name)
        if found is None:
            yield f"vllm.{path} is gone"
            continue
        for member in members.split():
            called, _, parameters = member.partition("(")
            if called not in found.members:
                yield f"vllm.{path}.{called} is gone"
            elif parameters:
                wrong = _mismatch(found.methods.get(called), parameters.rstrip(")"))
                if wrong:
                    yield f"vllm.{path}.{called}: {wrong}"


def _module(package: Path, path: str) -> ast.Module | None:
    stem = package.joinpath(*path.split(".")) if path else package
    for file in (stem.with_suffix(".py"), stem / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _bound(tree: ast.Module) -> set[str]:
    """Names that a module binds at its top, imports included."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name) for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {target.id for target in ast.walk(node) if isinstance(target, ast.Name)}
    return names


def _class(tree: ast.Module, name: str) -> Class | None:
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if node is None:
        return None
    found = Class()
    for base in node.bases:
        inherited = _class(tree, base.id) if isinstance(base, ast.Name) else None
        if inherited is not None:
            found.members.update(inherited.members)
            found.methods.update(inherited.methods)
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                found.members.add(part.attr)
            case _:
                pass
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            found.members.add(part.name)
            found.methods[part.name] = part.args
        elif isinstance(part, ast.AnnAssign | ast.Assign):
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            found.members.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


def _mismatch(takes: ast.arguments | None, wanted: str) -> str:
    """Why a call with the `wanted` parameters would fail; empty where it would not."""
    if takes is None:
        return "is not a method"
    given = [name for name in wanted.split(",") if name]
    positional = [name for name in given if not name.endswith("=")]
    by_name = {name.rstrip("=") for name in given if name.endswith("=")}
    order = [parameter.arg for parameter in (*takes.posonlyargs, *takes.args)][1:]
    if order[: len(positional)] != positional:
        return f"takes ({', '.join(order)}), not ({', '.join(positional)})"
    keywords = {parameter.arg for parameter in takes.kwonlyargs}
    unknown = by_name - set(order) - keywords
    if unknown and takes.kwarg is None:
        return f"does not take {', '.join(sorted(unknown))}"
    needed = {*order[: len(order) - len(takes.defaults)]}
    needed |= {
        p.arg for p, default in zip(takes.kwonlyargs, takes.kw_defaults, strict=True) if default is None
    }
    left = needed - set(positional) - by_name
    return f"wants {', '.join(sorted(left))} too" if left else ""


def main() -> None:
    """One line for each fault; the exit status says whether there was one."""
    faults = [f"{folder}: {fault}" for folder in sys.argv[1:] for fault in missing(Path(folder))]
    print("\n".join(faults) or "nothing is missing")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
