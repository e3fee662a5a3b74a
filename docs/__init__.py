"""The pages about what was measured, and what puts the figures and the pictures into them."""
