"""`costspan otelcol-config`: the price book as a configuration of the stock OpenTelemetry Collector."""
