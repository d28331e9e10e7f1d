"""The node's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tokenplace.node.weights import default_models_dir
from tokenplace.openai.screening import phrases_of
from tokenplace.wire.ids import ModelId

Words = Annotated[list[str], NoDecode]
"""A list written with commas."""

EMBEDDED = "smollm2-135m-instruct"
"""The model that is there without a choice: small enough for any machine, and a toy."""

EMBEDDED_SLOTS, EMBEDDED_CONTEXT = 4, 4096


class NodeSettings(BaseSettings):
    """What a volunteer may turn."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    relays: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_RELAYS")
    """Relays to serve, with commas between."""
    token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_RELAY_SERVER_TOKEN")
    """The invitation to show to relays that ask for one."""
    engine: str = Field("llama", validation_alias="TOKEN_PLACE_ENGINE")
    """`llama` (embedded), `echo` (a test's parrot), or the base URL of an OpenAI-compatible server."""
    model: str | None = Field(None, validation_alias="TOKEN_PLACE_MODEL")
    """The model to serve: an id of the catalogue, or of the server at the engine's URL (left out: all it has)."""
    slots: int | None = Field(None, validation_alias="TOKEN_PLACE_SLOTS", ge=1, le=64)
    """How many answers at once."""
    context: int | None = Field(None, validation_alias="TOKEN_PLACE_CONTEXT", ge=128)
    """Tokens of context for each answer."""
    threads: int | None = Field(None, validation_alias="TOKEN_PLACE_THREADS", ge=1)
    """Threads of the embedded engine; one fewer than the cores unless told."""
    echo_delay: float = Field(0.0, validation_alias="TOKEN_PLACE_ECHO_DELAY", ge=0)
    """Seconds between the echo engine's words, for tests."""
    stand_in: bool = Field(False, validation_alias="TOKEN_PLACE_STAND_IN")
    """For demonstrations: let the served model answer to every id of the catalogue. Its answers say which it is."""
    embeddings: int | None = Field(None, validation_alias="TOKEN_PLACE_EMBEDDINGS", ge=0, le=8192)
    """Tokens of the longest input of /v1/embeddings for the embedded engine; 0 switches them off. So many tokens of
    every prompt are computed at once, too: the more, the later it is noticed that somebody left. Left out, it is as
    many as suit this machine, which is 64 on most processors."""
    adapters: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_ADAPTERS")
    """LoRA files (GGUF) for the embedded engine, each as ID=FILE, with commas between. Requests name the ID."""
    vision: Path | None = Field(None, validation_alias="TOKEN_PLACE_VISION")
    """The projector file (mmproj) with which the embedded engine's model looks at pictures."""
    vision_models: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_VISION_MODELS")
    """Which models of the server at the engine's URL look at pictures, with commas between."""
    embedding_models: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_EMBEDDING_MODELS")
    """Which models of the server at the engine's URL make embeddings, with commas between."""
    moderation: str = Field("", validation_alias="CONTENT_MODERATION_MODE")
    """`off`, `disabled` or `none` (or nothing): no moderation. Anything else: requests with listed phrases are
    refused before the model reads them."""
    blocklist: Words = Field(default_factory=list, validation_alias="CONTENT_MODERATION_BLOCKLIST")
    """Further phrases, with commas between."""
    moderation_defaults: str = Field("1", validation_alias="CONTENT_MODERATION_INCLUDE_DEFAULTS")
    """`0`, `false`, `no` or `off` leaves the built-in phrases out."""
    upstream_key: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_UPSTREAM_KEY")
    """The API key of the server at the engine's URL."""
    models_dir: Path | None = Field(None, validation_alias="TOKEN_PLACE_MODELS_DIR")
    """Where model files are kept."""
    state_dir: Path | None = Field(None, validation_alias="TOKEN_PLACE_STATE_DIR")
    """Where the node's identity is kept."""
    mock: bool = Field(False, validation_alias="USE_MOCK_LLM")
    """The original's switch for the echo engine."""
    log_level: str = Field("INFO", validation_alias="TOKENPLACE_LOG_LEVEL")
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("relays", "adapters", "vision_models", "embedding_models", "blocklist", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value

    @property
    def phrases(self) -> tuple[str, ...]:
        """What is refused; empty where moderation is off."""
        return phrases_of(self.moderation, self.blocklist, self.moderation_defaults)

    @property
    def lora_files(self) -> dict[ModelId, Path]:
        """LoRA files under the ids that ask for them. Raises ValueError."""
        files = {}
        for pair in self.adapters:
            name, equals, path = pair.partition("=")
            if not equals or not name or not path:
                raise ValueError(f"An adapter is named as ID=FILE, not {pair!r}.")
            files[ModelId(name)] = Path(path).expanduser()
        return files

    @property
    def home(self) -> Path:
        """The state directory, the platform's own unless told."""
        return self.state_dir or Path(platformdirs.user_state_dir("token.place", appauthor=False))

    @property
    def weights_dir(self) -> Path:
        """The models directory, the platform's own unless told."""
        return self.models_dir or default_models_dir({})
