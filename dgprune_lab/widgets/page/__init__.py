"""The page's side: charts on a shared Vega, ES modules, the comm, standalone pages."""
