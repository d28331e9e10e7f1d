"""The relay's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tokenplace import places
from tokenplace.relay.address import ForwardedHeader
from tokenplace.relay.admission import LINKS_PER_ADDRESS
from tokenplace.relay.traffic import AccessLog
from tokenplace.spelling import path_of, secret, words, words_of

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
    invitations: Path | None = Field(None, validation_alias="TOKEN_PLACE_INVITATIONS")
    """The file of invitations that `tokenplace relay invite` makes; a running relay reads it again when it changes.
    `invitations.json` in the platform's state directory unless told."""
    denied: Path | None = Field(None, validation_alias="TOKEN_PLACE_DENY")
    """A file of node ids, addresses and networks that may not serve, one a line; read again when it changes."""
    links_per_address: int = Field(LINKS_PER_ADDRESS, validation_alias="TOKEN_PLACE_LINKS_PER_ADDRESS", ge=1)
    """How many links of nodes one address may hold; of IPv6, one /64."""
    link_rate: str = Field("120/minute", validation_alias="TOKEN_PLACE_LINK_RATE_LIMIT")
    """How often nodes may dial in from one address; nothing: as often as they like."""
    resume_rate: str = Field("600/minute", validation_alias="TOKEN_PLACE_RESUME_RATE_LIMIT")
    """How often one client may go on with answers that this relay does not hold, because they began at another or
    before a restart; nothing: as often as it likes. To come back to one that is here is never counted."""
    trusted_proxies: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_TRUSTED_PROXIES")
    """Addresses and networks of the proxies before this relay. Only through them a header tells who asks."""
    forwarded_header: ForwardedHeader = Field(
        ForwardedHeader.X_FORWARDED_FOR, validation_alias="TOKEN_PLACE_FORWARDED_HEADER"
    )
    """The header that those proxies write: `x-forwarded-for`, or `forwarded` (RFC 7239)."""
    rate: str = Field("60/minute", validation_alias="API_RATE_LIMIT")
    """How often one client may ask, over the whole API and the sealed route together, such as `10/minute; 200/hour`.
    Nothing: as often as it likes. Clients on this very machine are counted when this or the quota is set."""
    stream_rate: str = Field("30/minute", validation_alias="API_STREAM_RATE_LIMIT")
    """How many streams of those it may begin, where the hosted gateway can see that; nothing: all of them."""
    daily_quota: str = Field("1000/day", validation_alias="API_DAILY_QUOTA")
    """How often one client may ask in a day; nothing: no quota."""
    store_url: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_STORE_URL")
    """The Valkey or Redis server that the replicas of this relay share, such as `valkey://HOST:6379/0`; nothing: this
    relay is alone, and everything is in its memory. `--store` wins."""
    operator_token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_OPERATOR_TOKEN")
    """What opens /api/v1/relay/diagnostics. Without it nothing does."""
    rotation_token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_KEY_ROTATION_TOKEN")
    """The same, where the variable before it is not set or blank."""
    former_rotation_token: SecretStr | None = Field(None, validation_alias="PUBLIC_KEY_ROTATION_TOKEN")
    """The same again."""
    access_log: AccessLog = Field(AccessLog.SOME, validation_alias="TOKEN_PLACE_ACCESS_LOG")
    """`all`: every request but probes is logged; `some`: questions to the API and failures; `off`: none."""
    drain_seconds: float = Field(30.0, validation_alias="RELAY_GRACEFUL_TIMEOUT", ge=0, le=86400, allow_inf_nan=False)
    """How long open answers may take to end after SIGTERM, a day at most."""
    log_level: str = Field("INFO", validation_alias=AliasChoices("TOKENPLACE_LOG_LEVEL"))
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("names", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return words_of(value)

    @field_validator("server_token", "server_tokens", "operator_token", "rotation_token", "former_rotation_token")
    @classmethod
    def _for_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value is not None else ""
        if not (text.isascii() and text.isprintable()):
            raise ValueError("a token is shown in a header, so it has nothing but printable ASCII characters")
        return value

    @field_validator("server_token", "server_tokens")
    @classmethod
    def _some(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value is not None else ""
        if text.strip() and not words(text):
            raise ValueError("there is no invitation between the commas; with nothing at all every node may serve")
        return value

    @field_validator("invitations", "denied", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return path_of(value)

    @property
    def tokens(self) -> list[str]:
        """Every invitation of both variables."""
        texts = (each.get_secret_value() for each in (self.server_token, self.server_tokens) if each is not None)
        return [token for text in texts for token in words(text)]

    @property
    def invitation_file(self) -> Path:
        """Where invitations are kept."""
        return self.invitations or places.state() / "invitations.json"

    @property
    def operator(self) -> str | None:
        """The operator's token: the first of the three variables that is not blank."""
        return secret(self.operator_token, self.rotation_token, self.former_rotation_token)

    @property
    def counts_everybody(self) -> bool:
        """Whether somebody set a limit, so that it holds for clients on this machine too."""
        return not self.model_fields_set.isdisjoint({"rate", "stream_rate", "daily_quota", "resume_rate", "link_rate"})
