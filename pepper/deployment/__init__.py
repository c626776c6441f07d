"""Plans written down as standing pipelines, for what starts their programs."""
