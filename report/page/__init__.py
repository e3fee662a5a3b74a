"""The page compare.html of the site, and asv's pages without the network."""
