"""Train a base model on text and write it in Hugging Face format, for `oneseek train scratch` and `oneseek
train continue`.

Each combination of base model, data and options has its own folder for unfinished work. The output folder
appears only when it is complete.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import PartialState
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from adapters.bases import TOKENIZER_FILES
from adapters.files.atomic import staged_folder
from adapters.files.jsonfile import canonical_json
from adapters.lora.digest import base_digest, file_digest
from adapters.training.finetune.base import Machine, load_tokenizer, resolve_precision
from adapters.training.finetune.curve import terminal_lines
from adapters.training.loop.checkpoints import last_checkpoint
from adapters.training.loop.interruption import Interruption
from adapters.training.loop.launch import ALONE, Launch
from adapters.training.loop.options import OptionError
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Phase
from adapters.training.loop.threads import set_threads
from adapters.training.loop.trainer import Setup, TrainerResult
from adapters.training.pretrain import tokenizer as tokenizers
from adapters.training.pretrain.architecture import check_architecture, read_architecture
from adapters.training.pretrain.corpus import Corpus
from adapters.training.pretrain.mixture import CorpusFeed, held_out_batch
from adapters.training.pretrain.pretrain import BaseJob, NewModel, train_base
from adapters.training.pretrain.pretrain_options import DataPart, PretrainOptions
from adapters.training.pretrain.pretrain_record import (
    BaseRecord,
    collect_metrics,
    curve_of,
    write_manifest,
    write_report,
)
from adapters.training.pretrain.sample import sample_texts
from adapters.training.pretrain.stream import Encode

_TOKENIZER_FIELDS = frozenset({"vocabulary", "sample", "folder"})
_SAMPLE = 64 << 20
"""Default number of bytes of text that a tokenizer is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainJob:
    """A pretraining run as the user requested it: options, architecture or base model, data and output
    folder.
    """

    kind: Literal["scratch", "continue"]
    options: PretrainOptions
    phases: tuple[Phase, ...] = ()
    model: Mapping[str, Any] | None = None
    """The architecture of the new base model, for `train scratch`."""
    tokenizer: Mapping[str, Any] | None = None
    """The tokenizer, for `train scratch`: `vocabulary` (its size) and optionally `sample` (bytes of text) to
    train a new one, or `folder` to use an existing one.
    """
    base: Path | None = None
    """Folder of the base model to train further, for `train continue`."""
    data: tuple[DataPart, ...]
    output: Path
    folder: Path
    """Folder that holds the work folders of unfinished runs."""
    cache: Path | None = None
    """Folder of the cache of file hashes."""
    resume: bool = False
    launch: Launch = ALONE
    """How a launcher, such as `accelerate launch`, started this process: its number, and the number of
    processes in the run.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainResult:
    """The results of a finished pretraining run."""

    digest: str
    parameters: int
    fitted: TrainerResult
    metrics: Mapping[str, float]
    work: Path
    """The run's work folder, which holds `report` with loss.png and report.json. Delete it after moving the
    report out of it.
    """

    @property
    def curve_lines(self) -> list[str]:
        """The loss curve as lines of text for a terminal."""
        return terminal_lines(curve_of(self.fitted))


@dataclass(frozen=True, slots=True)
class PretrainInterrupted:
    """An interrupted pretraining run: its last step, the planned number of steps, and the folder with its
    checkpoint.
    """

    step: int
    planned: int
    work: Path


def run_pretraining(
    job: PretrainJob,
    reporter: Reporter,
    record: Callable[[BaseRecord], Any] = lambda known: None,
    interruption: Interruption | None = None,
) -> PretrainResult | PretrainInterrupted | None:
    """Run the pretraining `job`, and return its result. In a process that helps but does not write the
    results, return None.

    `record` is called with the record of the new base model before the output folder appears. If it raises an
    error, the folder does not appear. Raises `OptionError` if the options, the data and this machine do not
    fit together, and `OSError`.
    """
    transformers_logging.disable_progress_bar()
    machine = Machine.here(job.launch)
    if machine.cuda > 1 and not machine.launched:
        raise OptionError(
            "devices",
            f"{machine.cuda} GPUs are visible to one process; start a process for each GPU: "
            f"accelerate launch --num_processes {machine.cuda} -m server train {job.kind} …",
        )
    if machine.rank:
        reporter = Reporter(io.StringIO())
    return _Run(job, machine, reporter, record).run(interruption)


class _Run:
    def __init__(
        self, job: PretrainJob, machine: Machine, reporter: Reporter, record: Callable[[BaseRecord], Any]
    ) -> None:
        self.job, self.machine, self.reporter, self.record = job, machine, reporter, record
        options = job.options
        whole = Phase(until=1.0, rows=options.batch_size, length=options.sequence_length)
        self.phases = job.phases or (whole,)
        self.schedule = options.schedule(self.phases)
        self.corpora = [Corpus.find(Path(part.path), part.weight, options.held_out) for part in job.data]
        if not self.corpora:
            raise OptionError("data", "there is no data to train on; give files or folders of text")
        self.inputs = self._inputs()
        self.work = self._work()

    def run(self, interruption: Interruption | None) -> PretrainResult | PretrainInterrupted | None:
        job, options = self.job, self.job.options
        folder = self._tokenizer()
        tokenizer = load_tokenizer(folder)
        start = self._start(tokenizer)
        encode = Encode(tokenizer)
        feed = CorpusFeed(
            self.corpora,
            encode,
            self.phases,
            steps=self.schedule.steps,
            seed=options.seed,
            shuffle=options.shuffle,
        )
        held = held_out_batch(
            self.corpora,
            encode,
            rows=options.held_out_rows,
            length=self.phases[0].length,
            shuffle=options.shuffle,
            multiple=self.machine.processes,
        )
        made: list[tuple[BaseRecord, TrainerResult]] = []
        base_job = BaseJob(
            stage=job.kind,
            start=start,
            tokenizer=folder,
            files=TOKENIZER_FILES,
            schedule=self.schedule,
            optimizer=options.optimizer,
            setup=Setup(
                precision=resolve_precision(options.precision, self.machine),
                micro_rows=options.micro_batch_size,
                gradient_checkpointing=options.gradient_checkpointing,
                save_every=options.save_every,
                judge_every=options.judge_every,
            ),
            generation=_generation(tokenizer) if job.kind == "scratch" else None,
            saved_as=options.saved_as,
            checkpoints=self.work / "checkpoints",
            output=job.output,
        )
        self._set_threads(start)
        self._print_start(start, held is not None)
        done = train_base(
            base_job,
            feed,
            self.reporter,
            held_out=held,
            interruption=interruption,
            finish=lambda path, fitted: made.append((self._finish(path, fitted, feed), fitted)),
        )
        if not done.main:
            return None
        if done.fitted.interrupted:
            return PretrainInterrupted(done.fitted.outcome.steps, self.schedule.steps, self.work)
        ((known, fitted),) = made
        return PretrainResult(
            digest=known.digest,
            parameters=done.parameters,
            fitted=fitted,
            metrics=known.metrics,
            work=self.work,
        )

    def _set_threads(self, start: NewModel | Path) -> None:
        options, machine = self.job.options, self.machine
        if machine.cuda or machine.launched:
            if options.threads is not None:
                torch.set_num_threads(options.threads)
            return
        config = start.config if isinstance(start, NewModel) else _config_of(start)
        rows = min(options.micro_batch_size or self.phases[0].rows, self.phases[0].rows)
        set_threads(
            options.threads,
            self.work / "threads",
            begun=last_checkpoint(self.work / "checkpoints") is not None,
            hidden=config.hidden_size,
            rows=rows * self.phases[0].length,
            reporter=self.reporter,
        )

    def _print_start(self, start: NewModel | Path, held: bool) -> None:
        self.reporter.print_event(
            "training",
            kind=self.job.kind,
            start=start.config.model_type if isinstance(start, NewModel) else str(start),
            steps=self.schedule.steps,
            files=sum(len(corpus.files) for corpus in self.corpora),
            held_out=held,
            precision=resolve_precision(self.job.options.precision, self.machine),
            threads=torch.get_num_threads(),
        )

    def _finish(self, folder: Path, fitted: TrainerResult, feed: CorpusFeed) -> BaseRecord:
        """Write the records and the report of the new base model in `folder`, before the output folder
        appears. Return its record.
        """
        refused = sum(stream.refused for stream in feed.streams)
        if refused:
            problem = next((stream.problem for stream in feed.streams if stream.problem), None)
            first = f"{problem.where} {problem.reason}" if problem else ""
            self.reporter.print_event("left out", documents=refused, first=first)
        metrics = collect_metrics(
            fitted, passes=max(stream.passes for stream in feed.streams), refused=refused
        )
        known = BaseRecord(
            digest=base_digest(folder),
            inputs=self.inputs,
            metrics=metrics,
            details={
                "kind": self.job.kind,
                "seed": self.job.options.seed,
                "steps": self.schedule.steps,
                "data": [part.path for part in self.job.data],
            },
        )
        about = {
            "data": [{"name": corpus.root.name, "weight": corpus.weight} for corpus in self.corpora],
            "model": dict(self.job.model or {}),
            "options": self.job.options.shaping,
        }
        write_manifest(folder, known, about)
        write_report(self.work / "report", self.job.output.name, fitted, metrics)
        self.record(known)
        return known

    def _inputs(self) -> dict[str, str | tuple[str, ...]]:
        """Return the digests of everything that the new base model is made from: data, settings, and the old
        base model or tokenizer.
        """
        job = self.job
        config = {
            "kind": job.kind,
            "model": dict(job.model or {}),
            "tokenizer": {name: str(value) for name, value in (job.tokenizer or {}).items()},
            "training": job.options.shaping,
            "phases": [[phase.until, phase.rows, phase.length] for phase in self.phases],
            "weights": [corpus.weight for corpus in self.corpora],
        }
        found: dict[str, str | tuple[str, ...]] = {
            "data": tuple(corpus.digest(job.cache) for corpus in self.corpora),
            "config": f"sha256:{hashlib.sha256(canonical_json(config)).hexdigest()}",
        }
        if job.base is not None:
            found["base"] = base_digest(job.base, job.cache)
        if job.tokenizer and "folder" in job.tokenizer:
            file = Path(str(job.tokenizer["folder"])) / "tokenizer.json"
            if not file.is_file():
                raise OptionError(
                    "tokenizer.folder", f"the file {file} does not exist; give the folder of a tokenizer"
                )
            found["tokenizer"] = f"sha256:{file_digest(file, job.cache)}"
        return found

    def _work(self) -> Path:
        """Return the work folder of this run. Its name depends on the base model, data and options. Raises
        `OptionError` if `resume` does not fit its contents.
        """
        digest = hashlib.sha256(canonical_json(self.inputs)).hexdigest()[:16]
        work = self.job.folder / f"{self.job.kind}-{digest}"
        begun = last_checkpoint(work / "checkpoints")
        if self.job.resume and not work.exists():
            raise OptionError(
                "resume",
                f"{self.job.folder} holds no unfinished run with these options and data to continue; to "
                "start a new run, leave out --resume",
            )
        if begun is not None and not self.job.resume:
            raise OptionError(
                "resume",
                "an interrupted run with the same options and data exists; continue it with --resume, or "
                f"start again: rm -r {work}",
            )
        work.mkdir(parents=True, exist_ok=True)
        return work

    def _tokenizer(self) -> Path:
        """Return the folder of the tokenizer. If the run needs a new tokenizer, its first process
        trains one.
        """
        if self.job.base is not None:
            return self.job.base
        check_architecture(self.job.model or {})  # before a tokenizer is trained for it
        about = self.job.tokenizer or {}
        if len(about.keys() & {"vocabulary", "folder"}) != 1 or not about.keys() <= _TOKENIZER_FIELDS:
            raise OptionError(
                "tokenizer", "give either vocabulary, with or without sample, or folder, and no other field"
            )
        if "folder" in about:
            return Path(str(about["folder"]))
        vocabulary, sample = about["vocabulary"], about.get("sample", _SAMPLE)
        if type(vocabulary) is not int or vocabulary < 300:
            raise OptionError(
                "tokenizer.vocabulary", f"{vocabulary!r} is not allowed; give a whole number of at least 300"
            )
        if type(sample) is not int or sample < 1:
            raise OptionError(
                "tokenizer.sample", f"{sample!r} is not allowed; give a whole number of bytes, at least 1"
            )
        folder = self.work / "tokenizer"
        with PartialState(cpu=not self.machine.cuda).main_process_first():
            if not folder.exists():
                self.reporter.print_event("tokenizer", vocabulary=vocabulary)
                made = tokenizers.train_tokenizer(
                    sample_texts(self.corpora, sample, self.job.options.seed), vocabulary
                )
                context = (self.job.model or {}).get("max_position_embeddings", 1024)
                with staged_folder(folder, replace=True) as path:
                    tokenizers.save(made, path, context)
        return folder

    def _start(self, tokenizer: PreTrainedTokenizerBase) -> NewModel | Path:
        if self.job.base is not None:
            config = _config_of(self.job.base)
            start: NewModel | Path = self.job.base
        else:
            config = read_architecture(self.job.model or {}, tokenizer)
            start = NewModel(config, self.job.options.seed)
        longest, context = max(phase.length for phase in self.phases), config.max_position_embeddings
        if longest > context:
            raise OptionError(
                "sequence_length", f"{longest} is more than max_position_embeddings; use at most {context}"
            )
        return start


def _config_of(base: Path) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(base, local_files_only=True)


def _generation(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    ids = {name: cast("int | None", getattr(tokenizer, name)) for name in ("bos_token_id", "eos_token_id")}
    return GenerationConfig(**ids, pad_token_id=cast("int | None", tokenizer.pad_token_id))
