"""`python -m grafana.generator`: writes the dashboards."""

from grafana.generator import DASHBOARDS, rendered

DASHBOARDS.mkdir(exist_ok=True)
for name, text in rendered().items():
    (DASHBOARDS / name).write_text(text, encoding="utf-8")
