"""Values in, figures and tables out."""
