"""The gateway's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tokenplace.openai.screening import phrases_of
from tokenplace.spelling import secret, words_of

SERVICE = "token.place"


class GatewaySettings(BaseSettings):
    """What the person who runs a gateway may turn."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    service_name: str = Field(SERVICE, validation_alias="SERVICE_NAME")
    """What `health` calls this service."""
    api_keys: Annotated[list[str], NoDecode] = Field(default_factory=list, validation_alias="TOKEN_PLACE_API_KEYS")
    """SHA-256 digests (hex) of the API keys that may ask here, with commas between; nothing lets everybody ask.
    `printf %s "$KEY" | sha256sum` makes one. The keys themselves are not kept anywhere."""
    stand_in: bool = Field(False, validation_alias="TOKEN_PLACE_STAND_IN")
    """For demonstrations: a catalogue model that nobody serves is asked of a node that stands in. Answers say so."""
    moderation: str = Field("", validation_alias="CONTENT_MODERATION_MODE")
    """As for a node: requests with listed phrases are refused here, before they are sealed."""
    blocklist: Annotated[list[str], NoDecode] = Field(
        default_factory=list, validation_alias="CONTENT_MODERATION_BLOCKLIST"
    )
    """Further phrases, with commas between."""
    moderation_defaults: str = Field("1", validation_alias="CONTENT_MODERATION_INCLUDE_DEFAULTS")
    """`0`, `false`, `no` or `off` leaves the built-in phrases out."""
    operator_token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_OPERATOR_TOKEN")
    """Who shows it may have the classic keys of nodes replaced that were started with the same token
    (`POST /v1/public-key/rotate`). `openssl rand -hex 32` makes one."""
    rotation_token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_KEY_ROTATION_TOKEN")
    """The same, where the variable before it is not set or blank."""
    former_rotation_token: SecretStr | None = Field(None, validation_alias="PUBLIC_KEY_ROTATION_TOKEN")
    """The same again."""
    names: Annotated[list[str], NoDecode] = Field(default_factory=list, validation_alias="TOKEN_PLACE_GATEWAY_NAMES")
    """Names under which this gateway is asked, with commas between. Addresses, names without dots and names of
    local networks need not be listed; where API keys are asked for, any name will do."""
    log_level: str = Field("INFO", validation_alias="TOKENPLACE_LOG_LEVEL")
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("api_keys", "blocklist", "names", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return words_of(value)

    @property
    def operator(self) -> str | None:
        """The operator's token: the first of the three variables that is not blank."""
        return secret(self.operator_token, self.rotation_token, self.former_rotation_token)

    @property
    def phrases(self) -> tuple[str, ...]:
        """What is refused; empty where moderation is off."""
        return phrases_of(self.moderation, self.blocklist, self.moderation_defaults)

    @field_validator("service_name")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip() or SERVICE
