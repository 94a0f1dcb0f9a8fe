"""Training by transformers' ``Trainer``, which is told when to measure and to save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers
from accelerate import PartialState
from transformers.trainer_callback import PrinterCallback

from nlp_worker.training.job import GRADIENT_NORM, LOSS_STEPS, counted

if TYPE_CHECKING:
    from nlp_worker.training.job import GroupedByLength, Job


def train(job: Job, *, resume: bool) -> None:
    """Train until the job's epochs are over, or no longer improve."""
    settings = job.settings
    arguments = transformers.TrainingArguments(
        output_dir=str(job.folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_rows,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=job.warm_up_steps(PartialState().num_processes),
        weight_decay=settings.weight_decay,
        max_grad_norm=GRADIENT_NORM,
        optim="adamw_torch",
        bf16=job.bfloat16,
        use_cpu=job.on_cpu,
        seed=settings.seed,
        logging_steps=LOSS_STEPS,
        # When to measure and to save _Beat says: after an epoch, or within one.
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=None,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=not job.on_cpu,
    )
    # Without `accelerate launch` one GPU is used: on several it would be DataParallel, which learns differently.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001 - there is no other way to say so
    step = job.resumed() if resume else 0
    if job.history.exhausted:
        return
    trainer = _Trainer(
        job, model=job.learner.model, args=arguments, train_dataset=job.features, data_collator=job.collate
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Beat(job))
    trainer.train(resume_from_checkpoint=str(job.state(step)) if step else None)


class _Trainer(transformers.Trainer):  # type: ignore[misc]  # untyped
    """Takes its rows in the job's order, and measures as the job does."""

    def __init__(self, job: Job, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._job = job
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> GroupedByLength:
        del train_dataset
        return self._job.sampler(self.accelerator.num_processes)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """Return the batches of a step, and what the mean of their loss is taken over.

        The Trainer itself adds the means of accumulated batches up, and does not divide them, where a model takes any
        keyword and leaves `num_items_in_batch` alone, as BERT and its like do (transformers issue 47688).
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, self.accelerator.reduce(sum(counted(batch) for batch in batches), "mean") if batches else None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the batch's share in the loss of its step: each row or token has the same weight."""
        outputs = model(**inputs)
        loss = outputs.loss * (counted(inputs) / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self._job.end_epoch(self.state.global_step, main=self.is_world_process_zero())
        return {}


class _Beat(transformers.TrainerCallback):  # type: ignore[misc]  # untyped
    """Says when to measure, to save and to end, and notes the losses."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args
        self._job.show.step(state.global_step, state.max_steps)
        every = self._job.settings.save_steps
        # At the end of an epoch it is saved when the epoch was measured.
        ends = state.epoch == int(state.epoch)
        control.should_save = bool(every) and state.global_step % every == 0 and not ends

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, state
        control.should_log = control.should_evaluate = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        del args, control
        if "loss" in logs:
            self._job.history.losses.append((state.global_step, logs["loss"]))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args
        if state.is_world_process_zero:
            self._job.seal(state.global_step)
        if self._job.history.exhausted:
            control.should_training_stop = True
