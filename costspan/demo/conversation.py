"""Plays the script through the real SDK clients, exactly as an application would write it."""

from __future__ import annotations

import importlib
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .provider import Answer
from .script import BRIEFING, HANDBOOK, TURNS, Persona, Turn, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .provider import DemoProvider

SDKS = ("openai", "anthropic", "google.genai")
"""The modules of the provider SDKs; slow to import, so the display says so while it happens."""


class MissingSDKError(ImportError):
    """A provider SDK is not installed; the message says what to install."""


def load(module: str) -> None:
    """Import one of `SDKS`; raises `MissingSDKError`."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise MissingSDKError(
            f"the demo needs {module.replace('.', '-')}, which is not installed: pip install 'costspan[demo]'"
        ) from error


def answers() -> Mapping[str, Answer]:
    """What the loopback provider says, by what it is asked last."""
    return {turn.ask: Answer(turn.answer, turn.thoughts) for turn in TURNS}


@dataclass(frozen=True)
class Said:
    """One contribution to the conversation; `persona` is None for the person who asks."""

    persona: Persona | None
    text: str


class Conversation:
    """The participants around one table: each hears everything, and speaks through its own provider."""

    def __init__(self, provider: DemoProvider) -> None:
        # A proxy in the environment would take the loopback calls somewhere else.
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))

        import anthropic
        import openai
        from google.genai import Client, types

        self._openai = openai.OpenAI(api_key="demo", base_url=provider.openai, max_retries=0)
        self._anthropic = anthropic.Anthropic(api_key="demo", base_url=provider.url, max_retries=0)
        options = types.HttpOptions(base_url=provider.url)
        self._google = Client(api_key="demo", vertexai=False, http_options=options)
        self._wires: dict[Wire, Callable[[Turn], Iterator[str]]] = {
            "openai.chat": self._chat,
            "openai.responses": self._responses,
            "openai.embeddings": self._embeddings,
            "anthropic.messages": self._messages,
            "google.generate_content": self._generate,
        }
        self._said: list[Said] = []

    def take(self, turn: Turn) -> Iterator[str]:
        """One call to one provider: what the persona says, as it comes. What the SDK raises goes through."""
        self._said.append(Said(None, turn.ask))
        parts = []
        for part in self._wires[turn.persona.wire](turn):
            parts.append(part)
            yield part
        self._said.append(Said(turn.persona, "".join(parts)))

    def _heard(self, persona: Persona, own: str) -> list[tuple[str, str]]:
        """(role, text) of all that was said; what others said starts with their name."""
        heard = []
        for said in self._said:
            if said.persona is persona:
                heard.append((own, said.text))
            else:
                heard.append(("user", f"{said.persona.name}: {said.text}" if said.persona else said.text))
        return heard

    def _chat(self, turn: Turn) -> Iterator[str]:
        messages: list[Any] = [
            {"role": "system", "content": BRIEFING},
            {"role": "system", "content": turn.persona.role},
            *({"role": role, "content": text} for role, text in self._heard(turn.persona, "assistant")),
        ]
        stream = self._openai.chat.completions.create(
            model=turn.persona.model, messages=messages, stream=True, stream_options={"include_usage": True}
        )
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    def _responses(self, turn: Turn) -> Iterator[str]:
        heard = self._heard(turn.persona, "assistant")
        if not hasattr(self._openai, "responses"):  # before openai 1.66
            messages: list[Any] = [{"role": role, "content": text} for role, text in heard]
            plain = self._openai.chat.completions.create(model=turn.persona.model, messages=messages)
            yield plain.choices[0].message.content or ""
            return
        said: list[Any] = [{"role": role, "content": text} for role, text in heard]
        response = self._openai.responses.create(
            model=turn.persona.model, instructions=turn.persona.role, input=said, max_output_tokens=turn.max_tokens
        )
        yield response.output_text

    def _embeddings(self, turn: Turn) -> Iterator[str]:
        texts = [turn.ask, *(f"{note.title}. {note.text}" for note in HANDBOOK)]
        found = self._openai.embeddings.create(model=turn.persona.model, input=texts)
        question, *pages = (item.embedding for item in found.data)
        best = max(range(len(pages)), key=lambda page: _closeness(question, pages[page]))
        yield f"{HANDBOOK[best].title}: {HANDBOOK[best].text}"

    def _messages(self, turn: Turn) -> Iterator[str]:
        # The briefing is for the hour, the conversation for the next turn.
        system: list[Any] = [
            {"type": "text", "text": BRIEFING, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "text", "text": turn.persona.role},
        ]
        messages: list[Any] = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in self._heard(turn.persona, "assistant")
        ]
        messages[-1]["content"][0]["cache_control"] = {"type": "ephemeral"}
        with self._anthropic.messages.stream(
            model=turn.persona.model, max_tokens=turn.max_tokens, system=system, messages=messages
        ) as stream:
            yield from stream.text_stream

    def _generate(self, turn: Turn) -> Iterator[str]:
        from google.genai import types

        config = types.GenerateContentConfig(
            system_instruction=[BRIEFING, turn.persona.role], max_output_tokens=turn.max_tokens
        )
        contents: list[Any] = [
            {"role": role, "parts": [{"text": text}]} for role, text in self._heard(turn.persona, "model")
        ]
        if not turn.stream:
            whole = self._google.models.generate_content(model=turn.persona.model, contents=contents, config=config)
            yield whole.text or ""
            return
        for chunk in self._google.models.generate_content_stream(
            model=turn.persona.model, contents=contents, config=config
        ):
            if chunk.text:
                yield chunk.text


def _closeness(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
