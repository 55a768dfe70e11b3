"""Small trainings of transformers and TRL on the CPU: everything is made here, nothing is downloaded.

As a program, it trains in a process of its own, or in several under `torch.distributed.run`:
`transformers_job.py DIRECTORY MONITOR_DIR [--fail]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from rolecall.integrations.transformers import RolecallCallback

WORDS = ["the", "cat", "dog", "bird", "sees", "hears", "likes", "a", "tree", "house", "and", "sun", "moon", "."]
LENGTH = 12
ON_CPU = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}


def sentences(count: int) -> Iterator[str]:
    """As many sentences, each another one."""
    for number in range(count):
        yield " ".join(WORDS[(number * (place + 1) + place) % len(WORDS)] for place in range(LENGTH))


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each of `WORDS`, and two more."""
    names = ["[PAD]", "[EOS]", *WORDS]
    model = Tokenizer(WordLevel({word: number for number, word in enumerate(names)}, unk_token="[PAD]"))
    model.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="[PAD]", eos_token="[EOS]", unk_token="[PAD]", padding_side="left"
    )


def model() -> GPT2LMHeadModel:
    """A GPT-2 of two layers, 16 wide, always the same."""
    set_seed(7)
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=len(WORDS) + 2, n_positions=32, n_embd=16, n_layer=2, n_head=2, **ends)
    )


def trainer(directory: Path, callbacks: Sequence[TrainerCallback], **settings: Any) -> Trainer:
    """A `Trainer` of four steps that evaluates at the second and the fourth."""
    tokens = [tokenizer()(text)["input_ids"] for text in sentences(24)]
    rows = [{"input_ids": ids, "labels": ids} for ids in tokens]
    asked = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, **ON_CPU, **settings}
    arguments = TrainingArguments(str(directory), per_device_train_batch_size=4, **asked)
    return Trainer(
        model=model(), args=arguments, train_dataset=rows[:16], eval_dataset=rows[16:], callbacks=[*callbacks]
    )


def grpo(directory: Path, callbacks: Sequence[TrainerCallback], **settings: Any) -> Trainer:
    """TRL's `GRPOTrainer` of two steps; it rewards cats."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def cats(completions: Sequence[str], **_: Any) -> list[float]:
        return [float(text.split().count("cat")) for text in completions]

    asked = {"max_steps": 2, "num_generations": 2, "max_completion_length": 4, **ON_CPU, **settings}
    arguments = GRPOConfig(str(directory), per_device_train_batch_size=4, bf16=False, log_completions=True, **asked)
    prompts = Dataset.from_dict({"prompt": [" ".join(text.split()[:4]) for text in sentences(8)]})
    return GRPOTrainer(
        model=model(),
        reward_funcs=cats,
        args=arguments,
        train_dataset=prompts,
        processing_class=tokenizer(),
        callbacks=[*callbacks],
    )


class Failing(TrainerCallback):  # type: ignore[misc]
    """Raises at the third step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise RuntimeError("the third step fails")


def main(directory: str, monitor_dir: str, *flags: str) -> None:
    """Train with rolecall's files as the tracker."""
    callback = RolecallCallback(monitor_dir=monitor_dir)
    trainer(Path(directory), [callback, *([Failing()] if "--fail" in flags else [])]).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
