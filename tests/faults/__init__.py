"""Faults injected into stores: kills, power cuts, failing calls, damage, hostile files."""
