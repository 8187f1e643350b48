"""One OpenTelemetry instrumentor per provider SDK, for `opentelemetry-instrument` and declarative configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from costspan import startup

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass
class Configuration:
    """Options in a declarative configuration file: none yet; the presence of the name switches the provider on."""


class _Instrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped base
    name: ClassVar[str]
    configuration: ClassVar[type[Configuration]] = Configuration

    def instrumentation_dependencies(self) -> Collection[str]:
        # SDKs are patched when the application imports them, so none must be installed yet.
        return ()

    def instrument(self, **kwargs: Any) -> None:
        # The start-up hook has patched everything before the loader comes here: no reason to warn.
        if not self._is_instrumented_by_opentelemetry:
            super().instrument(**kwargs)

    def _instrument(self, **_: Any) -> None:
        startup.instrument(startup.PROVIDERS[self.name])

    def _uninstrument(self, **_: Any) -> None:
        startup.uninstrument(startup.PROVIDERS[self.name])


class OpenAIInstrumentor(_Instrumentor):
    """OpenAI, Azure OpenAI and compatible hosts through the `openai` SDK."""

    name = "costspan-openai"


class AnthropicInstrumentor(_Instrumentor):
    """Claude through the `anthropic` SDK."""

    name = "costspan-anthropic"


class GoogleGenAIInstrumentor(_Instrumentor):
    """Gemini and Vertex AI through the `google-genai` SDK."""

    name = "costspan-google-genai"


class BedrockInstrumentor(_Instrumentor):
    """AWS Bedrock through `boto3` and `aiobotocore`."""

    name = "costspan-bedrock"


class MistralInstrumentor(_Instrumentor):
    """Mistral through the `mistralai` SDK."""

    name = "costspan-mistral"


class CohereInstrumentor(_Instrumentor):
    """Cohere through the `cohere` SDK."""

    name = "costspan-cohere"


class VoyageInstrumentor(_Instrumentor):
    """Voyage AI through the `voyageai` SDK."""

    name = "costspan-voyage"


class GroqInstrumentor(_Instrumentor):
    """Groq through the `groq` SDK."""

    name = "costspan-groq"


class TogetherInstrumentor(_Instrumentor):
    """Together AI through the `together` SDK."""

    name = "costspan-together"


class OllamaInstrumentor(_Instrumentor):
    """Local models through the `ollama` SDK."""

    name = "costspan-ollama"


class HuggingFaceInstrumentor(_Instrumentor):
    """Hugging Face's `InferenceClient`."""

    name = "costspan-huggingface"


class WatsonxInstrumentor(_Instrumentor):
    """IBM watsonx through the `ibm-watsonx-ai` SDK."""

    name = "costspan-watsonx"


class ReplicateInstrumentor(_Instrumentor):
    """Replicate through the `replicate` SDK."""

    name = "costspan-replicate"


class DeepgramInstrumentor(_Instrumentor):
    """Deepgram through the `deepgram-sdk` SDK."""

    name = "costspan-deepgram"


class WriterInstrumentor(_Instrumentor):
    """Writer through the `writer-sdk`."""

    name = "costspan-writer"


class AI21Instrumentor(_Instrumentor):
    """AI21 through the `ai21` SDK."""

    name = "costspan-ai21"


class AzureAIInstrumentor(_Instrumentor):
    """Azure AI Inference through the `azure-ai-inference` SDK."""

    name = "costspan-azure-ai"


class PortkeyInstrumentor(_Instrumentor):
    """Every provider behind the gateway of Portkey, through the `portkey-ai` SDK."""

    name = "costspan-portkey"


class OpenRouterInstrumentor(_Instrumentor):
    """OpenRouter through its own SDK, `openrouter`."""

    name = "costspan-openrouter"


class LiteLLMInstrumentor(_Instrumentor):
    """Every provider behind the `litellm` SDK."""

    name = "costspan-litellm"
