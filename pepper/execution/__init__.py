"""Plans at work: stages, their transport, and what is measured of them."""
