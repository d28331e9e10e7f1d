"""The relay's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Words = Annotated[list[str], NoDecode]
"""A list written with commas."""


class RelaySettings(BaseSettings):
    """What an operator may turn. `RELAY_HOST` and `RELAY_PORT` win over flags, as they always did."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    host: str | None = Field(None, validation_alias="RELAY_HOST")
    """Address to listen on."""
    port: int | None = Field(None, validation_alias="RELAY_PORT", ge=0, le=65535)
    """Port to listen on; a value that is none is passed over with a warning."""
    names: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_RELAY_NAMES")
    """Host names (with port) that nodes dial, where a proxy changes the Host header."""
    server_token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_RELAY_SERVER_TOKEN")
    """An invitation; when there is any, only nodes that show one may serve."""
    server_tokens: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_RELAY_SERVER_TOKENS")
    """Several invitations, with commas between."""
    drain_seconds: float = Field(30.0, validation_alias="RELAY_GRACEFUL_TIMEOUT", ge=0)
    """How long open answers may take to end after SIGTERM."""
    log_level: str = Field("INFO", validation_alias=AliasChoices("TOKENPLACE_LOG_LEVEL"))
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("names", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value

    @property
    def tokens(self) -> list[str]:
        """Every invitation of both variables."""
        texts = [secret.get_secret_value() for secret in (self.server_token, self.server_tokens) if secret]
        return [token.strip() for text in texts for token in text.split(",") if token.strip()]
