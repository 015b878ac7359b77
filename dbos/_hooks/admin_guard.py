"""Whether the admin server hears a request: decided by its headers alone, before anything else is said."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos._hooks.openapi import Refusal

if TYPE_CHECKING:
    from dbos._hooks.admin import AdminSettings

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
# What only browsers say of themselves.
BROWSER_SIGNS = ("Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides whether a request is heard, by its headers alone."""

    settings: AdminSettings
    port: int

    def admit(self, headers: Any, *, changes_by_get: bool) -> None:
        """Refuse what a web page sent or has brought about, what is not addressed to us, and what lacks the token."""
        self._check_host(headers.get_all("Host") or [])
        if headers.get("Origin") is not None or headers.get("Sec-Fetch-Site", "none") != "none":
            raise Refusal(403, "Web pages may not talk to the admin server")
        # A link or image on a page needs no origin; old browsers say nothing of it but their name.
        is_browser = any(headers.get(sign) is not None for sign in BROWSER_SIGNS)
        if changes_by_get and (is_browser or headers.get("User-Agent", "").startswith("Mozilla/")):
            raise Refusal(403, "Browsers may not change anything here")
        self._check_token(headers.get_all("Authorization") or [])

    def _check_host(self, hosts: Sequence[str]) -> None:
        if len(hosts) != 1:
            raise Refusal(400, "A request must have one Host header")
        if not self.settings.is_local:
            return  # whoever has the token needs no other name of ours
        names = (*LOCAL_NAMES, self.settings.name)
        if hosts[0].strip().lower() not in {f"{name}:{self.port}" for name in names}:
            raise Refusal(403, f"The admin server is called localhost:{self.port}, not as the Host header says")

    def _check_token(self, given: Sequence[str]) -> None:
        if self.settings.token is None:
            return
        scheme, _, shown = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Bytes, because texts with other characters cannot be compared in constant time.
        is_right = hmac.compare_digest(shown.strip().encode("latin-1", "replace"), self.settings.token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise Refusal(
                401, "A bearer token is needed, and none or a wrong one was given", **{"WWW-Authenticate": "Bearer"}
            )
