"""Reward models that survive noisy preferences, as PyTorch Lightning modules: the names a notebook needs.

They are imported when they are first used, so that a part of the package does not cost the import of all of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_rm.analysis.features import collect_features
    from lightning_rm.analysis.history import read_history
    from lightning_rm.analysis.plots.features import feature_panels
    from lightning_rm.analysis.plots.parts import part_curves
    from lightning_rm.analysis.plots.strength import strength_by_group
    from lightning_rm.analysis.report import report
    from lightning_rm.analysis.reports.features import panel_of
    from lightning_rm.analysis.strength import grouped
    from lightning_rm.annotation.annotate import annotate
    from lightning_rm.annotation.voters import Voter
    from lightning_rm.batch import PreferenceBatch, RewardOutput
    from lightning_rm.curation.curate import curate
    from lightning_rm.curation.result import Rules
    from lightning_rm.data.datamodule import PreferenceDataModule
    from lightning_rm.data.sources.files import FileSource
    from lightning_rm.data.sources.groups import GroupFile, GroupRecords
    from lightning_rm.data.sources.records import RecordSource
    from lightning_rm.data.synthetic.pairs import SyntheticSource
    from lightning_rm.data.synthetic.policy import SyntheticGroups
    from lightning_rm.data.synthetic.tokenizer import synthetic_tokenizer, world_tokenizer
    from lightning_rm.data.tokenize.pairs import load_tokenizer
    from lightning_rm.evaluation.evaluate import evaluate
    from lightning_rm.models.ensembles.ensemble import RewardEnsemble
    from lightning_rm.models.ensembles.members import MemberRewardModel, Members
    from lightning_rm.models.ensembles.warm import average_weights
    from lightning_rm.models.reward_model import RewardModel
    from lightning_rm.modules.base import PairwiseRM
    from lightning_rm.modules.baseline import BaselineRM
    from lightning_rm.modules.contrast import SimCSE, SwAV
    from lightning_rm.modules.contrastive import ContrastiveRM
    from lightning_rm.modules.meta import MetaRM
    from lightning_rm.modules.odin import OdinRM
    from lightning_rm.modules.optimization import warmup_schedule
    from lightning_rm.modules.ordinal import OrdinalRM
    from lightning_rm.modules.regression import RegressionRM
    from lightning_rm.modules.response_rank import ResponseRankRM
    from lightning_rm.modules.robust import RobustRM
    from lightning_rm.modules.strength_aware import StrengthAwareRM
    from lightning_rm.modules.supervised import SupervisedLM
    from lightning_rm.modules.voters import VotersRM
    from lightning_rm.publishing.publish import PublishOptions, publish
    from lightning_rm.rlhf.importance import Weighing
    from lightning_rm.rlhf.overoptimise import overoptimise
    from lightning_rm.rlhf.policy_files import PolicyFiles
    from lightning_rm.rlhf.reward_function import RewardFunction
    from lightning_rm.rlhf.weigh import weigh
    from lightning_rm.scoring.conversations import score
    from lightning_rm.scoring.engine import score_sequences
    from lightning_rm.scoring.files import score_file
    from lightning_rm.scoring.load import load_model
    from lightning_rm.serving.serve import ServeOptions, reward_app, serve
    from lightning_rm.serving.server import background_server
    from lightning_rm.strength import Strength

__all__ = [
    "BaselineRM",
    "ContrastiveRM",
    "FileSource",
    "GroupFile",
    "GroupRecords",
    "MemberRewardModel",
    "Members",
    "MetaRM",
    "OdinRM",
    "OrdinalRM",
    "PairwiseRM",
    "PolicyFiles",
    "PreferenceBatch",
    "PreferenceDataModule",
    "PublishOptions",
    "RecordSource",
    "RegressionRM",
    "ResponseRankRM",
    "RewardEnsemble",
    "RewardFunction",
    "RewardModel",
    "RewardOutput",
    "RobustRM",
    "Rules",
    "ServeOptions",
    "SimCSE",
    "Strength",
    "StrengthAwareRM",
    "SupervisedLM",
    "SwAV",
    "SyntheticGroups",
    "SyntheticSource",
    "Voter",
    "VotersRM",
    "Weighing",
    "annotate",
    "average_weights",
    "background_server",
    "collect_features",
    "curate",
    "evaluate",
    "feature_panels",
    "grouped",
    "load_model",
    "load_tokenizer",
    "overoptimise",
    "panel_of",
    "part_curves",
    "publish",
    "read_history",
    "report",
    "reward_app",
    "score",
    "score_file",
    "score_sequences",
    "serve",
    "strength_by_group",
    "synthetic_tokenizer",
    "warmup_schedule",
    "weigh",
    "world_tokenizer",
]

_HOMES = {
    "BaselineRM": "modules.baseline",
    "ContrastiveRM": "modules.contrastive",
    "FileSource": "data.sources.files",
    "GroupFile": "data.sources.groups",
    "GroupRecords": "data.sources.groups",
    "MemberRewardModel": "models.ensembles.members",
    "Members": "models.ensembles.members",
    "MetaRM": "modules.meta",
    "OdinRM": "modules.odin",
    "OrdinalRM": "modules.ordinal",
    "PairwiseRM": "modules.base",
    "PolicyFiles": "rlhf.policy_files",
    "PreferenceBatch": "batch",
    "PreferenceDataModule": "data.datamodule",
    "PublishOptions": "publishing.publish",
    "RecordSource": "data.sources.records",
    "RegressionRM": "modules.regression",
    "ResponseRankRM": "modules.response_rank",
    "RewardEnsemble": "models.ensembles.ensemble",
    "RewardFunction": "rlhf.reward_function",
    "RewardModel": "models.reward_model",
    "RewardOutput": "batch",
    "RobustRM": "modules.robust",
    "Rules": "curation.result",
    "ServeOptions": "serving.serve",
    "SimCSE": "modules.contrast",
    "Strength": "strength",
    "StrengthAwareRM": "modules.strength_aware",
    "SupervisedLM": "modules.supervised",
    "SwAV": "modules.contrast",
    "SyntheticGroups": "data.synthetic.policy",
    "SyntheticResponses": "data.synthetic.policy",  # an earlier name, still understood
    "SyntheticSource": "data.synthetic.pairs",
    "Voter": "annotation.voters",
    "VotersRM": "modules.voters",
    "Weighing": "rlhf.importance",
    "annotate": "annotation.annotate",
    "average_weights": "models.ensembles.warm",
    "background_server": "serving.server",
    "collect_features": "analysis.features",
    "curate": "curation.curate",
    "evaluate": "evaluation.evaluate",
    "feature_panels": "analysis.plots.features",
    "grouped": "analysis.strength",
    "load_model": "scoring.load",
    "load_tokenizer": "data.tokenize.pairs",
    "overoptimise": "rlhf.overoptimise",
    "panel_of": "analysis.reports.features",
    "part_curves": "analysis.plots.parts",
    "publish": "publishing.publish",
    "read_history": "analysis.history",
    "report": "analysis.report",
    "reward_app": "serving.serve",
    "score": "scoring.conversations",
    "score_file": "scoring.files",
    "score_sequences": "scoring.engine",
    "serve": "serving.serve",
    "strength_by_group": "analysis.plots.strength",
    "synthetic_tokenizer": "data.synthetic.tokenizer",
    "warmup_schedule": "modules.optimization",
    "weigh": "rlhf.weigh",
    "world_tokenizer": "data.synthetic.tokenizer",  # an earlier name, still understood
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lightning_rm' has no attribute {name!r}")
    return getattr(import_module(f"lightning_rm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
