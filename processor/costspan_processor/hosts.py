"""Who is behind a base URL: host -> `gen_ai.provider.name`.

One SDK serves many providers (an OpenAI client with the base URL of DeepSeek talks to DeepSeek), and each has prices
of its own. Values are those of the GenAI conventions where they have one, else the provider's own short name.
"""

from __future__ import annotations

EXACT = {
    "api.openai.com": "openai",
    "eu.api.openai.com": "openai",
    "us.api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "x_ai",
    "openrouter.ai": "openrouter",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.cerebras.ai": "cerebras",
    "router.huggingface.co": "huggingface",
    "api-inference.huggingface.co": "huggingface",
    "api.z.ai": "zai",
    "open.bigmodel.cn": "zhipuai",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.voyageai.com": "voyage",
    "ai.mongodb.com": "voyage",
    "api.jina.ai": "jina",
    "inference.crusoe.ai": "crusoe",
    "api.inference.crusoecloud.com": "crusoe",
    "us.inference.heroku.com": "heroku",
    "eu.inference.heroku.com": "heroku",
    "api.writer.com": "writer",
    "api.ai21.com": "ai21",
    "ollama.com": "ollama",
    "api.deepinfra.com": "deepinfra",
    "api.novita.ai": "novita",
    "api.studio.nebius.com": "nebius",
    "api.studio.nebius.ai": "nebius",
    "api.tokenfactory.nebius.com": "nebius",
    "api.sambanova.ai": "sambanova",
    "api.minimax.io": "minimax",
    "api.minimaxi.com": "minimax",
    "api.minimaxi.chat": "minimax",
    "inference.baseten.co": "baseten",
    "api.avian.io": "avian",
    "api.arcee.ai": "arcee",
    "api.doubleword.ai": "doubleword",
    "api.llama.com": "meta",
    "api.elevenlabs.io": "elevenlabs",
    "api.deepgram.com": "deepgram",
    "api.assemblyai.com": "assemblyai",
    "api.cloudflare.com": "cloudflare",
    "api.githubcopilot.com": "github_copilot",
    "api.featherless.ai": "featherless-ai",
    "api.hyperbolic.xyz": "hyperbolic",
    "api.scaleway.ai": "scaleway",
    "api.siliconflow.com": "siliconflow",
    "api.siliconflow.cn": "siliconflow",
    "api.replicate.com": "replicate",
    "integrate.api.nvidia.com": "nvidia_nim",
    # Gateways to all the others.
    "api.portkey.ai": "portkey",
    "ai-gateway.vercel.sh": "vercel_ai_gateway",
    "gateway.ai.cloudflare.com": "cloudflare_ai_gateway",
    "ai-gateway.helicone.ai": "helicone",
}
"""A server on one's own machine has no host that tells, and its port would be a guess: only what it answers can."""

# The longest suffix that fits decides.
SUFFIXES = (
    (".openai.azure.com", "azure.ai.openai"),
    (".cognitiveservices.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    (".inference.ai.azure.com", "azure.ai.inference"),
    (".models.ai.azure.com", "azure.ai.inference"),
    ("-aiplatform.googleapis.com", "gcp.vertex_ai"),
    (".api.openai.com", "openai"),
    (".mistral.ai", "mistral_ai"),
    (".cohere.com", "cohere"),
    (".groq.com", "groq"),
    (".x.ai", "x_ai"),
    (".huggingface.cloud", "huggingface"),
    (".snowflakecomputing.com", "snowflake"),
    (".aliyuncs.com", "alibaba"),
    (".perplexity.ai", "perplexity"),
    (".ml.cloud.ibm.com", "ibm.watsonx.ai"),
    (".databricks.com", "databricks"),
    (".azuredatabricks.net", "databricks"),
    (".endpoints.kepler.ai.cloud.ovh.net", "ovhcloud"),
    (".api.baseten.co", "baseten"),
)


def provider_of(host: str) -> str | None:
    """The provider behind `host`, None where the host does not tell.

    >>> provider_of("api.deepseek.com"), provider_of("acme.openai.azure.com"), provider_of("localhost")
    ('deepseek', 'azure.ai.openai', None)
    >>> provider_of("bedrock-runtime.eu-west-1.amazonaws.com")
    'aws.bedrock'
    """
    if name := EXACT.get(host):
        return name
    for suffix, name in SUFFIXES:
        if host.endswith(suffix):
            return name
    if host.startswith("bedrock") and host.endswith((".amazonaws.com", ".api.aws", ".amazonaws.com.cn")):
        return "aws.bedrock"
    return None
