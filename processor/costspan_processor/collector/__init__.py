"""The collector side: prices and budgets for OTLP spans of every language, on the wire. Needs `costspan[collector]`."""
