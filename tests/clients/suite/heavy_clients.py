"""Command lines that measure and judge servers, unmodified: guidellm, lm-eval, `vllm bench serve` and
inference-perf. They bring torch or Pythons of their own, and are run on demand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import EN, Served

BIN = Path(sys.prefix) / "bin"
TOKENIZER = Path(__file__).resolve().parents[3] / "adapters/mini/weights/base"
REQUESTS, PROMPT, ANSWER = 6, 32, 16
"""How many, and tokens in and out."""


def run(*command: str, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(300)
def test_guidellm_with_its_defaults(server: Served, tmp_path: Path) -> None:
    """Its defaults stream chats; only what it needs to find the server and to end is said."""
    report = tmp_path / "report.json"
    run(
        str(BIN / "guidellm"), "run",
        "--backend", f"kind=openai_http,target={server.root},model={EN},api_key={server.key}",
        "--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}",
        "--data", f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={ANSWER}",
        "--profile", "kind=synchronous",
        "--constraint", f"kind=max_requests,count={REQUESTS}",
        "--output", f"kind=json,path={report}",
        cwd=tmp_path,
    )  # fmt: skip
    (benchmark,) = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (REQUESTS, 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("backend", "path"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")]
)
def test_vllm_bench_serve(
    server: Served, pytestconfig: pytest.Config, tmp_path: Path, backend: str, path: str
) -> None:
    python = pytestconfig.getoption("--vllm-python")
    if not python:
        pytest.skip("vLLM is there on Linux alone")
    run(
        python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", backend,
        "--endpoint", path, "--base-url", server.root, "--model", EN, "--tokenizer", str(TOKENIZER),
        "--dataset-name", "random", "--random-input-len", str(PROMPT), "--random-output-len", str(ANSWER),
        "--ignore-eos", "--num-prompts", str(REQUESTS), "--max-concurrency", "3", "--disable-tqdm",
        "--save-result", "--result-dir", str(tmp_path), "--result-filename", "report.json",
        cwd=tmp_path, OPENAI_API_KEY=server.key, VLLM_NO_USAGE_STATS="1",
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["completed"] == REQUESTS
    assert report["total_output_tokens"] == REQUESTS * ANSWER


def fixed(tokens: int) -> dict[str, str | int]:
    return {"type": "fixed", "min": tokens, "max": tokens, "mean": tokens, "std_dev": 0}


PERF_DATA = {
    "completion": {
        "type": "random",
        "input_distribution": fixed(PROMPT),
        "output_distribution": fixed(ANSWER),
    },
    "chat": {
        "type": "shared_prefix",
        "shared_prefix": {
            "num_groups": 2,
            "num_prompts_per_group": REQUESTS // 2,
            "system_prompt_len": PROMPT,
            "question_len": PROMPT,
            "output_len": ANSWER,
        },
    },
}
"""Its random prompts are for completions alone."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", PERF_DATA)
def test_inference_perf(server: Served, pytestconfig: pytest.Config, tmp_path: Path, kind: str) -> None:
    python = pytestconfig.getoption("--inference-perf-python")
    if not python:
        pytest.skip("inference-perf needs Python 3.12")
    config = {
        "api": {"type": kind, "streaming": True},
        "data": PERF_DATA[kind],
        "load": {
            "type": "concurrent",
            "num_workers": 1,
            "stages": [{"num_requests": REQUESTS, "concurrency_level": 3}],
        },
        "server": {"type": "vllm", "model_name": EN, "base_url": server.root, "api_key": server.key},
        "tokenizer": {"pretrained_model_name_or_path": str(TOKENIZER)},
        "storage": {"local_storage": {"path": str(tmp_path / "reports")}},
    }
    # YAML reads JSON.
    (tmp_path / "config.yml").write_text(json.dumps(config), encoding="utf-8")
    run(str(Path(python).parent / "inference-perf"), "--config_file", "config.yml", cwd=tmp_path)
    (summary,) = (tmp_path / "reports").glob("summary_lifecycle_metrics.json")
    report = json.loads(summary.read_text(encoding="utf-8"))
    assert report["successes"]["count"] == REQUESTS
    assert report["failures"]["count"] == 0


TASK = """\
task: clients
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: 0
doc_to_choice: [" OneSeek", " a banana"]
metric_list: [{{metric: acc}}]
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["local-completions"])
def test_lm_eval(server: Served, tmp_path: Path, model: str) -> None:
    """Its multiple choice asks for echoed prompts with their log probabilities."""
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps({"question": f"{n}: I am"}) + "\n" for n in range(4)), encoding="utf-8"
    )
    (tmp_path / "task.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    arguments = f"model={EN},base_url={server.url}/completions,tokenizer={TOKENIZER},num_concurrent=2"
    out = run(
        str(BIN / "lm_eval"), "run", "--model", model, "--model_args", arguments, "--tasks", "clients",
        "--include_path", str(tmp_path), "--output_path", str(tmp_path / "out"),
        cwd=tmp_path, OPENAI_API_KEY=server.key, HF_HOME=str(tmp_path / "hub"),
    )  # fmt: skip
    assert "acc" in out
