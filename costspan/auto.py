"""`import costspan.auto`: `costspan.init()` by an import alone."""

from costspan.startup import init

init()
