"""The arguments of the backend `swanlab`."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

__all__ = ["SwanlabArgs"]


class SwanlabArgs(BaseModel):
    """What `monitor_args` accepts for `monitor_type: swanlab`. What is not given is found where the SDK finds it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    mode: Literal["online", "offline"] = Field("online", description="Default: SWANLAB_MODE, or `online`.")
    api_host: str | None = Field(None, description="URL of the server. Default: SWANLAB_API_HOST, or swanlab.cn.")
    api_key: SecretStr | None = Field(None, description="Default: SWANLAB_API_KEY, or that of `swanlab login`.")
    workspace: str | None = Field(None, description="User or team. Default: the user whose API key it is.")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        # The launcher's environment decides for all roles, as what was given explicitly is handed to them.
        found = {"cloud": "online"}.get(mode := os.environ.get("SWANLAB_MODE", ""), mode)
        return {"mode": found, **given} if found and isinstance(given, Mapping) else given
