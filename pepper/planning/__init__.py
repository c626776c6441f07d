"""From a model, a fleet and the champion to a plan, to what it foretells, and to the next plan."""
