"""An OpenID Connect provider: small, and real enough to log in with, over HTTP.

It has discovery, keys that can be replaced, the authorization code flow with PKCE, and says of
whoever comes what a test has told it to say.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT_ID = "ovncp"
CLIENT_SECRET = "known to both"


class OidcProvider:
    """The provider, at `issuer`; `claims` is what it says of the next one who logs in."""

    def __init__(self, algorithm: str = "RS256") -> None:
        self.claims: dict[str, Any] = {"sub": "1", "preferred_username": "ann"}
        self.is_down = False
        self.n_asked_for_keys = 0
        self.n_refused = 0
        self._algorithm = algorithm
        self._codes: dict[str, dict[str, str]] = {}
        self.new_key()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> OidcProvider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def new_key(self) -> None:
        """Sign with another key from now on, and publish that one alone."""
        self.key_id = secrets.token_hex(4)
        if self._algorithm.startswith("ES"):
            self._key: Any = ec.generate_private_key(ec.SECP256R1())
        else:
            self._key = rsa.generate_private_key(65537, 2048)

    def token(self, **others: Any) -> str:
        """A token about whoever `claims` are of; others replace claims, None leaves one out."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300}
        claims |= self.claims | others
        told = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(told, self._key, self._algorithm, headers={"kid": self.key_id})

    def _keys(self) -> dict[str, Any]:
        self.n_asked_for_keys += 1
        algorithm = jwt.get_algorithm_by_name(self._algorithm)
        key = algorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [key | {"kid": self.key_id, "alg": self._algorithm, "use": "sig"}]}

    def _description(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def _authorize(self, query: dict[str, str]) -> str:
        assert query["response_type"] == "code" and query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256" and "openid" in query["scope"].split()
        code = secrets.token_urlsafe()
        self._codes[code] = query
        back = urlencode({"code": code, "state": query["state"]})
        return f"{query['redirect_uri']}?{back}"

    def _redeem(self, form: dict[str, str]) -> dict[str, Any]:
        query = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            query is None
            or query["code_challenge"] != challenge
            or query["redirect_uri"] != form["redirect_uri"]
            or form.get("client_secret") != CLIENT_SECRET
        ):
            return {"error": "invalid_grant"}
        return {"token_type": "Bearer", "id_token": self.token(nonce=query["nonce"])}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                if provider.is_down:
                    provider.n_refused += 1
                    self._answer(503, {})
                elif parts.path == "/.well-known/openid-configuration":
                    self._answer(200, provider._description())
                elif parts.path == "/keys":
                    self._answer(200, provider._keys())
                elif parts.path == "/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider._authorize(query))
                    self.end_headers()
                else:
                    self._answer(404, {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                found = provider._redeem({n: v[0] for n, v in parse_qs(body).items()})
                self._answer(400 if "error" in found else 200, found)

            def _answer(self, status: int, value: dict[str, Any]) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler
