"""guidellm with its defaults, and lm-eval: command lines that bring torch, and are run on demand."""

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


def run(*command: str, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(300)
def test_guidellm_with_its_defaults(server: Served, tmp_path: Path) -> None:
    run(
        str(BIN / "guidellm"), "benchmark", "--target", server.root, "--model", EN,
        "--processor", str(TOKENIZER), "--data", "prompt_tokens=32,output_tokens=16",
        "--rate-type", "synchronous", "--max-requests", "4", "--output-path", str(tmp_path / "report.json"),
        "--backend-kwargs", json.dumps({"api_key": server.key}),
        cwd=tmp_path,
    )  # fmt: skip
    (benchmark,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (4, 0)


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
