"""Benchmark a GPU host that is available for only a few minutes at a time, with commands that end in time.

    python -m bench.gpu.trip look                              describe the host; start to write the model
    python -m bench.gpu.trip unpack PIECES SITE                check the pieces of a bundle, and unpack them
    python -m bench.gpu.trip measure --out FILE --seconds 560  measure in stages, what matters most first

`measure` runs `python -m bench.gpu` for each stage with the time that is left, and passes on flags that it
does not know, such as --preset. Every stage adds its results to the same FILE; another call of `measure`
continues where the last ended. `look` and `unpack` need only the standard library and the packages that write
the model (see bench/gpu/models.py). The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from bench.gpu.bundle import MIB, checked
from bench.gpu.progress import OUT_OF_TIME, print_progress

WORK = Path("/tmp/oneseek-gpu")
PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "ml_dtypes", "safetensors", "tokenizers")
LEAST_SECONDS = 30.0
"""Minimum seconds that must be left for a stage of `measure` to begin."""
STOP_SECONDS = 20.0
"""Seconds at the end of a stage of `measure` that are reserved for stopping its server."""


@dataclass(frozen=True, slots=True)
class TripStage:
    """A stage of `measure`: one call of `bench.gpu` with its servers, scenarios and numbers of streams."""

    name: str
    servers: str
    scenarios: str
    streams: str
    most: float = float("inf")
    """Maximum seconds for this stage, so that time is left for later stages."""


def stages(streams: Sequence[int]) -> list[TripStage]:
    """Return the stages of `measure`, each one call of `bench.gpu`, the most important first. Only the first
    uses all of `streams`. The others use the smallest number of streams; one also runs a single stream.
    """
    least = str(min(streams))
    return [
        TripStage("lora", "oneseek,vllm", "idle,two,eight", ",".join(map(str, streams)), 420),
        TripStage("rust", "vllm-rust", "base", least),
        TripStage("base", "oneseek,vllm", "base", f"1,{least}"),
        TripStage("swap", "oneseek", "swap", least),
    ]


def look(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a description of the host, and start to write the model. A background process writes it and
    continues after this call.
    """
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bench.gpu.models", str(work), "--preset", arguments.preset]
    with (work / "models.log").open("wb") as log:
        writer = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    smi = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader"]
    seen = subprocess.run(smi, capture_output=True, text=True).stdout if shutil.which(smi[0]) else ""
    return {
        "gpus": seen.splitlines(),
        "cores": os.cpu_count(),
        "disk_free_mib": shutil.disk_usage(work).free // MIB,
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in PACKAGES},
        "nvcc": shutil.which("nvcc"),
        "writer": writer.pid,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def unpack(arguments: argparse.Namespace) -> dict[str, Any]:
    """Unpack the pieces of a bundle into the folder `site`, which appears only when everything is unpacked.
    Raises `ValueError` if a piece is missing or damaged.
    """
    site: Path = arguments.site
    if not site.exists():
        part = site.with_name(site.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        with (
            closing(Joined(list(checked(arguments.pieces)))) as joined,
            lzma.open(cast(BinaryIO, joined)) as packed,  # only read
            tarfile.open(mode="r|", fileobj=cast(BinaryIO, packed)) as archive,
        ):
            archive.extractall(part, filter="tar")
        part.rename(site)
    return {"site": str(site), "packages": len(list(site.glob("*.dist-info")))}


class Joined:
    """A readable file that consists of several files one after the other."""

    def __init__(self, paths: list[Path]) -> None:
        self._left = paths
        self._file: IO[bytes] | None = None

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, fewer at the end of a file, and none at the end of the last file."""
        while True:
            found = self._file.read(size) if self._file else b""
            if found or not self._left:
                return found
            self.close()
            self._file = self._left.pop(0).open("rb")

    def close(self) -> None:
        """Close the file that is being read, if there is one."""
        if self._file:
            self._file.close()


def measure(arguments: argparse.Namespace, passed: Sequence[str]) -> dict[str, Any]:
    """Run the stages of the benchmark, each one call of `bench.gpu`, until all are done or the time is up.

    If a stage leaves out measuring points because of its time limit `most`, it is run again without the limit
    before the later stages, because its points matter more.
    """
    deadline = time.monotonic() + arguments.seconds
    done: list[dict[str, Any]] = []
    streams = [int(number) for number in arguments.streams.split(",")]
    todo = stages(streams)
    while todo:
        stage, left = todo.pop(0), deadline - time.monotonic()
        if left < LEAST_SECONDS + STOP_SECONDS:
            print_progress(f"{OUT_OF_TIME}: left out the stage {stage.name} and those after it")
            break
        done.append(_run(stage, min(stage.most, left), arguments, passed))
        if stage.most < left and _left_out(arguments.out):
            todo.insert(0, replace(stage, most=float("inf")))
    points = json.loads(arguments.out.read_text(encoding="utf-8"))["points"] if arguments.out.exists() else []
    left = round(deadline - time.monotonic(), 1)
    return {"out": str(arguments.out), "stages": done, "points": len(points), "seconds_left": left}


def _left_out(out: Path) -> bool:
    """True if the last stage left out measuring points for lack of time. `out` is the result file."""
    notes = json.loads(out.read_text(encoding="utf-8"))["notes"] if out.exists() else []
    return any(note.startswith(OUT_OF_TIME) for note in notes)


def _run(
    stage: TripStage, seconds: float, arguments: argparse.Namespace, passed: Sequence[str]
) -> dict[str, Any]:
    out: Path = arguments.out
    began, budget = time.monotonic(), seconds - STOP_SECONDS
    command = [sys.executable, "-m", "bench.gpu", "--servers", stage.servers, "--scenarios", stage.scenarios]
    command += [
        "--streams",
        stage.streams,
        "--budget-seconds",
        f"{budget:.0f}",
        "--work",
        str(arguments.work),
    ]
    command += ["--resume" if out.exists() else "--out", str(out), *passed]
    print_progress(f"stage {stage.name}: up to {budget:.0f} s")
    with out.with_name(f"{out.stem}-{stage.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, env=_environment(arguments.site))
        try:
            process.wait(seconds - STOP_SECONDS / 2)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(STOP_SECONDS / 2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return {"stage": stage.name, "code": process.returncode, "seconds": round(time.monotonic() - began, 1)}


def _environment(site: Path | None) -> dict[str, str]:
    """Return the environment variables of a stage: offline mode, the packages in `site` if it is given, and,
    without the compiler nvcc, no FlashInfer sampler, which needs it.
    """
    found = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if site is not None:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    if shutil.which("nvcc") is None:
        found["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return found


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with the commands `look`, `unpack` and `measure`."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.trip",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    trips = parser.add_subparsers(dest="trip", required=True)
    one = trips.add_parser("look", help="describe the GPU host, and start to write the model")
    one.add_argument("--work", type=Path, default=WORK)
    one.add_argument("--preset", default="7b")
    one = trips.add_parser(
        "unpack", help="check the files of a bundle for missing or damaged ones, and unpack them"
    )
    one.add_argument("pieces", type=Path)
    one.add_argument("site", type=Path)
    one = trips.add_parser("measure", help="measure in stages; unknown flags are passed to bench.gpu")
    one.add_argument(
        "--out", type=Path, required=True, help="result file; if it exists, results are added to it"
    )
    one.add_argument("--seconds", type=float, default=560, help="time for all stages together")
    one.add_argument("--streams", default="64,256", help="numbers of concurrent streams, comma-separated")
    one.add_argument("--site", type=Path, help="folder of an unpacked bundle")
    one.add_argument("--work", type=Path, default=WORK)
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Run one of the commands `look`, `unpack` and `measure`, and print its result as a line of JSON."""
    parser = build_parser()
    arguments, passed = parser.parse_known_args(given)
    if passed and arguments.trip != "measure":
        parser.error(f"unrecognized arguments: {' '.join(passed)}")
    try:
        if arguments.trip == "measure":
            result = measure(arguments, passed)
        else:
            result = {"look": look, "unpack": unpack}[arguments.trip](arguments)
    except (OSError, ValueError) as error:
        raise SystemExit(f"bench.gpu.trip: {error}") from None
    print(json.dumps({"bench": "gpu.trip", "trip": arguments.trip, **result}))


if __name__ == "__main__":
    main()
