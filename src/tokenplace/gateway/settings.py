"""The gateway's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVICE = "token.place"


class GatewaySettings(BaseSettings):
    """What the person who runs a gateway may turn."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    service_name: str = Field(SERVICE, validation_alias="SERVICE_NAME")
    """What `health` calls this service."""
    log_level: str = Field("INFO", validation_alias="TOKENPLACE_LOG_LEVEL")
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("service_name")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip() or SERVICE
