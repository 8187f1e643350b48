"""Names of the span attributes that the instrumentation sets.

The GenAI conventions have no published package of constants, so they stand here, in the newest spelling of the
conventions (repository open-telemetry/semantic-conventions-genai, 2026-11). What the conventions lack is under
`costspan.`. The processor reads the same keys; it never imports this file.
"""

from __future__ import annotations

from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"

REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
REQUEST_PREVIOUS_RESPONSE_ID: Final = "gen_ai.request.previous_response.id"
REQUEST_ENCODING_FORMATS: Final = "gen_ai.request.encoding_formats"
EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"

RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"

SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# Totals are inclusive: input contains cache reads and writes, output contains reasoning.
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
AUDIO_INPUT_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
AUDIO_OUTPUT_TOKENS: Final = "gen_ai.usage.audio.output_tokens"
AUDIO_CACHE_READ_TOKENS: Final = "gen_ai.usage.audio.cache_read.input_tokens"
IMAGE_INPUT_TOKENS: Final = "gen_ai.usage.image.input_tokens"
IMAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.image.output_tokens"
IMAGE_CACHE_READ_TOKENS: Final = "gen_ai.usage.image.cache_read.input_tokens"

OPENAI_API_TYPE: Final = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
OPENAI_SYSTEM_FINGERPRINT: Final = "openai.response.system_fingerprint"
AWS_BEDROCK_GUARDRAIL_ID: Final = "aws.bedrock.guardrail.id"

CACHE_WRITE_5M: Final = "costspan.usage.cache_write_5m"
CACHE_WRITE_30M: Final = "costspan.usage.cache_write_30m"
CACHE_WRITE_1H: Final = "costspan.usage.cache_write_1h"
CACHE_WRITE_12H: Final = "costspan.usage.cache_write_12h"
INPUT_VIDEO: Final = "costspan.usage.input_video"
CACHE_READ_VIDEO: Final = "costspan.usage.cache_read_video"
WEB_SEARCHES: Final = "costspan.usage.web_searches"
GROUNDED_PROMPTS: Final = "costspan.usage.grounded_prompts"
CHARACTERS: Final = "costspan.usage.characters"
AUDIO_SECONDS: Final = "costspan.usage.audio_seconds"
VIDEO_SECONDS: Final = "costspan.usage.video_seconds"
IMAGES: Final = "costspan.usage.images"
REQUESTS: Final = "costspan.usage.requests"
RERANK_SEARCHES: Final = "costspan.usage.rerank_searches"
CLASSIFICATIONS: Final = "costspan.usage.classifications"
PIXELS: Final = "costspan.usage.pixels"
PAGES: Final = "costspan.usage.pages"
ANNOTATED_PAGES: Final = "costspan.usage.annotated_pages"
CODE_EXECUTIONS: Final = "costspan.usage.code_executions"
FILE_SEARCHES: Final = "costspan.usage.file_searches"
USAGE_ESTIMATED: Final = "costspan.usage.estimated"
USAGE_REPORTED_COST: Final = "costspan.usage.reported_cost"
USAGE_ITERATIONS: Final = "costspan.usage.iterations"
USAGE_BY_MODEL: Final = "costspan.usage.by_model"
SERVICE_TIER: Final = "costspan.service_tier"
GEO: Final = "costspan.geo"

# Values of OPERATION.
CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
GENERATE_CONTENT: Final = "generate_content"
RERANK: Final = "rerank"
CLASSIFY: Final = "classify"
MODERATION: Final = "moderation"
OCR: Final = "ocr"
SPEECH: Final = "speech"
IMAGE_GENERATION: Final = "image_generation"
VIDEO_GENERATION: Final = "video_generation"
TRANSCRIPTION: Final = "transcription"
# An earlier response that is fetched again reports no tokens: they were counted when it was made.
FETCH_RESPONSE: Final = "fetch_response"
