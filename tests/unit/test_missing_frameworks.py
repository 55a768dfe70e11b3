"""Integrations where their framework is not installed."""

import importlib
import sys

import pytest

REMEDIES = [
    ("accelerate", ["accelerate"], "pip install accelerate"),
    ("hydra", ["hydra"], "pip install hydra-core"),
    ("lightning", ["lightning", "pytorch_lightning"], "pip install lightning"),
    ("ray", ["ray"], "pip install 'ray[train,tune]'"),
    ("stable_baselines3", ["stable_baselines3"], "pip install stable-baselines3 pillow"),
    ("torchrl", ["torch", "torchrl"], "pip install torchrl pillow"),
    ("transformers", ["transformers"], "pip install 'transformers[torch]'"),
    ("trinity", ["trinity"], "pip install trinity-rft"),
    ("verl", ["verl"], "pip install verl"),
]


@pytest.mark.parametrize(("integration", "absent", "remedy"), REMEDIES, ids=[name for name, _, _ in REMEDIES])
def test_missing_framework_says_what_to_install(
    integration: str, absent: list[str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in absent:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"rolecall.integrations.{integration}", raising=False)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(f"rolecall.integrations.{integration}")
    assert str(caught.value).startswith(f"rolecall.integrations.{integration} needs ")
    assert str(caught.value).endswith(remedy)
