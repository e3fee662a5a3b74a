"""What puts the figures and the pictures into the pages of docs/."""
