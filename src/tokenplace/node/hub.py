"""The Hugging Face hub: where its files are, who we are there, and what this machine has of it already.

The library `huggingface_hub` knows the addresses, the token (HF_TOKEN, or that of `hf auth login`), another endpoint
(HF_ENDPOINT) and the cache (HF_HOME, HF_HUB_CACHE); this is the only file that talks to it. What other programs have
brought into the cache is used where it lies. Loaded when asked for: it costs 3 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from tokenplace.errors import WeightsError
from tokenplace.node.downloads import Remote, is_digest, why_refused
from tokenplace.openai.catalogue import HubSource, ModelFile


class Hub:
    """The hub as this machine is set up for it. What is given here wins over the environment."""

    def __init__(self, *, endpoint: str | None = None, cache: Path | None = None, token: str | None = None) -> None:
        self._endpoint = endpoint
        self._cache = cache
        self._token = token

    def cached(self, source: HubSource, file: ModelFile) -> Path | None:
        """The file in the hub's cache, whichever program brought it; by its digest where that is known."""
        try:
            from huggingface_hub import constants, try_to_load_from_cache
            from huggingface_hub.file_download import repo_folder_name
        except ModuleNotFoundError:  # its cache may be there all the same, but nobody could have told us where
            return None
        repo, name = f"{source.owner}/{source.repo}", source.name_of(file)
        cache = self._cache or Path(constants.HF_HUB_CACHE)
        try:
            found = try_to_load_from_cache(repo, name, cache_dir=cache, revision=source.revision)
        except ValueError:
            return None
        if isinstance(found, str):
            return Path(found)
        if file.sha256 is not None:
            snapshots = cache / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots"
            for path in snapshots.glob(f"*/{name}"):
                if path.resolve().name == file.sha256:
                    return path
        return None

    def remote(self, source: HubSource, file: ModelFile, sha256: str | None) -> Remote:
        """Where the file is to be fetched, and as whom. Raises WeightsError."""
        from huggingface_hub import constants, get_token, hf_hub_url

        if constants.HF_HUB_OFFLINE:
            raise WeightsError(
                "HF_HUB_OFFLINE is set, so nothing is fetched from the hub; take it away and pull again."
            )
        repo = f"{source.owner}/{source.repo}"
        endpoint = (self._endpoint or constants.ENDPOINT).rstrip("/")
        try:
            url = hf_hub_url(repo, source.name_of(file), revision=source.revision, endpoint=endpoint)
        except ValueError as error:
            raise WeightsError(f"{repo} is no repository of the hub: {error}") from None
        token = self._token or (None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())
        headers = {"Authorization": f"Bearer {token}"} if token else {}

        def why(status: int, told: Mapping[str, str]) -> str:
            return _why(status, told.get("x-error-code", ""), f"{endpoint}/{repo}")

        return Remote(url, file.name, file.bytes, sha256, headers, why)


def digest_in_cache(path: Path) -> str | None:
    """The SHA-256 under which the hub's cache keeps this file (the one the hub announced), None elsewhere."""
    real = path.resolve()
    return real.name if real.parent.name == "blobs" and is_digest(real.name) else None


def _why(status: int, code: str, page: str) -> str:
    match code, status:
        case "GatedRepo", _:
            return f"its owner wants terms accepted; do so at {page} and set HF_TOKEN to a token of yours"
        case "EntryNotFound", _:
            return f"that repository has no such file; look at {page}"
        case "RevisionNotFound", _:
            return f"that repository has no such revision; look at {page}"
        case "RepoNotFound", _:
            return f"there is no {page}, or it is private and HF_TOKEN does not open it"
        case _, HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return (
                f"its owner wants you to log in and accept terms; do so at {page} and set HF_TOKEN to a token of yours"
            )
        case _:
            return why_refused(status, {})
