"""The original's encryption as its programs do it, written from the contract and not from our sealing."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

OAEP = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
V15 = padding.PKCS1v15()
Fields = dict[str, Any]


def text(data: bytes) -> str:
    """Base64, as everything travels."""
    return base64.b64encode(data).decode()


class OriginalKeys:
    """A key pair as the original makes it, and its envelopes."""

    def __init__(self, bits: int = 2048) -> None:
        self.private = rsa.generate_private_key(65537, bits)
        public = self.private.public_key()
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.stream_key = b""

    @property
    def key(self) -> str:
        """The public key as it travels: base64 of the PEM text."""
        return text(self.pem.encode())

    def seal(self, words: Any, to: str, *, pkcs1v15: bool = False, gcm: bytes | None = None) -> Fields:
        """An envelope for the API path around JSON (or around bytes as they are); `gcm` is associated data."""
        public = load_pem_public_key(base64.b64decode(to))
        assert isinstance(public, rsa.RSAPublicKey)
        aes = os.urandom(32)
        data = words if isinstance(words, bytes) else json.dumps(words).encode()
        fields: Fields = {"cipherkey": text(public.encrypt(base64.b64encode(aes), V15 if pkcs1v15 else OAEP))}
        if gcm is not None:
            iv = os.urandom(12)
            sealed = AESGCM(aes).encrypt(iv, data, gcm)
            fields |= {"ciphertext": text(sealed[:-16]), "tag": text(sealed[-16:]), "iv": text(iv), "mode": "GCM"}
            return {**fields, "associated_data": text(gcm)} if gcm else fields
        iv = os.urandom(16)
        padder, cipher = PKCS7(128).padder(), Cipher(AES(aes), CBC(iv)).encryptor()
        padded = padder.update(data) + padder.finalize()
        return {**fields, "ciphertext": text(cipher.update(padded) + cipher.finalize()), "iv": text(iv)}

    def seal_relay(self, words: Any, to: str) -> Fields:
        """An envelope for the relay path."""
        fields = self.seal(words, to)
        return {"chat_history": fields.pop("ciphertext"), **fields}

    def open(self, fields: Fields, *, pkcs1v15: bool = False) -> Any:
        """What an envelope says, of either path; of a stream, piece by piece in order."""
        if "cipherkey" in fields:
            wrapped = base64.b64decode(fields["cipherkey"])
            self.stream_key = base64.b64decode(self.private.decrypt(wrapped, V15 if pkcs1v15 else OAEP))
        iv = base64.b64decode(fields["iv"])
        sealed = base64.b64decode(fields.get("ciphertext") or fields["chat_history"])
        if fields.get("mode") == "GCM":
            data = base64.b64decode(fields.get("associated_data", ""))
            return json.loads(AESGCM(self.stream_key).decrypt(iv, sealed + base64.b64decode(fields["tag"]), data))
        cipher, unpadder = Cipher(AES(self.stream_key), CBC(iv)).decryptor(), PKCS7(128).unpadder()
        padded = cipher.update(sealed) + cipher.finalize()
        return json.loads(unpadder.update(padded) + unpadder.finalize())
