"""Client of a server with OpenAI's completions API: concurrent requests, with a limit on each wait."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import requests

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.waits import waiting

AT_ONCE = 64  # requests in flight

Answer = TypeVar("Answer")


class CompletionsServer:
    """Connections to one server, for one purpose, which messages name."""

    def __init__(self, url: str, limit: float, name: str, setting: str, say: Callable[[str], None]) -> None:
        """Create a client; nothing is requested yet.

        Args:
            url: address of the server, which usually ends in /v1.
            limit: time limit of a call, in seconds.
            name: role of the server in messages, such as "sampler's server".
            setting: the recipe's field with the limit.
            say: function that prints a line about long waits.
        """
        self.url, self.name, self.limit = url.rstrip("/"), name, limit
        self._setting, self._say = setting, say
        self._client = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE)
        self._client.mount("http://", adapter)
        self._client.mount("https://", adapter)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def served(self) -> list[str]:
        """Return the names of the server's models, at least one.

        Raises:
            UserError: no server answers, or it serves no model.
        """
        models = self.request("GET", "/models").get("data")
        listed = models if isinstance(models, list) else []
        names = [str(model["id"]) for model in listed if isinstance(model, dict) and "id" in model]
        if not names:
            raise UserError(
                f"The {self.name} {self.url} serves no model: its /models lists none with an `id`, as OpenAI's does."
            )
        return names

    def complete(
        self, bodies: Sequence[dict[str, Any]], read: Callable[[dict[str, Any], int], Answer], fewer: str
    ) -> list[Answer]:
        """Send all requests and return `read` of each answer's choice and request number, in order.

        Args:
            bodies: bodies of the requests.
            read: function that raises if a choice is not what was requested; called from other threads.
            fewer: what the user can do about a timeout, besides raising the limit.

        Raises:
            UserError: the server refuses, or does not answer in time.
        """
        # Threads, because requests mostly wait; the server decides how many completions it batches.
        pool = ThreadPoolExecutor(AT_ONCE)
        asked = [pool.submit(self._one, body, number, read) for number, body in enumerate(bodies)]

        def state() -> str:
            return f"{sum(one.done() for one in asked)} of {len(asked)} completions after"

        try:
            with waiting(self._say, f"the {self.name} {self.url}", self.limit, state):
                done, late = wait(asked, timeout=self.limit, return_when=FIRST_EXCEPTION)
            # FIRST_EXCEPTION returns at the first failure, so the user does not wait for the limit when the server
            # refuses.
            for one in done:
                one.result()  # a failure ends the waiting
            if late:
                raise UserError(
                    f"The {self.name} {self.url} gave {state()} {self.limit:g} s, the limit {self._setting}; "
                    f"raise it, or {fewer}."
                )
            return [one.result() for one in asked]
        finally:
            # Do not wait for requests that are late: each has a timeout of its own.
            pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, body: dict[str, Any], number: int, read: Callable[[dict[str, Any], int], Answer]) -> Answer:
        choices = self.request("POST", "/completions", json=body).get("choices")
        if not choices or not isinstance(choices, list):
            raise UserError(f"The {self.name} {self.url} answered without a completion.")
        return read(choices[0], number)

    def detokenized(self, address: str, model: str, tokens: Sequence[int]) -> str | None:
        """Return the server tokenizer's text of token ids; None if the server has no such request (vLLM has)."""
        try:
            response = self._client.post(address, json={"model": model, "tokens": list(tokens)}, timeout=self.limit)
            text = response.json().get("prompt") if response.ok else None
        except (requests.RequestException, AttributeError):
            return None
        return text if isinstance(text, str) else None

    def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Return the server's answer as JSON.

        Raises:
            UserError: there is no server, it refuses, or it is too slow.
        """
        try:
            response = self._client.request(method, self.url + path, timeout=self.limit, **more)
            if not response.ok:
                raise UserError(
                    f"The {self.name} {self.url} refused with status {response.status_code}: "
                    f"{response.text.strip()[:300]}"
                )
            content = response.json()
        except requests.Timeout as error:
            raise UserError(
                f"The {self.name} {self.url} did not answer within {self.limit:g} s ({self._setting})."
            ) from error
        except requests.RequestException as error:
            raise UserError(
                f"No {self.name} answers at {self.url} ({type(error).__name__}): check that it runs and that the "
                "address ends in /v1."
            ) from error
        if not isinstance(content, dict):
            raise UserError(f"The {self.name} {self.url} answered with {str(content)[:80]}, expected a JSON object.")
        return content
