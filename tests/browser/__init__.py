"""The published site in a real browser, without the network."""
