"""What a ledger tells: figures, reports, analysis, advice, and the HTTP API over them."""
