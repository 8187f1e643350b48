"""A record per call, kept in a database: what reports, analysis and advice are made from."""
