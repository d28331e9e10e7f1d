"""The notice board's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tokenplace.spelling import path_of


class CommunitySettings(BaseSettings):
    """Where the notice board's files are. Paths are seen from where the relay was started."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    board: bool = Field(True, validation_alias="TOKEN_PLACE_COMMUNITY")
    """`0`, `false`, `no` or `off`: this relay has no notice board, and writes nothing down."""
    folder: Path = Field(Path("config/community"), validation_alias="TOKEN_PLACE_COMMUNITY_DIR")
    """The directory of `providers.json`, and of the next two where they are not named."""
    feedback: Path | None = Field(None, validation_alias="TOKEN_PLACE_MODEL_FEEDBACK_PATH")
    """Ratings of models, JSON lines; else `model_feedback.jsonl` in that directory."""
    queue: Path | None = Field(None, validation_alias="TOKEN_PLACE_CONTRIBUTION_QUEUE")
    """Offers of machines, JSON lines; else `contribution_queue.jsonl` in that directory."""
    registry: Path | None = Field(None, validation_alias="TOKEN_PLACE_PROVIDER_REGISTRY")
    """The registry of server providers, YAML; else `config/server_providers.yaml`."""
    hourly: int = Field(20, validation_alias="TOKEN_PLACE_COMMUNITY_LIMIT", ge=0)
    """Ratings and offers that one address may send in an hour; 0 for no bound."""

    @field_validator("feedback", "queue", "registry", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return path_of(value)
