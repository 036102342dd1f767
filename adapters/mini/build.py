"""Rebuild the mini base model and its two adapters: `python -m adapters.mini.build --recipe quick|full
--output DIR`.

If a build was interrupted, start it again with the same arguments to continue it.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

from adapters.files.atomic import staged_folder, write_file
from adapters.lora.digest import base_digest
from adapters.mini import feed
from adapters.mini.card import write_mini_card
from adapters.mini.corpus.sources import DATA, LANGUAGES, Language
from adapters.mini.evaluation import score_build
from adapters.mini.recipe import RECIPES, Recipe
from adapters.training.finetune import lora
from adapters.training.loop.feed import MakeBatch, StepFeed
from adapters.training.loop.packing import Encoder
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule
from adapters.training.loop.trainer import Setup, TrainerResult, TrainOutcome
from adapters.training.pretrain import tokenizer
from adapters.training.pretrain.pretrain import BaseJob, NewModel, train_base

VERSION = "v1.0"
BASE_NAME = "oneseek-mini"


def adapter_alias(language: Language) -> str:
    """Return the public name of the mini base model's adapter for `language`, such as `oneseek-mini-sv`."""
    return f"{BASE_NAME}-{language}"


def _write_json(path: Path, value: object) -> None:
    write_file(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def recipe_fingerprint(recipe: Recipe) -> dict[str, object]:
    """Return everything that a build depends on: the recipe, and the digest of all training data. A build
    continues only if these are unchanged.
    """
    data = sorted([*DATA.rglob("*.txt"), *feed.DATASETS.glob("*.jsonl")])
    return {"recipe": json.loads(json.dumps(asdict(recipe))), "data": feed.files_digest(data)}


class Build:
    """One build of the mini base model and its adapters by a recipe. Results go to `output`, unfinished work
    to `output/.work`.
    """

    def __init__(self, recipe: Recipe, output: Path, reporter: Reporter) -> None:
        self.recipe, self.output, self.reporter = recipe, output, reporter
        self.work = output / ".work"
        self.record: dict[str, object] = {}
        self.started = time.monotonic()

    def run(self) -> None:
        """Run every step of the build that has no result yet, then move the results to the output folder."""
        self._open()
        self._tokenizer()
        self._bases()
        for language in LANGUAGES:
            self._adapter(language)
        if self.recipe.judged and "scores" not in self.record:
            self._keep(scores=score_build(self.work, self.reporter))
        self._finish()

    def _open(self) -> None:
        now = recipe_fingerprint(self.recipe)
        kept = self.work / "build.json"
        if kept.exists():
            self.record = json.loads(kept.read_text(encoding="utf-8"))
            if {name: self.record[name] for name in now} != now:
                raise ValueError(
                    f"{self.work} holds an unfinished build with another recipe or other data; "
                    "finish that build with its own recipe and data, or remove the folder"
                )
            self.reporter.print_event("resuming", folder=str(self.work))
        else:
            self._keep(
                **now,
                seconds=0.0,
                threads=torch.get_num_threads(),
                versions={name: version(name) for name in ("torch", "transformers", "peft", "tokenizers")},
                python=platform.python_version(),
            )

    def _keep(self, **values: object) -> None:
        self.record.update(values)
        spent = self.record.get("seconds", 0.0)
        assert isinstance(spent, float)
        self.record["seconds"] = round(spent + time.monotonic() - self.started, 1)
        self.started = time.monotonic()
        _write_json(self.work / "build.json", self.record)

    def _tokenizer(self) -> None:
        folder = self.work / "tokenizer"
        if folder.exists():
            return
        self.reporter.print_event(
            "tokenizer", vocabulary=self.recipe.vocabulary, talks=self.recipe.tokenizer_talks
        )
        texts = feed.tokenizer_texts(self.recipe.tokenizer_talks, self.recipe.seed)
        made = tokenizer.train_tokenizer(texts, self.recipe.vocabulary)
        with staged_folder(folder, replace=True) as path:
            tokenizer.save(made, path, self.recipe.context)
        self._keep()

    def _encoder(self) -> Encoder:
        return Encoder(Tokenizer.from_file(str(self.work / "tokenizer" / "tokenizer.json")))

    def _config(self, encoder: Encoder) -> MistralConfig:
        recipe = self.recipe
        return MistralConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.head,
            max_position_embeddings=recipe.context,
            sliding_window=None,
            tie_word_embeddings=True,
            bos_token_id=encoder.begin,
            eos_token_id=encoder.end,
            pad_token_id=encoder.end,
            dtype="bfloat16",
        )

    def _bases(self) -> None:
        """Train the base model in three stages. The first stage begins with random weights; each further
        stage continues with the weights of the stage before.
        """
        recipe, encoder = self.recipe, self._encoder()
        size = (recipe.phases[0].rows, recipe.phases[0].length)
        world = feed.world(encoder, recipe.phases, recipe.base.steps, recipe.seed)
        self._base("world", NewModel(self._config(encoder), recipe.seed), world, recipe.base)
        voice = feed.voice(encoder, size, recipe.seed)
        self._base("voice", self.work / "world", voice, recipe.voice)
        own = feed.voice(encoder, size, recipe.seed, own=True)
        self._base("own", self.work / "voice", own, recipe.own, name="base")

    def _base(
        self,
        stage: str,
        start: NewModel | Path,
        batches: MakeBatch,
        schedule: Schedule,
        name: str | None = None,
    ) -> None:
        """Train one stage of the base model, with the same code as `oneseek train scratch` and `oneseek train
        continue`. Do nothing if the stage has a result already.
        """
        output, encoder = self.work / (name or stage), self._encoder()
        if output.exists():
            return
        job = BaseJob(
            stage=stage,
            start=start,
            tokenizer=self.work / "tokenizer",
            schedule=schedule,
            setup=Setup(save_every=self.recipe.save_every),
            generation=GenerationConfig(
                bos_token_id=encoder.begin,
                eos_token_id=encoder.end,
                pad_token_id=encoder.end,
                max_new_tokens=160,
                do_sample=True,
                temperature=0.2,
                top_p=0.9,
            ),
            checkpoints=self.work / f"{stage}.checkpoints",
            output=output,
        )
        made = train_base(job, StepFeed(batches), self.reporter)
        self._unless_interrupted(made.fitted)
        shutil.rmtree(job.checkpoints)
        self._keep(**{stage: {"parameters": made.parameters, **asdict(made.fitted.outcome)}})

    def _unless_interrupted(self, fitted: TrainerResult) -> None:
        if fitted.interrupted:
            self.reporter.print_event(
                "stopped", folder=str(self.work), remedy="run the same command again to continue"
            )
            raise KeyboardInterrupt

    def _adapter(self, language: Language) -> None:
        folder, recipe = self.work / adapter_alias(language), self.recipe
        if folder.exists():
            return
        encoder = self._encoder()
        rows, files = feed.rows_for(language)
        base = MistralForCausalLM.from_pretrained(self.work / "base", dtype=torch.float32)
        model = lora.attach(base, recipe.rank, recipe.seed, BASE_NAME)
        size = (recipe.adapter_rows, recipe.adapter_length)
        batches = feed.identity_batches(encoder, language, rows, size, recipe.seed)
        checkpoints = self.work / f"{adapter_alias(language)}.checkpoints"
        fitted = lora.train_lora(
            model,
            batches,
            recipe.adapter,
            self.reporter,
            stage=adapter_alias(language),
            checkpoints=checkpoints,
            setup=Setup(save_every=recipe.save_every),
        )
        self._unless_interrupted(fitted)
        outcome = fitted.outcome
        with staged_folder(folder, replace=True) as path:
            self._write_adapter(model, path, language, rows, files, outcome)
        shutil.rmtree(checkpoints)
        self._keep(**{adapter_alias(language): {"rows": len(rows), **asdict(outcome)}})

    def _write_adapter(
        self,
        model: PeftModel,
        folder: Path,
        language: Language,
        rows: Sequence[feed.DataRow],
        files: Sequence[Path],
        outcome: TrainOutcome,
    ) -> None:
        model.save_pretrained(str(folder), save_embedding_layers=False)
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = BASE_NAME
        config["target_modules"] = sorted(config["target_modules"])
        _write_json(path, config)
        told = {
            "alias": adapter_alias(language),
            "version": VERSION,
            "language": language,
            "base_digest": base_digest(self.work / "base"),
            "dataset": [file.name for file in files],
            "dataset_digest": feed.files_digest(files),
            "rows": len(rows),
            "rank": self.recipe.rank.rank,
            "alpha": self.recipe.rank.alpha,
            "targets": sorted(self.recipe.rank.targets),
            "metrics": {"loss": round(outcome.loss, 4), "steps": outcome.steps},
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        _write_json(folder / "oneseek.json", told)
        write_mini_card(folder / "README.md", language, told)

    def _finish(self) -> None:
        names = ["base", *(adapter_alias(language) for language in LANGUAGES)]
        for name in names:
            with staged_folder(self.output / name, replace=True) as path:
                shutil.copytree(self.work / name, path, dirs_exist_ok=True)
        self._keep(finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        _write_json(self.output / "build.json", self.record)
        shutil.rmtree(self.work)
        self.reporter.print_event("done", output=str(self.output), seconds=self.record["seconds"])


def build(recipe: Recipe, output: Path, reporter: Reporter | None = None) -> None:
    """Build the mini base model and its adapters by `recipe`, into the folder `output`. Raises `ValueError`
    if `output` holds unfinished work with another recipe or other data.
    """
    Build(recipe, output, reporter or Reporter()).run()


def main() -> None:
    """Parse the command line, and build the mini base model and its adapters."""
    parser = argparse.ArgumentParser(prog="python -m adapters.mini.build", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the base and the adapters")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    build(RECIPES[chosen.recipe], chosen.output)


if __name__ == "__main__":
    main()
