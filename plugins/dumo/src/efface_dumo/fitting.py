"""From a request to a fit: both stages for every concept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import efface
from efface.fingerprint import fingerprint
from efface.generating import check_steps
from efface.settings import as_dict
from efface_dumo.acceleration import accelerated
from efface_dumo.attaching import new_modulation
from efface_dumo.bank import Sampler
from efface_dumo.branch import ENCODER, Branch, fresh_tensors
from efface_dumo.conditions import names_of, prompts_of
from efface_dumo.modulation import TABLES, Modulation
from efface_dumo.packing import Part, packed
from efface_dumo.skeleton import config_of, fill, frozen_unet
from efface_dumo.stage_one import STAGE as BRANCH_STAGE
from efface_dumo.stage_one import train_branch, trained_parameters
from efface_dumo.stage_two import STAGE as TABLE_STAGE
from efface_dumo.stage_two import train_modulation
from efface_dumo.storage import Stored, kept
from efface_dumo.student import Student
from efface_dumo.training import Training, rounded

if TYPE_CHECKING:
    from accelerate import Accelerator

    from efface_dumo.dumo import DuMo

HELD_OUT = 2
NO_PART_OF_STAGE_ONE = ("bins", "layer_groups")
NO_PART_OF_TRAINING = ("gate", "gate_factor", "gate_threshold", "store", "rank", "checkpoint_every")


def fitted(settings: DuMo, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
    """Train a branch and a modulation for every concept, one after the other, beside a frozen copy of the U-Net.

    The copy has the base weights without adapters; the pipeline's own U-Net is never run. Raises EffaceError for a
    U-Net that the branch cannot follow, BadSetting for settings that do not fit it, before anything is computed.
    """
    check(settings, model)
    with accelerated(model.device, settings.precision) as accelerator:
        fitting = Fitting.of(settings, model, request, run, accelerator)
        parts, reports = zip(*(fitting.concept(index) for index in range(len(request.concepts))), strict=True)
    report = {concept.text: found for concept, found in zip(request.concepts, reports, strict=True)}
    return packed(list(parts), fitting.config, sorted(set(model.pipe.tokenizer.all_special_ids)), report)


def check(settings: DuMo, model: efface.Model) -> None:
    """Raise for a U-Net that the branch cannot follow, and for settings that do not fit it."""
    branch = Branch(config_of(model.unet))
    check_steps(model.pipe, settings.sample_steps)
    trained_parameters(branch, settings.freeze)
    new_modulation(settings, len(model.points("skip", "mid")), 1)


@dataclass(frozen=True)
class Fitting:
    """What the trainings of one request have in common."""

    settings: DuMo
    model: efface.Model
    request: efface.Request
    run: efface.Run
    config: Mapping[str, Any]
    layers: int
    unet: Any
    accelerator: Accelerator

    @classmethod
    def of(
        cls,
        settings: DuMo,
        model: efface.Model,
        request: efface.Request,
        run: efface.Run,
        accelerator: Accelerator,
    ) -> Fitting:
        """With the frozen copy of the model's U-Net that all trainings share."""
        config, layers = config_of(model.unet), len(model.points("skip", "mid"))
        unet = frozen_unet(model.unet, config, model.device, torch.float32)
        return cls(settings, model, request, run, config, layers, unet, accelerator)

    def concept(self, index: int) -> tuple[Part, dict[str, Any]]:
        """One concept's part of the fit, and what there is to say about it."""
        training = self.training(index)
        student = training.student
        report: dict[str, Any] = {}
        aside = replace(training, student=replace(student, evaluations=Counter()))
        held_out = aside.banks(HELD_OUT, "held out")
        report["held out"] = {"before": aside.measured(held_out)}
        banks, losses = train_branch(training, self.checkpoint(BRANCH_STAGE, index))
        curves = {BRANCH_STAGE: losses.curve()}
        report["held out"][BRANCH_STAGE] = aside.measured(held_out)
        if self.settings.table != "none" and self.settings.table_steps:
            curves[TABLE_STAGE] = train_modulation(training, banks, self.checkpoint(TABLE_STAGE, index)).curve()
            report["held out"][TABLE_STAGE] = aside.measured(held_out)
        stored, report["storage"] = self._stored(student.branch)
        fill(student.branch, stored.tensors(self.model.device, torch.float32))
        report["held out"]["stored"] = aside.measured(held_out)
        report |= {"losses": curves, "evaluations": dict(student.evaluations), "table": _table(student.modulation)}
        return self._part(index, stored, student.modulation), report

    def training(self, index: int) -> Training:
        """The training of one concept before its first step."""
        concept, settings, pipe = self.request.concepts[index], self.settings, self.model.pipe
        return Training(
            settings=settings,
            student=self._student(),
            prompts=prompts_of(self.model, self.request, concept, torch.float32),
            sampler=Sampler(
                scheduler=lambda: type(pipe.scheduler).from_config(pipe.scheduler.config),
                steps=settings.sample_steps,
                guidance=settings.guidance,
                batch=max(1, settings.batch * (1 + settings.retained) // 2),
            ),
            accelerator=self.accelerator,
            run=self.run,
            shape=tuple(self.model.noise([0]).shape[1:]),
            label=concept.text,
        )

    def _student(self) -> Student:
        device, branch = self.model.device, Branch(self.config, self.settings.table != "blend")
        fresh = fresh_tensors(self.model.unet, branch)
        fill(branch, {name: tensor.to(device) for name, tensor in fresh.items()})
        width = branch.encoder.time_embedding.linear_2.out_features
        modulation = new_modulation(self.settings, self.layers, width).to(device).requires_grad_(False)
        steps = int(self.model.pipe.scheduler.config.get("num_train_timesteps", 1000))
        return Student(self.unet, branch, modulation, self.settings.mid, steps, Counter())

    def checkpoint(self, stage: str, index: int) -> efface.Checkpoint:
        """A file that only the same training finds; stage 1 is the same whatever stage 2 makes of it."""
        name = f"dumo-{stage}"
        if self.run.folder is None:
            return self.run.checkpoint(name)
        settings = {name: value for name, value in as_dict(self.settings).items() if name not in NO_PART_OF_TRAINING}
        if stage == BRANCH_STAGE:
            settings |= {"table": self.settings.table == "blend"}
            settings = {name: value for name, value in settings.items() if not name.startswith("table_")}
            settings = {name: value for name, value in settings.items() if name not in NO_PART_OF_STAGE_ONE}
        base = fingerprint(self.model.pipe, self.model.points("skip"))
        return self.run.checkpoint(name, settings, self.request.to_json(), index, self.run.seed, base)

    def _stored(self, branch: Branch) -> tuple[Stored, dict[str, Any]]:
        """The branch as the erasure keeps it, with what that takes and costs.

        `error` is the change by storing relative to the change by training, both as Frobenius norms of all tensors.
        """
        trained = {name: tensor.detach() for name, tensor in branch.state_dict().items()}
        fresh = fresh_tensors(self.model.unet, branch)
        base = {name: tensor for name, tensor in fresh.items() if name.startswith(f"{ENCODER}.")}
        tensors = kept(trained, base, self.settings.store, self.settings.rank)
        stored = Stored(tensors, base if self.settings.store == "low-rank" else {})
        lost = _distance(stored.tensors(self.model.device, torch.float32), trained)
        moved = _distance(fresh, trained)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return stored, {"bytes": size, "error": rounded(lost / moved if moved else 0.0)}

    def _part(self, index: int, stored: Stored, modulation: Modulation) -> Part:
        phrases = self.request.concepts[index].phrases
        embeddings, ids = names_of(self.model, phrases)
        numbers = {name: tensor.detach().cpu() for name, tensor in modulation.state_dict().items()}
        return Part(stored.kept, numbers, embeddings, phrases, ids)


def _table(modulation: Modulation) -> list[list[float]] | None:
    """The learned table for the report, a row for every bin and a column for every layer; None where there is none."""
    if modulation.kind not in TABLES:
        return None
    return [[rounded(value) for value in row] for row in modulation.full_table().detach().tolist()]


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    squares = [(one[name].to(tensor.device) - tensor).double().square().sum() for name, tensor in other.items()]
    return float(torch.stack(squares).sum().sqrt())
