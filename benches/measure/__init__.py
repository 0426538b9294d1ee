"""Measures a mount against what does the same without one; `benches/throughput` is its command."""
