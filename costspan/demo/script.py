"""The conversation of `costspan demo`: who takes part, on which model, and what they say.

An online bookshop asks why its bill for language models grew. The figures in the briefing are tokens and calls of a
shop that does not exist; they are there to be long, so that the prompt caches of the providers have something to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Wire = Literal["openai.chat", "openai.responses", "openai.embeddings", "anthropic.messages", "google.generate_content"]


@dataclass(frozen=True)
class Persona:
    """One participant: the API it speaks through, its model, and the feature its calls are booked on."""

    name: str
    wire: Wire
    model: str
    feature: str
    role: str


@dataclass(frozen=True)
class Turn:
    """One call: what is asked, what the model says, and what the call may cost in output tokens at most."""

    persona: Persona
    ask: str
    answer: str
    thoughts: int = 0
    stream: bool = True
    max_tokens: int = 512


@dataclass(frozen=True)
class Note:
    """A page of the shop's handbook, found by its embedding."""

    title: str
    text: str


def _usage() -> str:
    """October, day by day; thousands of tokens."""
    lines = ["day feature calls input cached output"]
    for day in range(1, 32):
        wobble = day * 37 % 11
        rows = {
            "digest": (412 + wobble % 3, 5290 + 7 * wobble, 4710 - 9 * wobble if day < 12 else 0, 81),
            "chat": (2210 + 31 * wobble, (890 + 13 * wobble) * (5 if day < 15 else 12) // 5, 310 + wobble, 240),
            "advice": (980 + 17 * wobble, 640 + 5 * wobble, 420 + 3 * wobble, 96),
        }
        lines += [f"10-{day:02} {feature} " + " ".join(map(str, counts)) for feature, counts in rows.items()]
    return "\n".join(lines)


BRIEFING = f"""\
You take part in a working session at Larkspur, an online bookshop. In October its bill for language models tripled,
while orders rose by four per cent. Find the cause, propose the repair, and say how we would have noticed sooner.
Rules of the house: one idea a turn, name the evidence, at most ninety words, no figures that are not in this briefing.

Three features make up nine tenths of the usage. "digest" runs every night at 02:10 UTC and writes one paragraph of news
for each publisher, with the whole catalogue in front of every call. "chat" answers customers, with the history of the
conversation and the pages of the handbook that fit the question. "advice" writes one line under a book, saying why it
may please this reader. A fourth one, "search", reranks results, and has no usage log yet.

Changes in October: on the 12th, prompt version 14 of digest puts the current time into the first line, so that the
model knows what today is. On the 15th, chat keeps thirty messages of history instead of eight. On the 21st, search
retries a call that timed out up to five times.

Usage in October, in thousands of tokens:
{_usage()}
"""

LIBRARIAN = Persona("Librarian", "openai.embeddings", "text-embedding-3-small", "lookup", "")
PLANNER = Persona(
    "Planner", "openai.chat", "gpt-5.4", "planning", "You are Planner. You say what to do, in which order."
)
CRITIC = Persona(
    "Critic",
    "anthropic.messages",
    "claude-sonnet-4-6",
    "review",
    "You are Critic. You say what is wrong with the plan, and what would prove it.",
)
SCRIBE = Persona(
    "Scribe", "google.generate_content", "gemini-3.5-flash", "minutes", "You are Scribe. You keep the minutes, briefly."
)
EDITOR = Persona("Editor", "openai.responses", "gpt-5.4-mini", "minutes", "You are Editor. You write for busy people.")
AUDITOR = Persona(
    "Auditor", "anthropic.messages", "claude-opus-4-8", "review", "You are Auditor. You leave nothing out."
)

HANDBOOK = (
    Note("Prompt caching", "A cache matches a prompt from its first token on, up to the first token that differs."),
    Note("Timeouts", "A call that times out for us may have finished, and is billed, for the provider."),
    Note("History", "Chat history is sent again with every message; its cost grows with the square of its length."),
    Note("Batches", "Work that nobody waits for can be sent as a batch, at half the price, within a day."),
)

TURNS = (
    Turn(LIBRARIAN, "Why would the cache match a prompt one day, and not match the same prompt the next?", ""),
    Turn(
        PLANNER,
        "Planner, where do we look first?",
        "At the column that goes to zero. On the 12th digest starts to send the same five million tokens a night with "
        "none of them cached, on the very day its prompt changed. Chat is second: from the 15th on its input is more "
        "than double, at the same number of calls. The retries of search come last, since no column of ours shows "
        "them. I would settle each with one query before anyone touches code.",
    ),
    Turn(
        CRITIC,
        "Critic, what is wrong with that?",
        "The order is right, the reason for the third place is not. A call that timed out for us may have finished for "
        "them, and then it is on the bill; that no column shows it says only that nobody counted. For digest I want "
        "proof as well. Version 14 puts the time into the first line, and a cache matches from the first token on, so "
        "every prompt since the 12th would be new to it. Take two prompts of one night and compare them.",
    ),
    Turn(
        SCRIBE,
        "Scribe, the minutes so far, please.",
        "Agreed: digest first, then chat, then search. Suspect: the clock in the first line of prompt version 14. "
        "Proof to bring: two prompts of one night, compared. Open: are retries that timed out on the bill? Nobody "
        "counted them yet.",
        thoughts=148,
    ),
    Turn(
        PLANNER,
        "Planner, the prompts are in: they differ in the first line and nowhere else. What do we change?",
        "One line. The time moves from the first line to the end of the last message, where it changes nothing that "
        "stands before it. Every call of the night carries the same catalogue, so from the second call on everything "
        "but the last few tokens is read from the cache. And one test: two prompts of the same night must share the "
        "whole catalogue, byte for byte. It would have failed on the 12th.",
    ),
    Turn(
        CRITIC,
        "Critic, does that hold at two in the morning?",
        "Only if the run is quick. An entry lives for five minutes, and every hit renews it; but four hundred calls in "
        "a queue that backs off can leave a longer gap, and then the catalogue is written again, at the higher price "
        "of a write. Take the entry that lives for an hour for the catalogue, and the short one for what follows. "
        "And watch the share of cached tokens: it falls within one night, the bill comes after a month.",
    ),
    Turn(
        SCRIBE,
        "Scribe, add that.",
        "Decided: the time goes to the end of the last message. The catalogue gets a cache entry of one hour. A test "
        "compares two prompts of one night. An alert watches the share of cached tokens per feature.",
        thoughts=96,
    ),
    Turn(
        PLANNER,
        "Planner, and chat?",
        "Back to eight messages, and a summary for what is older. Thirty messages are sent again with every answer, so "
        "the cost grows with the square of the conversation, and the questions did not get any harder on the 15th. "
        "If support wants the long memory for returns and complaints, give it to those conversations only, and book "
        "them on a feature of their own, so that the next bill shows what it costs.",
    ),
    Turn(
        CRITIC,
        "Critic, last word?",
        "A summary is a call too, and a bad one loses the order number in the second message. Keep what the customer "
        "typed, drop what we answered: it is the shorter half, and the one that matters. Then set a budget for each "
        "feature that stops the run, not one that sends a letter. All three changes were small, and each of them was "
        "reasonable on the day. Nobody saw the price at the moment of the call.",
    ),
    Turn(
        SCRIBE,
        "Scribe, close the minutes.",
        "Decided: chat keeps eight messages, and the customer's own words beyond that. Long memory is a feature of its "
        "own. Every feature has a budget that stops it. To do: count the retries of search by request id.",
        thoughts=112,
        stream=False,
    ),
    Turn(
        EDITOR,
        "Editor, two sentences for the board.",
        "A clock in the first line of one prompt switched off the cache that our largest job lives on, and a longer "
        "chat history doubled the second largest. Both are repaired this week, and from now on each feature carries "
        "its own budget and shows its price with every call.",
        stream=False,
    ),
    Turn(
        AUDITOR,
        "Auditor, read it all again and write the long report.",
        "This answer is never given: the budget refuses the call.",
        max_tokens=32_000,
    ),
)
