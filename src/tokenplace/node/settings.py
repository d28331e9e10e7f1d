"""The node's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tokenplace import places
from tokenplace.node.policy import Hours
from tokenplace.node.targets import chosen, listed
from tokenplace.openai.screening import phrases_of
from tokenplace.spelling import path_of, secret, words, words_of
from tokenplace.wire.ids import ModelId

Words = Annotated[list[str], NoDecode]
"""A list written with commas."""

EMBEDDED = "smollm2-135m-instruct"
"""The model that is there without a choice: small enough for any machine, and a toy."""

EMBEDDED_SLOTS, EMBEDDED_CONTEXT = 4, 4096

DEFAULT_RELAY = "http://127.0.0.1:5000"
"""Where a node looks when nobody names a relay."""


class NodeSettings(BaseSettings):
    """What a volunteer may turn."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    relays: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_RELAYS")
    """Relays to serve, with commas between."""
    first_relay: str | None = Field(None, validation_alias="PERSONAL_GAMING_PC_URL")
    """One more relay, before all others of these lists."""
    upstreams: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_RELAY_UPSTREAMS")
    """More relays: a JSON array, a JSON string, or a list with commas or line breaks between."""
    fallbacks: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_RELAY_CLOUDFLARE_URLS")
    """More relays, after all others; written like those."""
    fallback: Words = Field(default_factory=list, validation_alias="TOKEN_PLACE_RELAY_CLOUDFLARE_URL")
    """One more of them."""
    cluster_only: bool = Field(False, validation_alias="TOKEN_PLACE_RELAY_CLUSTER_ONLY")
    """`1` leaves relays on this very machine (localhost, loopback) out."""
    token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_RELAY_SERVER_TOKEN")
    """The invitation to show to relays that ask for one."""
    engine: str = Field("llama", validation_alias="TOKEN_PLACE_ENGINE")
    """`llama` (embedded), `echo` (a test's parrot), the base URL of an OpenAI-compatible server, or `auto` (such a
    server if one runs on this machine, else the embedded engine); several with commas between."""
    model: str | None = Field(None, validation_alias="TOKEN_PLACE_MODEL")
    """The models to serve, with commas between: ids of the catalogue, or of the server at the engine's URL (left out:
    all it has)."""
    idle_unload: float | None = Field(None, validation_alias="TOKEN_PLACE_IDLE_UNLOAD", ge=0)
    """Seconds without a request after which a model is unloaded; it is loaded again when it is asked for. 0: never;
    left out, 900 where several models are served and never where it is one."""
    gpu_layers: int = Field(-1, validation_alias="TOKEN_PLACE_GPU_LAYERS", ge=-1)
    """The most layers of a model that go to GPUs: 0 is none, -1 as many as fit."""
    gpu_headroom: float = Field(0.1, validation_alias="TOKEN_PLACE_GPU_HEADROOM")
    """The part of the memory a model needs that must stay free beside it, on GPUs and in the machine: 0.1 is a tenth;
    above 1 it is percent, below 0 none."""
    confine: bool = Field(True, validation_alias="TOKEN_PLACE_CONFINE")
    """`off` leaves the embedded engine's process all rights of this user (for drivers that cannot do with less)."""
    hours: str = Field("", validation_alias="TOKEN_PLACE_HOURS")
    """When to serve, local time, with commas between: `22:00-07:00` or `sat 10:00-18:00,sun 10:00-18:00`. Left out:
    always."""
    on_battery: bool = Field(False, validation_alias="TOKEN_PLACE_ON_BATTERY")
    """`on` serves also while this machine runs on its battery."""
    max_cpu: float | None = Field(None, validation_alias="TOKEN_PLACE_MAX_CPU", gt=0)
    """Pause while other programs use more than this part of the processor, such as 0.5; above 1 it is percent. Left
    out: never."""
    max_gpu: float | None = Field(None, validation_alias="TOKEN_PLACE_MAX_GPU", gt=0)
    """The same for GPUs."""
    max_temperature: float | None = Field(None, validation_alias="TOKEN_PLACE_MAX_TEMPERATURE", gt=0)
    """Pause while processor or GPU is hotter than this, in °C. Left out: never."""
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
    classic: bool = Field(True, validation_alias="TOKEN_PLACE_CLASSIC")
    """`off`: no requests of the original's protocol. Such requests are sealed more weakly than ours, and only their
    senders choose that."""
    classic_pkcs1v15: bool = Field(False, validation_alias="TOKEN_PLACE_CLASSIC_PKCS1V15")
    """`on` also takes the RSA padding of the original's JavaScript programs (PKCS#1 v1.5), and answers them with it."""
    operator_token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_OPERATOR_TOKEN")
    """Whose order to replace the keys is obeyed: a gateway with the same token passes it on. `openssl rand -hex 32`
    makes one."""
    rotation_token: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_KEY_ROTATION_TOKEN")
    """The same, where the variable before it is not set or blank."""
    former_rotation_token: SecretStr | None = Field(None, validation_alias="PUBLIC_KEY_ROTATION_TOKEN")
    """The same again."""
    upstream_key: SecretStr | None = Field(None, validation_alias="TOKEN_PLACE_UPSTREAM_KEY")
    """The API key of the server at the engine's URL. There is no flag for it: every process can read a command line."""
    models_dir: Path | None = Field(None, validation_alias="TOKEN_PLACE_MODELS_DIR")
    """Where model files are kept."""
    state_dir: Path | None = Field(None, validation_alias="TOKEN_PLACE_STATE_DIR")
    """Where the node's identity is kept."""
    mock: bool = Field(False, validation_alias="USE_MOCK_LLM")
    """The original's switch for the echo engine."""
    status_host: str = Field("127.0.0.1", validation_alias="TOKEN_PLACE_STATUS_HOST")
    """Where the status page listens. Other machines may look, never pause or resume."""
    status_port: int = Field(3000, validation_alias="TOKEN_PLACE_STATUS_PORT", ge=0, le=65535)
    """Port of the status page and `/health`, the next free one when it is taken; 0 switches it off."""
    log_level: str = Field("INFO", validation_alias="TOKENPLACE_LOG_LEVEL")
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("relays", "upstreams", "fallbacks", "fallback", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return listed(value) if isinstance(value, str) else value

    @field_validator("adapters", "vision_models", "embedding_models", "blocklist", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return words_of(value)

    @field_validator("models_dir", "state_dir", "vision", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return path_of(value)

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        Hours.parse(value)
        return value

    def targets(self, flags: Sequence[str] = ()) -> tuple[str, ...]:
        """The relays to serve: flags (they replace TOKEN_PLACE_RELAYS), then the lists of the environment.

        Raises NoRelay, WireError.
        """
        first = [self.first_relay] if self.first_relay and self.first_relay.strip() else []
        groups = (flags, first, [] if flags else self.relays, self.upstreams, self.fallbacks, self.fallback)
        return chosen(groups, default=DEFAULT_RELAY, cluster_only=self.cluster_only)

    @property
    def operator(self) -> str | None:
        """The operator's token: the first of the three variables that is not blank."""
        return secret(self.operator_token, self.rotation_token, self.former_rotation_token)

    @property
    def named_models(self) -> tuple[str, ...]:
        """The models by name, in order."""
        return tuple(words(self.model or ""))

    @property
    def named_engines(self) -> tuple[str, ...]:
        """The engines by name or address, in order."""
        return tuple(words(self.engine))

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
        return self.state_dir or places.state()

    @property
    def weights_dir(self) -> Path:
        """The models directory, the platform's own unless told."""
        return self.models_dir or places.data() / "models"
