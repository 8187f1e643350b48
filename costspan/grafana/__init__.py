"""`costspan grafana`: the shipped dashboards and rules as files that are wired to each other, and what they need."""
