"""A server that speaks OpenAI's completions, asked much at once: each wait has a limit, each fault is a sentence."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import requests

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.waits import waiting

AT_ONCE = 64  # requests in flight

Answer = TypeVar("Answer")


class CompletionsServer:
    """One server, for one purpose, which messages name."""

    def __init__(self, url: str, limit: float, name: str, setting: str, say: Callable[[str], None]) -> None:
        """Nothing is asked yet.

        Args:
            url: its address, which usually ends in /v1.
            limit: seconds that a call may take.
            name: what it is to the one who asks, as "sampler's server".
            setting: the recipe's field with the limit.
            say: told about long waits.
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
        """Names of the models that the server has, one at least.

        Raises:
            UserError: no server answers, or it serves nothing.
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
        """What `read` makes of the choice that the server gives for each body, and of the body's number; in order.

        Args:
            bodies: of the requests.
            read: raises where a choice is not what was asked for; called from other threads.
            fewer: what to do where the time is too short, beside raising the limit.

        Raises:
            UserError: the server refuses, or does not answer in time.
        """
        pool = ThreadPoolExecutor(AT_ONCE)
        asked = [pool.submit(self._one, body, number, read) for number, body in enumerate(bodies)]

        def state() -> str:
            return f"{sum(one.done() for one in asked)} of {len(asked)} completions after"

        try:
            with waiting(self._say, f"the {self.name} {self.url}", self.limit, state):
                done, late = wait(asked, timeout=self.limit, return_when=FIRST_EXCEPTION)
            for one in done:
                one.result()  # a failure ends the waiting
            if late:
                raise UserError(
                    f"The {self.name} {self.url} gave {state()} {self.limit:g} s, and {self._setting} is that: "
                    f"raise it, or {fewer}."
                )
            return [one.result() for one in asked]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, body: dict[str, Any], number: int, read: Callable[[dict[str, Any], int], Answer]) -> Answer:
        choices = self.request("POST", "/completions", json=body).get("choices")
        if not choices or not isinstance(choices, list):
            raise UserError(f"The {self.name} {self.url} answers with no completion.")
        return read(choices[0], number)

    def detokenized(self, address: str, model: str, tokens: Sequence[int]) -> str | None:
        """The text that the server's tokenizer makes of token ids; None where it has no such request (vLLM has)."""
        try:
            response = self._client.post(address, json={"model": model, "tokens": list(tokens)}, timeout=self.limit)
            text = response.json().get("prompt") if response.ok else None
        except (requests.RequestException, AttributeError):
            return None
        return text if isinstance(text, str) else None

    def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """What the server answers, as JSON.

        Raises:
            UserError: there is no server, or it refuses, or is too slow.
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
                f"No {self.name} answers at {self.url} ({type(error).__name__}): is it running, and does the "
                "address end as /v1 does?"
            ) from error
        if not isinstance(content, dict):
            raise UserError(f"The {self.name} {self.url} answers with {str(content)[:80]}, expected a JSON object.")
        return content
